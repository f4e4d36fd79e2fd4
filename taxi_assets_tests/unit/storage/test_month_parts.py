"""Months are divided by pickup time, and each part is read as it was written."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from taxi_assets.storage.revision_comparison import month_parts
from taxi_assets.storage.revision_comparison.month_parts import divide_by_pickup
from taxi_assets.storage.revision_comparison.row_values import TripRows
from taxi_assets_tests.unit.storage.test_compare_revisions import MONTH, trip, write_revision

if TYPE_CHECKING:
    from pathlib import Path


def test_trips_are_divided_by_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(month_parts, "PART_ROWS", 10)
    pickups = [dt.datetime.combine(dt.date(2021, 3, day), dt.time()) for day in range(1, 32)]
    old = write_revision(tmp_path, "old", [trip(pickup_datetime=pickup) for pickup in reversed(pickups)])
    new = write_revision(tmp_path, "new", [trip(pickup_datetime=None)])
    found = []
    for part in divide_by_pickup(MONTH, old, new, ["pickup_datetime"], tmp_path):
        batches = [*part.batches(part.old), *part.batches(part.new)]
        assert sum(batch.num_rows for batch in batches) == part.rows <= 10
        column = pa.chunked_array([batch["pickup_datetime"].cast(pa.int64()) for batch in batches])
        found.append(column.cast(pa.timestamp("us")).to_pylist())
    assert [pickup for part in found[:-1] for pickup in sorted(part)] == pickups
    assert found[-1] == [None]
    assert not [*tmp_path.glob("part-*")]


@pytest.mark.parametrize("last_tip", ["0.00", "9000000000.00"])
def test_a_part_is_read_as_it_was_divided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last_tip: str) -> None:
    """Integers of a file become wider where its values need it."""
    monkeypatch.setattr(month_parts, "_BATCH_ROWS", 7)
    amounts = [Decimal(number) for number in range(40)] + [Decimal(last_tip)]
    rows = [trip(tip_amount=amount, store_and_fwd_flag="Y") for amount in amounts]
    old, new = write_revision(tmp_path, "old", rows), write_revision(tmp_path, "new", rows[:5])
    columns = ["pickup_datetime", "tip_amount", "store_and_fwd_flag"]
    part = next(divide_by_pickup(MONTH, old, new, columns, tmp_path))
    read = TripRows.of(part.batches(part.old), part.batches(part.new))
    assert (read.old_rows, part.rows) == (41, 46)
    assert read.columns["tip_amount"].to_arrow(pa.decimal128(12, 2)).to_pylist() == amounts + amounts[:5]
    assert read.columns["store_and_fwd_flag"].to_arrow(pa.string()).to_pylist() == ["Y"] * 46
