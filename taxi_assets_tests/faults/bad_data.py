"""Corruptions of real files, and an independent reader of the corrupted files, for `test_bad_data.py`.

The independent reader uses only Python's standard library, line by line and value by value. The platform gets each file
in the normal way: it downloads the file from a folder, validates it and cleans it.
"""

from __future__ import annotations

import datetime as dt
import functools
import logging
import re
import time
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet
from hypothesis import strategies as st

from taxi_assets.errors import (
    AmbiguousTimesError,
    ColumnMismatchError,
    InvalidFileError,
    ReconciliationError,
    TaxiAssetsError,
    TooManyQuarantinedError,
)
from taxi_assets.tlc.cleaning.clean_month import clean_month
from taxi_assets.tlc.services.registry import SERVICES
from taxi_assets.tlc.sources.download import DownloadedFile, download
from taxi_assets.tlc.sources.source_record import SourceUrl
from taxi_assets_tests.trip_files import ANY_FILE, LAYOUTS, format_of, service_and_month, service_of
from taxi_assets_tests.unit.tlc.services.test_for_hire import MEANING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from taxi_assets.tlc.cleaning.clean_month import CleanedMonth

LOG = logging.getLogger("bad data")
MAX_CPU_SECONDS = 30.0
"""A file that takes longer counts as a hang. These files take hundredths of a second."""

# --- corruption -------------------------------------------------------------------------------------------------------

EXTREME_VALUES = [
    "1e308", "-1e308", "1e309", "1e-400", "1" + "0" * 30, "-1" + "0" * 30, "NaN", "nan", "-nan", "inf", "-Infinity",
    "-0", "-0.00", "+0", "+7", "007", "1.", ".", "-", "e", "1e", "1e3", "1e+00000000000002", "0x1F", "1_000",
    "\uff11\uff12",
    "5\x0c", "\x0b5", "5\x1f",
    "٣", "1 000", "1\u00a0", "\ufeff1", "9223372036854775807", "9223372036854775808", "-9223372036854775808",
    "9999999999.99", "9999999999.995", "10000000000", "0.005", "-0.005", "1.005", "2.675", "0.0005",
    "0.00499999999999999999",
    "9" * 5000, "0." + "0" * 5000 + "1", "9999-12-31 23:59:59", "10000-01-01 00:00:00", "0001-01-01 00:00:00",
    "0000-01-01 00:00:00", "-2020-10-05 10:00:00", "2020-02-30 10:00:00", "2020-10-05", "2020-10-05 24:00:00",
    "2020-10-05 23:59:60", "2020-10-05 10:00", "2020-10-05 10", "2020-10-05T10:00:00", "2020-10-05 10:00:00Z",
    "2020-10-05 10:00:00+01:00", "2020-10-05 10:00:00.1", "2020-10-05 10:00:00.1234567", "2020-10-05  10:00:00",
    "10/05/2020 10:00", "292278-01-01 00:00:00", "1601942400", "NULL", "None", "N/A", "TRUE", "Y", "Cash", "CMT",
    " ", "\t", '"', '""', '"1"', "'1'", "\x00", "1\x00", "\x0b", "\x0c", "\x1a", "\x85", "\u2028", "é", "\U0001f695",
    "x" * 70_000,
]  # fmt: skip
EXTREME_BYTES = [
    b'"', b'"\n', b',"', b"\r", b"\n", b"\r\n", b"\n\n", b"\r\r\n", b",", b",,", b"\x00", b"\xff", b"\xfe\xff", b"\xc3",
    b"\xc3\x28",
    b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xef\xbb\xbf", b"\xe2\x82", b"\\", b"\x1f\x8b", b"PAR1", b"#", b";", b"\t",
]  # fmt: skip


@dataclass(frozen=True)
class Corruption:
    """One change to the bytes of a file."""

    kind: str
    position: float
    """Share of the length of the header line if negative, otherwise of the length of all rows."""
    length: int
    inserted: bytes

    def apply(self, content: bytes) -> bytes:
        header = content.find(b"\n") + 1
        start = int(-self.position * header if self.position < 0 else header + self.position * (len(content) - header))
        put, end = self.inserted, start
        match self.kind:
            case "overwrite":
                end = start + len(put)
            case "cut out":
                end = start + self.length
            case "double":
                put = content[start : start + self.length]
            case "cut off":
                end = len(content)
            case "flip a bit":
                end = start + 1
                put = bytes(byte ^ (1 << self.length % 8) for byte in content[start:end])
            case "field":  # replace the next field
                field = re.compile(rb"(?<=,)[^,\r\n]*(?=[,\r\n])").search(content, start)
                start, end = field.span() if field else (len(content), len(content))
        return content[:start] + put + content[end:]


