"""One batch of published rows, parted into clean trips and quarantined rows.

Belongs here: canonical and derived columns of a batch, and which rows have a reason against them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from taxi_assets.tlc.cleaning.values import parse_column
from taxi_assets.tlc.cleaning.working_types import drop_empty_bitmap, to_canonical
from taxi_assets.tlc.rules import NOT_UTF8, UNREADABLE_VALUE, within_repeated_hour
from taxi_assets.tlc.schema import Column, ColumnType, arrow_schema

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from taxi_assets.tlc.month import Month
    from taxi_assets.tlc.readers.base_reader import RawBatch, TripReader
    from taxi_assets.tlc.rules import Rule
    from taxi_assets.tlc.schema import Service

    Mask = np.ndarray[Any, np.dtype[np.bool_]]

QUARANTINE_COLUMNS = (
    Column("source_row", ColumnType.INTEGER, "The row's place in the published file: data rows from 1.", "row number"),
    Column("reasons", ColumnType.TEXTS, "Why the row is here: every rule it breaks, or what could not be read."),
    Column("unreadable_columns", ColumnType.TEXTS, "The columns whose values could not be read."),
    Column("pickup_datetime", ColumnType.DATETIME, "When the trip began, where that can be read.", "local time"),
    Column("total_amount", ColumnType.MONEY, "What was charged, where that can be read.", "US dollars"),
    Column("original", ColumnType.TEXT, "The row as published: the line of a CSV, or a JSON object for Parquet."),
    Column("data_month", ColumnType.DATE, "First day of the month whose file holds the row."),
)
QUARANTINE_SCHEMA = arrow_schema(QUARANTINE_COLUMNS)

_SECOND = 1_000_000  # in the microseconds of a timestamp
_HOUR = 3600


@dataclass(frozen=True)
class SplitBatch:
    """Both halves of a batch, in the file's order.

    `clean` has the service's `working_schema`, `quarantine` has `QUARANTINE_SCHEMA`.
    """

    clean: Any
    quarantine: Any


class CanonicalBatch:
    """A batch as rules get it: like a record batch, with each column in its canonical type from its first use on."""

    def __init__(self, batch: Any) -> None:
        self._batch = batch
        self._columns: dict[str, Any] = {}
        self.num_rows: int = batch.num_rows

    def column(self, name: str) -> Any:
        """One canonical column, as an Arrow array; raises `KeyError` for a name that the service does not have."""
        if name not in self._columns:
            self._columns[name] = to_canonical(self._batch.column(name))
        return self._columns[name]

    __getitem__ = column


def split_batch(
    published: RawBatch, reader: TripReader, service: Service, month: Month, rules: Sequence[Rule]
) -> SplitBatch:
    """Parse, derive, judge: each row ends up on exactly one side."""
    batch, unreadable = _canonical(published, reader, service, month)
    trips = CanonicalBatch(batch)
    broken = {rule.name: pc.fill_null(rule.is_violated(trips, month), pa.scalar(False)) for rule in rules}
    against = {name: np.asarray(mask) for name, mask in broken.items() if mask.true_count}
    if unreadable:
        against[UNREADABLE_VALUE] = np.logical_or.reduce(list(unreadable.values()))
    if published.not_utf8:
        against[NOT_UTF8] = np.isin(published.source_rows, list(published.not_utf8))
    bad = np.logical_or.reduce(list(against.values())) if against else np.zeros(batch.num_rows, bool)
    rows = _quarantine_rows(published, reader, batch, np.flatnonzero(bad), against, unreadable)
    if published.malformed_rows:
        malformed_rows = _quarantine_malformed_rows(published, month)
        both = pa.Table.from_batches([rows, malformed_rows]).sort_by("source_row")
        rows = both.combine_chunks().to_batches()[0]
    return SplitBatch(_filter(batch, ~bad) if bad.any() else batch, rows)


def _filter(batch: Any, good: Mask) -> Any:
    """The rows where the mask is true; columns without any value are not filtered, which is most of several eras."""
    mask, rows = pa.array(good), int(np.count_nonzero(good))
    columns = [pa.nulls(rows, one.type) if one.null_count == len(one) else one.filter(mask) for one in batch.columns]
    return pa.record_batch(columns, schema=batch.schema)


def _canonical(
    published: RawBatch, reader: TripReader, service: Service, month: Month
) -> tuple[Any, Mapping[str, Mask]]:
    """The batch in the service's columns, and where each column could not be read."""
    columns: dict[str, Any] = {}
    unreadable: dict[str, Mask] = {}
    for column in service.published_columns:
        positions = reader.match.positions.get(column.name, ())
        if not positions:
            columns[column.name] = pa.nulls(len(published.source_rows), column.type.working)
            continue
        columns[column.name], masks = _parse_first(column, published, positions)
        if masks:
            unreadable[column.name] = np.logical_or.reduce(masks)
    columns["source_row"] = pa.array(published.source_rows)
    columns["data_month"] = pa.repeat(pa.scalar(month.start), len(published.source_rows))
    columns.update(_derive(columns, month))
    schema = service.working_schema
    return pa.record_batch([drop_empty_bitmap(columns[name]) for name in schema.names], schema=schema), unreadable


