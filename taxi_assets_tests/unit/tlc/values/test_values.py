"""Published values: what each means, or that it cannot be read, whatever other rows hold."""

from __future__ import annotations

import datetime as dt
import random
import time
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taxi_assets.tlc.schema import Column, ColumnType
from taxi_assets.tlc.services import street_hail
from taxi_assets.tlc.services.fhvhv import FHVHV
from taxi_assets.tlc.values.parse_column import parse_column
from taxi_assets.tlc.values.working_types import to_canonical

if TYPE_CHECKING:
    from collections.abc import Sequence

COUNT = street_hail.PASSENGER_COUNT
MONEY = street_hail.FARE_AMOUNT
MILES = street_hail.TRIP_DISTANCE
DEGREES = street_hail.COORDINATES[0]
TIME, _ = street_hail.pickup_and_dropoff("tpep")
VENDOR = street_hail.VENDOR_ID
PAYMENT = street_hail.PAYMENT_TYPE
FLAG = street_hail.STORE_AND_FWD_FLAG
FHVHV_FLAG = next(column for column in FHVHV.columns if column.name == "shared_request_flag")
NUMBERED = Column("numbered", ColumnType.INTEGER, "Codes that are numbers.", codes={"1": 10, "2": 20})
NOTE = Column("note", ColumnType.TEXT, "Any text.")
UNREADABLE = "unreadable"
at = dt.datetime.fromisoformat


def read(column: Column, published: Any) -> list[Any]:
    """Return the values, with `UNREADABLE` where a value could not be read."""
    working, unreadable, _ = parse_column(column, published)
    assert working.type == column.type.working_type
    values = to_canonical(working)
    assert values.type == column.type.arrow_type
    assert len(values) == len(published)
    marks = [False] * len(values) if unreadable is None else unreadable.to_pylist()
    assert len(marks) == len(values)
    assert not any(mark and value is not None for mark, value in zip(marks, values.to_pylist(), strict=True))
    return [UNREADABLE if mark else value for mark, value in zip(marks, values.to_pylist(), strict=True)]


def texts(values: Sequence[str | None]) -> Any:
    return pa.array(values, pa.string())


# --- text ------------------------------------------------------------------------------------------------------------

