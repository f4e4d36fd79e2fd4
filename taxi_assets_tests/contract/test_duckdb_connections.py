"""How processes share a DuckDB file: readers, writers, waiting, timeouts, and how often the file is opened."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import re
import signal
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import duckdb
import pytest

from taxi_assets.errors import WarehouseBusyError, WarehouseConfigurationError
from taxi_assets.marts.mart import marts
from taxi_assets.storage.warehouse.duckdb import DuckDBWarehouse, connections, file_lock
from taxi_assets_tests.conftest import PLATFORM_MODULES
from taxi_assets_tests.contract.stores import child_process
from taxi_assets_tests.contract.test_duckdb import hold as hold_with_duckdb
from taxi_assets_tests.pipeline_harness import Deployment, failure_messages

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection


@pytest.fixture
def file(tmp_path: Path) -> Iterator[str]:
    """A database with one number. At the end its folder must contain no other file."""
    path = tmp_path / "warehouse.duckdb"
    with connections.connect(str(path), 0) as connection:
        connection.execute("CREATE TABLE numbers AS SELECT 1 AS number")
    yield str(path)
    connections.close_idle()
    # A thread that waited for the lock in vain discards it when it gets it.
    deadline = time.monotonic() + 60
    while list(tmp_path.iterdir()) != [path] and time.monotonic() < deadline:
        time.sleep(0.01)
    assert list(tmp_path.iterdir()) == [path]


def test_an_sqlite_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "warehouse.sqlite"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE trips (pickup text)")
    for read_only in (True, False):
        with (
            pytest.raises(WarehouseConfigurationError) as error,
            connections.connect(str(path), 0, read_only=read_only),
        ):
            pass
        assert error.value.problem == f"{path} is an SQLite database, not DuckDB."


def test_a_connection_neither_downloads_nor_loads_an_extension(file: str, tmp_path: Path) -> None:
    warehouse = DuckDBWarehouse(file=str(tmp_path / "missing" / "warehouse.duckdb"))
    names = ("autoinstall_known_extensions", "autoload_known_extensions")
    query = f"SELECT {', '.join(f'current_setting({name!r}) AS {name}' for name in names)}"
    off = dict.fromkeys(names, False)
    assert warehouse.query_native(query).to_pylist() == [off]
    for read_only in (True, False):
        with connections.connect(file, 60, read_only=read_only) as connection:
            assert connection.sql(query).to_arrow_table().to_pylist() == [off]
    calls = [
        (path.name, call)
        for path in PLATFORM_MODULES
        for call in re.findall(r"duckdb\.connect\((.*)", path.read_text())
        if "config=" not in call
    ]
    assert calls == []


def read(file: str, wait_seconds: float = 60) -> int:
    with connections.connect(file, wait_seconds, read_only=True) as connection:
        ((number,),) = connection.execute("SELECT number FROM numbers").fetchall()
    return int(number)


def increment(file: str, wait_seconds: float = 60) -> None:
    with connections.connect(file, wait_seconds) as connection:
        connection.execute("UPDATE numbers SET number = number + 1")


def hold(file: str, pipe: Connection) -> None:
    with connections.connect(file, 60):
        pipe.send(os.getpid())
        pipe.recv()


def hold_for_reading(file: str, pipe: Connection) -> None:
    with connections.connect(file, 60, read_only=True) as connection:
        pipe.send(os.getpid())
        pipe.recv()
        pipe.send(connection.execute("SELECT number FROM numbers").fetchall())


def hold_for_reading_with_duckdb(file: str, pipe: Connection) -> None:
    with duckdb.connect(file, read_only=True):
        pipe.send(os.getpid())
        pipe.recv()


def read_all_the_time(file: str, pipe: Connection) -> None:
    pipe.send(os.getpid())
    while not pipe.poll():
        with connections.connect(file, 60, read_only=True):
            time.sleep(0.05)


def wait_and_increment(file: str, pipe: Connection) -> None:
    pipe.send(os.getpid())
    increment(file)
    pipe.send("incremented")


def commit_and_be_killed(file: str, _pipe: Connection) -> None:
    with connections.connect(file, 60) as connection:
        connection.execute("UPDATE numbers SET number = 2")
        connection.execute("CREATE VIEW doubled AS SELECT number * 2 AS number FROM numbers")
        connection.begin()
        connection.execute("UPDATE numbers SET number = 3")
        os.kill(os.getpid(), signal.SIGKILL)


def hold_for(file: str, seconds: float, pipe: Connection) -> None:
    with connections.connect(file, 60):
        pipe.send(os.getpid())
        time.sleep(seconds)


def wait_and_read(file: str, pipe: Connection) -> None:
    pipe.send(os.getpid())
    pipe.send(read(file))


class Calls:
    """Counts calls of `duckdb.connect`, statements that open a file, and those that open it for writing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.connects, self.attaches, self.writes = 0, 0, 0
        connections.close_idle()
        connect, calls = duckdb.connect, self

        class CountingConnection:
            def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
                self._connection = connection

            def execute(self, statement: str, *parameters: Any) -> Any:
                calls.attaches += statement.startswith("ATTACH")
                calls.writes += statement.startswith("ATTACH") and "READ_ONLY" not in statement
                return self._connection.execute(statement, *parameters)

            def __getattr__(self, name: str) -> Any:
                return getattr(self._connection, name)

        def connect_and_count(*args: Any, **options: Any) -> Any:
            self.connects += 1
            return CountingConnection(connect(*args, **options))

        monkeypatch.setattr(duckdb, "connect", connect_and_count)


