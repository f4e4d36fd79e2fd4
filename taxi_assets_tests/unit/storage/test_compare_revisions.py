"""Revisions are compared as multisets: the differences are those that a naive comparison in Python finds."""

from __future__ import annotations

import datetime as dt
import errno
import os
import random
import tempfile
from collections import Counter, defaultdict
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taxi_assets.errors import LakeConfigurationError, ReconciliationError
from taxi_assets.storage.revision_comparison import compare_revisions as module
from taxi_assets.storage.revision_comparison import large_parts, month_parts
from taxi_assets.storage.revision_comparison.compare_revisions import ComparedRevisions, compare_revisions
from taxi_assets.storage.revision_comparison.month_parts import CleanRevision
from taxi_assets.tlc.cleaning.report import NO_ROWS, CleaningReport, UnknownColumn, compute_totals
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.revision_report import RevisionReport, dollars_text, revision_columns, trip_key
from taxi_assets.tlc.schema import build_arrow_schema
from taxi_assets.tlc.services.registry import SERVICES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from taxi_assets.tlc.schema import Service

MONTH = Month(2021, 3)
GREEN, FHV, FHVHV = SERVICES["green"], SERVICES["fhv"], SERVICES["fhvhv"]
NOON = dt.datetime.combine(dt.date(2021, 3, 5), dt.time(12))
TRIP: Mapping[str, Any] = {
    "vendor_id": 1,
    "pickup_datetime": NOON,
    "dropoff_datetime": NOON + dt.timedelta(minutes=30),
    "pickup_location_id": 7,
    "dropoff_location_id": 8,
    "passenger_count": 1,
    "store_and_fwd_flag": "N",
    "fare_amount": Decimal("10.00"),
    "total_amount": Decimal("12.50"),
}
Row = dict[str, Any]
Values = tuple[Any, ...]


def trip(**values: Any) -> Row:
    return {**TRIP, **values}


def write_revision(
    folder: Path, name: str, rows: Sequence[Mapping[str, Any]], service: Service = GREEN, absent: Sequence[str] = (),
    unknown: Sequence[str] = (),
) -> CleanRevision:  # fmt: skip
    filled = [{**row, "source_row": number} for number, row in enumerate(rows, start=1)]
    table = pa.Table.from_pylist(filled, service.arrow_schema)
    path = folder / f"{name}.parquet"
    pq.write_table(table, path)
    report = CleaningReport(
        service=service.name,
        month=str(MONTH),
        data_version=name,
        raw_sha256=name,
        generated=False,
        rules=[],
        rows_raw=len(rows),
        rows_quarantined=0,
        clean=compute_totals(table.combine_chunks().to_batches()[0], service.money_columns) if rows else NO_ROWS,
        quarantined_total_cents=0,
        reasons={},
        rows_by_day=[],
        unknown_columns=[UnknownColumn(name=each, type="text", examples=[]) for each in unknown],
        absent_columns=absent,
    )
    return CleanRevision(path, report)


def compare(
    old: CleanRevision, new: CleanRevision, folder: Path, service: Service = GREEN
) -> tuple[ComparedRevisions, list[Row]]:
    with tempfile.TemporaryDirectory(dir=folder) as name:
        compared = compare_revisions(service, MONTH, old, new, Path(name), {})
        assert [path.name for path in Path(name).iterdir()] == [compared.path.name]
        table = pq.read_table(compared.path)
        assert table.schema.equals(build_arrow_schema(revision_columns(service)))
        assert RevisionReport.from_footer(pq.read_metadata(compared.path).metadata) == compared.report
    return compared, table.to_pylist()


def compare_rows(
    old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]], folder: Path, service: Service = GREEN
) -> tuple[ComparedRevisions, list[Row]]:
    return compare(
        write_revision(folder, "old", old, service), write_revision(folder, "new", new, service), folder, service
    )


def test_added_removed_and_changed_rows_are_named(tmp_path: Path) -> None:
    same, gone, corrected = trip(), trip(vendor_id=2), trip(pickup_location_id=9)
    new = trip(pickup_datetime=NOON + dt.timedelta(days=26))
    fixed = {**corrected, "fare_amount": Decimal("9.50"), "total_amount": Decimal("12.00")}
    compared, rows = compare_rows([gone, same, corrected], [fixed, same, new], tmp_path)
    shown = ["change", "row_count", "changed_column", "old_value", "new_value", "old_source_row", "new_source_row"]
    assert [[row[name] for name in shown] for row in rows] == [
        ["changed", 1, "fare_amount", "10.00", "9.50", 3, 1],
        ["changed", 1, "total_amount", "12.50", "12.00", 3, 1],
        ["removed", 1, None, None, None, 1, None],
        ["added", 1, None, None, None, None, 3],
    ]
    # A changed row has the newer values.
    assert [row["total_amount"] for row in rows] == [
        Decimal("12.00"),
        Decimal("12.00"),
        Decimal("12.50"),
        Decimal("12.50"),
    ]
    assert {row["data_month"] for row in rows} == {MONTH.start}
    report = compared.report
    assert (report.rows_added, report.rows_removed, report.rows_changed) == (1, 1, 1)
    assert report.changed_by_column == {"fare_amount": 1, "total_amount": 1}
    assert report.cents == -50
    assert report.cents_by_column == {"fare_amount": -50, "total_amount": -50}
    assert report.rows_by_day["changed"][4] == report.rows_by_day["removed"][4] == report.rows_by_day["added"][30] == 1
    assert report.sentence() == "green 2021-03 was revised: 1 row changed, 1 row added, 1 row removed, -0.50 dollars"