EMPTY = {None: None, "": None, " ": None, '""': None, "\t ' ": None}
NULLS: dict[str | None, Any] = dict.fromkeys(
    ["NaN", "nan", "NULL", "null", "None", "\\N", "NaT", "<NA>", " NaN ", '"NULL"'], None
)  # fmt: skip
NO_NUMBER = [
    "x", "-", ".", "+", "1 000", "1,5", "1_000", "0x1F", "0X1f", "1e", "e5", "--1", "1-", "٣",
    "5\x0c", "\x0b5", "5\x1f",
    "\N{FULLWIDTH DIGIT ONE}", "½", "N/A", "-nan", "\\n", "NaN1", "nan(ind)", "inf", "-Infinity",
    "infinity", "1\x00", "7\u00a0",
]  # fmt: skip
COUNTS: dict[str | None, Any] = {
    **EMPTY,
    **NULLS,
    **dict.fromkeys(NO_NUMBER, UNREADABLE),
    "7": 7, "-7": -7, "+3": 3, "0": 0, "-0": 0, " 7 ": 7, '"7"': 7, "'7'": 7, "7\t": 7, "007": 7, "0" * 30 + "7": 7,
    "True": 1, "false": 0, "TRUE": 1, "t": UNREADABLE,
    "1.0": 1, "1.": 1, "-1.000": -1, "+2.0": 2, '"3.0"': 3,
    "1.5": UNREADABLE, ".5": UNREADABLE, ".0": UNREADABLE, "1.0000000000000000001": UNREADABLE,
    "0.99999999999999999999": UNREADABLE, "1e3": UNREADABLE, "1E0": UNREADABLE, "1.0e0": UNREADABLE,
    "123456789012345678": 123456789012345678, "9007199254740993": 2**53 + 1, "9007199254740993.0": 2**53 + 1,
    "9223372036854775807": 2**63 - 1, "-9223372036854775807": 1 - 2**63, "9223372036854775807.0": 2**63 - 1,
    "9223372036854775808": UNREADABLE, "99999999999999999999": UNREADABLE, "9" * 5000: UNREADABLE,
}  # fmt: skip
AMOUNTS: dict[str | None, Any] = {
    **EMPTY,
    **NULLS,
    **dict.fromkeys(NO_NUMBER, UNREADABLE),
    "7": Decimal("7.00"), "-7.5": Decimal("-7.50"), "+3": Decimal("3.00"), "-0": Decimal("0.00"),
    ".50": Decimal("0.50"), "-.5": Decimal("-0.50"), "1.": Decimal("1.00"), " 7 ": Decimal("7.00"),
    '"7.25"': Decimal("7.25"),
    "1e3": Decimal("1000.00"), "1.5E-1": Decimal("0.15"), "1e-400": Decimal("0.00"), "0e50": Decimal("0.00"),
    "2.6299999999999999": Decimal("2.63"), "8.9000000000000004": Decimal("8.90"),
    # Halves are rounded away from zero by the published digits. As doubles, most of these are below the half.
    "1.005": Decimal("1.01"), "-1.005": Decimal("-1.01"), "2.675": Decimal("2.68"), "-2.675": Decimal("-2.68"),
    "0.005": Decimal("0.01"), "-0.005": Decimal("-0.01"), "0.0049999": Decimal("0.00"), "-0.0049999": Decimal("0.00"),
    "1.00499999999999999999999": Decimal("1.00"), "1.00500000000000000000001": Decimal("1.01"),
    "0.125": Decimal("0.13"), "4.35": Decimal("4.35"), "1.115": Decimal("1.12"), "1234567.445": Decimal("1234567.45"),
    "9999999999.99": Decimal("9999999999.99"), "-9999999999.99": Decimal("-9999999999.99"),
    "9999999999.994": Decimal("9999999999.99"), "9999999999.995": UNREADABLE, "-9999999999.995": UNREADABLE,
    "10000000000": UNREADABLE, "1e10": UNREADABLE, "1e308": UNREADABLE, "1e400": UNREADABLE, "1" * 400: UNREADABLE,
}  # fmt: skip
DISTANCES: dict[str | None, Any] = {
    **EMPTY,
    **NULLS,
    ".00": Decimal("0.000"), "2.6299999999999999": Decimal("2.630"), "0.0005": Decimal("0.001"),
    "-0.0005": Decimal("-0.001"), "1.0005": Decimal("1.001"), "500.0004": Decimal("500.000"),
    "224481.36": Decimal("224481.360"), "999999999.999": Decimal("999999999.999"), "999999999.9995": UNREADABLE,
    "1e9": UNREADABLE, "True": UNREADABLE,
}  # fmt: skip
POSITIONS: dict[str | None, Any] = {
    **EMPTY,
    **NULLS,
    **dict.fromkeys(NO_NUMBER, UNREADABLE),
    "-73.991956999999999": -73.991957, "40.721567": 40.721567, "0": 0.0, " 7 ": 7.0, '"7"': 7.0, "+3": 3.0, "1e1": 10.0,
    "1e308": 1e308, "1e400": UNREADABLE, "-1e400": UNREADABLE,
}  # fmt: skip
TIMES: dict[str | None, Any] = {
    **EMPTY,
    **NULLS,
    "2021-01-31 23:59:59": at("2021-01-31 23:59:59"),
    "2021-01-31T23:59:59": at("2021-01-31 23:59:59"),
    "2021-01-31 23:59": at("2021-01-31 23:59"),
    "2021-01-31 23:59:59.5": at("2021-01-31 23:59:59.500000"),
    "2021-01-31 23:59:59.000000": at("2021-01-31 23:59:59"),
    "2021-01-31 23:59:59.999999": at("2021-01-31 23:59:59.999999"),
    ' "2021-01-31 23:59:59" ': at("2021-01-31 23:59:59"),
    "2020-02-29 00:00:00": at("2020-02-29"),
    "2000-02-29 00:00:00": at("2000-02-29"),
    "2021-1-3 9:05:07": at("2021-01-03 09:05:07"),
    "0001-01-01 00:00:00": at("0001-01-01"),
    "9999-12-31 23:59:59": at("9999-12-31 23:59:59"),
    **dict.fromkeys(
        [
            "2021-01-31", "2021-01-31 ", "2021-01-31 23", "2021-01-31      ", "23:59:59", "2021-01-31 24:00:00",
            "2021-01-31 23:60:00", "2021-01-31 23:59:60", "2021-02-29 00:00:00", "1900-02-29 00:00:00",
            "2021-13-01 00:00:00", "2021-00-01 00:00:00", "2021-01-00 00:00:00", "0000-01-01 00:00:00",
            "10000-01-01 00:00:00", "-001-01-01 00:00:00", "2021-01-31 23:59:59.", "2021-01-31 235959",
            "2021-01-31t23:59:59", "2021-01-31 11:59:59 PM", "٢021-01-31 23:59:59",
            "2021-01-31 23:59:59 x", "now", "0x1F", "2021-01-31TT23:59:59", "2021-01-31 23:59:59.1234567890",
            "2021-01-31 24:00", "2021-01-31 9", "2021-01-31T", "20210131235959", "2021-01-31 23:59:59" + " " * 60 + "Z",
        ],
        UNREADABLE,
    ),
}  # fmt: skip
VENDORS: dict[str | None, Any] = {
    **EMPTY,
    **NULLS,
    "CMT": 1, "cmt": 1, " VTS ": 2, '"DDS"': 3, "1": 1, "2.0": 2, "+6": 6, "ACME": UNREADABLE, "1.5": UNREADABLE,
    "1e0": UNREADABLE, "0x1": UNREADABLE, "CMT VTS": UNREADABLE, "٣": UNREADABLE,
}  # fmt: skip
PAYMENTS: dict[str | None, Any] = {
    **NULLS,
    "CASH": 2, "Cash": 2, "CRD": 1, "Cre": 1, "Credit": 1, "No ": 3, "No Charge": 3, "NA ": 5, "Dispute": 4, "0": 0,
    "1": 1, "Voucher": UNREADABLE, "": None, None: None,
}  # fmt: skip
FLAGS: dict[str | None, Any] = {
    **NULLS, "True": "Y", "FALSE": "N", "t": "Y", "F": "N",
    "Y": "Y", "n": "N", "0": "N", "1": "Y", "1.0": "Y", "0.0": "N", '"N"': "N", "": None, " ": None, None: None,
    "2": UNREADABLE, "yes": UNREADABLE, "*": UNREADABLE,
}  # fmt: skip
NOTES: dict[str | None, Any] = {
    **EMPTY, "NULL": "NULL", "NaN": "NaN", "None": "None", "\\N": "\\N", "True": "True",
    " EWR ": "EWR", "Newark's": "Newark's", "N/A": "N/A", '"a b"': "a b",
}  # fmt: skip