def _corruptions(kinds: Sequence[str], inserted: st.SearchStrategy[bytes], *, in_header: bool = False) -> Any:
    return st.builds(
        Corruption,
        st.sampled_from(kinds),
        st.integers(0, 999).map(lambda place: (place - 1000) / 1000 if in_header else place / 1000),
        st.sampled_from([1, 2, 7, 40, 100, 1000, 5000]),
        inserted,
    )


_NOTHING = st.just(b"")
_BYTES = st.sampled_from(EXTREME_BYTES) | st.binary(max_size=20)
_IN_ROWS = st.one_of(
    _corruptions(["field"], st.sampled_from(EXTREME_VALUES).map(str.encode)),
    _corruptions(["put in", "overwrite", "field"], _BYTES),
    _corruptions(["cut out", "double", "flip a bit"], _NOTHING),
)
_ANYWHERE = st.one_of(
    _corruptions(["cut off"], _NOTHING),
    _corruptions(["put in", "overwrite", "field"], _BYTES, in_header=True),
    _corruptions(["cut out", "double", "flip a bit"], _NOTHING, in_header=True),
)
CORRUPTIONS = st.sampled_from([_IN_ROWS] * 19 + [_ANYWHERE]).flatmap(lambda one: one)


# --- the independent reader -------------------------------------------------------------------------------------------

_NAMES: Mapping[str, Mapping[str, str]] = {
    service: {
        published.strip().lower(): canonical
        for name, layout in LAYOUTS.items()
        if service_of(name) == service
        for published, canonical in zip(layout.header.split(","), layout.columns, strict=True)
        if canonical
    }
    for service in ("yellow", "green")
} | {"fhv": MEANING, "fhvhv": MEANING}
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
# Accepts 2:52 for 02:52 and " 1" for 01, which are unambiguous.
_TIME = re.compile(
    r"(\d{4})-(\d\d?)-(\d\d?| \d)(?:T|\s+)(\d\d?):(\d\d?)(?::(\d\d?)(?:\.(\d{1,9}))?)?"
    r"(?: ?(?:Z|UTC|[+-]\d\d:?\d\d))?",
    re.ASCII,
)
_MONTH_FIRST = re.compile(r"(\d\d?)/(\d\d?)/(\d{4}) +(\d\d?):(\d\d)(?::(\d\d))?(?: ?([AaPp])[Mm])?", re.ASCII)
_EPOCH = re.compile(r"[1-9]\d{8,9}", re.ASCII)
_NULLS = dict.fromkeys(["nan", "null", "none", "nat", "<na>", r"\n"])
_BOOLEANS = {"true": 1, "false": 0}
_CODES: Mapping[str, Mapping[str, Any]] = {
    "vendor_id": {"cmt": 1, "vts": 2, "dds": 3},
    "payment_type": {
        **dict.fromkeys(["credit", "crd", "cre"], 1), **dict.fromkeys(["cash", "cas", "csh"], 2),
        **dict.fromkeys(["no charge", "no", "noc"], 3), **dict.fromkeys(["dispute", "dis"], 4),
        **dict.fromkeys(["na", "unk", "unknown"], 5),
    },
    "store_and_fwd_flag": {
        **dict.fromkeys(["y", "1", "1.0", "true", "t"], "Y"), **dict.fromkeys(["n", "0", "0.0", "false", "f"], "N"),
    },
}  # fmt: skip
INVALID = object()


@functools.cache
def expected_value(column: str, text: str) -> Any:
    """Return the value of a text in a column, None for a null, or INVALID.

    A time with a zone has its local value. If it means another time, its row must be in quarantine.
    """
    text = text.strip(" \t\"'")
    if not text:
        return None
    if column.endswith("_num"):
        return text
    codes = {**_NULLS, **(_BOOLEANS if _is_whole(column) else {}), **_CODES.get(column, {})}
    if text.lower() in codes:
        return codes[text.lower()]
    if column.endswith("_datetime"):
        return _time(text)
    return _number(column, text)


def _number(column: str, text: str) -> Any:
    if column == "store_and_fwd_flag" or _NUMBER.fullmatch(text) is None:
        return INVALID
    if column.endswith("tude"):
        return float(text)
    number = Decimal(text)
    if _is_whole(column):
        return int(number) if -(2**63) <= number < 2**63 and number == int(number) else INVALID
    quantum = Decimal("0.001" if column == "trip_distance" else "0.01")
    fits = number.adjusted() < 12
    return number.quantize(quantum, ROUND_HALF_UP, Context(prec=10_000)) if fits else INVALID


def _is_whole(column: str) -> bool:
    return column.endswith(("_id", "_count", "_type", "sr_flag"))


