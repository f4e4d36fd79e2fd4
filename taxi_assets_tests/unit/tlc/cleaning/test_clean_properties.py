"""For any file: no row is lost, no value gets into another column, and every rejection has a named error."""

from __future__ import annotations

import datetime as dt
import gzip
import re
from dataclasses import dataclass, replace
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from taxi_assets.errors import ReconciliationError, TaxiAssetsError
from taxi_assets.tlc.cleaning.clean_month import clean_month
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.readers import csv_blocks
from taxi_assets.tlc.services.registry import SERVICES
from taxi_assets_tests.trip_files import ANY_FILE, LAYOUTS, TRIP, csv_rows, service_of, source_record, write_csv

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

OCTOBER = Month(2020, 10)
MANY = settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
UNREADABLE = "unreadable"
at = dt.datetime.fromisoformat


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cleaned")


# --- the meaning of texts, by kind of column -------------------------------------------------------------------------

NEVER = {
    **dict.fromkeys(["x", "1_000", "0x1F", "é1", "-nan", "--1", "٣", "1\x00", "\x0b", "\u2028"], UNREADABLE),
    **dict.fromkeys(["nan", "NULL"]),
}
MEANINGS: Mapping[str, Mapping[str, Any]] = {
    "integer": {
        **NEVER, **dict.fromkeys(["1.5", "1e3", "9" * 20, ".0"], UNREADABLE),
        "": None, " ": None, '""': None, "1": 1, "-2": -2, " 3 ": 3, "4.0": 4, '"5"': 5, '6"': 6, "+7": 7, "-0": 0,
        "9223372036854775807": 2**63 - 1, "2": 2, "74": 74, "42": 42,
    },
    "money": {
        **NEVER, **dict.fromkeys(["9999999999.995", "1e308", "1e400", "inf"], UNREADABLE),
        "": None, " ": None, "7": Decimal("7.00"), "-.5": Decimal("-0.50"), "1.005": Decimal("1.01"),
        "-1.005": Decimal("-1.01"), "2.6299999999999999": Decimal("2.63"), '"2.675"': Decimal("2.68"),
        "1e3": Decimal("1000.00"), "9999999999.99": Decimal("9999999999.99"),
    },
    "miles": {
        **NEVER, "": None, "1e9": UNREADABLE, ".00": Decimal("0.000"), "0.0005": Decimal("0.001"),
        "1e-9": Decimal("0.000"),
    },
    "time": {
        **NEVER,
        **dict.fromkeys(
            ["2020-10-05", "2021-02-29 00:00:00", "2020-10-05 24:00:00", "0000-01-01 00:00:00",
             "2020-10-05 10:00:00+02:00", "13/05/2020 10:00:00"], UNREADABLE,
        ),
        "": None, "2020-10-05 10:00:00": at("2020-10-05 10:00:00"), "2020-10-05 10:12:30": at("2020-10-05 10:12:30"),
        "10/05/2020 10:00:00 PM": at("2020-10-05 22:00:00"), "NaT": None,
        '"2020-02-29T23:59:59"': at("2020-02-29 23:59:59"), "2020-10-05 10:00": at("2020-10-05 10:00:00"),
        "0001-01-01 00:00:00.5": at("0001-01-01 00:00:00.500000"), "9999-12-31 23:59:59": at("9999-12-31 23:59:59"),
    },
    "degrees": {**NEVER, "": None, "-73.99": -73.99, "0": 0.0, " 40.7 ": 40.7, "1e400": UNREADABLE},
    "flag": {"": None, "N": "N", "y": "Y", '"1"': "Y", "0.0": "N", "2": UNREADABLE, "é": UNREADABLE},
    "unknown": dict.fromkeys(["", "a", '"', " ", "é", "1"]),
}  # fmt: skip
KINDS = {
    "_datetime$": "time",
    "tude$": "degrees",
    "_flag$": "flag",
    "^trip_distance$": "miles",
    "_id$|_count$|_type$": "integer",
    "^$": "unknown",
}