TABLES = {
    "count": (COUNT, COUNTS),
    "money": (MONEY, AMOUNTS),
    "miles": (MILES, DISTANCES),
    "degrees": (DEGREES, POSITIONS),
    "time": (TIME, TIMES),
    "vendor": (VENDOR, VENDORS),
    "payment": (PAYMENT, PAYMENTS),
    "flag": (FLAG, FLAGS),
    "note": (NOTE, NOTES),
}
CASES = [
    pytest.param(column, text, value, id=f"{name} {text!r:.40}")
    for name, (column, table) in TABLES.items()
    for text, value in table.items()
]


@pytest.mark.parametrize(("column", "text", "value"), CASES)
def test_a_text_is_read_as_a_value_or_marked_unreadable(column: Column, text: str | None, value: Any) -> None:
    assert read(column, texts([text])) == [value]


@pytest.mark.parametrize("kind", TABLES)
def test_good_and_bad_texts_are_read_together_as_they_are_alone(kind: str) -> None:
    column, table = TABLES[kind]
    shuffled = random.Random(kind).sample(list(table), len(table))  # noqa: S311  (no secret)
    assert read(column, texts(shuffled)) == [table[text] for text in shuffled]


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("type_", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())])
def test_every_arrow_text_type_is_read_the_same_way(kind: str, type_: Any) -> None:
    column, table = TABLES[kind]
    assert read(column, texts(list(table)).cast(type_)) == list(table.values())


