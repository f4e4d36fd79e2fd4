"""A dataset of a lake's Parquet, on every lake: it reads what a query needs, in one version per object."""

from __future__ import annotations

import itertools
import os
import pickle
import resource
import shutil
import subprocess
import sys
import threading
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import pyarrow.parquet
import pytest

from taxi_assets.errors import LakeConflictError, LakeObjectMissingError
from taxi_assets.storage.lake.local_lake import LocalLake
from taxi_assets.storage.lake_dataset import LakeDataset
from taxi_assets_tests.conftest import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Callable

    from taxi_assets.storage.lake.base_lake import Lake
    from taxi_assets_tests.contract.stores import LakeBackend
    from taxi_assets_tests.google.cloud_storage import CloudStorage

SCHEMA = pa.schema([("part", pa.int64()), ("version", pa.int64()), ("dollars", pa.decimal128(12, 2))])
ROWS = 1000
READERS: dict[str, Callable[[Any], set[tuple[int, int]]]] = {
    "to_table": lambda rows: pairs(rows.to_table(columns=["part", "version"])),
    "to_batches": lambda rows: pairs(pa.Table.from_batches(rows.to_batches(columns=["part", "version"]))),
    "filter": lambda rows: pairs(rows.filter(pc.field("part") >= 0).to_table()),
    "sort_by": lambda rows: pairs(rows.sort_by("part").to_table()),
    "replace_schema": lambda rows: pairs(rows.replace_schema(pa.schema(list(SCHEMA)[:2])).to_table()),
    "fragments": lambda rows: pairs(pa.concat_tables(fragment.to_table() for fragment in rows.get_fragments())),
    "polars": lambda rows: pairs(pl.scan_pyarrow_dataset(rows).collect().to_arrow()),
    "duckdb": lambda rows: set(duckdb.from_arrow(rows).distinct().project("part, version").fetchall()),
}


@pytest.fixture
def lake(lake_backend: LakeBackend) -> Lake:
    return lake_backend.open()


def key(part: int) -> str:
    return f"mine/odd [{part}] #?%25'.parquet"


def put(lake: Lake, part: int, version: int = 1, rows: int = ROWS) -> None:
    table = pa.table(
        [
            pa.array([part] * rows),
            pa.array([version] * rows),
            pa.array([Decimal("0.01")] * rows, SCHEMA.field("dollars").type),
        ],
        schema=SCHEMA,
    )
    with lake.staging() as folder:
        pyarrow.parquet.write_table(table, folder / "rows", row_group_size=100)
        lake.publish(folder / "rows", key(part), replaces=lake.version(key(part)), run_id="a")


def dataset(lake: Lake, parts: int = 3) -> LakeDataset:
    return LakeDataset(lake, {key(part): pc.field("part") == part for part in range(parts)}, SCHEMA)


def pairs(table: pa.Table) -> set[tuple[int, int]]:
    return set(zip(table["part"].to_pylist(), table["version"].to_pylist(), strict=True))


@pytest.mark.parametrize("reader", READERS)
def test_an_object_that_is_replaced_between_two_scans_is_read_in_its_new_version(lake: Lake, reader: str) -> None:
    for part in range(3):
        put(lake, part)
    rows = dataset(lake)
    assert READERS[reader](rows) == {(0, 1), (1, 1), (2, 1)}
    put(lake, 1, version=2, rows=ROWS + 500)  # another footer
    assert READERS[reader](rows) == {(0, 1), (1, 2), (2, 1)}


@pytest.mark.parametrize("reader", ["to_table", "polars", "duckdb"])
def test_scans_during_replacements_read_each_object_in_one_version(lake_backend: LakeBackend, reader: str) -> None:
    lake = lake_backend.open()
    for part in range(3):
        put(lake, part)
    stop = threading.Event()

    def replace() -> None:
        own, version = lake_backend.open(), 1
        while not stop.is_set():
            version += 1
            put(own, version % 3, version, rows=ROWS + version % 7 * 100)

    writer = threading.Thread(target=replace)
    writer.start()
    try:
        found = [READERS[reader](dataset(lake)) for _ in range(40)]
    finally:
        stop.set()
        writer.join()
    assert all(sorted(part for part, _ in versions) == [0, 1, 2] for versions in found)
    assert len({frozenset(versions) for versions in found}) > 1, "no object was replaced: nothing was tested"


