"""Real files spoilt, and a second reading of whatever they then say: what `test_bad_data.py` is made of.

The reading goes by Python's own means, line by line and value by value, and imports nothing that reads files. A file is
taken as the platform takes it: fetched from a folder, verified, cleaned.
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
from taxi_assets_tests.trip_files import LAYOUTS, format_of, service_and_month, service_of
from taxi_assets_tests.unit.tlc.services.test_for_hire import MEANING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from taxi_assets.tlc.cleaning.clean_month import CleanedMonth

LOG = logging.getLogger("bad data")
LONGEST_SECONDS = 30.0
"""A file that takes longer hangs; these take hundredths of a second."""

# --- spoiling ---------------------------------------------------------------------------------------------------------

ABSURD = [
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
BYTES = [
    b'"', b'"\n', b',"', b"\r", b"\n", b"\r\n", b"\n\n", b"\r\r\n", b",", b",,", b"\x00", b"\xff", b"\xfe\xff", b"\xc3",
    b"\xc3\x28",
    b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xef\xbb\xbf", b"\xe2\x82", b"\\", b"\x1f\x8b", b"PAR1", b"#", b";", b"\t",
]  # fmt: skip


@dataclass(frozen=True)
class Spoiling:
    """One change to a file's bytes: `how`, at which share of its length, over how many bytes, with what put in.

    A negative share is one of the first line, others are of all that follows.
    """

    how: str
    place: float
    length: int
    put: bytes

    def apply(self, content: bytes) -> bytes:
        header = content.find(b"\n") + 1
        start = int(-self.place * header if self.place < 0 else header + self.place * (len(content) - header))
        put, end = self.put, start
        match self.how:
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
            case "field":  # the next one
                field = re.compile(rb"(?<=,)[^,\r\n]*(?=[,\r\n])").search(content, start)
                start, end = field.span() if field else (len(content), len(content))
        return content[:start] + put + content[end:]


def _spoilings(hows: Sequence[str], puts: st.SearchStrategy[bytes], *, in_header: bool = False) -> Any:
    return st.builds(
        Spoiling,
        st.sampled_from(hows),
        st.integers(0, 999).map(lambda place: (place - 1000) / 1000 if in_header else place / 1000),
        st.sampled_from([1, 2, 7, 40, 100, 1000, 5000]),
        puts,
    )


_NOTHING = st.just(b"")
_BYTES = st.sampled_from(BYTES) | st.binary(max_size=20)
_IN_ROWS = st.one_of(
    _spoilings(["field"], st.sampled_from(ABSURD).map(str.encode)),
    _spoilings(["put in", "overwrite", "field"], _BYTES),
    _spoilings(["cut out", "double", "flip a bit"], _NOTHING),
)
_ANYWHERE = st.one_of(
    _spoilings(["cut off"], _NOTHING),
    _spoilings(["put in", "overwrite", "field"], _BYTES, in_header=True),
    _spoilings(["cut out", "double", "flip a bit"], _NOTHING, in_header=True),
)
SPOILINGS = st.sampled_from([_IN_ROWS] * 19 + [_ANYWHERE]).flatmap(lambda one: one)


# --- a second reading -------------------------------------------------------------------------------------------------

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
# As in 2:52 or " 1" for 02:52 or 01, which nobody takes for anything else.
_TIME = re.compile(r"(\d{4})-(\d\d?)-(\d\d?| \d)(?:T|\s+)(\d\d?):(\d\d?)(?::(\d\d?)(?:\.(\d{1,6}))?)?", re.ASCII)
_CODES: Mapping[str, Mapping[str, Any]] = {
    "vendor_id": {"cmt": 1, "vts": 2, "dds": 3},
    "payment_type": {
        **dict.fromkeys(["credit", "crd", "cre"], 1), **dict.fromkeys(["cash", "cas", "csh"], 2),
        **dict.fromkeys(["no charge", "no", "noc"], 3), **dict.fromkeys(["dispute", "dis"], 4),
        **dict.fromkeys(["na", "unk", "unknown"], 5),
    },
    "store_and_fwd_flag": {"y": "Y", "n": "N", "1": "Y", "0": "N", "1.0": "Y", "0.0": "N"},
}  # fmt: skip
UNREADABLE = object()


@functools.cache
def reading(column: str, text: str) -> Any:
    """What a text means in a column, or that it means nothing."""
    text = text.strip(" \t\"'")
    if not text:
        return None
    if text.lower() in _CODES.get(column, {}):
        return _CODES[column][text.lower()]
    if column.endswith("_num"):
        return text
    if column.endswith("_datetime"):
        return _time(text)
    return _number(column, text)


def _number(column: str, text: str) -> Any:
    if column == "store_and_fwd_flag" or _NUMBER.fullmatch(text) is None:
        return UNREADABLE
    if column.endswith("tude"):
        return float(text)
    number = Decimal(text)
    if column.endswith(("_id", "_count", "_type", "sr_flag")):
        return int(number) if -(2**63) <= number < 2**63 and number == int(number) else UNREADABLE
    quantum = Decimal("0.001" if column == "trip_distance" else "0.01")
    fits = number.adjusted() < 12
    return number.quantize(quantum, ROUND_HALF_UP, Context(prec=10_000)) if fits else UNREADABLE


def _time(text: str) -> Any:
    parts = _TIME.fullmatch(text)
    if parts is None:
        return UNREADABLE
    *until_minute, second, fraction = parts.groups(default="0")
    try:
        return dt.datetime(*map(int, [*until_minute, second, fraction.ljust(6, "0")]))  # type: ignore[arg-type]  # noqa: DTZ001  (local times have no zone)
    except ValueError:
        return UNREADABLE


def lines_of(content: bytes) -> list[str]:
    """The lines that are not blank, header first; bytes that are not UTF-8 are escaped."""
    lines = re.split(rb"\r\n|\n|\r", content.removeprefix(b"\xef\xbb\xbf"))
    return [line.decode("utf-8", "backslashreplace") for line in lines if line]


def assert_every_row_is_kept(service: str, content: bytes, made: CleanedMonth) -> None:
    """Each row is on one side; what is clean says what the file says, what is not has its text."""
    header, *lines = lines_of(content)
    clean = pyarrow.parquet.read_table(made.clean)
    left = pyarrow.parquet.read_table(made.quarantine)
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
        # Of two columns with the same meaning, one is empty, or they agree.
        expected = [next((v for t in row if (v := reading(column.name, t)) is not None), None) for row in texts]
        assert clean[column.name].to_pylist() == expected, column.name


# --- taking it in -----------------------------------------------------------------------------------------------------


def take_in(path: Path, folder: Path, service: str = "") -> CleanedMonth:
    """Fetch, verify and clean a file that stands under its published name; raises one of the project's errors."""
    named, month = service_and_month(path)
    known = SERVICES[service or named]
    candidate = SourceUrl(path.as_uri(), "test", format_of(path))
    fetched = download(f"{known.name} {month}", [candidate], known=None, output_dir=folder, log=LOG)
    assert isinstance(fetched, DownloadedFile)
    return clean_month(fetched.path, fetched.record, known, month, known.rules, folder)