def kind_of(column: str) -> str:
    return next((kind for pattern, kind in KINDS.items() if re.search(pattern, column)), "money")


def meaning_of(column: str, text: str) -> Any:
    kind = kind_of(column)
    if text in MEANINGS[kind]:
        return MEANINGS[kind][text]
    return Decimal(text).quantize(Decimal("0.01" if kind == "money" else "0.001"), ROUND_HALF_UP)


def cells_of(column: str) -> st.SearchStrategy[str]:
    known = st.sampled_from(list(MEANINGS[kind_of(column)]))
    if kind_of(column) in {"money", "miles"}:
        return known | st.decimals(-(10**6), 10**6, places=4).map(str)
    return known


# --- files -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Drawn:
    """A generated file: the canonical column of each of its fields ("" for none), and the block size for reading."""

    service: str
    columns: Sequence[str]
    content: bytes
    block: int


@st.composite
def headers(draw: st.DrawFn) -> tuple[str, list[str], list[str]]:
    """Draw a service, its published names and their meaning: any order and case, spaces, and unknown columns."""
    layout = draw(st.sampled_from(list(LAYOUTS)))
    unknown = draw(st.lists(st.sampled_from(["New_Fee", "id2", "é", '"x"']), max_size=2))
    named = list(zip(LAYOUTS[layout].header.split(","), LAYOUTS[layout].columns, strict=True))
    shuffled = draw(st.permutations([*named, *((name, "") for name in unknown)]))
    changes: list[Callable[[str], str]] = [str, str.upper, str.lower, " {}".format, '"{}"'.format, "{}\t".format]
    chosen = draw(st.lists(st.sampled_from(changes), min_size=1, max_size=5))
    published = [chosen[index % len(chosen)](name) for index, (name, _) in enumerate(shuffled)]
    return service_of(layout), published, [column for _, column in shuffled]


def rows_of(columns: Sequence[str]) -> st.SearchStrategy[bytes]:
    """Draw lines: ordinary, blank, with odd values, with other field counts, or with invalid UTF-8."""
    cells = [TRIP.get(column, "") for column in columns]
    line = ",".join(cells).encode()

    def odd(changes: list[tuple[int, str]]) -> bytes:
        return ",".join(dict([*enumerate(cells), *changes]).values()).encode()

    change = st.sampled_from(range(len(columns))).flatmap(lambda i: st.tuples(st.just(i), cells_of(columns[i])))
    bad_byte = st.tuples(st.integers(0, len(line)), st.sampled_from([b"\xff", b"\xc3"]))
    ragged = [line + b",", line + b",\xe9,", line.rpartition(b",")[0], b"x", b" ", b'"', b"\xfe"]
    return st.one_of(
        st.sampled_from([line, b""]),
        st.sampled_from(ragged),
        st.lists(change, min_size=1, max_size=5).map(odd),
        bad_byte.map(lambda bad: line[: bad[0]] + bad[1] + line[bad[0] :]),
    )


@st.composite
def files(draw: st.DrawFn) -> Drawn:
    service, published, named = draw(headers())
    columns = [*named, *[""] * draw(st.integers(0, 2))]
    ordinary = ",".join(TRIP.get(column, "") for column in columns).encode()
    # Enough ordinary rows to fill the first block, which tells the field count, and to outnumber the odd rows.
    rows = [*[ordinary] * 20, *draw(st.lists(rows_of(columns), max_size=18))]
    line_end = draw(st.sampled_from([b"\n", b"\r\n", b"\r"]))
    start, gap = draw(st.sampled_from([b"", b"\xef\xbb\xbf", b"\n"])), draw(st.sampled_from([b"", b"\r\n", b"\n\n"]))
    content = start + ",".join(published).encode() + b"\n" + gap + line_end.join(rows)
    content += draw(st.sampled_from([b"", line_end]))
    return Drawn(service, columns, content, draw(st.sampled_from([1500, 1777, 1999, 1 << 20])))


