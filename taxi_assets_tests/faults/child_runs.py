"""Runs in child processes, which can be killed at a chosen crash point.

Crash points (`crash_points.py`) are the points before and after each durable write, for example an atomic rename or a
commit. At a crash point a child can kill itself, as with `kill -9`, or wait for other children. A test can also kill it
from outside, after some time or while a service answers its request.

    ChildRun(deployment, "green", "2013-08", Plan(dies_at="after quarantine")).wait()
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import tempfile
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

import dagster as dg
import pytest

from taxi_assets_tests.child_processes import PROCESSES
from taxi_assets_tests.faults.crash_points import WRITES, report_crash_points
from taxi_assets_tests.pipeline_harness import Deployment, check_results, failure_messages

if TYPE_CHECKING:
    from collections.abc import Mapping
    from multiprocessing.connection import Connection
    from multiprocessing.synchronize import Barrier
    from pathlib import Path

_TIMEOUT = 600.0


@dataclass(frozen=True)
class Plan:
    """What happens to a run."""

    crash_points: str = WRITES
    """Which kind of crash points the run reports."""
    dies_at: str | int | None = None
    """The crash point at which the run kills itself: its name, or its number from 0."""
    max_file_bytes: int | None = None
    """The kernel kills the run when a file would exceed this size. Exactly this many bytes are written."""
    waits_at: str | None = None
    """The crash point at which the run waits at the `barrier`, the first time that it reaches it."""
    barrier: Barrier | None = None
    waits_twice: bool = False
    """Whether the run waits at the barrier a second time, so that another run can finish first."""
    obeys_file_modes: bool = False
    """Whether file permissions apply even if the user is root."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Additional environment variables."""
    instance: Path | None = None
    """An existing folder for the Dagster instance. None: an ephemeral instance."""


@dataclass(frozen=True)
class Outcome:
    """How a child ended. A killed child reports only its exit code and its duration."""

    exit_code: int
    seconds: float = 0
    """From the start of the process to its end."""
    succeeded: bool = False
    failures: list[str] = field(default_factory=list)
    checks: dict[str, bool] = field(default_factory=dict)
    crash_points: list[str] = field(default_factory=list)

    @property
    def killed(self) -> bool:
        """Whether the child was ended by SIGKILL."""
        return self.exit_code == -signal.SIGKILL


def barrier(parties: int) -> Barrier:
    """Return a barrier that opens when this many processes wait at it."""
    return PROCESSES.Barrier(parties, timeout=_TIMEOUT)


class ChildRun:
    """A run that was started in a child process."""

    ended: ClassVar[int] = 0
    """Number of children that have ended so far, killed or not."""
    killed: ClassVar[int] = 0
    """Number of them that were killed."""

    def __init__(self, deployment: Deployment, job: str, month: str | None, plan: Plan = Plan()) -> None:
        self._receiver, sender = PROCESSES.Pipe(duplex=False)
        self._process = PROCESSES.Process(target=_run_in_child, args=(deployment, job, month, plan, sender))
        self._process.start()
        self._started = time.monotonic()
        self._label = f"{job} {month}, {plan}"
        sender.close()

    @property
    def is_running(self) -> bool:
        """Whether the process has not ended yet."""
        return self._process.is_alive()

    def kill(self) -> None:
        """Send SIGKILL. Any thread may call this."""
        os.kill(self._process.pid or 0, signal.SIGKILL)

    def wait(self, *, kill_after: float | None = None) -> Outcome:
        """Wait until the child ends, or kill it after `kill_after` seconds. A hang fails the test."""
        self._process.join(_TIMEOUT if kill_after is None else kill_after)
        hangs = kill_after is None and self._process.is_alive()
        self._process.kill()
        self._process.join()
        exit_code = self._process.exitcode
        self._process.close()
        if hangs:
            self._receiver.close()
            pytest.fail(f"a hang: the run did not end within {_TIMEOUT:g} seconds ({self._label})")
        ChildRun.ended += 1
        ChildRun.killed += exit_code is not None and exit_code < 0
        with self._receiver:
            try:
                outcome: Outcome = self._receiver.recv()
            except EOFError:
                outcome = Outcome(-1 if exit_code is None else exit_code)
        return replace(outcome, seconds=time.monotonic() - self._started)


# --- in the child -----------------------------------------------------------------------------------------------------


def _run_in_child(deployment: Deployment, job: str, month: str | None, plan: Plan, sender: Connection) -> None:
    reached: list[str] = []
    os.environ.update(plan.environment)
    tempfile.tempdir = None  # read TMPDIR again

    def on_reached(name: str) -> None:
        first = name not in reached
        reached.append(name)
        if plan.dies_at in {name, len(reached) - 1}:
            os.kill(os.getpid(), signal.SIGKILL)
        if name == plan.waits_at and first and plan.barrier is not None:
            for _ in range(2 if plan.waits_twice else 1):
                plan.barrier.wait()

    if plan.obeys_file_modes:
        _obey_file_modes()
    if plan.max_file_bytes is not None:
        _limit_file_size(plan.max_file_bytes)
    instance = dg.DagsterInstance.local_temp(str(plan.instance)) if plan.instance else None
    try:
        with report_crash_points(plan.crash_points, deployment.home, on_reached):
            result = deployment.run(job, month, instance=instance)
    finally:
        if plan.barrier is not None and plan.waits_at not in reached:
            plan.barrier.abort()  # otherwise the other children would wait until the timeout
    sender.send(Outcome(0, 0, result.success, failure_messages(result), check_results(result), reached))


def _obey_file_modes() -> None:
    # Drop CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH from this thread's effective capabilities. New threads inherit them.
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    if libc.capget(header, sets) != 0:
        raise OSError(ctypes.get_errno(), "capget")
    sets[0] &= ~0b110
    if libc.capset(header, sets) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def _limit_file_size(size: int) -> None:
    # The kernel writes up to the limit, then sends SIGXFSZ. Python ignores this signal by default.
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