def refusal_of(error: TaxiAssetsError, path: Path) -> str:
    """What kind of error it is; it names the file, in one line.

    Rows that do not add up are the reader's fault, unless Parquet's footer has lied about them.
    """
    service, month = service_and_month(path)
    named = (InvalidFileError, ColumnMismatchError, TooManyQuarantinedError)
    assert isinstance(error, (*named, ReconciliationError) if path.suffix == ".parquet" else named), error
    assert str(error).startswith(f"{service} {month}"), error
    assert "\n" not in str(error), error
    return type(error).__name__


def try_csv(path: Path, folder: Path) -> str:
    """Take a CSV in: "kept" with every row and value right, or the kind of the one error."""
    service, _ = service_and_month(path)
    started = time.process_time()  # of the CPU: a busy machine makes it no longer
    try:
        made = take_in(path, folder)
    except TaxiAssetsError as error:
        return refusal_of(error, path)
    finally:
        assert time.process_time() - started < LONGEST_SECONDS
        assert pa.total_allocated_bytes() < 500 << 20
    assert_every_row_is_kept(service, path.read_bytes(), made)
    return "kept"


def spoil(content: bytes, spoilings: Sequence[Spoiling]) -> bytes:
    """Apply one after the other."""
    for spoiling in spoilings:
        content = spoiling.apply(content)
    return content
