"""How processes share a DuckDB file: waiting, timeouts, and how often the file is opened."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import dagster as dg
import duckdb
import pytest

from taxi_assets.errors import WarehouseBusyError
from taxi_assets.marts.mart import marts
from taxi_assets.storage.warehouse.duckdb import connections, file_lock
from taxi_assets_tests.contract.stores import child_process
from taxi_assets_tests.contract.test_duckdb import hold as hold_with_duckdb
from taxi_assets_tests.pipeline_harness import Deployment, failure_messages

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection
    from pathlib import Path


@pytest.fixture
def file(tmp_path: Path) -> Iterator[str]:
    """A database with one number. At the end its folder must contain no other file."""
    path = tmp_path / "warehouse.duckdb"
    with connections.connect(str(path), 0) as connection:
        connection.execute("CREATE TABLE numbers AS SELECT 1 AS number")
    yield str(path)
    connections.close_idle()
    assert list(tmp_path.iterdir()) == [path]


def read(file: str, wait_seconds: float = 60) -> int:
    with connections.connect(file, wait_seconds) as connection:
        ((number,),) = connection.execute("SELECT number FROM numbers").fetchall()
    return int(number)


def hold(file: str, pipe: Connection) -> None:
    with connections.connect(file, 60):
        pipe.send(os.getpid())
        pipe.recv()


def hold_for(file: str, seconds: float, pipe: Connection) -> None:
    with connections.connect(file, 60):
        pipe.send(os.getpid())
        time.sleep(seconds)


def wait_and_read(file: str, pipe: Connection) -> None:
    pipe.send(os.getpid())
    pipe.send(read(file))


class Calls:
    """Counts calls of `duckdb.connect`, and statements that open a file."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.connects, self.attaches = 0, 0
        connections.close_idle()
        connect, calls = duckdb.connect, self

        class CountingConnection:
            def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
                self._connection = connection

            def execute(self, statement: str, *parameters: Any) -> Any:
                calls.attaches += statement.startswith("ATTACH")
                return self._connection.execute(statement, *parameters)

            def __getattr__(self, name: str) -> Any:
                return getattr(self._connection, name)

        def connect_and_count(*args: Any, **options: Any) -> Any:
            self.connects += 1
            return CountingConnection(connect(*args, **options))

        monkeypatch.setattr(duckdb, "connect", connect_and_count)


# --- waiting ----------------------------------------------------------------------------------------------------------


