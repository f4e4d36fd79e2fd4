"""One measurement in a fresh process: wall and CPU seconds, peak memory, bytes written.

Belongs here: both ends of it, the process that measures (`run`) and the one that is measured (`timed`). Nothing but the
standard library is imported at the start, since whatever is counts as memory of those who are measured.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

REPOSITORY = Path(__file__).parents[1]

_MARK = "figures of the benchmark: "
_TAIL = 2000
_PAUSE = 0.03  # between two looks at the memory of somebody else's process
_LOOKS_A_FAMILY = 6
_SET_CHILD_SUBREAPER = 36  # prctl(2): orphans of a child's become one's own


@dataclass(frozen=True)
class Figures:
    """What one run took. `start_up` is the wall time that is not in `wall`: Python's start, and imports."""

    wall: float
    cpu: float
    peak: float
    """MB."""
    bytes: int = 0
    start_up: float = 0.0
    others_cpu: float | None = None
    """CPU seconds that all other processes, and other guests of the host, used during the whole run. None: unknown."""
    disk_wait: float | None = None
    """Seconds of the whole run in which at least one process on the machine waited for the disk. None: unknown."""

    def __add__(self, other: Figures) -> Figures:
        """One after the other."""
        return Figures(
            self.wall + other.wall,
            self.cpu + other.cpu,
            max(self.peak, other.peak),
            self.bytes + other.bytes,
            self.start_up + other.start_up,
            _sum(self.others_cpu, other.others_cpu),
            _sum(self.disk_wait, other.disk_wait),
        )


def _sum(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other


# --- in the process that is measured ---------------------------------------------------------------------------------


def timed(work: Callable[[], object], *, written: Sequence[Path] = ()) -> None:
    """Do the work, and say what it took; without the imports before it."""
    started, cpu = time.perf_counter(), _cpu_seconds()
    work()
    wall, cpu = time.perf_counter() - started, _cpu_seconds() - cpu
    figures = Figures(wall, cpu, peak_of(os.getpid()), sum(map(size, written)))
    sys.stdout.write(f"\n{_MARK}{json.dumps(asdict(figures))}\n")
    sys.stdout.flush()


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def peak_of(pid: int) -> float:
    """A process' largest resident size so far, in MB.

    Not ru_maxrss, which starts with the size of the process that forked this one.
    """
    words = Path(f"/proc/{pid}/status").read_text().split()
    return int(words[words.index("VmHWM:") + 1]) / 1024 if "VmHWM:" in words else 0.0


def size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size if path.exists() else 0


# --- in the process that measures ------------------------------------------------------------------------------------


def run(
    command: Sequence[str], *, environment: Mapping[str, str] | None = None, written: Sequence[Path] = ()
) -> Figures:
    """Run a command of this Python, such as ["-m", "benchmarks.peers.course", …], with no settings but those given.

    Where it calls `timed`, what that says counts; otherwise all that the process took, and its children with it.
    """
    import ctypes  # noqa: PLC0415  (not in those who are measured)

    machine, itself = Machine.read(), _own_cpu_seconds()
    settings = {name: value for name, value in os.environ.items() if not name.startswith(("TAXI_", "DAGSTER_"))}
    ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    others = _children()
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=REPOSITORY,
        env=settings | {"DAGSTER_DISABLE_TELEMETRY": "1"} | dict(environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process, _Watch(process.pid) as watch:
        message = process.stdout.read() if process.stdout else ""
        # Its children's time is in it, too, once they have ended.
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - started
    machine_after, itself_after = Machine.read(), _own_cpu_seconds()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{message[-_TAIL:]}")
    cpu = used.ru_utime + used.ru_stime
    marked = [line.removeprefix(_MARK) for line in message.splitlines() if line.startswith(_MARK)]
    if marked:
        inside = Figures(**json.loads(marked[-1]))
        figures = replace(inside, start_up=wall - inside.wall)
    else:
        cpu += _cpu_seconds_left_behind(others)
        figures = Figures(wall, cpu, watch.peak, sum(map(size, written)))
    others_cpu, disk_wait = machine_after.since(machine, own=cpu + itself_after - itself)
    return replace(figures, others_cpu=others_cpu, disk_wait=disk_wait)


def _own_cpu_seconds() -> float:
    """Of this process without its children, which are measured."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


@dataclass(frozen=True)
class Machine:
    """What the whole machine has used since it started. A difference of two tells what a run had to share."""

    busy: float | None
    """CPU seconds in which a core ran a process, the system, or another guest of the host."""
    disk_wait: float | None
    """Seconds in which at least one process waited for the disk (`some` in /proc/pressure/io)."""

    @classmethod
    def read(cls) -> Self:
        """Read both from /proc; a kernel that does not have one of them leaves it None."""
        busy = disk_wait = None
        with suppress(OSError):
            user, nice, system, _idle, _iowait, *rest = map(int, _words(Path("/proc/stat"))[1:9])
            busy = (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK")
        with suppress(OSError):
            total = next(word for word in _words(Path("/proc/pressure/io")) if word.startswith("total="))
            disk_wait = int(total.removeprefix("total=")) / 1e6
        return cls(busy, disk_wait)

    def since(self, earlier: Machine, *, own: float) -> tuple[float | None, float | None]:
        """Return the CPU seconds of all processes but your `own`, and the seconds of waiting for the disk."""
        return _increase(earlier.busy, self.busy, less=own), _increase(earlier.disk_wait, self.disk_wait)


def _increase(earlier: float | None, later: float | None, *, less: float = 0.0) -> float | None:
    return None if earlier is None or later is None else max(0.0, later - earlier - less)


def _words(path: Path) -> list[str]:
    """The words of a file's first line."""
    with path.open() as lines:
        return next(lines).split()


def _children() -> set[Any]:
    import psutil  # noqa: PLC0415  (not in those who are measured)

    return set(psutil.Process().children())


def _cpu_seconds_left_behind(others: set[Any]) -> float:
    """Of what a process did not wait for as it ended, such as the server that workers are forked from."""
    seconds = 0.0
    while left := _children() - others:
        for child in left:
            _, _, used = os.wait4(child.pid, 0)
            seconds += used.ru_utime + used.ru_stime
    return seconds


class _Watch:
    """Watches the memory of a process from outside, and that of all its descendants together."""

    def __init__(self, pid: int) -> None:
        self.peak = 0.0
        self._pid = pid
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        import psutil  # noqa: PLC0415  (not in those who are measured)

        looks = 0
        with suppress(psutil.Error, OSError):
            head = psutil.Process(self._pid)
            while not self._ended.wait(_PAUSE):
                self.peak = max(self.peak, peak_of(self._pid))
                if looks % _LOOKS_A_FAMILY == 0:  # it reads all of /proc
                    family = [head, *head.children(recursive=True)]
                    self.peak = max(self.peak, sum(map(_resident, family)))
                looks += 1


def _resident(process: Any) -> float:
    with suppress(OSError, ValueError):
        words = Path(f"/proc/{process.pid}/status").read_text().split()
        return int(words[words.index("VmRSS:") + 1]) / 1024
    return 0.0