def test_the_largest_differences_come_first(tmp_path: Path) -> None:
    old = [trip(pickup_location_id=zone) for zone in range(1, 13)]
    new = [trip(pickup_location_id=zone, total_amount=Decimal(12) - zone) for zone in range(1, 13)]
    compared, _ = compare_rows(old, [*new, trip(vendor_id=6, total_amount=Decimal(500))], tmp_path)
    assert [(each.change, each.key["pickup_location_id"]) for each in compared.largest] == [
        ("added", "7"), *(("changed", str(zone)) for zone in range(12, 3, -1)),
    ]  # fmt: skip
    assert (compared.largest[0].old_cents, compared.largest[0].new_cents) == (None, 50000)
    assert (compared.largest[1].old_cents, compared.largest[1].new_cents) == (1250, 0)


def test_equal_revisions_have_no_differences_in_any_order(tmp_path: Path) -> None:
    trips = [trip(vendor_id=number % 3 or None, fare_amount=Decimal(number % 5)) for number in range(30)]
    compared, rows = compare_rows(trips, trips[::-1], tmp_path)
    assert rows == []
    assert compared.report.rows == 0
    assert compared.largest == []
    assert compared.report.sentence() == "green 2021-03 was revised: no clean row differs"


def test_copies_of_a_row_are_counted(tmp_path: Path) -> None:
    other = trip(passenger_count=2)
    compared, rows = compare_rows([trip()] * 5, [trip(), *[other] * 3], tmp_path)
    assert [(row["change"], row["row_count"], row["changed_column"]) for row in rows] == [
        ("removed", 1, None), ("changed", 3, "passenger_count"),
    ]  # fmt: skip
    assert (compared.report.rows_changed, compared.report.rows_removed) == (3, 1)
    assert compared.report.cents == -1250


def test_a_row_pairs_with_one_row_only_in_the_order_of_the_files(tmp_path: Path) -> None:
    old = [trip(fare_amount=Decimal(amount)) for amount in (3, 1)]
    new = [trip(fare_amount=Decimal(amount)) for amount in (5, 4, 9)]
    _, rows = compare_rows(old, new, tmp_path)
    assert [(row["change"], row["old_value"], row["new_value"]) for row in rows] == [
        ("changed", "3.00", "5.00"), ("changed", "1.00", "4.00"), ("added", None, None),
    ]  # fmt: skip


def test_a_column_of_one_revision_is_reported_and_not_compared(tmp_path: Path) -> None:
    surcharge = Decimal("2.75")
    old = write_revision(tmp_path, "old", [trip()], absent=["congestion_surcharge", "trip_type"])
    new = write_revision(
        tmp_path, "new", [trip(congestion_surcharge=surcharge)], absent=["trip_type"], unknown=["new_fee"]
    )
    compared, rows = compare(old, new, tmp_path)
    assert rows == []
    assert compared.report.columns_only_new == ["congestion_surcharge", "new_fee"]
    assert compared.report.columns_only_old == []
    assert compared.report.sentence().endswith("no clean row differs, new columns congestion_surcharge, new_fee")
    reverse, _ = compare(new, old, tmp_path)
    assert reverse.report.columns_only_old == ["congestion_surcharge", "new_fee"]


def test_services_without_vendors_or_dropoffs_pair_by_the_columns_that_they_have(tmp_path: Path) -> None:
    base = {"dispatching_base_num": "B1", "pickup_datetime": NOON, "pickup_location_id": 3}
    absent = [column.name for column in FHV.published_columns if column.name not in base]
    old = write_revision(tmp_path, "old", [base, base, base], FHV, absent)
    new = write_revision(tmp_path, "new", [base, {**base, "pickup_location_id": 4}], FHV, absent)
    compared, rows = compare(old, new, tmp_path, FHV)
    assert [(row["change"], row["row_count"]) for row in rows] == [("removed", 2), ("added", 1)]
    assert compared.report.cents is None
    assert [each.row_count for each in compared.largest] == [2, 1]