def test_pyarrow_never_reads_a_replaced_object_with_its_old_footer(lake: Lake) -> None:
    put(lake, 0)
    rows = dataset(lake, 1)
    scan = pyarrow.dataset.Scanner.from_dataset  # as pyarrow itself reads the right side of a join
    assert scan(rows).count_rows() == ROWS
    put(lake, 0, version=2, rows=ROWS + 500)
    with suppress(LakeConflictError):  # or, on a lake that keeps old versions:
        assert pairs(scan(rows).to_table()) == {(0, 1)}


def test_rows_are_counted_with_a_filter_in_one_version_of_the_object(tmp_path: Path) -> None:
    lake, stop, counts = LocalLake(folder=str(tmp_path)), threading.Event(), (50_000, 80_000)
    versions = [tmp_path / f"{rows}.parquet" for rows in counts]
    for path, rows in zip(versions, counts, strict=True):
        pyarrow.parquet.write_table(pa.table({"row": range(rows)}), path, row_group_size=rows // 3)
    put(lake, 0)
    shutil.copy(versions[0], lake.uri(key(0)))

    def replace() -> None:
        for version in itertools.cycle(versions):
            if stop.is_set():
                return
            Path(shutil.copy(version, tmp_path / "new")).replace(lake.uri(key(0)))

    writer = threading.Thread(target=replace)
    writer.start()
    rows = LakeDataset(lake, {key(0): None}, pa.schema([("row", pa.int64())]))
    needs_rows = pc.field("row") >= 100
    try:
        found = {rows.count_rows(filter=needs_rows) for _ in range(50)}
        found |= {rows.filter(needs_rows).count_rows() for _ in range(50)}
    finally:
        stop.set()
        writer.join()
    assert found == {count - 100 for count in counts}


def test_a_filtered_dataset_is_filtered_wherever_pyarrow_reads_it(lake: Lake) -> None:
    for part in range(3):
        put(lake, part)
    rows = dataset(lake).filter(pc.field("part") > 0).filter(pc.field("part") < 2)
    names = pyarrow.dataset.dataset(pa.table({"part": [0, 1, 2], "name": ["zero", "one", "two"]}))
    assert names.join(rows, "part", join_type="inner").count_rows() == ROWS
    assert rows.join(names, "part", join_type="inner").count_rows() == ROWS
    assert pyarrow.dataset.Scanner.from_dataset(rows).count_rows() == ROWS
    assert rows.count_rows(filter=pc.field("part") == 2) == 0
    with pytest.raises(ValueError, match="filtered"):
        pyarrow.dataset.dataset([rows, rows])


def test_objects_that_a_filter_excludes_are_not_opened(lake: Lake) -> None:
    for part in (0, 2):
        put(lake, part)
    rows = dataset(lake)  # the object of part 1 does not exist, so opening it fails
    with pytest.raises((LakeObjectMissingError, FileNotFoundError), match=r"odd \[1\]"):
        rows.to_table()
    assert rows.to_table(filter=pc.field("part") == 2).num_rows == ROWS
    assert rows.filter(pc.field("part") != 1).count_rows() == 2 * ROWS
    assert pl.scan_pyarrow_dataset(rows).filter(pl.col("part") == 2).collect().height == ROWS
    assert duckdb.execute("SELECT count(*) FROM rows WHERE part = 2").fetchall() == [(ROWS,)]
    assert [fragment.path for fragment in rows.get_fragments(pc.field("part") > 1)] == [key(2)]


def test_all_operations_of_a_dataset_are_available(lake: Lake) -> None:
    for part in range(3):
        put(lake, part)
    rows = dataset(lake)
    assert isinstance(rows, pyarrow.dataset.FileSystemDataset)
    assert rows.schema == SCHEMA
    assert rows.count_rows() == 3 * ROWS
    assert rows.count_rows(filter=pc.field("part") == 1) == ROWS
    assert rows.head(5).num_rows == 5
    assert rows.head(5, columns=["part"], filter=pc.field("part") == 2).to_pydict() == {"part": [2] * 5}
    assert rows.take(pa.array([0, ROWS]))["part"].to_pylist() == [0, 1]
    assert rows.to_table(columns={"cents": pc.field("dollars")}).column_names == ["cents"]
    assert rows.scanner(columns=["dollars"]).to_reader().read_all().num_rows == 3 * ROWS
    assert rows.sort_by([("part", "descending")]).head(1)["part"].to_pylist() == [2]
    names = pyarrow.dataset.dataset(pa.table({"part": [1], "name": ["one"]}))
    assert set(rows.join(names, "part", join_type="inner").to_table()["name"].to_pylist()) == {"one"}
    assert names.join(rows, "part", join_type="inner").count_rows() == ROWS
    with pytest.raises(NotImplementedError, match="Open it there"):
        pickle.dumps(rows)


def test_a_column_that_an_object_lacks_is_null(lake: Lake) -> None:
    put(lake, 0)
    wider = LakeDataset(lake, {key(0): None}, SCHEMA.append(pa.field("new", pa.string())))
    assert wider.to_table(columns=["new"])["new"].null_count == ROWS


def test_hundreds_of_objects_need_few_open_files(lake: Lake) -> None:
    parts = 60
    for part in range(parts):
        put(lake, part, rows=1)
    rows, limits = dataset(lake, parts), resource.getrlimit(resource.RLIMIT_NOFILE)
    open_files = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 30, limits[1]))  # noqa: PTH208
    try:
        for reader in READERS.values():
            assert len(reader(rows)) == parts
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert len(os.listdir("/proc/self/fd")) < open_files + 30  # noqa: PTH208


