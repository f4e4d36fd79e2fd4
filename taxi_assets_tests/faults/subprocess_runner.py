"""A process of its own for what may crash, hang, or eat all memory: the reading of a file that lies.

    with Solitary(look_at) as reader:
        outcome = reader.try_(path)   # what look_at(path) returned, or how the process died

Belongs here: seeing how a process ends. What is done in it is the caller's.
"""

from __future__ import annotations

import multiprocessing
import resource
import signal
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Self

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["taxi_assets_tests.faults.preload"])
_ADDRESS_SPACE = 8 << 30


class Solitary:
    """Calls `work(argument)` in another process, one call at a time; a new process takes over from a dead one."""

    def __init__(self, work: Callable[[str], str], *, deadline: float = 30.0, megabytes: int = 1000) -> None:
        self._work = work
        self._deadline = deadline
        self._megabytes = megabytes

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()
        self._here.close()

    def _start(self) -> None:
        self._here, there = _PROCESSES.Pipe()
        self._process = _PROCESSES.Process(target=_serve, args=(self._work, there), daemon=True)
        self._process.start()
        there.close()
        self._here.recv()  # it has imported what it needs

    def cpu_seconds(self) -> float:
        """Return how long the other process has computed so far, however busy the machine is."""
        times = psutil.Process(self._process.pid).cpu_times()
        return float(times.user + times.system)

    def try_(self, argument: str) -> str:
        """What the work returned; or "hang", "too much memory", "killed by SIG…", or a traceback."""
        if self._here.closed:
            self._start()
        self._here.send(argument)
        ends = time.monotonic() + self._deadline
        outcome = "hang"
        while time.monotonic() < ends:
            if self._here.poll(0.5):
                try:
                    outcome = self._here.recv()
                except EOFError:
                    self._process.join()
                    outcome = f"killed by {signal.Signals(-(self._process.exitcode or 0)).name}"
                break
            if peak_megabytes(self._process.pid) > self._megabytes:
                break
        if self._process.is_alive() and peak_megabytes(self._process.pid) > self._megabytes:
            outcome = f"too much memory (then {outcome})"
        if outcome == "hang" or outcome.startswith(("too much", "killed")):
            self.__exit__()
        return outcome


def _serve(work: Callable[[str], str], pipe: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pipe.send("ready")
    while True:
        try:
            argument = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(work(argument))
        except BaseException:  # noqa: BLE001  (whatever it is, the test must hear of it)
            pipe.send(traceback.format_exc())


def peak_megabytes(process: int | str | None = "self") -> float:
    """The most memory that a process has held at once, so far or since `forget_peak`; 0 where it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


def forget_peak() -> float:
    """Begin to measure this process's peak anew; returns what it holds now, in megabytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_megabytes()