def test_the_total_of_a_high_volume_trip_is_what_the_passenger_paid(tmp_path: Path) -> None:
    old = {"hvfhs_license_num": "HV0003", "pickup_datetime": TRIP["pickup_datetime"], "base_passenger_fare": Decimal(9)}
    compared, _ = compare_rows(
        [old], [{**old, "tip_amount": Decimal("1.25"), "driver_pay": Decimal(5)}], tmp_path, FHVHV
    )
    assert compared.report.cents == 125
    assert compared.report.changed_by_column == {"tip_amount": 1, "driver_pay": 1}


def test_differences_that_do_not_add_up_are_an_error(tmp_path: Path) -> None:
    old, new = write_revision(tmp_path, "old", [trip()]), write_revision(tmp_path, "new", [trip(), trip()])
    for wrong in ({"rows": 3}, {"cents": 1}):
        report = new.report.model_copy(update={"clean": new.report.clean.model_copy(update=wrong)})
        with pytest.raises(ReconciliationError, match="the differences add up to"):
            compare(old, CleanRevision(new.path, report), tmp_path)


def test_a_full_disk_is_reported_with_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [trip(passenger_count=number) for number in range(5000)]
    old, new = write_revision(tmp_path, "old", rows), write_revision(tmp_path, "new", [])
    small = {**module.CONFIG, "memory_limit": "1MB", "max_temp_directory_size": "1KB", "threads": "1"}
    monkeypatch.setattr(module, "CONFIG", small)
    monkeypatch.setattr(month_parts, "LARGEST_PART_ROWS", 0)
    with pytest.raises(LakeConfigurationError, match="Free disk space"):
        compare(old, new, tmp_path)


@pytest.mark.parametrize(
    ("error", "is_full"),
    [
        (duckdb.IOException('IO Error: Cannot write file "x": No space left on device'), True),
        (duckdb.IOException('IO Error: Cannot open file "x": Permission denied'), False),
        (duckdb.OutOfMemoryException("Out of Memory Error: failed to allocate data of size 1 MiB"), True),
        (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), True),
    ],
)
def test_only_a_full_disk_has_the_advice_to_free_disk_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, *, is_full: bool
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    old, new = write_revision(tmp_path, "old", [trip()]), write_revision(tmp_path, "new", [])
    monkeypatch.setattr(module, "divide_by_pickup", fail)
    with pytest.raises(LakeConfigurationError) as raised:
        compare(old, new, tmp_path)
    assert ("Free disk space" in str(raised.value)) == is_full


def test_a_full_disk_is_reported_while_the_files_are_divided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    old, new = write_revision(tmp_path, "old", [trip()]), write_revision(tmp_path, "new", [])
    monkeypatch.setattr(pa.ipc, "new_stream", fail)
    with pytest.raises(LakeConfigurationError, match="No space left on device"):
        compare(old, new, tmp_path)


@pytest.mark.parametrize("limit", ["LARGEST_PART_ROWS", "_LARGEST_PART_BYTES"])
def test_trips_at_the_same_time_spill_to_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    rows = [trip(passenger_count=number) for number in range(150_000)]
    old, new = write_revision(tmp_path, "old", rows), write_revision(tmp_path, "new", rows[1:])
    monkeypatch.setattr(module, "CONFIG", {**module.CONFIG, "memory_limit": "64MB", "threads": "1"})
    monkeypatch.setattr(month_parts, limit, 100_000)
    monkeypatch.setattr(module, "find_differences", None)
    compared, _ = compare(old, new, tmp_path)
    assert (compared.report.rows_removed, compared.report.rows) == (1, 1)


def test_totals_are_computed_while_differences_are_read_from_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(month_parts, "LARGEST_PART_ROWS", 0)
    monkeypatch.setattr(large_parts, "_BATCH_ROWS", 2048)
    base = {"hvfhs_license_num": "HV0003", "pickup_datetime": NOON, "base_passenger_fare": Decimal(9)}
    old = [{**base, "pickup_datetime": NOON + dt.timedelta(seconds=number)} for number in range(10_000)]
    new = [{**row, "tip_amount": Decimal("1.25")} for row in old]
    compared, rows = compare_rows(old, new, tmp_path, FHVHV)
    assert len(rows) == compared.report.rows_changed == 10_000
    assert compared.report.cents == 1_250_000


def test_a_shuffled_file_has_no_differences_and_copies_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(month_parts, "PART_ROWS", 5000)
    rows = [
        trip(
            pickup_datetime=NOON + dt.timedelta(hours=number % 500),
            passenger_count=number % 3 or None,
            fare_amount=Decimal(number % 7),
        )
        for number in range(20_000)
    ]
    shuffled = random.Random(1).sample(rows, len(rows))  # noqa: S311
    compared, found = compare_rows(rows, shuffled, tmp_path)
    assert (found, compared.report.rows) == ([], 0)
    compared, found = compare_rows(rows, [trip(vendor_id=6), *shuffled, rows[4]], tmp_path)
    assert sorted(row["vendor_id"] for row in found) == [1, 6]
    assert compared.report.rows_added == compared.report.rows == 2


