"""One measurement in a fresh process: wall and CPU seconds, peak memory, bytes written.

`measure` is called by the measuring process, `measure_here` by the measured one. At module level, only the standard
library is imported, because imports count as memory of the measured process.
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

_RESULT_PREFIX = "measurement: "
_SHOWN_OUTPUT_CHARACTERS = 2000
_SAMPLE_SECONDS = 0.03  # between two samples of the memory of another process
_SAMPLES_PER_TREE_SCAN = 6
_SET_CHILD_SUBREAPER = 36  # prctl(2): adopt orphaned descendants


@dataclass(frozen=True)
class Measurement:
    """The cost of one run: seconds, megabytes and bytes."""

    wall: float
    cpu: float
    peak: float
    """Peak memory in megabytes."""
    bytes: int = 0
    """Bytes of the files that the run wrote."""
    start_up: float = 0.0
    """Seconds of Python's start and imports, which are not part of `wall`."""
    others_cpu: float | None = None
    """CPU seconds of all other processes, and other guests of the host, during the run. None: unknown."""
    disk_wait: float | None = None
    """Seconds of the run in which at least one process on the machine waited for the disk. None: unknown."""

    def __add__(self, other: Measurement) -> Measurement:
        """Return the cost of running one after the other."""
        return Measurement(
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


def measure_here(work: Callable[[], object], *, written: Sequence[Path] = ()) -> None:
    """Do the work and print its measurement, which does not include earlier imports."""
    started, cpu = time.perf_counter(), _cpu_seconds()
    work()
    wall, cpu = time.perf_counter() - started, _cpu_seconds() - cpu
    measured = Measurement(wall, cpu, peak_memory_megabytes(os.getpid()), sum(map(size_bytes, written)))
    sys.stdout.write(f"\n{_RESULT_PREFIX}{json.dumps(asdict(measured))}\n")
    sys.stdout.flush()


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def peak_memory_megabytes(pid: int) -> float:
    """Return the peak resident size of a process so far, in megabytes.

    Not ru_maxrss, which starts with the size of the parent process.
    """
    words = Path(f"/proc/{pid}/status").read_text().split()
    return int(words[words.index("VmHWM:") + 1]) / 1024 if "VmHWM:" in words else 0.0


def size_bytes(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size if path.exists() else 0


# --- in the process that measures ------------------------------------------------------------------------------------


def measure(
    command: Sequence[str], *, environment: Mapping[str, str] | None = None, written: Sequence[Path] = ()
) -> Measurement:
    """Run a command with this Python in a new process, and return its measurement.

    If the command calls `measure_here`, the result is that measurement. Otherwise it covers the whole process and its
    children.

    Args:
        command: Arguments for Python, such as ["-m", "benchmarks.peers.course", …].
        environment: Settings for the command. Other TAXI_* and DAGSTER_* variables are not passed on.
        written: Files and folders whose size is measured.
    """
    import ctypes  # noqa: PLC0415  (not imported by measured processes)

    machine, itself = MachineUsage.read(), _cpu_seconds_without_children()
    settings = {name: value for name, value in os.environ.items() if not name.startswith(("TAXI_", "DAGSTER_"))}
    ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    existing_children = _children()
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=REPOSITORY,
        env=settings | {"DAGSTER_DISABLE_TELEMETRY": "1"} | dict(environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process, _MemoryMonitor(process.pid) as watch:
        output = process.stdout.read() if process.stdout else ""
        # Includes the time of children that the process has waited for.
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - started
    machine_after, itself_after = MachineUsage.read(), _cpu_seconds_without_children()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{output[-_SHOWN_OUTPUT_CHARACTERS:]}")
    cpu = used.ru_utime + used.ru_stime
    marked = [line.removeprefix(_RESULT_PREFIX) for line in output.splitlines() if line.startswith(_RESULT_PREFIX)]
    if marked:
        inside = Measurement(**json.loads(marked[-1]))
        measured = replace(inside, start_up=wall - inside.wall)
    else:
        cpu += _cpu_seconds_of_orphans(existing_children)
        measured = Measurement(wall, cpu, watch.peak, sum(map(size_bytes, written)))
    others_cpu, disk_wait = machine_after.since(machine, own=cpu + itself_after - itself)
    return replace(measured, others_cpu=others_cpu, disk_wait=disk_wait)


def _cpu_seconds_without_children() -> float:
    """Return the CPU seconds of this process without its children, which are measured."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


@dataclass(frozen=True)
class MachineUsage:
    """Use of the whole machine since its start. The difference of two readings is the use during a run."""

    busy: float | None
    """CPU seconds of all processes, the kernel and other guests of the host."""
    disk_wait: float | None
    """Seconds in which at least one process waited for the disk (`some` in /proc/pressure/io)."""

    @classmethod
    def read(cls) -> Self:
        """Read both values from /proc. A value that the kernel does not provide is None."""
        busy = disk_wait = None
        with suppress(OSError):
            user, nice, system, _idle, _iowait, *rest = map(int, _first_line_words(Path("/proc/stat"))[1:9])
            busy = (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK")
        with suppress(OSError):
            total = next(word for word in _first_line_words(Path("/proc/pressure/io")) if word.startswith("total="))
            disk_wait = int(total.removeprefix("total=")) / 1e6
        return cls(busy, disk_wait)

    def since(self, earlier: MachineUsage, *, own: float) -> tuple[float | None, float | None]:
        """Return the CPU seconds of all processes but your `own`, and the seconds of waiting for the disk."""
        return _increase(earlier.busy, self.busy, less=own), _increase(earlier.disk_wait, self.disk_wait)


def _increase(earlier: float | None, later: float | None, *, less: float = 0.0) -> float | None:
    return None if earlier is None or later is None else max(0.0, later - earlier - less)


def _first_line_words(path: Path) -> list[str]:
    """Return the words of the first line of a file."""
    with path.open() as lines:
        return next(lines).split()


def _children() -> set[Any]:
    import psutil  # noqa: PLC0415  (not imported by measured processes)

    return set(psutil.Process().children())


def _cpu_seconds_of_orphans(known: set[Any]) -> float:
    """Return the CPU seconds of processes that the measured one did not wait for, such as a fork server."""
    seconds = 0.0
    while left := _children() - known:
        for child in left:
            _, _, used = os.wait4(child.pid, 0)
            seconds += used.ru_utime + used.ru_stime
    return seconds


class _MemoryMonitor:
    """Samples the memory of a process, and the total memory of the process and its descendants."""

    def __init__(self, pid: int) -> None:
        self.peak = 0.0
        self._pid = pid
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _sample(self) -> None:
        import psutil  # noqa: PLC0415  (not imported by measured processes)

        samples = 0
        with suppress(psutil.Error, OSError):
            root = psutil.Process(self._pid)
            while not self._ended.wait(_SAMPLE_SECONDS):
                self.peak = max(self.peak, peak_memory_megabytes(self._pid))
                if samples % _SAMPLES_PER_TREE_SCAN == 0:  # less often, because it reads all of /proc
                    tree = [root, *root.children(recursive=True)]
                    self.peak = max(self.peak, sum(map(_resident_megabytes, tree)))
                samples += 1


def _resident_megabytes(process: Any) -> float:
    with suppress(OSError, ValueError):
        words = Path(f"/proc/{process.pid}/status").read_text().split()
        return int(words[words.index("VmRSS:") + 1]) / 1024
    return 0.0