@dataclass(frozen=True)
class Row:
    """The expectation for a row. It has values only if the line itself is regular."""

    text: str
    values: Mapping[str, Any]
    line_errors: set[str]

    @property
    def unreadable(self) -> list[str]:
        return sorted(column for column, value in self.values.items() if value is UNREADABLE)


def expected_of(drawn: Drawn, path: Path) -> Iterator[Row]:
    raw = [line for line in re.split(rb"\r\n|\n|\r", drawn.content.removeprefix(b"\xef\xbb\xbf")) if line][1:]
    header, *rows = csv_rows(path)
    for fields, line in zip(rows, raw, strict=True):
        is_wrong = len(fields) != len(drawn.columns) or any(fields[len(header) :])
        wrong = {"wrong_field_count"} if is_wrong else set()
        if line.decode("utf-8", "replace").encode() != line:
            wrong.add("not_utf8")
        named = [] if wrong else [pair for pair in zip(drawn.columns, fields, strict=True) if pair[0]]
        yield Row(",".join(fields), {column: meaning_of(column, text) for column, text in named}, wrong)


def assert_quarantined_as_expected(found: Mapping[str, Any], row: Row) -> None:
    reasons = set(found["reasons"])
    assert found["original"] == row.text
    assert reasons & {"wrong_field_count", "not_utf8"} == row.line_errors
    if not row.line_errors:
        assert sorted(found["unreadable_columns"]) == row.unreadable
        assert bool(row.unreadable) == ("unreadable_value" in reasons)


