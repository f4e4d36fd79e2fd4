"""A real month that tools saved again is read with the same values, or refused with the reason. No value is wrong."""

from __future__ import annotations

import csv
import gzip
import io
import tempfile
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from taxi_assets.errors import (
    AmbiguousTimesError,
    ColumnMismatchError,
    InvalidFileError,
    TaxiAssetsError,
    TooManyQuarantinedError,
    WrongMonthError,
)
from taxi_assets.tlc.cleaning.clean_month import clean_month
from taxi_assets.tlc.file_format import FileFormat
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.rules import REPEATED_HEADER
from taxi_assets.tlc.services.green import GREEN
from taxi_assets.tlc.sources.validate_file import validate_file
from taxi_assets_tests.trip_files import REAL, source_record

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MONTH = Month(2020, 10)
PUBLISHED = REAL / "months" / "green_tripdata_2020-10.csv.gz"
TIMES = ("lpep_pickup_datetime", "lpep_dropoff_datetime")
INTEGERS = ("VendorID", "RatecodeID", "PULocationID", "DOLocationID", "passenger_count", "payment_type", "trip_type")
ROWS = 200

pytestmark = pytest.mark.skipif(not PUBLISHED.exists(), reason="the folder ../shared/data is missing")


def published_rows() -> pd.DataFrame:
    """Return rows of the start, the middle and the end of the month, as text; "" is null."""
    with gzip.open(PUBLISHED, "rt") as file:
        rows = list(csv.DictReader(file))
    step = len(rows) // ROWS
    return pd.DataFrame(rows[::step][:ROWS])


def typed(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the same rows with the types of TLC's Parquet files."""
    frame = rows.mask(rows == "")
    for name in frame.columns:
        if name in TIMES:
            frame[name] = pd.to_datetime(frame[name]).astype("datetime64[us]")
        elif name in INTEGERS:
            frame[name] = pd.to_numeric(frame[name]).astype("Int64")
        elif name != "store_and_fwd_flag":
            frame[name] = pd.to_numeric(frame[name]).astype("float64")
    return frame


@dataclass(frozen=True)
class Cleaned:
    clean: list[dict[str, Any]]
    """The clean trips, in file order, without their row numbers."""
    quarantined: list[tuple[str, ...]]
    """The reasons of each quarantined row."""


def clean(path: Path, folder: Path) -> Cleaned:
    format_ = next(ending for ending in FileFormat if path.name.endswith(f".{ending}"))
    rows = validate_file(path, format_, label="green 2020-10", url="here")
    record = source_record(path, rows=rows, format=format_)
    cleaned = clean_month(path, record, GREEN, MONTH, GREEN.rules, folder)
    table = pyarrow.parquet.read_table(cleaned.clean).drop_columns(["source_row"])
    reasons = pyarrow.parquet.read_table(cleaned.quarantine)["reasons"].to_pylist()
    return Cleaned(table.to_pylist(), [tuple(row) for row in reasons if row != [REPEATED_HEADER]])


@cache
def original() -> tuple[pd.DataFrame, Cleaned]:
    """Return the rows of the month, and what cleaning them yields."""
    rows = published_rows()
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "month.csv")
        rows.to_csv(path, index=False)
        found = clean(path, Path(name))
    assert len(found.clean) > ROWS / 2
    return rows, found


# --- names and times -------------------------------------------------------------------------------------------------

RENAMED: dict[str, Callable[[str], str]] = {
    "as published": lambda name: name,
    "snake_case": lambda name: name.replace("PU", "pu_").replace("DO", "do_").replace("ID", "_id").lower(),
    "lower case": str.lower,
    "upper case": str.upper,
    "spaces": lambda name: name.replace("_", " "),
    "unknown": lambda name: f"{name}_x" if name == "PULocationID" else name,
}

