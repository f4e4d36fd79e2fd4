"""The lock of a run: the process that executes the run holds it, and only a killed process leaves its file behind."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import dagster as dg

from taxi_assets.automation.sensors.orphaned_runs import (
    _acquire_lock,
    _remove_stale_lock,
    fail_orphaned_runs,
    is_lock_held,
    lock_file,
)
from taxi_assets_tests.contract.stores import child_process

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from pathlib import Path


def hold_lock(path: Path, line: Connection) -> None:
    with _acquire_lock(path):
        line.send("holding the lock")
        line.recv()


def test_a_run_is_orphaned_when_its_process_is_killed_and_not_before(tmp_path: Path) -> None:
    path = tmp_path / "running" / "a.lock"
    assert not _remove_stale_lock(path)
    with child_process(hold_lock, path) as other:
        other.receive()
        assert not _remove_stale_lock(path)
        other.kill()
    assert _remove_stale_lock(path)
    assert not _remove_stale_lock(path), "a run is found only once"


def check_as_another_user(path: Path, line: Connection) -> None:
    if os.getuid() == 0:
        os.setuid(65534)
    line.send("orphaned" if _remove_stale_lock(path) else "not checked")


def test_a_lock_file_of_another_user_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    path.touch()
    path.chmod(0)
    with child_process(check_as_another_user, path) as other:
        assert other.receive() == "not checked"
    assert path.exists()


def test_a_run_that_ends_is_never_found_orphaned(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    ended = threading.Event()
    found: list[bool] = []

    def check() -> None:
        while not ended.is_set():
            found.append(_remove_stale_lock(path))

    watcher = threading.Thread(target=check)
    watcher.start()
    for _ in range(2000):
        with _acquire_lock(path):
            pass
    ended.set()
    watcher.join()
    assert len(found) > 100
    assert not any(found)
    assert list(tmp_path.iterdir()) == []


def test_a_run_killed_before_it_was_marked_as_started_is_marked_as_failed(tmp_path: Path) -> None:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        run = instance.create_run_for_job(nothing)
        assert run.status == dg.DagsterRunStatus.NOT_STARTED
        with child_process(hold_lock, lock_file(instance, run.run_id)) as other:
            other.receive()
            fail_orphaned_runs(dg.build_sensor_context(instance))
            assert statuses(instance) == [dg.DagsterRunStatus.NOT_STARTED], "its process is alive"
            assert is_lock_held(instance, run.run_id)
            other.kill()
        assert is_lock_held(instance, run.run_id) is False
        fail_orphaned_runs(dg.build_sensor_context(instance))
        assert statuses(instance) == [dg.DagsterRunStatus.FAILURE]
        assert is_lock_held(instance, run.run_id) is None


@dg.job
def nothing() -> None:
    """A job without steps."""


def statuses(instance: dg.DagsterInstance) -> list[dg.DagsterRunStatus]:
    return [run.status for run in instance.get_runs()]