def test_a_waiting_process_does_not_poll(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(monkeypatch)
    with child_process(hold_for, file, 0.5) as other:
        other.receive()
        assert read(file) == 1
    assert calls.attaches == 1


def test_several_waiting_processes_all_get_the_file(file: str) -> None:
    with (
        child_process(wait_and_read, file) as first,
        child_process(wait_and_read, file) as second,
        child_process(hold, file) as holder,
    ):
        holder.receive()
        for other in (first, second):
            other.receive()
        holder.send()
        assert [first.receive(), second.receive(), read(file)] == [1, 1, 1]


def test_the_lock_of_a_killed_process_is_released(file: str) -> None:
    with child_process(hold, file) as other:
        other.receive()
        killer = threading.Timer(0.3, other.process.kill)
        killer.start()
        assert read(file) == 1
        killer.join()


def test_a_timeout_names_the_process_that_holds_the_lock(file: str) -> None:
    with child_process(hold, file) as other:
        pid = other.receive()
        started = time.monotonic()
        with pytest.raises(WarehouseBusyError, match=rf"was locked by .*\(PID {pid}\) for 0.3 seconds"):
            read(file, 0.3)
        assert 0.3 <= time.monotonic() - started < 5
        other.send()
    assert read(file) == 1


def test_a_timeout_names_the_other_program_that_has_the_file_open_not_a_process_that_waits_for_it(
    file: str,
) -> None:
    with child_process(hold_with_duckdb, file) as notebook:
        pid = notebook.receive()
        with child_process(wait_and_read, file) as other:
            other.receive()
            lock, named = file_lock.lock_path(file), f"(PID {pid})"
            deadline = time.monotonic() + 60
            while not (lock.exists() and named in lock.read_text()):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            with pytest.raises(WarehouseBusyError, match=rf"was locked by .*\(PID {pid}\)"):
                read(file, 0.3)
            notebook.send()
            assert other.receive() == 1


def test_a_process_can_read_the_holder_while_it_is_set_again(file: str) -> None:
    holder, stop = "/opt/notebook (PID 7)", threading.Event()

    def set_again() -> None:
        while not stop.is_set():
            lock.set_holder(holder)

    with file_lock.hold_lock(file, 0, lambda _: None) as lock:
        lock.set_holder(holder)
        writer = threading.Thread(target=set_again)
        writer.start()
        try:
            assert {file_lock.read_holder(file_lock.lock_path(file)) for _ in range(20_000)} == {holder}
        finally:
            stop.set()
            writer.join()


def test_a_signal_interrupts_the_wait_and_leaves_no_lock(file: str) -> None:
    with child_process(hold, file) as other:
        other.receive()
        alarm = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
        alarm.start()
        with pytest.raises(KeyboardInterrupt):
            read(file)
        alarm.join()
        other.send()
        assert read(file) == 1


@pytest.mark.parametrize("held_by", [hold, hold_with_duckdb])
def test_without_file_locks_a_process_polls(file: str, monkeypatch: pytest.MonkeyPatch, held_by: Any) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    calls = Calls(monkeypatch)
    with child_process(held_by, file) as other:
        other.receive()
        monkeypatch.setattr(fcntl, "flock", unsupported)
        with pytest.raises(WarehouseBusyError):
            read(file, 0.3)
        assert calls.attaches > 1
        release = threading.Timer(0.3, other.send)
        release.start()
        assert read(file) == 1
        release.join()
        monkeypatch.undo()


def test_a_symlink_and_its_target_share_one_lock(file: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    link = tmp_path_factory.mktemp("link") / "linked.duckdb"
    link.symlink_to(file)
    assert file_lock.lock_path(str(link)) == file_lock.lock_path(file)
    with child_process(hold, str(link)) as other:
        pid = other.receive()
        with pytest.raises(WarehouseBusyError, match=rf"\(PID {pid}\)"):
            read(file, 0.1)
        other.send()


# --- the instance -----------------------------------------------------------------------------------------------------


def test_one_instance_serves_many_connections_and_the_file_is_closed_between_them(
    file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Calls(monkeypatch)
    for number in range(2, 5):
        assert read(file) == number - 1
        with child_process(write, file, number) as other:
            assert other.receive() == "written"
    assert (calls.connects, calls.attaches) == (1, 3)


def write(file: str, number: int, pipe: Connection) -> None:
    with duckdb.connect(file) as connection:
        connection.execute("UPDATE numbers SET number = ?", [number])
    pipe.send("written")


def test_an_instance_is_closed_after_an_error_after_long_use_and_if_it_has_temporary_files(
    file: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls = Calls(monkeypatch)
    with pytest.raises(duckdb.ParserException), connections.connect(file, 0) as connection:
        connection.execute("SELEC")
    with connections.connect(file, 0):
        (tmp_path / "warehouse.duckdb.tmp").mkdir()
    (tmp_path / "warehouse.duckdb.tmp").rmdir()
    monkeypatch.setattr(connections, "_MAX_KEEP_SECONDS", 0)
    assert read(file) == 1
    assert read(file) == 1
    assert calls.connects == 4


def test_an_open_transaction_is_rolled_back(file: str) -> None:
    with connections.connect(file, 0) as connection:
        connection.begin()
        connection.execute("DELETE FROM numbers")
    assert read(file) == 1


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_process_creates_its_own_instance(file: str) -> None:
    assert read(file) == 1
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=wait_and_read, args=(file, theirs))
    process.start()
    assert ours.recv() == process.pid
    assert ours.recv() == 1
    process.join(60)
    assert process.exitcode == 0
    assert read(file) == 1


# --- how often the file is opened -------------------------------------------------------------------------------------


def test_a_month_opens_the_file_once_for_each_asset_and_once_for_the_check_after_the_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = Deployment(tmp_path, "sample")
    assert deployment.run("reference", None).success
    calls = Calls(monkeypatch)
    openings = {"green": 2, "marts": len(marts()), "green_report": 1, "quality": 1}
    for job, count in openings.items():
        before = calls.attaches
        with dg.DagsterInstance.ephemeral() as instance:
            result = deployment.run(job, None if job == "quality" else "2021-01", instance=instance)
        assert result.success, failure_messages(result)
        assert calls.attaches - before == count, job