NUMBERS = st.one_of(
    st.decimals(-(10**11), 10**11, places=5).map(str),
    st.floats().map(repr),
    st.integers(-(2**64), 2**64).map(str),
    st.integers(-3, 30_000).map(lambda thousandths: str(Decimal(thousandths) / 1000)),
    st.from_regex(r"[+-]?[0-9]{0,20}\.?[0-9]{0,20}([eE][+-]?[0-9]{1,3})?", fullmatch=True),
)
NEARLY_TIMES = st.one_of(
    st.datetimes().map(str),
    st.datetimes().map(dt.datetime.isoformat),
    st.from_regex(r"[0-9]{4}-[01]?[0-9]-[0-3]?[0-9][ T][0-2]?[0-9]:[0-6]?[0-9](:[0-6][0-9])?(\.[0-9]{0,7})?Z?"),
)
ANY_TEXT = st.one_of(
    st.none(),
    st.sampled_from([text for _, table in TABLES.values() for text in table]),
    st.text(st.characters(codec="utf-8"), max_size=12),
    NUMBERS,
    NEARLY_TIMES,
)


@pytest.mark.parametrize("kind", TABLES)
@settings(max_examples=25)
@given(st.lists(ANY_TEXT, min_size=1, max_size=20))
def test_a_value_never_depends_on_other_rows(kind: str, values: list[str | None]) -> None:
    column, _ = TABLES[kind]
    assert read(column, texts(values)) == [read(column, texts([value]))[0] for value in values]


@settings(max_examples=30)
@given(st.lists(NUMBERS))
def test_amounts_are_rounded_like_decimals(values: list[str]) -> None:
    def rounded(value: str) -> Any:
        try:
            exact = Decimal(value)
        except ArithmeticError:
            return UNREADABLE if value else None
        if not exact.is_finite() or abs(exact) > 10**10:
            return UNREADABLE
        amount = exact.quantize(Decimal("0.01"), ROUND_HALF_UP)
        return amount if abs(amount) < 10**10 else UNREADABLE

    assert read(MONEY, texts(values)) == [rounded(value) for value in values]


@settings(max_examples=30)
@given(st.datetimes())
def test_every_time_is_read_to_the_microsecond(local: dt.datetime) -> None:
    assert read(TIME, texts([str(local), local.isoformat(), "no time"])) == [local, local, UNREADABLE]


def test_a_few_bad_texts_among_very_many_are_found() -> None:
    values: list[str | None] = [f"{cents / 100:.2f}" for cents in range(50_000)]
    expected: list[Any] = [Decimal(cents) / 100 for cents in range(50_000)]
    for index, bad in {0: "x", 777: "-nan", 25_000: "1_0", 49_999: "0x1F"}.items():
        values[index], expected[index] = bad, UNREADABLE
    assert read(MONEY, texts(values)) == expected


@pytest.mark.parametrize(
    ("column", "text"),
    [
        (TIME, "{0}/{0}/2021 {0}:00"), (TIME, "2021-03-01 {1}:36"), (TIME, "2021-03-01T0{1}:36:54.123456789Z"),
        (MONEY, "${0}"), (MONEY, "{0}.005"), (MONEY, "{0}e-1"), (COUNT, "{0}.5"), (DEGREES, "x{0}"), (VENDOR, "v{0}"),
    ],
)  # fmt: skip
def test_columns_of_unusual_texts_take_no_more_than_a_few_microseconds_per_text(column: Column, text: str) -> None:
    published = texts([text.format(number, number % 10) for number in range(50_000)])
    started = time.process_time()  # CPU time, which does not depend on the load of the machine
    parse_column(column, published)
    # Converting them one by one, or by bisection, took 4 to 15 seconds.
    assert time.process_time() - started < 1.5


@pytest.mark.parametrize("kind", TABLES)
def test_an_empty_array_is_parsed_to_an_empty_array(kind: str) -> None:
    column, _ = TABLES[kind]
    assert read(column, texts([])) == []
    assert read(column, pa.nulls(3)) == [None, None, None]


