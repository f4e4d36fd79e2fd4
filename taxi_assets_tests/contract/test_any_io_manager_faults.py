"""Own assets on any store: commits that fail, runs at the same time, and readers during a replacement."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.dataset
import pytest

from taxi_assets.errors import LakeConflictError, WarehouseBusyError
from taxi_assets.storage.warehouse.duckdb import table_rows
from taxi_assets_tests.contract.own_asset_runs import Outcome, OwnStore, Run, rows_of_version, run_in_child, version_of
from taxi_assets_tests.contract.own_assets import PARTITIONS, Platform
from taxi_assets_tests.contract.stores import LakeBackend, WarehouseBackend, child_process
from taxi_assets_tests.contract.stores.bigquery import DATASET
from taxi_assets_tests.contract.stores.gcs import open_lake
from taxi_assets_tests.contract.test_duckdb_connections import hold
from taxi_assets_tests.google.bigquery import JobFault
from taxi_assets_tests.google.cloud_storage import CloudStorage
from taxi_assets_tests.pipeline_harness import failure_messages

MONTH, OTHER_MONTH, THIRD_MONTH = "2020-10", "2020-11", "2020-12"


@pytest.fixture(params=["local", "gcs", "duckdb", "postgres", "bigquery"])
def own_store(request: pytest.FixtureRequest, tmp_path: Path) -> OwnStore:
    return open_store(request.param, request, tmp_path)


@pytest.fixture
def duckdb_store(request: pytest.FixtureRequest, tmp_path: Path) -> OwnStore:
    return open_store("duckdb", request, tmp_path)


def open_store(kind: str, request: pytest.FixtureRequest, home: Path) -> OwnStore:
    """Return a store, whose processes report no crash points."""
    if kind in {"local", "gcs"}:
        lake: LakeBackend = request.getfixturevalue(f"{kind}_lake")
        warehouse: WarehouseBackend = request.getfixturevalue("duckdb_warehouse")
        return OwnStore("lake_parquet", kind, lake.open, warehouse.open, home, None)
    warehouse = request.getfixturevalue(f"{kind}_warehouse")
    return OwnStore("warehouse_table", kind, warehouse.open_lake, warehouse.open, home, None)


# --- commits that fail ------------------------------------------------------------------------------------------------


def break_commit(store: OwnStore, request: pytest.FixtureRequest, patch: pytest.MonkeyPatch, month: str | None) -> None:
    """Make the next commit of rows fail."""
    if store.kind in {"local", "gcs"}:
        lake: LakeBackend = request.getfixturevalue(f"{store.kind}_lake")
        next(iter(lake.faults.values()))(patch)
    elif store.kind == "bigquery":
        fault = JobFault(reason="invalid", message="The disk is full.", writes_first=True)
        double = request.getfixturevalue("bigquery")
        if month is None:
            double.script_job(fault, kind="load", destination=f"{DATASET}.own")
        else:  # the first query reads the ledger
            double.script_job(JobFault(), fault, kind="query")
    else:
        backend: WarehouseBackend = request.getfixturevalue(f"{store.kind}_warehouse")
        backend.break_commit(patch)


@pytest.mark.parametrize("month", [MONTH, None], ids=["a partition", "a table"])
def test_a_failed_commit_leaves_the_old_rows(
    own_store: OwnStore, month: str | None, request: pytest.FixtureRequest
) -> None:
    own_store.store("own", 1, month)
    with pytest.MonkeyPatch.context() as patch, own_store.platform() as platform:
        break_commit(own_store, request, patch, month)
        result = platform.run(own_store.asset("own", 2, partitioned=month is not None), month)
        assert not result.success
        assert len(failure_messages(result)) == 1
    assert own_store.find_version("own", month) == 1
    own_store.store("own", 3, month)
    assert own_store.find_version("own", month) == 3


# --- runs at the same time --------------------------------------------------------------------------------------------


def run_at_once(*runs: Run) -> None:
    """Start all runs at the same moment; all must succeed."""
    with contextlib.ExitStack() as stack:
        children = [stack.enter_context(child_process(run_in_child, run)) for run in runs]
        assert [child.receive() for child in children] == ["ready"] * len(runs)
        for child in children:
            child.send()
        outcomes: list[Outcome] = [child.receive() for child in children]
    assert [outcome.failures for outcome in outcomes] == [[]] * len(runs)


def test_two_partitions_that_are_stored_at_the_same_time_are_both_complete(own_store: OwnStore) -> None:
    """In the first round, neither the table nor the ledger exists."""
    for number in (1, 3, 5):
        runs = [
            Run(own_store, "own", version, month, waits_for_start=True)
            for version, month in ((number, MONTH), (number + 1, OTHER_MONTH))
        ]
        run_at_once(*runs)
        assert own_store.find_version("own", MONTH) == number
        assert own_store.find_version("own", OTHER_MONTH) == number + 1


@pytest.mark.parametrize("month", [MONTH, None], ids=["a partition", "a table"])
def test_of_two_runs_that_store_the_same_rows_at_the_same_time_exactly_one_remains(
    own_store: OwnStore, month: str | None
) -> None:
    """In the first round, neither the table nor the ledger exists."""
    for number in (1, 3, 5):
        runs = [Run(own_store, "own", version, month, waits_for_start=True) for version in (number, number + 1)]
        run_at_once(*runs)
        assert own_store.find_version("own", month) in {number, number + 1}


@pytest.mark.parametrize("kind", ["local", "duckdb", "postgres"])
def test_eight_processes_that_store_overlapping_partitions_all_succeed(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    store = open_store(kind, request, tmp_path)
    months = [[MONTH, OTHER_MONTH, THIRD_MONTH][number % 3] for number in range(8)]
    # A run that has lost against others three times fails in the lake, where nothing is locked during a run.
    rounds = 1 if kind == "local" else 2
    runs = [
        Run(store, "own", version, month, waits_for_start=True, rounds=rounds) for version, month in enumerate(months)
    ]
    run_at_once(*runs)
    for month in (MONTH, OTHER_MONTH, THIRD_MONTH):
        assert store.find_version("own", month) in {run.version for run in runs if run.month == month}


# --- readers ----------------------------------------------------------------------------------------------------------

LAZY_TYPES: dict[Any, Callable[[Any], pa.Table]] = {
    pa.RecordBatchReader: lambda reader: reader.read_all(),
    pyarrow.dataset.Dataset: lambda dataset: dataset.to_table(),
    pl.LazyFrame: lambda frame: frame.collect().to_arrow(),
    duckdb.DuckDBPyRelation: lambda relation: relation.to_arrow_table(),
}
_LARGE_ROWS = 200_000


def large_asset(manager: str, seed: int) -> dg.AssetsDefinition:
    """Return an asset whose months are too large for one read of a remote file."""

    @dg.asset(
        key=["mine", "own"], partitions_def=PARTITIONS, io_manager_key=manager, metadata={"partition_expr": "month"}
    )
    def own(context: dg.AssetExecutionContext) -> pa.Table:
        month = rows_of_version(0, context.partition_key)["month"][0]
        values = np.random.default_rng(seed).random(_LARGE_ROWS)
        return pa.table({"month": [month] * _LARGE_ROWS, "seed": [seed] * _LARGE_ROWS, "value": values})

    return own


def seed_of(rows: pa.Table) -> int:
    """Return the seed of the rows; fail if they are not exactly the rows of one seed."""
    (seed,) = rows["seed"].unique().to_pylist()
    assert sorted(rows["value"].to_pylist()) == sorted(np.random.default_rng(seed).random(_LARGE_ROWS).tolist())
    return int(seed)


@pytest.mark.parametrize("kind", ["local", "gcs"])
@pytest.mark.parametrize("type_", LAZY_TYPES, ids=lambda type_: type_.__name__)
def test_a_reader_of_a_lake_keeps_the_rows_that_it_has_opened(
    kind: str, type_: Any, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    with open_store(kind, request, tmp_path).platform() as platform:
        platform.store(large_asset("lake_parquet", 1), MONTH)
        opened = platform.load(large_asset("lake_parquet", 1), MONTH, type_)
        platform.store(large_asset("lake_parquet", 2), MONTH)
        assert seed_of(LAZY_TYPES[type_](opened)) == 1
        assert seed_of(LAZY_TYPES[type_](platform.load(large_asset("lake_parquet", 1), MONTH, type_))) == 2


@pytest.mark.parametrize("type_", LAZY_TYPES, ids=lambda type_: type_.__name__)
def test_a_reader_of_a_bucket_without_versioning_gets_one_clear_error(
    type_: Any, duckdb_warehouse: WarehouseBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    with CloudStorage(versioning=False) as storage, dg.DagsterInstance.ephemeral() as instance:
        for name, value in storage.environment.items():
            monkeypatch.setenv(name, value)
        platform = Platform(open_lake(storage.environment, storage.bucket), duckdb_warehouse.open(), instance)
        platform.store(large_asset("lake_parquet", 1), MONTH)
        opened = platform.load(large_asset("lake_parquet", 1), MONTH, type_)
        platform.store(large_asset("lake_parquet", 2), MONTH)
        if type_ is pa.RecordBatchReader:  # it starts to download when it is opened
            with contextlib.suppress(LakeConflictError):
                assert seed_of(opened.read_all()) == 1
            return
        expected = (LakeConflictError, pl.exceptions.ComputeError, duckdb.Error)
        with pytest.raises(expected, match=r"own/2020-10\.parquet was replaced by another run"):
            LAZY_TYPES[type_](opened)


@pytest.mark.parametrize("max_memory", [1 << 30, 0], ids=["in memory", "in a file"])
def test_an_open_reader_of_a_duckdb_table_blocks_no_writer_and_keeps_its_rows(
    duckdb_store: OwnStore, monkeypatch: pytest.MonkeyPatch, max_memory: int
) -> None:
    monkeypatch.setattr(table_rows, "_MAX_MEMORY_BYTES", max_memory)
    with duckdb_store.platform() as platform:
        asset = large_asset("warehouse_table", 1)
        platform.store(asset, MONTH)
        reader = platform.load(asset, MONTH, pa.RecordBatchReader)
        first = reader.read_next_batch()
        with child_process(run_in_child, Run(duckdb_store, "other", 2, MONTH)) as writer:
            assert writer.receive().failures == []
        platform.store(large_asset("warehouse_table", 2), MONTH)
        assert seed_of(pa.Table.from_batches([first, *reader])) == 1


@pytest.mark.parametrize("type_", LAZY_TYPES, ids=lambda type_: type_.__name__)
@pytest.mark.parametrize("kind", ["duckdb", "postgres", "bigquery"])
def test_a_lazy_input_of_a_warehouse_blocks_no_writer_and_reads_one_version(
    kind: str, type_: Any, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    store = open_store(kind, request, tmp_path)
    store.store("own", 1, MONTH)
    with store.platform() as platform:
        opened = platform.load(store.asset("own", 1, partitioned=True), MONTH, type_)
        with child_process(run_in_child, Run(store, "own", 2, MONTH)) as writer:
            assert writer.receive().failures == []
        found = LAZY_TYPES[type_](opened)
    # Columns that were added since are not read.
    known = [name for name in found.column_names if name in rows_of_version(1).column_names]
    assert found.num_rows in {rows_of_version(version).num_rows for version in (1, 2)}
    assert found.select(["version", "number"]).sort_by("number") in [
        rows_of_version(version).select(["version", "number"]) for version in (1, 2)
    ]
    assert known == found.column_names


def die_while_reading(store: OwnStore, temporary: Path, _pipe: Connection) -> None:
    """Kill this process while it copies rows to a temporary file."""
    import os  # noqa: PLC0415
    import signal  # noqa: PLC0415

    tempfile.tempdir = str(temporary)
    table_rows._MAX_MEMORY_BYTES = 0  # noqa: SLF001
    new_stream = pa.ipc.new_stream

    def die(*args: Any) -> Any:
        new_stream(*args)
        os.kill(os.getpid(), signal.SIGKILL)

    pa.ipc.new_stream = die
    store.find_version("own", MONTH)


def test_the_temporary_file_of_a_killed_reader_is_deleted_by_the_next_process(
    duckdb_store: OwnStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    duckdb_store.store("own", 1, MONTH)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    with child_process(die_while_reading, duckdb_store, temporary) as reader:
        assert reader.wait_for_exit() == -9
    assert [path for path in temporary.rglob("*") if path.is_file()]
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    duckdb_store.store("own", 2, MONTH)
    assert [path for path in temporary.rglob("*") if path.is_file()] == []


# --- rows that are read while the rows of the same step are stored ----------------------------------------------------

PASSED_ON: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "RecordBatchReader": (pa.RecordBatchReader, lambda reader: reader),
    "Dataset": (pyarrow.dataset.Dataset, lambda dataset: dataset.scanner().to_reader()),
    "LazyFrame": (pl.LazyFrame, lambda frame: frame),
    "joined LazyFrame": (pl.LazyFrame, lambda frame: frame.join(frame.select("number"), on="number")),
    "DuckDBPyRelation": (duckdb.DuckDBPyRelation, lambda relation: relation.to_arrow_reader(10)),
    "dict of readers": (
        dict[str, pa.RecordBatchReader],
        lambda readers: pa.RecordBatchReader.from_batches(
            next(iter(readers.values())).schema, (batch for reader in readers.values() for batch in reader)
        ),
    ),
}


def pass_rows_on(store: OwnStore, case: str, pipe: Connection) -> None:
    """Store rows that are still being read from the warehouse; send the failures."""
    source = store.asset("own", 1, partitioned=True)
    with store.platform() as platform:
        result = platform.run(copying_asset(store, source, *PASSED_ON[case]), MONTH, source)
        pipe.send(failure_messages(result))


def copying_asset(
    store: OwnStore, source: dg.AssetsDefinition, type_: Any, pass_on: Callable[[Any], Any]
) -> dg.AssetsDefinition:
    @dg.asset(
        key=["mine", "copied"],
        partitions_def=PARTITIONS,
        ins={"rows": dg.AssetIn(source.key)},
        io_manager_key=store.manager,
        metadata={"partition_expr": "month"},
    )
    def copied(rows: type_) -> Any:
        return pass_on(rows)

    return copied


@pytest.mark.parametrize("case", PASSED_ON)
def test_rows_can_be_read_and_stored_at_the_same_time(own_store: OwnStore, case: str) -> None:
    own_store.store("own", 1, MONTH)
    with child_process(pass_rows_on, own_store, case) as child:
        assert child.receive() == []
    assert own_store.find_version("copied", MONTH) == 1


def with_short_wait(store: OwnStore) -> OwnStore:
    """Return the same store, which gives up sooner if the warehouse is locked."""
    return replace(store, open_warehouse=partial(store.open_warehouse, wait_seconds=0.2))


def read_within_a_session(store: OwnStore, pipe: Connection) -> None:
    store.store("own", 1, MONTH)
    with with_short_wait(store).platform() as platform:
        dataset = platform.load(store.asset("own", 1, partitioned=True), MONTH, pyarrow.dataset.Dataset)
        try:
            with platform.warehouse.session():
                dataset.to_table()
            pipe.send("")
        except WarehouseBusyError as error:
            pipe.send(str(error))
        pipe.send(version_of(dataset.to_table()))


def test_reading_a_lazy_input_within_a_session_of_a_duckdb_file_is_an_error_and_no_deadlock(
    duckdb_store: OwnStore,
) -> None:
    with child_process(read_within_a_session, duckdb_store) as child:
        assert "was in use by another thread of this process for 0.2 seconds" in child.receive()
        assert child.receive() == 1


# --- retries of the step ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["local", "gcs"])
def test_a_step_that_lost_against_another_run_starts_again(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """As for the platform's own assets, without a retry policy."""
    store = open_store(kind, request, tmp_path)
    attempts: list[int] = []

    @dg.asset(key=["mine", "own"], partitions_def=PARTITIONS, io_manager_key=store.manager)
    def own() -> pa.RecordBatchReader:
        attempts.append(len(attempts) + 1)
        rows = rows_of_version(attempts[-1])

        def batches() -> Iterator[pa.RecordBatch]:
            if len(attempts) == 1:
                store.store("own", 7, MONTH)  # another run
            yield from rows.to_batches()

        return pa.RecordBatchReader.from_batches(rows.schema, batches())

    with store.platform() as platform:
        platform.store(own, MONTH)
    assert attempts == [1, 2]
    assert store.find_version("own", MONTH) == 2