def test_dollars_have_a_sign() -> None:
    assert [dollars_text(cents) for cents in (120450, -5, 0)] == ["+1,204.50", "-0.05", "0.00"]


# --- the naive comparison ---------------------------------------------------------------------------------------------

PUBLISHED = [column.name for column in GREEN.published_columns]
KEY = trip_key(PUBLISHED)
ROWS = st.lists(
    st.builds(
        trip,
        vendor_id=st.sampled_from([None, 1]),
        pickup_datetime=st.sampled_from([None, NOON, NOON + dt.timedelta(days=9), NOON - dt.timedelta(days=40)]),
        pickup_location_id=st.sampled_from([None, 7]),
        passenger_count=st.sampled_from([None, 1, 2]),
        store_and_fwd_flag=st.sampled_from([None, "", "Y"]),
        total_amount=st.sampled_from([Decimal("-1.00"), Decimal("0.10")]),
    ),
    max_size=12,
)


def naive_differences(old: Iterable[Row], new: Iterable[Row]) -> list[Counter[Values]]:
    """Return the added, removed and changed rows with their numbers. Changed rows are pairs of an old and a new row."""

    def numbered(rows: Iterable[Row]) -> tuple[Counter[Values], dict[Values, int]]:
        values = [tuple(row.get(name) for name in PUBLISHED) for row in rows]
        first = {value: number for number, value in reversed([*enumerate(values)])}
        return Counter(values), first

    (old_counts, old_first), (new_counts, new_first) = numbered(old), numbered(new)
    rest: dict[Values, tuple[list[Any], list[Any]]] = defaultdict(lambda: ([], []))
    for side, counts, first in (
        (0, old_counts - new_counts, old_first),
        (1, new_counts - old_counts, new_first),
    ):
        for row in sorted(counts, key=first.__getitem__):
            key = tuple(row[PUBLISHED.index(name)] for name in KEY)
            rest[key][side].extend([row] * counts[row])
    added: Counter[Values] = Counter()
    removed: Counter[Values] = Counter()
    changed: Counter[Values] = Counter()
    for olds, news in rest.values():
        pairs = min(len(olds), len(news))
        changed.update(zip(olds, news, strict=False))
        removed.update(olds[pairs:])
        added.update(news[pairs:])
    return [added, removed, changed]


@settings(max_examples=30)
@given(old=ROWS, new=ROWS, part_rows=st.sampled_from([1, 5, 100]), in_memory=st.booleans())
def test_differences_are_those_of_a_naive_comparison(
    old: list[Row], new: list[Row], part_rows: int, in_memory: bool
) -> None:
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(month_parts, "PART_ROWS", part_rows)
        patch.setattr(module, "find_differences_on_disk" if in_memory else "find_differences", None)
        patch.setattr(month_parts, "LARGEST_PART_ROWS", 100 if in_memory else 0)
        compared, rows = compare_rows(old, new, Path(name))
    pickups = [row["pickup_datetime"] or NOON + dt.timedelta(days=99) for row in rows]
    assert pickups == sorted(pickups)
    added, removed, changed = naive_differences(old, new)

    def found(change: str) -> Counter[Values]:
        return Counter(
            {tuple(row[each] for each in PUBLISHED): row["row_count"] for row in rows if row["change"] == change}
        )

    assert found("added") == added
    assert found("removed") == removed
    expected = Counter(
        {
            (new_row, name, text(before), text(after)): 0
            for old_row, new_row in changed
            for name, before, after in zip(PUBLISHED, old_row, new_row, strict=True)
            if before != after
        }
    )
    for (old_row, new_row), number in changed.items():
        for name, before, after in zip(PUBLISHED, old_row, new_row, strict=True):
            if before != after:
                expected[new_row, name, text(before), text(after)] += number
    actual: Counter[Values] = Counter()
    for row in rows:
        if row["change"] == "changed":
            values = tuple(row[each] for each in PUBLISHED)
            actual[values, row["changed_column"], row["old_value"], row["new_value"]] += row["row_count"]
    assert actual == expected
    report = compared.report
    assert (report.rows_added, report.rows_removed, report.rows_changed) == tuple(
        counter.total() for counter in (added, removed, changed)
    )
    total = sum((row["total_amount"] for row in new), Decimal()) - sum((row["total_amount"] for row in old), Decimal())
    assert report.cents == int(total * 100)


def text(value: Any) -> str | None:
    return None if value is None else str(value)