# Each writes a column of times as text.
TIME_TEXTS: dict[str, Callable[[pd.Series], Any]] = {
    "as published": lambda times: times.dt.strftime("%Y-%m-%d %H:%M:%S"),
    "T": lambda times: times.dt.strftime("%Y-%m-%dT%H:%M:%S"),
    "nanoseconds": lambda times: times.dt.strftime("%Y-%m-%dT%H:%M:%S.%f000"),
    "Z": lambda times: times.dt.strftime("%Y-%m-%dT%H:%M:%SZ"),
    "offset": lambda times: times.dt.strftime("%Y-%m-%d %H:%M:%S-04:00"),
    "real UTC": lambda times: (times + pd.Timedelta(hours=4)).dt.strftime("%Y-%m-%dT%H:%M:%SZ"),
    "another offset": lambda times: (times + pd.Timedelta(hours=5)).dt.strftime("%Y-%m-%d %H:%M:%S+01:00"),
    "12 hours": lambda times: times.dt.strftime("%m/%d/%Y %I:%M:%S %p"),
    "no leading zero": lambda times: times.dt.strftime("%Y-%m-%d %-H:%M:%S"),
    "day first": lambda times: times.dt.strftime("%d/%m/%Y %H:%M:%S"),
    "seconds": lambda times: times.astype("int64") // 1_000_000,
    "milliseconds": lambda times: times.astype("int64") // 1_000,
    "real seconds": lambda times: (times + pd.Timedelta(hours=4)).astype("int64") // 1_000_000,
}
TIME_TYPES: dict[str, Callable[[Any], Any]] = {
    "microseconds": lambda times: times,
    "seconds": lambda times: times.cast(pa.timestamp("s")),
    "milliseconds": lambda times: times.cast(pa.timestamp("ms")),
    "nanoseconds": lambda times: times.cast(pa.timestamp("ns")),
    "marked as UTC": lambda times: times.cast(pa.timestamp("us", "UTC")),
    "real UTC": lambda times: times.cast(pa.timestamp("us", "UTC")),
    "New York": lambda times: pa.compute.assume_timezone(times, "America/New_York"),
    "integers": lambda times: times.cast(pa.int64()),
    "text": lambda times: times.cast(pa.string()),
}


# --- tools -----------------------------------------------------------------------------------------------------------


def csv_text(frame: pd.DataFrame, tool: str, null: str, folder: Path) -> bytes:
    """Write a frame as CSV with a tool. Nulls of numbers become `null`."""
    if tool == "csv":
        content = io.StringIO()
        writer = csv.writer(content, lineterminator="\n")
        writer.writerow(frame.columns)
        writer.writerows(frame.astype(object).where(frame.notna(), null).itertuples(index=False))
        return content.getvalue().encode()
    if tool == "pandas":
        return str(frame.to_csv(na_rep=null, lineterminator="\r\n")).encode("utf-8-sig")  # with its index
    if tool == "pandas, quoted":
        return str(frame.to_csv(index=False, na_rep=null, quoting=csv.QUOTE_ALL)).encode()
    if tool == "Polars":
        return str(pl.from_pandas(frame).write_csv(null_value=null)).encode()
    path = folder / "duckdb.csv"
    with duckdb.connect() as connection:
        connection.register("month", frame)
        connection.execute(f"COPY month TO '{path}' (HEADER, NULLSTR '{null}')")
    return path.read_bytes()


def parquet_file(table: Any, tool: str, path: Path) -> None:
    if tool == "Polars":
        pl.DataFrame(pl.from_arrow(table)).write_parquet(path)
    elif tool == "DuckDB":
        with duckdb.connect() as connection:
            connection.register("month", table)
            connection.execute("SET TimeZone = 'UTC'")
            connection.execute(f"COPY month TO '{path}' (FORMAT parquet)")
    else:
        pyarrow.parquet.write_table(table, path, row_group_size=50)


@dataclass(frozen=True)
class Saved:
    """How a month was saved again."""

    names: str
    times: str
    tool: str
    null: str
    order: Sequence[int]
    parts: str
    """How a CSV file was divided: not at all, with headers, without them, or with another order in the second part."""
    container: str


@st.composite
def csv_files(draw: st.DrawFn) -> Saved:
    return Saved(
        draw(st.sampled_from(list(RENAMED))),
        draw(st.sampled_from(list(TIME_TEXTS))),
        draw(st.sampled_from(["csv", "pandas", "pandas, quoted", "Polars", "DuckDB"])),
        draw(st.sampled_from(["", "NaN", "NULL", "None", r"\N"])),
        draw(st.permutations(range(20))),
        draw(st.sampled_from(["one", "headers", "other order", "more columns", "no header", "zip"])),
        draw(st.sampled_from(["csv", "csv", "csv.gz", "utf-16", "semicolon"])),
    )