# --- readers and writers ----------------------------------------------------------------------------------------------


def test_several_processes_read_at_once(file: str) -> None:
    with (
        child_process(hold_for_reading, file) as first,
        child_process(hold_for_reading, file) as second,
        child_process(hold_for_reading_with_duckdb, file) as notebook,
    ):
        for other in (first, second, notebook):
            other.receive()
        assert read(file, 0) == 1
        for other in (first, second):
            other.send()
            assert other.receive() == [(1,)]
            assert other.wait_for_exit() == 0
        notebook.send()


def test_a_write_waits_until_every_reader_has_closed_the_file(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(monkeypatch)
    with child_process(hold_for_reading, file) as first, child_process(hold_for_reading, file) as second:
        for other in (first, second):
            other.receive()
        with pytest.raises(WarehouseBusyError):
            increment(file, 0.1)
        release = [threading.Timer(seconds, other.send) for seconds, other in ((0.1, first), (0.3, second))]
        started = time.monotonic()
        for timer in release:
            timer.start()
        increment(file)
        assert time.monotonic() - started >= 0.3
        assert first.receive() == second.receive() == [(1,)]
    assert calls.attaches == 1
    assert read(file) == 2


def test_a_write_does_not_wait_forever_while_readers_come_and_go(file: str) -> None:
    with (
        child_process(read_all_the_time, file) as first,
        child_process(read_all_the_time, file) as second,
        child_process(read_all_the_time, file) as third,
    ):
        others = (first, second, third)
        for other in others:
            other.receive()
        for number in range(2, 12):
            increment(file)
            assert read(file) == number
        for other in others:
            other.send()
            assert other.wait_for_exit() == 0


def test_a_reader_does_not_wait_for_a_write_that_waits_for_a_notebook(file: str) -> None:
    with child_process(hold_for_reading_with_duckdb, file) as notebook:
        notebook.receive()
        with child_process(wait_and_increment, file) as writer:
            writer.receive()
            time.sleep(0.5)
            for _ in range(20):
                assert read(file) == 1
            notebook.send()
            assert writer.receive() == "incremented"
    assert read(file) == 2


def test_a_timeout_of_a_write_names_the_reader_also_for_processes_that_wait_behind_it(file: str) -> None:
    with child_process(hold_for_reading, file) as reader:
        pid = reader.receive()
        message = rf"was locked by .*\(PID {pid}\) for 0.3 seconds"
        with pytest.raises(WarehouseBusyError, match=message):
            increment(file, 0.3)
        with child_process(wait_and_increment, file) as writer:
            writer.receive()
            lock = file_lock.lock_path(file)
            deadline = time.monotonic() + 60
            while f"(PID {pid})" not in file_lock.read_holder(lock):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            with pytest.raises(WarehouseBusyError, match=message):
                read(file, 0.3)
            reader.send()
            assert writer.receive() == "incremented"


def test_the_shared_lock_of_a_killed_reader_is_released(file: str) -> None:
    with child_process(hold_for_reading, file) as other:
        other.receive()
        other.kill()
    increment(file, 1)
    assert read(file, 0) == 2


def test_a_reader_sees_what_a_killed_process_has_committed_and_nothing_else(file: str) -> None:
    with child_process(commit_and_be_killed, file) as other:
        assert other.wait_for_exit() == -signal.SIGKILL
    wal = Path(f"{file}.wal")
    assert wal.exists(), "everything is in the database file: nothing is tested"
    with child_process(hold_for_reading_with_duckdb, file) as notebook:
        notebook.receive()
        assert read(file, 0) == 2
        with connections.connect(file, 0, read_only=True) as connection:
            assert connection.execute("SELECT number FROM doubled").fetchall() == [(4,)]
        assert wal.exists()
        notebook.send()
        notebook.wait_for_exit()
    assert read(file, 0) == 2
    assert not wal.exists()


def test_a_read_only_connection_creates_no_file_and_cannot_write(file: str, tmp_path: Path) -> None:
    missing = tmp_path / "missing.duckdb"
    with (
        pytest.raises(WarehouseConfigurationError, match="does not exist"),
        connections.connect(str(missing), 0, read_only=True),
    ):
        pass
    assert not missing.exists()
    with (
        pytest.raises(duckdb.InvalidInputException, match="read-only"),
        connections.connect(file, 0, read_only=True) as connection,
    ):
        connection.execute("UPDATE numbers SET number = 2")
    assert read(file) == 1


def test_a_write_within_a_connection_for_reading_is_an_error_and_no_deadlock(file: str) -> None:
    with connections.connect(file, 60, read_only=True):
        assert read(file) == 1
        with pytest.raises(
            WarehouseConfigurationError, match=r"Open the session with warehouse\.session\(writes=True\)"
        ):
            increment(file)
    with connections.connect(file, 60):
        increment(file)
        assert read(file) == 2


def test_a_file_in_a_folder_without_write_permission_can_be_read(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    open_file = os.open

    def refuse_lock_files(path: Any, *args: Any) -> int:
        if str(path).endswith((".lock", ".readers")):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return open_file(path, *args)

    monkeypatch.setattr(os, "open", refuse_lock_files)
    assert read(file, 0) == 1


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
        assert time.monotonic() - started >= 0.3
        other.send()
    assert read(file) == 1


def test_a_timeout_names_the_other_program_that_has_the_file_open_not_a_process_that_waits_for_it(
    file: str,
) -> None:
    with child_process(hold_with_duckdb, file) as notebook:
        pid = notebook.receive()
        with child_process(wait_and_increment, file) as other:
            other.receive()
            time.sleep(0.3)
            for use in (read, increment):
                with pytest.raises(WarehouseBusyError, match=rf"was locked by .*\(PID {pid}\)"):
                    use(file, 0.3)
            notebook.send()
            assert other.receive() == "incremented"


def test_a_process_can_read_the_holder_while_it_is_set_again(tmp_path: Path) -> None:
    holder, stop, path = "/opt/notebook (PID 7)", threading.Event(), tmp_path / "lock"
    lock = file_lock.HeldLock(path, os.open(path, os.O_RDWR | os.O_CREAT))

    def set_again() -> None:
        while not stop.is_set():
            lock.set_holder(holder)

    lock.set_holder(holder)
    writer = threading.Thread(target=set_again)
    writer.start()
    try:
        assert {file_lock.read_holder(path) for _ in range(20_000)} == {holder}
    finally:
        stop.set()
        writer.join()
        lock.release()


def test_a_signal_interrupts_the_wait_and_leaves_no_lock(file: str) -> None:
    with child_process(hold, file) as other:
        other.receive()
        alarm = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012  (on a busy machine, the signal comes early)
            alarm.start()
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
    with connections.connect(file, 0, read_only=True) as connection:
        spill(connection)
        assert len(list(tmp_path.glob(".warehouse.duckdb.tmp-*"))) == 1
    assert not list(tmp_path.glob(".warehouse.duckdb.tmp-*"))
    monkeypatch.setattr(connections, "_MAX_KEEP_SECONDS", 0)
    assert read(file) == 1
    assert read(file) == 1
    assert calls.connects == 4


def spill(connection: duckdb.DuckDBPyConnection) -> None:
    """Run a query that needs temporary files."""
    query = "SELECT md5(range::VARCHAR) AS digest, range FROM range(3000000) ORDER BY digest"
    assert connection.execute(f"SELECT count(*), max(range) FROM ({query} LIMIT 2999999)").fetchone() is not None


def spill_and_be_killed(file: str, _pipe: Connection) -> None:
    with connections.connect(file, 60, read_only=True) as connection:
        spill(connection)
        os.kill(os.getpid(), signal.SIGKILL)


def test_the_next_write_deletes_the_temporary_files_of_killed_readers_but_not_those_of_other_files(
    file: str, tmp_path: Path
) -> None:
    for _ in range(2):
        with child_process(spill_and_be_killed, file) as other:
            assert other.wait_for_exit() == -signal.SIGKILL
    assert len(list(tmp_path.glob(".warehouse.duckdb.tmp-*"))) == 2
    other_folder = tmp_path / ".warehouse.duckdb2.tmp-1"
    other_folder.mkdir()
    assert read(file) == 1
    assert len(list(tmp_path.glob(".warehouse.duckdb.tmp-*"))) == 2
    increment(file)
    assert not list(tmp_path.glob(".warehouse.duckdb.tmp-*"))
    other_folder.rmdir()


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
    process.join(600)
    assert process.exitcode == 0
    assert read(file) == 1


# --- how often the file is opened -------------------------------------------------------------------------------------


def test_how_often_a_month_opens_the_file_and_how_often_for_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = Deployment(tmp_path, "sample")
    assert deployment.run("reference", None).success
    calls = Calls(monkeypatch)
    # The table: whether it is up to date, the load, the first rows, and the check. In the second run, it is up to date.
    runs = [("green", 4, 1), ("green", 2, 0), ("marts", len(marts()), len(marts())), ("green_report", 1, 0)]
    for job, opened, for_writing in [*runs, ("quality", 1, 1)]:
        before, writes_before = calls.attaches, calls.writes
        with dg.DagsterInstance.ephemeral() as instance:
            result = deployment.run(job, None if job == "quality" else "2021-01", instance=instance)
        assert result.success, failure_messages(result)
        assert (calls.attaches - before, calls.writes - writes_before) == (opened, for_writing), job