def test_a_slice_is_parsed_without_the_values_around_it() -> None:
    values = texts(["x", "1.005", None, "2.675", "nan"])
    assert read(MONEY, values.slice(1, 3)) == [Decimal("1.01"), None, Decimal("2.68")]
    floats = pa.array([np.nan, 1.005, None, 2.675, np.inf]).slice(1, 3)
    assert read(MONEY, floats) == [Decimal("1.01"), None, Decimal("2.68")]


# --- typed values ----------------------------------------------------------------------------------------------------

NOON = at("2023-01-31 12:00")
US, NS, SECONDS = pa.timestamp("us"), pa.timestamp("ns"), pa.timestamp("s")
MICROSECONDS_TO_YEAR_10000 = 253_402_300_800_000_000
NATIVE: list[tuple[Column, Any, list[Any], list[Any]]] = [
    (COUNT, pa.int32(), [1, None, -1], [1, None, -1]),
    (COUNT, pa.uint64(), [1, 2**63, 2**64 - 1], [1, UNREADABLE, UNREADABLE]),
    (COUNT, pa.float64(), [1.0, None, np.nan, -0.0], [1, None, None, 0]),
    (COUNT, pa.float64(), [1e15, 2.0**52, 1.5, np.inf, 1e300], [10**15, 2**52, UNREADABLE, UNREADABLE, UNREADABLE]),
    (COUNT, pa.float32(), [3.0, 3.5], [3, UNREADABLE]),
    (COUNT, pa.decimal128(10, 2), [Decimal("3.00"), Decimal("3.50")], [3, UNREADABLE]),
    (COUNT, pa.bool_(), [True, False, None], [1, 0, None]),
    (MONEY, pa.float64(), [1.005, -1.005, 2.675, 0.1 + 0.2], [Decimal(x) for x in ("1.01", "-1.01", "2.68", "0.30")]),
    (MONEY, pa.float64(), [np.nan, None, -0.0], [None, None, Decimal("0.00")]),
    (MONEY, pa.float64(), [1.0, np.inf, 1e308, 1e10], [Decimal(1), UNREADABLE, UNREADABLE, UNREADABLE]),
    (MONEY, pa.int64(), [7, -7, None], [Decimal(7), Decimal(-7), None]),
    (MONEY, pa.int64(), [7, 10**10, -(2**63)], [Decimal(7), UNREADABLE, UNREADABLE]),
    (MONEY, pa.uint64(), [7, 2**64 - 1], [Decimal(7), UNREADABLE]),
    (
        MONEY,
        pa.decimal128(10, 4),
        [Decimal("1.0050"), Decimal("-1.0050"), None],
        [*map(Decimal, ("1.01", "-1.01")), None],
    ),
    (MONEY, pa.decimal256(40, 4), [Decimal("1.0050"), Decimal(10) ** 20], [Decimal("1.01"), UNREADABLE]),
    (MILES, pa.float64(), [0.0005, 2.63, 1e9], [Decimal("0.001"), Decimal("2.630"), UNREADABLE]),
    (DEGREES, pa.float64(), [-73.99, np.nan, None], [-73.99, None, None]),
    (DEGREES, pa.float64(), [40.7, np.inf], [40.7, UNREADABLE]),
    (DEGREES, pa.int64(), [-73, 2**53 + 1], [-73.0, UNREADABLE]),
    (TIME, US, [NOON, None], [NOON, None]),
    (TIME, SECONDS, [NOON, None], [NOON, None]),
    # A value with nanoseconds does not change how the others are read.
    (TIME, NS, [NOON, np.datetime64("2023-01-31T12:00:00.000000999", "ns")], [NOON, NOON]),
    (TIME, US, [0, MICROSECONDS_TO_YEAR_10000], [at("1970-01-01"), UNREADABLE]),
    (TIME, US, [0, -(2**63) + 1, 2**63 - 1], [at("1970-01-01"), UNREADABLE, UNREADABLE]),
    (TIME, SECONDS, [0, 2**62], [at("1970-01-01"), UNREADABLE]),
    (TIME, pa.date32(), [dt.date(2023, 1, 31), None], [UNREADABLE, None]),
    (TIME, pa.int64(), [0, -1, 20210131, 2**62, None], [UNREADABLE, UNREADABLE, UNREADABLE, UNREADABLE, None]),
    (TIME, pa.uint64(), [2**64 - 1], [UNREADABLE]),
    (TIME, pa.bool_(), [True, None], [UNREADABLE, None]),
    (MONEY, pa.bool_(), [True, None], [UNREADABLE, None]),
    (COUNT, pa.int64(), [-(2**63), 2**63 - 1], [-(2**63), 2**63 - 1]),
    (MONEY, pa.int64(), [10**10 - 1, 10**10, -(10**10), None], [Decimal(10**10 - 1), UNREADABLE, UNREADABLE, None]),
    (TIME, pa.string(), ["2023-01-31 12:00:00", "x"], [NOON, UNREADABLE]),
    (VENDOR, pa.int32(), [1, 6], [1, 6]),
    (VENDOR, pa.large_string(), ["CMT", "2", "x"], [1, 2, UNREADABLE]),
    (FLAG, pa.int64(), [0, 1, 2, None], ["N", "Y", UNREADABLE, None]),
    (FLAG, pa.float64(), [0.0, 1.0, None], ["N", "Y", None]),
    (FLAG, pa.bool_(), [True, False, None], ["Y", "N", None]),
    (FHVHV_FLAG, pa.bool_(), [True, False, None], ["Y", "N", None]),
    (FHVHV_FLAG, pa.string(), ["Y", "False", "t", "0", "NULL", " "], ["Y", "N", "Y", "N", None, None]),
    (NUMBERED, pa.int64(), [1, 2, 3, None], [10, 20, 3, None]),
    (NUMBERED, pa.string(), ["1", "2", "3", "NaN"], [10, 20, 3, None]),
    (NUMBERED, pa.bool_(), [True, None], [10, None]),
    *(
        (column, pa.struct([("a", pa.int64())]), [{"a": 1}, None], [UNREADABLE, None])
        for column in (COUNT, MONEY, TIME, DEGREES, FLAG, VENDOR, NOTE)
    ),
    (FLAG, pa.binary(), [b"\xff", None], [UNREADABLE, None]),
    (MONEY, pa.list_(pa.float64()), [[1.0], None], [UNREADABLE, None]),
    (MONEY, pa.timestamp("us"), [NOON, None], [UNREADABLE, None]),
]


