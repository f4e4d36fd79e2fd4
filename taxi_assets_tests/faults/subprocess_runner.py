"""A worker process for functions that may crash, hang or exhaust memory, such as reading a hostile file.

with IsolatedWorker(read_file) as reader:
    outcome = reader.call(path)   # the return value of read_file(path), or how the process ended
"""

from __future__ import annotations

import resource
import signal
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Self

import psutil

from taxi_assets_tests.child_processes import PROCESSES

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

_ADDRESS_SPACE = 8 << 30


class IsolatedWorker:
    """Calls `work(argument)` in a worker process, one call at a time. Replaces a worker that has died.

    Args:
        work: The function to call.
        timeout_seconds: Time limit of a call.
        max_megabytes: How much the worker's memory may grow beyond what it has after its imports.
    """

    def __init__(self, work: Callable[[str], str], *, timeout_seconds: float = 300, max_megabytes: int = 750) -> None:
        self._work = work
        self._deadline = timeout_seconds
        self._megabytes = max_megabytes

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()
        self._here.close()

    def _start(self) -> None:
        self._here, there = PROCESSES.Pipe()
        self._process = PROCESSES.Process(target=_serve, args=(self._work, there), daemon=True)
        self._process.start()
        there.close()
        self._here.recv()  # the worker has finished its imports
        self._memory_at_start = peak_memory_megabytes(self._process.pid)

    def cpu_seconds(self) -> float:
        """Return the CPU seconds of the worker so far, which do not depend on the load of the machine."""
        times = psutil.Process(self._process.pid).cpu_times()
        return float(times.user + times.system)

    def call(self, argument: str) -> str:
        """Return the result of the work; or "hang", "too much memory…", "killed by SIG…", or a traceback."""
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
            if self._uses_too_much_memory():
                break
        if self._process.is_alive() and self._uses_too_much_memory():
            outcome = f"too much memory (then {outcome})"
        if outcome == "hang" or outcome.startswith(("too much", "killed")):
            self.__exit__()
        return outcome

    def _uses_too_much_memory(self) -> bool:
        return peak_memory_megabytes(self._process.pid) - self._memory_at_start > self._megabytes


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
        except BaseException:  # noqa: BLE001  (every exception is reported to the test)
            pipe.send(traceback.format_exc())


def peak_memory_megabytes(process: int | str | None = "self") -> float:
    """Return the peak memory of a process, so far or since `reset_peak_memory`; 0 if the process has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


def reset_peak_memory() -> float:
    """Reset the peak memory of this process, and return its current memory in megabytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_memory_megabytes()