@MANY
@given(drawn=files(), rules=st.sampled_from([None, ()]))
def test_every_row_is_clean_or_quarantined_with_each_value_in_its_column(
    folder: Path, drawn: Drawn, rules: Sequence[str] | None
) -> None:
    path = write_csv(folder / "m.csv", drawn.content)
    published = SERVICES[drawn.service]
    # All layouts are drawn for one month, whose file would have more columns.
    service = replace(published, columns=[replace(column, required=False) for column in published.columns])
    expected = dict(enumerate(expected_of(drawn, path), 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_blocks, "BLOCK_BYTES", drawn.block)
        selected = service.select_rules(rules)
        cleaned = clean_month(path, source_record(path), service, OCTOBER, selected, folder, ANY_FILE)
    clean = {row["source_row"]: row for row in pyarrow.parquet.read_table(cleaned.clean).to_pylist()}
    rejected = {row["source_row"]: row for row in pyarrow.parquet.read_table(cleaned.quarantine).to_pylist()}
    assert sorted([*clean, *rejected]) == list(expected)
    assert (list(clean), list(rejected)) == (sorted(clean), sorted(rejected))
    for number, row in expected.items():
        if number in clean:
            assert not row.line_errors
            assert {column: clean[number][column] for column in row.values} == row.values
        else:
            assert_quarantined_as_expected(rejected[number], row)
            assert rules is None or row.unreadable or row.line_errors


# --- corrupted files -------------------------------------------------------------------------------------------------

WHOLE = LAYOUTS["green 2019"].file([TRIP] * 60)


@st.composite
def corrupted_files(draw: st.DrawFn) -> bytes:
    """Draw a complete file with parts cut out, inserted or doubled, rarely in the header."""
    content = WHOLE
    first = draw(st.sampled_from([0, 300, 300, 300, 300]))
    for _ in range(draw(st.integers(1, 6))):
        start = draw(st.integers(min(first, len(content)), len(content)))
        end = start + draw(st.sampled_from([0, 1, 50, 3000]))
        middle = draw(st.sampled_from([b"", content[start:end] * 2, b"\r", b"\n,"]) | st.binary(max_size=40))
        content = content[:start] + middle + content[end:]
    return content


def assert_reconciled_or_named_error(path: Path, rows: int, folder: Path, *, rows_known: bool = True) -> None:
    green = SERVICES["green"]
    rejection = None
    try:
        cleaned = clean_month(path, source_record(path, rows=rows), green, OCTOBER, green.rules, folder, ANY_FILE)
    except TaxiAssetsError as error:
        rejection = error
    event(type(rejection).__name__)
    if rejection is None:
        assert cleaned.report.clean.rows + cleaned.report.rows_quarantined == rows
    else:
        assert re.fullmatch("green 2020-10: .+", str(rejection))
        assert not (rows_known and isinstance(rejection, ReconciliationError))


@MANY
@given(content=corrupted_files() | corrupted_files() | st.binary(max_size=300))
def test_a_corrupted_csv_is_reconciled_or_rejected_with_a_named_error(folder: Path, content: bytes) -> None:
    text = content.removeprefix(b"\xef\xbb\xbf")
    rows = max(0, len([line for line in re.split(rb"\r\n|\n|\r", text) if line]) - 1)
    assert_reconciled_or_named_error(write_csv(folder / "s.csv", content), rows, folder)


@MANY
@given(start=st.integers(0, 700), cut=st.integers(0, 40), put=st.binary(max_size=40))
def test_a_corrupted_gzip_is_rejected_with_a_named_error(folder: Path, start: int, cut: int, put: bytes) -> None:
    packed = gzip.compress(WHOLE, mtime=0)
    path = folder / "s.csv.gz"
    path.write_bytes(packed[:start] + put + packed[start + cut :])
    assert_reconciled_or_named_error(path, 60, folder, rows_known=False)


PARQUET_VALUES: Mapping[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "integer": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "small integer": (pa.int32(), st.integers(-9, 9)),
    "double": (pa.float64(), st.floats() | st.integers(0, 9).map(float)),
    "float": (pa.float32(), st.floats(width=32)),
    "text": (pa.large_string(), st.sampled_from(["", "1", "Y", "2.5", "é", "2020-10-05 10:00:00", "\x00"])),
    "microseconds": (pa.timestamp("us"), st.integers(-(2**63) + 1, 2**63 - 1)),
    "nanoseconds": (pa.timestamp("ns"), st.integers(-(2**63) + 1, 2**63 - 1)),
    "day": (pa.date32(), st.dates()),
    "decimal": (pa.decimal128(20, 5), st.integers(-(10**14), 10**14).map(lambda units: Decimal(units).scaleb(-5))),
    "truth": (pa.bool_(), st.booleans()),
    "list": (pa.list_(pa.int64()), st.lists(st.integers(0, 9), max_size=2)),
    "bytes": (pa.binary(), st.binary(max_size=3)),
    "nothing": (pa.null(), st.none()),
}


@st.composite
def tables(draw: st.DrawFn) -> Any:
    """Draw a month in Parquet in which some columns have unexpected types."""
    rows = draw(st.integers(0, 4))
    named = zip(LAYOUTS["green 2019"].header.split(","), LAYOUTS["green 2019"].columns, strict=True)
    arrays = {published: pa.array([TRIP.get(column)] * rows, pa.string()) for published, column in named}
    for published in draw(st.lists(st.sampled_from([*arrays, "new"]), min_size=1, max_size=6)):
        type_, values = PARQUET_VALUES[draw(st.sampled_from(list(PARQUET_VALUES)))]
        arrays[published] = pa.array(draw(st.lists(st.none() | values, min_size=rows, max_size=rows)), type_)
    return pa.table(arrays)


@MANY
@given(table=tables())
def test_parquet_of_any_types_is_reconciled_or_rejected_with_a_named_error(folder: Path, table: Any) -> None:
    path = folder / "p.parquet"
    pyarrow.parquet.write_table(table, path)
    assert_reconciled_or_named_error(path, len(table), folder)