@pytest.mark.parametrize(
    ("column", "type_", "values", "expected"), NATIVE, ids=[f"{c.name} {t} {v!s:.40}" for c, t, v, _ in NATIVE]
)
def test_a_typed_value_is_read_with_others_as_it_is_alone(
    column: Column, type_: Any, values: list[Any], expected: list[Any]
) -> None:
    published = pa.array(values, type_)
    assert read(column, published) == expected
    assert [read(column, published[index : index + 1])[0] for index in range(len(values))] == expected


@pytest.mark.parametrize("column", [COUNT, MONEY, MILES, DEGREES], ids=lambda column: column.name)
@settings(max_examples=30)
@given(st.lists(st.one_of(st.none(), st.floats(), st.integers(-9, 9).map(float), st.floats(-1e9, 1e9)), min_size=1))
def test_a_double_never_depends_on_other_rows(column: Column, values: list[float | None]) -> None:
    published = pa.array(values, pa.float64())
    assert read(column, published) == [read(column, published[i : i + 1])[0] for i in range(len(values))]


@settings(max_examples=30)
@given(st.lists(st.integers(-(10**9), 10**9)))
def test_a_double_made_from_a_decimal_is_read_as_that_decimal(thousandths: list[int]) -> None:
    exact = [Decimal(value) / 1000 for value in thousandths]
    floats = pa.array([float(value) for value in exact], pa.float64())
    assert read(MILES, floats) == exact
    assert read(MONEY, floats) == [value.quantize(Decimal("0.01"), ROUND_HALF_UP) for value in exact]


def test_a_charge_and_its_reversal_cancel() -> None:
    values = [f"{cents / 1000:.3f}" for cents in range(20_000)]
    charges = read(MONEY, texts(values))
    assert read(MONEY, texts([f"-{value}" for value in values])) == [-charge for charge in charges]