def test_a_scan_of_a_column_downloads_little_more_than_the_column(
    gcs_lake: LakeBackend, cloud_storage: CloudStorage
) -> None:
    lake, rows = gcs_lake.open(), 50_000
    random = np.random.default_rng(1)
    table = pa.table({name: random.random(rows) for name in "abcdefgh"})
    with lake.staging() as folder:
        pyarrow.parquet.write_table(table, folder / "rows", row_group_size=rows, use_dictionary=False)
        size = (folder / "rows").stat().st_size
        lake.publish(folder / "rows", "mine/rows.parquet", replaces=None, run_id="a")
    cloud_storage.requests.clear()
    scanned = LakeDataset(lake, {"mine/rows.parquet": None}, table.schema)
    assert scanned.to_table(columns=["c"]) == table.select(["c"])
    downloaded = sum(request.sent_bytes for request in cloud_storage.requests)
    assert size / 8 < downloaded < size / 8 + (1 << 18)


def test_threads_can_share_a_dataset(lake: Lake) -> None:
    for part in range(3):
        put(lake, part)
    rows, found = dataset(lake), []
    threads = [threading.Thread(target=lambda: found.append(rows.count_rows())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [3 * ROWS] * 8


# --- the end of a process ---------------------------------------------------------------------------------------------

SCRIPT = """
import sys
import pyarrow as pa
from taxi_assets.storage.lake.local_lake import LocalLake
from taxi_assets.storage.lake_dataset import LakeDataset

class RemoteLake(LocalLake):
    is_remote = True

lake = {kind}(folder={folder!r})
rows = LakeDataset(lake, dict.fromkeys({keys!r}), {schema})
{read}
"""
SCHEMA_CODE = 'pa.schema([("part", pa.int64()), ("version", pa.int64()), ("dollars", pa.decimal128(12, 2))])'


@pytest.fixture(scope="module")
def large_lake(tmp_path_factory: pytest.TempPathFactory) -> LocalLake:
    lake = LocalLake(folder=str(tmp_path_factory.mktemp("large") / "lake"))
    for part in range(4):
        put(lake, part, rows=200_000)
    return lake


@pytest.mark.parametrize(
    ("kind", "read"),
    [
        ("LocalLake", "next(rows.to_batches())"),
        ("RemoteLake", "rows.head(5)"),
        ("RemoteLake", "reader = rows.scanner().to_reader(); next(reader)"),
    ],
)
def test_a_script_can_end_while_a_scan_reads_ahead(large_lake: LocalLake, kind: str, read: str) -> None:
    script = SCRIPT.format(
        kind=kind, folder=large_lake.folder, keys=[key(part) for part in range(4)], schema=SCHEMA_CODE, read=read
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, timeout=600, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
