"""Trips are matched by value: the order of the files, copies, nulls and the hashes of rows do not change the result."""

from __future__ import annotations

import datetime as dt
import itertools
import random
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

from taxi_assets.storage.revision_comparison import row_matching
from taxi_assets.storage.revision_comparison.row_matching import find_differences, hash_rows, number_equal_rows
from taxi_assets.storage.revision_comparison.row_values import (
    TripRows,
    Values,
    as_text,
    from_integers,
    narrow,
    to_integers,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taxi_assets.storage.revision_comparison.row_matching import Differences, HashRows

Row = tuple[Any, ...]
SCHEMA = pa.schema({"pickup_datetime": pa.int64(), "zone": pa.int64(), "flag": pa.string(), "fare": pa.int64()})
COMPARED, KEY = SCHEMA.names, ["pickup_datetime", "zone"]


def trip_rows(old: Sequence[Row], new: Sequence[Row]) -> TripRows:
    def batches(rows: Sequence[Row]) -> list[pa.RecordBatch]:
        columns = [pa.array([row[place] for row in rows], type_) for place, type_ in enumerate(SCHEMA.types)]
        columns.append(pa.array(range(1, len(rows) + 1)))
        return [pa.RecordBatch.from_arrays(columns, [*SCHEMA.names, "source_row"])] if rows else []

    return TripRows.of(batches(old), batches(new))


def found(old: Sequence[Row], new: Sequence[Row], hash_rows: HashRows = hash_rows) -> list[tuple[Any, Any, int]]:
    """Return the row numbers of each difference in the older and the newer file, and the row count."""
    return shown(find_differences(trip_rows(old, new), COMPARED, KEY, hash_rows))


def shown(differences: Differences) -> list[tuple[Any, Any, int]]:
    numbers = [
        differences.columns["source_row"].take(rows).to_arrow(pa.int64()).to_pylist()
        for rows in (differences.old, differences.new)
    ]
    return [*zip(*numbers, differences.row_count.tolist(), strict=True)]


def row(pickup: int | None = 1, zone: int | None = 2, flag: str | None = "Y", fare: int | None = 10) -> Row:
    return pickup, zone, flag, fare


def test_a_row_inserted_at_the_start_is_the_only_difference() -> None:
    rows = [row(pickup=number // 3, fare=number % 2) for number in range(60)]
    assert found(rows, [row(fare=99), *rows]) == [(None, 1, 1)]
    assert found([row(fare=99), *rows], rows) == [(1, None, 1)]


def test_shuffled_rows_are_equal_except_for_those_that_differ() -> None:
    rows = [row(pickup=number // 3, zone=number % 7, fare=number % 2) for number in range(50_000)]
    shuffled = random.Random(1).sample(rows, len(rows))  # noqa: S311
    assert found(rows, shuffled) == []
    place = shuffled.index(rows[12_345])
    shuffled[place] = (*rows[12_345][:3], 7)
    ((old, new, count),) = found(rows, shuffled)
    assert (rows[old - 1], shuffled[new - 1], count) == (rows[12_345], shuffled[place], 1)


@pytest.mark.parametrize("pickup", [None, 1])
@pytest.mark.parametrize("zone", [None, 0, 2])
def test_null_equals_null_and_no_other_value(pickup: int | None, zone: int | None) -> None:
    trips = [row(pickup, zone, flag, fare) for flag in (None, "", "Y") for fare in (None, 0)]
    assert found(trips, trips[::-1]) == []
    for changed in trips[1:]:
        assert found([trips[0]], [changed]) == [(1, 1, 1)]
    assert found([row(zone=None)], [row(zone=0)]) == [(None, 1, 1), (1, None, 1)]


def test_the_last_copies_cancel_first_so_that_the_first_row_is_named() -> None:
    copy, other = row(), row(fare=11)
    assert found([copy, other, copy, copy], [copy]) == [(1, None, 2), (2, None, 1)]
    unrelated = row(zone=9)
    assert found([unrelated, other, copy, copy], [copy, unrelated]) == [(2, None, 1), (3, None, 1)]
    # The first row of the older file that remains pairs with the first one of the newer file.
    assert found([copy, other, copy], [row(fare=20), copy, row(fare=30), row(fare=20)]) == [
        (1, 1, 1), (2, 1, 1), (None, 3, 1),
    ]  # fmt: skip


def test_copies_of_a_pair_are_counted() -> None:
    assert found([row()] * 3, [row(fare=20)] * 2) == [(1, 1, 2), (1, None, 1)]


# --- different rows with the same hash --------------------------------------------------------------------------------


def few_hashes(columns: Sequence[Values]) -> Any:
    return hash_rows(columns) % np.uint64(3)


def one_hash(columns: Sequence[Values]) -> Any:
    return np.zeros(len(columns[0].numbers), np.uint64)


@pytest.mark.parametrize("hashes", [few_hashes, one_hash])
def test_different_rows_with_the_same_hash_never_cancel(hashes: HashRows) -> None:
    random_values = random.Random(2)  # noqa: S311
    some = [row(*each) for each in itertools.product([None, 1, 2], [None, 0], [None, "", "Y"], [0, 1])]
    for _ in range(50):
        old, new = (random_values.choices(some, k=random_values.randrange(1, 12)) for _ in range(2))
        assert found(old, new, hashes) == found(old, new)


def test_equal_rows_are_numbered_without_hashes_only_if_hashes_are_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = [Values(np.array([5, 6, 5]), None), Values(np.array([0, 0, 0]), np.array([False, True, False]))]
    first, second, third = number_equal_rows(columns, one_hash).tolist()
    assert first == third != second
    monkeypatch.setattr(row_matching, "_number_without_hashes", None)
    first, second, third = number_equal_rows(columns).tolist()
    assert first == third != second


# --- values as integers -----------------------------------------------------------------------------------------------

VALUES = [
    pa.array([Decimal("-1.50"), None, Decimal("9999999999.99"), Decimal(0)], pa.decimal128(12, 2)),
    pa.array([Decimal("0.001"), None, Decimal("-999999999.999")], pa.decimal128(12, 3)),
    pa.array([-73.98, None, 1.0, 1e-5, 40.123456789012344]),
    pa.array([-86_400_000_000, None, 1_614_859_261_500_000, 1_614_816_000_000_000]).cast(pa.timestamp("us")),
    pa.array([dt.date(1969, 12, 31), None, dt.date(2021, 3, 4)]),
    pa.array([True, None, False]),
    pa.array(["Y", None, "", "é"]),
    pa.array([1, None, -129, 1 << 62]),
    pa.array([None, None], pa.int64()),
]


@pytest.mark.parametrize("values", VALUES, ids=lambda values: str(values.type))
def test_values_are_kept_as_integers(values: pa.Array) -> None:
    for part in (values, values.slice(1), values.slice(1, 1)):
        kept = Values.of([narrow(to_integers(part), pa.int8())])
        assert kept.to_arrow(values.type).equals(part)
        assert Values.of([to_integers(part)] * 2).to_arrow(values.type).equals(pa.concat_arrays([part, part]))


def test_equal_numbers_have_the_same_integer() -> None:
    zero, negative_zero, nan, negative_nan = to_integers(pa.array([0.0, -0.0, float("nan"), -float("nan")])).to_pylist()
    assert zero == negative_zero != nan == negative_nan
    assert from_integers(pa.array([zero]), pa.float64()).to_pylist() == [0.0]


def test_values_are_shown_like_in_duckdb() -> None:
    duckdb = pytest.importorskip("duckdb")
    for values in VALUES:
        table = pa.table({"value": values})
        expected = [text for (text,) in duckdb.from_arrow(table).project("value::VARCHAR").fetchall()]
        assert as_text(Values.of([to_integers(values)]), values.type).to_pylist() == expected