def save_csv(rows: pd.DataFrame, saved: Saved, folder: Path) -> Path:
    frame = typed(rows)
    for name in TIMES:
        frame[name] = TIME_TEXTS[saved.times](frame[name])
    frame = frame.iloc[:, list(saved.order)].rename(columns=RENAMED[saved.names])
    first, second = frame.iloc[:120], frame.iloc[120:]
    if saved.parts in {"other order", "no header"}:
        second = second.iloc[:, ::-1]
    if saved.parts == "more columns":
        second = second.assign(note="Queens, NY")
    contents = [csv_text(part, saved.tool, saved.null, folder) for part in (first, second)]
    if saved.parts == "one":
        contents = [csv_text(frame, saved.tool, saved.null, folder)]
    if saved.parts == "no header":
        contents[1] = contents[1].split(b"\n", 1)[1]
    if saved.parts == "zip":
        return write_zip({f"part-{number}.csv": content for number, content in enumerate(contents)}, folder)
    path = folder / ("month.csv.gz" if saved.container == "csv.gz" else "month.csv")
    path.write_bytes(CONTAINERS[saved.container](b"".join(contents)))
    return path


CONTAINERS: dict[str, Callable[[bytes], bytes]] = {
    "csv": lambda content: content,
    "csv.gz": gzip.compress,
    "utf-16": lambda content: content.decode("utf-8-sig").encode("utf-16"),
    "semicolon": lambda content: content.replace(b",", b";"),
}


def write_zip(parts: dict[str, bytes], folder: Path) -> Path:
    path = folder / "month.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return path


REFUSALS = (
    AmbiguousTimesError,
    ColumnMismatchError,
    InvalidFileError,
    TooManyQuarantinedError,
    WrongMonthError,
)
REASONS = (
    "cannot be read",
    "no column for",
    "separated by",
    "UTF-16",
    "data row",
    "marked as UTC",
    "since 1970",
    "pickups are in",
)


def require_same_or_refused(path: Path, folder: Path, *, certain: bool) -> None:
    """Clean a file, and compare the trips; an error must give a reason that can be acted on."""
    error: TaxiAssetsError | None = None
    try:
        found = clean(path, folder)
    except TaxiAssetsError as refusal:
        error = refusal
    if error is None:
        event("read")
        assert found == original()[1]
        return
    event(type(error).__name__)
    assert not certain, error
    assert isinstance(error, REFUSALS)
    assert any(reason in str(error) for reason in REASONS), error


CERTAIN_TEXTS = {"as published", "T", "nanoseconds", "offset", "12 hours", "no leading zero"}
FEW = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FEW
@given(saved=csv_files())
def test_a_month_that_was_saved_again_as_csv_is_read_with_its_values_or_refused(
    saved: Saved, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("csv")
    certain = (
        saved.names != "unknown"
        and saved.times in CERTAIN_TEXTS
        and (saved.container in {"csv", "csv.gz"} or saved.parts == "zip")
        and saved.parts != "no header"
    )
    require_same_or_refused(save_csv(original()[0], saved, folder), folder, certain=certain)


@FEW
@given(
    names=st.sampled_from(list(RENAMED)),
    times=st.sampled_from(list(TIME_TYPES)),
    tool=st.sampled_from(["pyarrow", "Polars", "DuckDB"]),
    order=st.permutations(range(20)),
    binary=st.booleans(),
    parts=st.booleans(),
)
def test_a_month_that_was_saved_again_as_parquet_is_read_with_its_values_or_refused(
    names: str,
    times: str,
    tool: str,
    order: Sequence[int],
    binary: bool,
    parts: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("parquet")
    table = pa.Table.from_pandas(typed(original()[0]), preserve_index=False)
    for name in TIMES:
        column = table[name]
        if times == "real UTC":
            column = pa.compute.add(column, pa.scalar(4 * 3600 * 10**6, pa.duration("us")))
        table = table.set_column(table.schema.get_field_index(name), name, TIME_TYPES[times](column))
    if binary:
        flag = table["store_and_fwd_flag"].cast(pa.binary())
        table = table.set_column(table.schema.get_field_index("store_and_fwd_flag"), "store_and_fwd_flag", flag)
    table = table.select(list(order))
    table = table.rename_columns([RENAMED[names](name) for name in table.column_names])
    path = folder / "month.parquet"
    parquet_file(table, tool, path)
    if parts:
        contents = {}
        for number, part in enumerate([table.slice(0, 120), table.slice(120).select(table.column_names[::-1])]):
            parquet_file(part, tool, path)
            contents[f"part-{number}.parquet"] = path.read_bytes()
        path = write_zip(contents, folder)
    # DuckDB marks times of any zone as UTC.
    ambiguous = {"marked as UTC", "real UTC", "integers", *(["New York"] if tool == "DuckDB" else [])}
    require_same_or_refused(path, folder, certain=names != "unknown" and times not in ambiguous)
