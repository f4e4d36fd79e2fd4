"""Runs of the chain in processes of their own, and how to kill them at a chosen moment.

A run has moments (`crash_points.py`): the points before and after something durable happens (an object is renamed into place
or removed, a transaction is committed). At one of them a child can kill itself, as by `kill -9`, or wait for other
children. It can also be killed from outside, after some time or by who serves it.

    Child(deployment, "green", "2013-08", Plan(dies="after quarantine")).end()
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import resource
import signal
import tempfile
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

import dagster as dg
import pytest

from taxi_assets_tests.faults.crash_points import WRITES, telling
from taxi_assets_tests.pipeline_harness import Deployment, checks, failures

if TYPE_CHECKING:
    from collections.abc import Mapping
    from multiprocessing.connection import Connection
    from multiprocessing.synchronize import Barrier
    from pathlib import Path

_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["taxi_assets_tests.faults.preload"])

_TIMEOUT = 200.0


@dataclass(frozen=True)
class Plan:
    """What is to happen to a run."""

    moments: str = WRITES
    """Which moments are told."""
    dies: str | int | None = None
    """The moment at which it kills itself, by its name or its number (the first one is 0)."""
    dies_writing: int | None = None
    """It is killed when it writes beyond so many bytes of any file, with exactly these written."""
    meets: str | None = None
    """The moment at which it waits for the others at the `gate`, the first time that it comes there."""
    gate: Barrier | None = None
    stays: bool = False
    """It waits there a second time: to be overtaken."""
    heeds_modes: bool = False
    """Modes of files bind it even where it is root."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables that it has besides those of all children."""
    instance: Path | None = None
    """An existing folder for Dagster's history; None: an instance of its own, in memory."""


@dataclass(frozen=True)
class Outcome:
    """How a child ended; all but its exit code only where it lived to tell."""

    exit_code: int
    seconds: float = 0
    """How long it lived."""
    succeeded: bool = False
    failures: list[str] = field(default_factory=list)
    checks: dict[str, bool] = field(default_factory=dict)
    moments: list[str] = field(default_factory=list)

    @property
    def killed(self) -> bool:
        """Whether it was ended by force, before its end."""
        return self.exit_code == -signal.SIGKILL


def meeting(children: int) -> Barrier:
    """A gate that opens when so many children wait at it."""
    return _PROCESSES.Barrier(children, timeout=_TIMEOUT)


class Child:
    """A run that has been started."""

    ended: ClassVar[int] = 0
    """How many have come to an end so far, by force or by themselves."""
    killed: ClassVar[int] = 0
    """How many of them by force."""

    def __init__(self, deployment: Deployment, job: str, month: str | None, plan: Plan = Plan()) -> None:
        self._hears, tells = _PROCESSES.Pipe(duplex=False)
        self._process = _PROCESSES.Process(target=_live, args=(deployment, job, month, plan, tells))
        self._process.start()
        self._started = time.monotonic()
        self._what = f"{job} {month}, {plan}"
        tells.close()

    @property
    def lives(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.is_alive()

    def kill(self) -> None:
        """Kill it now, from whichever thread."""
        os.kill(self._process.pid or 0, signal.SIGKILL)

    def end(self, *, kill_after: float | None = None) -> Outcome:
        """Wait until it ends; or kill it after so many seconds. One that does not end by itself fails the test."""
        self._process.join(_TIMEOUT if kill_after is None else kill_after)
        hangs = kill_after is None and self._process.is_alive()
        self._process.kill()
        self._process.join()
        exit_code = self._process.exitcode
        self._process.close()
        if hangs:
            self._hears.close()
            pytest.fail(f"a hang: the run did not end within {_TIMEOUT:g} seconds ({self._what})")
        Child.ended += 1
        Child.killed += exit_code is not None and exit_code < 0
        with self._hears:
            try:
                outcome: Outcome = self._hears.recv()
            except EOFError:
                outcome = Outcome(-1 if exit_code is None else exit_code)
        return replace(outcome, seconds=time.monotonic() - self._started)


# --- in the child -----------------------------------------------------------------------------------------------------


def _live(deployment: Deployment, job: str, month: str | None, plan: Plan, tells: Connection) -> None:
    moments: list[str] = []
    os.environ.update(plan.environment)
    tempfile.tempdir = None  # where temporary files are is asked anew

    def reached(moment: str) -> None:
        first = moment not in moments
        moments.append(moment)
        if plan.dies in {moment, len(moments) - 1}:
            os.kill(os.getpid(), signal.SIGKILL)
        if moment == plan.meets and first and plan.gate is not None:
            for _ in range(2 if plan.stays else 1):
                plan.gate.wait()

    if plan.heeds_modes:
        _heed_modes()
    if plan.dies_writing is not None:
        _die_writing(plan.dies_writing)
    instance = dg.DagsterInstance.local_temp(str(plan.instance)) if plan.instance else None
    try:
        with telling(plan.moments, deployment.home, reached):
            result = deployment.run(job, month, instance=instance)
    finally:
        if plan.gate is not None and plan.meets not in moments:
            plan.gate.abort()  # the others would wait in vain
    tells.send(Outcome(0, 0, result.success, failures(result), checks(result), moments))


def _heed_modes() -> None:
    # Linux: a thread's effective capabilities without CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH; later threads inherit.
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    if libc.capget(header, sets) != 0:
        raise OSError(ctypes.get_errno(), "capget")
    sets[0] &= ~0b110
    if libc.capset(header, sets) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def _die_writing(size: int) -> None:
    # The kernel writes up to the limit, then ends the process. Python ignores the signal unless told otherwise.
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