def _time(text: str) -> Any:
    try:
        if _EPOCH.fullmatch(text):
            return dt.datetime(1970, 1, 1) + dt.timedelta(seconds=int(text))  # noqa: DTZ001  (local times have no zone)
        if month_first := _MONTH_FIRST.fullmatch(text):
            month, day, year, hour, minute, second, half = month_first.groups(default="0")
            pattern = "%Y-%m-%d %H:%M:%S" if half == "0" else "%Y-%m-%d %I:%M:%S%p"
            half = "" if half == "0" else f"{half}m"
            return dt.datetime.strptime(f"{year}-{month}-{day} {hour}:{minute}:{second}{half}", pattern)  # noqa: DTZ007
        parts = _TIME.fullmatch(text)
        if parts is None:
            return INVALID
        *until_minute, second, fraction = parts.groups(default="0")
        return dt.datetime(*map(int, [*until_minute, second, fraction.ljust(6, "0")[:6]]))  # type: ignore[arg-type]  # noqa: DTZ001
    except ValueError:
        return INVALID


def split_lines(content: bytes) -> list[str]:
    """Return the lines that are not blank, header first. Bytes that are not UTF-8 are escaped."""
    lines = re.split(rb"\r\n|\n|\r", content.removeprefix(b"\xef\xbb\xbf"))
    return [line.decode("utf-8", "backslashreplace") for line in lines if line]


def assert_every_row_is_kept(service: str, content: bytes, cleaned: CleanedMonth) -> None:
    """Assert that each row is clean or quarantined, with the file's values if clean and its text if quarantined."""
    header, *lines = split_lines(content)
    clean = pyarrow.parquet.read_table(cleaned.clean)
    left = pyarrow.parquet.read_table(cleaned.quarantine)
    rows = clean["source_row"].to_pylist()
    assert sorted([*rows, *left["source_row"].to_pylist()]) == list(range(1, len(lines) + 1))
    assert left["original"].to_pylist() == [lines[row - 1] for row in left["source_row"].to_pylist()]

    fields = [lines[row - 1].split(",") for row in rows]
    assert len({len(row) for row in fields}) <= 1
    places: dict[str, list[int]] = {}
    for place, name in enumerate(header.split(",")):
        canonical = _NAMES[service].get(name.strip(" \t\"'\ufeff").lower())
        if canonical is not None:
            places.setdefault(canonical, []).append(place)
    for column in SERVICES[service].published_columns:
        read_from = places.get(column.name, [])
        texts = [[row[place] for place in read_from] for row in fields]
        # If two columns have the same meaning, one is empty or they are equal.
        expected = [next((v for t in row if (v := expected_value(column.name, t)) is not None), None) for row in texts]
        assert clean[column.name].to_pylist() == expected, column.name


# --- download and cleaning --------------------------------------------------------------------------------------------


def fetch_and_clean(path: Path, folder: Path, service: str = "") -> CleanedMonth:
    """Download, validate and clean a file with a published name. Raises only errors of this project."""
    service_in_name, month = service_and_month(path)
    schema = SERVICES[service or service_in_name]
    candidate = SourceUrl(path.as_uri(), "test", format_of(path))
    fetched = download(f"{schema.name} {month}", [candidate], known=None, output_dir=folder, log=LOG)
    assert isinstance(fetched, DownloadedFile)
    return clean_month(fetched.path, fetched.record, schema, month, schema.rules, folder, ANY_FILE)


def error_name(error: TaxiAssetsError, path: Path) -> str:
    """Return the error's class name, after asserting that the error is allowed, is one line and names the month.

    A `ReconciliationError` is allowed only for Parquet, whose footer may state a wrong number of rows.
    """
    service, month = service_and_month(path)
    allowed = (InvalidFileError, ColumnMismatchError, TooManyQuarantinedError, AmbiguousTimesError)
    assert isinstance(error, (*allowed, ReconciliationError) if path.suffix == ".parquet" else allowed), error
    assert str(error).startswith(f"{service} {month}"), error
    assert "\n" not in str(error), error
    return type(error).__name__


def clean_corrupt_csv(path: Path, folder: Path) -> str:
    """Clean a CSV file: return "kept" if every row and value is right, or the name of the error."""
    service, _ = service_and_month(path)
    started = time.process_time()  # CPU time, which does not depend on the load of the machine
    try:
        cleaned = fetch_and_clean(path, folder)
    except TaxiAssetsError as error:
        return error_name(error, path)
    finally:
        assert time.process_time() - started < MAX_CPU_SECONDS
        assert pa.total_allocated_bytes() < 500 << 20
    assert_every_row_is_kept(service, path.read_bytes(), cleaned)
    return "kept"


def corrupt(content: bytes, corruptions: Sequence[Corruption]) -> bytes:
    """Apply corruptions in order."""
    for corruption in corruptions:
        content = corruption.apply(content)
    return content