def _parse_first(column: Column, published: RawBatch, positions: Sequence[int]) -> tuple[Any, list[Mask]]:
    """A column's values, from the first of its published columns that has one; and where they cannot be read.

    Where two of them have a value, and not the same one, nobody can tell which is meant.
    """
    values, mask = _parse_at(column, published, positions[0])
    masks = [] if mask is None else [np.asarray(mask)]
    for position in positions[1:]:
        others, mask = _parse_at(column, published, position)
        masks += [] if mask is None else [np.asarray(mask)]
        values, others = to_canonical(values), to_canonical(others)
        masks.append(np.asarray(pc.fill_null(pc.not_equal(values, others), pa.scalar(False))))
        values = pc.coalesce(values, others)
    return values.cast(column.type.working), masks


def _parse_at(column: Column, published: RawBatch, position: int) -> tuple[Any, Any | None]:
    as_text = partial(published.texts.column, position) if published.texts else None
    return parse_column(column, published.arrays[position], as_text)


def _derive(columns: Mapping[str, Any], month: Month) -> dict[str, Any]:
    """What marts need of every trip, and engines spell differently."""
    pickup = columns["pickup_datetime"]
    derived = {
        "pickup_date": pc.cast(pickup, pa.date32(), safe=False),
        "pickup_hour": pc.hour(pickup),
        "pickup_isodow": pc.day_of_week(pickup, count_from_zero=False, week_start=1),
        "trip_seconds": _trip_seconds(pickup, columns["dropoff_datetime"], month),
    }
    if "total_amount" in columns:
        negative = pc.less(columns["total_amount"].view(pa.int64()), pa.scalar(0))  # cents; decimals take longer
        derived["is_reversal"] = pc.fill_null(negative, pa.scalar(False))
    return derived


def _trip_seconds(pickup: Any, dropoff: Any, month: Month) -> Any:
    seconds = _whole_seconds(pc.cast(pc.subtract(dropoff, pickup), pa.int64()))
    # The clocks went back during the trip.
    repeated = within_repeated_hour(pickup, dropoff, month, where=pc.less_equal(dropoff, pickup))
    if not repeated.true_count:
        return seconds
    return pc.if_else(repeated, pc.add(seconds, _HOUR), seconds)


def _whole_seconds(microseconds: Any) -> Any:
    """Divide by a million and cut towards zero, in a third of the time that pc.divide takes."""
    counts = np.asarray(microseconds.fill_null(0))
    seconds = np.floor_divide(counts, _SECOND)
    if seconds.min(initial=0) < 0:
        seconds += (seconds < 0) & (counts % _SECOND != 0)
    if microseconds.null_count:
        return pc.if_else(microseconds.is_valid(), pa.array(seconds), pa.scalar(None, pa.int64()))
    return pa.array(seconds)


def _quarantine_rows(
    published: RawBatch,
    reader: TripReader,
    batch: Any,
    indices: np.ndarray[Any, np.dtype[np.intp]],
    violations: Mapping[str, Mask],
    unreadable: Mapping[str, Mask],
) -> Any:
    values = {
        "reasons": _names_of_true_masks(violations, indices),
        "unreadable_columns": _names_of_true_masks(unreadable, indices),
        "original": reader.original_texts(published, pa.array(indices)),
    }
    for field in QUARANTINE_SCHEMA:
        if field.name not in values:
            known = field.name in batch.schema.names
            values[field.name] = (
                to_canonical(batch.column(field.name).take(pa.array(indices)))
                if known
                else pa.nulls(len(indices), field.type)
            )
    return pa.record_batch([values[name] for name in QUARANTINE_SCHEMA.names], schema=QUARANTINE_SCHEMA)


def _names_of_true_masks(masks: Mapping[str, Mask], indices: np.ndarray[Any, np.dtype[np.intp]]) -> Any:
    """For each row of these places the names of the masks that are true there, as lists of text."""
    holds = np.stack([mask[indices] for mask in masks.values()], axis=1) if masks else np.empty((len(indices), 0), bool)
    ends = np.cumsum(holds.sum(axis=1), dtype=np.int32)
    names = pa.array(masks, pa.string()).take(pa.array(np.nonzero(holds)[1]))
    return pa.ListArray.from_arrays(pa.array(np.concatenate([[0], ends]), pa.int32()), names)


def _quarantine_malformed_rows(published: RawBatch, month: Month) -> Any:
    rows = [
        {
            "source_row": malformed_row.source_row,
            "reasons": malformed_row.reasons,
            "unreadable_columns": [],
            "original": malformed_row.text,
            "data_month": month.start,
        }
        for malformed_row in published.malformed_rows
    ]
    return pa.RecordBatch.from_pylist(rows, QUARANTINE_SCHEMA)
