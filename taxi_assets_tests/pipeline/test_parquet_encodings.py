"""Every Parquet file that the platform writes to the lake has encodings that every engine reads.

BigQuery's documentation does not state that it reads DELTA_BINARY_PACKED. Spark before 3.3, Synapse and StarRocks
refuse it (aloneguid/parquet-dotnet #392, StarRocks #37169).
"""

import datetime as dt
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

from taxi_assets.storage.lake_tables import lake_tables
from taxi_assets.tlc.parquet_io import ROW_GROUP_ROWS
from taxi_assets.tlc.services.registry import SERVICES
from taxi_assets_tests.pipeline_harness import Deployment, failure_messages

MONTH = "2021-01"
# PLAIN_DICTIONARY is the earlier name of RLE_DICTIONARY. Parquet stores nulls as RLE.
READ_BY_EVERY_ENGINE = {"PLAIN", "RLE_DICTIONARY", "PLAIN_DICTIONARY", "RLE"}
DELTAS = ("pickup_datetime", "dropoff_datetime", "source_row")


@dg.asset(key=["mine", "arrow"], io_manager_key="lake_parquet")
def own_arrow_rows() -> pa.Table:
    times = [dt.datetime(2021, 1, 1) + dt.timedelta(minutes=number) for number in range(5_000)]  # noqa: DTZ001
    return pa.table({"at": times, "number": range(5_000), "text": [f"text {number}" for number in range(5_000)]})


@dg.asset(key=["mine", "pandas"], io_manager_key="lake_parquet")
def own_pandas_rows() -> pd.DataFrame:
    return pd.DataFrame({"number": range(5_000), "share": [number / 7 for number in range(5_000)]})


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with all that `make demo` writes, and with rows of own assets."""
    deployment = Deployment(tmp_path_factory.mktemp("demo"), "sample")
    with dg.DagsterInstance.ephemeral() as instance:
        jobs = [("reference", None), *((service, MONTH) for service in SERVICES), ("marts", MONTH), ("quality", None)]
        for job, month in jobs:
            result = deployment.run(job, month, instance=instance)
            assert result.success, failure_messages(result)
        resources = deployment.definitions().resources
        assert resources is not None
        chosen = {"lake_parquet": resources["lake_parquet"]}
        assert dg.materialize([own_arrow_rows, own_pandas_rows], instance=instance, resources=chosen).success
    return deployment.lake


def written_by_the_platform(lake: Path) -> dict[str, Any]:
    """Return the footers of all Parquet files by key, except those of raw, which are as they were published."""
    files = {path.relative_to(lake).as_posix(): path for path in lake.rglob("*.parquet")}
    return {key: pyarrow.parquet.read_metadata(path) for key, path in files.items() if not key.startswith("raw/")}


def chunks(footer: Any) -> list[Any]:
    return [
        footer.row_group(group).column(column)
        for group in range(footer.num_row_groups)
        for column in range(footer.num_columns)
    ]


def test_files_of_every_table_and_of_own_assets_are_found(lake: Path) -> None:
    found = set(written_by_the_platform(lake))
    tables = {key for table in lake_tables() for key in found if key.startswith((f"{table.asset}/", table.key()))}
    # A comparison needs two revisions of a month. It writes its rows by the same function as own assets.
    assert {table.asset for table in lake_tables() if not table.asset.startswith("revisions/")} <= {
        key.removesuffix(f"/{MONTH}.parquet").removesuffix(".parquet") for key in tables
    }
    assert {"mine/arrow.parquet", "mine/pandas.parquet"} == found - tables


def test_every_encoding_is_read_by_every_engine(lake: Path) -> None:
    used = {
        key: {encoding for chunk in chunks(footer) for encoding in chunk.encodings}
        for key, footer in written_by_the_platform(lake).items()
    }
    assert all(used.values())
    assert {
        key: encodings - READ_BY_EVERY_ENGINE for key, encodings in used.items() if encodings - READ_BY_EVERY_ENGINE
    } == {}


def test_the_clean_months_are_at_most_a_fifth_larger_than_with_deltas(lake: Path, tmp_path: Path) -> None:
    """All services together: of `fhv`, which has few other columns, the month is a quarter larger."""
    plain_bytes = delta_bytes = 0
    for plain in sorted((lake / "clean").rglob("*.parquet")):
        rows = pyarrow.parquet.read_table(plain)
        deltas = {name: "DELTA_BINARY_PACKED" for name in DELTAS if name in rows.column_names}
        pyarrow.parquet.write_table(
            rows,
            tmp_path / "deltas",
            compression="zstd",
            compression_level=1,
            column_encoding=deltas,
            use_dictionary=[name for name in rows.column_names if name not in deltas],
            store_decimal_as_integer=True,
            max_rows_per_page=ROW_GROUP_ROWS,
            write_statistics=False,
        )
        footer = pyarrow.parquet.read_metadata(tmp_path / "deltas")
        assert any("DELTA_BINARY_PACKED" in chunk.encodings for chunk in chunks(footer))
        plain_bytes += plain.stat().st_size
        delta_bytes += (tmp_path / "deltas").stat().st_size
    assert 0 < plain_bytes <= 1.2 * delta_bytes