@pytest.mark.parametrize("retries", [1, 0])
def test_a_step_that_finds_the_warehouse_busy_follows_the_retry_policy_of_its_asset(
    duckdb_store: OwnStore, retries: int
) -> None:
    duckdb_store.store("own", 1, MONTH)
    attempts: list[int] = []
    short = with_short_wait(duckdb_store)
    with short.platform() as platform, child_process(hold, str(duckdb_store.home / "warehouse.duckdb")) as holder:
        holder.receive()

        @dg.asset(
            key=["mine", "own"],
            partitions_def=PARTITIONS,
            io_manager_key="warehouse_table",
            metadata={"partition_expr": "month"},
            retry_policy=dg.RetryPolicy(max_retries=retries),
        )
        def own() -> pa.Table:
            attempts.append(len(attempts) + 1)
            if len(attempts) == 2:
                holder.send("release")
                assert holder.wait_for_exit() == 0
            return rows_of_version(2)

        result = platform.run(own, MONTH)
        messages = failure_messages(result)
        if retries == 0:
            holder.send("release")
            assert holder.wait_for_exit() == 0
    assert attempts == [1, 2][: retries + 1]
    assert result.success == bool(retries)
    assert ("was locked by" in " ".join(messages)) == (not retries)
    assert duckdb_store.find_version("own", MONTH) == 1 + retries
