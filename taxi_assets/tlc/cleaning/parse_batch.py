"""Convert a batch of published rows to the service's columns, including the derived ones."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from taxi_assets.tlc.rules import within_repeated_hour
from taxi_assets.tlc.values.parse_column import ParsedColumn, parse_column
from taxi_assets.tlc.values.time_forms import AMBIGUOUS_FORMS, TimeForm
from taxi_assets.tlc.values.working_types import drop_empty_bitmap, to_canonical

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from taxi_assets.tlc.month import Month
    from taxi_assets.tlc.readers.base_reader import RawBatch
    from taxi_assets.tlc.schema import Column, Service
    from taxi_assets.tlc.values.time_forms import Forms, Mask

_PICKUP = "pickup_datetime"
DERIVED_FROM = {
    "pickup_date": (_PICKUP,),
    "pickup_hour": (_PICKUP,),
    "pickup_isodow": (_PICKUP,),
    "trip_seconds": (_PICKUP, "dropoff_datetime"),
    "is_reversal": ("total_amount",),
}
"""The published columns from which cleaning computes each derived column."""

_MICROSECONDS_PER_SECOND = 1_000_000
_SECONDS_PER_HOUR = 3600


@dataclass(frozen=True)
class ParsedBatch:
    """A batch of published rows in the service's columns.

    Attributes:
        batch: A record batch in the service's `working_schema`, one row per row of the raw batch (without malformed
            rows). A value that is missing or cannot be read is null.
        unreadable: Column name to one boolean per row, true where the value cannot be read, for those columns that have
            such values.
        forms: Column name to the `TimeForm` of each row, for those columns that have times of a special form.
    """

    batch: Any
    unreadable: Mapping[str, Mask]
    forms: Mapping[str, Forms]


def parse_batch(
    raw: RawBatch, service: Service, month: Month, unreadable_forms: frozenset[TimeForm] = frozenset()
) -> ParsedBatch:
    """Parse published rows into the service's columns, and compute the derived columns.

    Args:
        raw: Rows as published, one Arrow array per column in the file.
        service: Defines the canonical columns and their types.
        month: The partition, which becomes `data_month`.
        unreadable_forms: Forms of times that cannot be read.
    """
    columns: dict[str, Any] = {}
    unreadable: dict[str, Mask] = {}
    forms: dict[str, Forms] = {}
    for column in service.published_columns:
        positions = raw.layout.match.positions.get(column.name, ())
        if not positions:
            columns[column.name] = pa.nulls(len(raw.source_rows), column.type.working_type)
            continue
        columns[column.name], masks, special_forms = _parse_and_merge(column, raw, positions)
        if masks:
            unreadable[column.name] = np.logical_or.reduce(masks)
        if special_forms is not None:
            forms[column.name] = special_forms
    for name in sorted(forms, key=lambda name: name != _PICKUP):  # the pickup comes first
        rejected = _rejected_forms(name, forms, unreadable_forms)
        if rejected.any():
            columns[name] = pc.if_else(pa.array(~rejected), columns[name], pa.scalar(None, columns[name].type))
            unreadable[name] = unreadable.get(name, False) | rejected
            forms[name] = np.where(rejected, TimeForm.LOCAL, forms[name]).astype(np.int8)
    columns["source_row"] = pa.array(raw.source_rows)
    columns["data_month"] = pa.repeat(pa.scalar(month.start), len(raw.source_rows))
    columns.update(_derive_columns(columns, month))
    schema = service.working_schema
    batch = pa.record_batch([drop_empty_bitmap(columns[name]) for name in schema.names], schema=schema)
    return ParsedBatch(batch, unreadable, forms)


def _rejected_forms(name: str, forms: Mapping[str, Forms], unreadable_forms: frozenset[TimeForm]) -> Mask:
    """Return in which rows the form of a time makes it unreadable.

    A time that may be in UTC is readable only if the pickup of the row has the same form, because the pickups show
    whether such times are local times; see `TimeMarks`.
    """
    rejected = np.isin(forms[name], list(unreadable_forms))
    if name != _PICKUP:
        marked = np.isin(forms[name], [form for form in AMBIGUOUS_FORMS if form is not TimeForm.MONTH_FIRST])
        rejected |= marked & (forms[name] != forms.get(_PICKUP, np.int8(TimeForm.LOCAL)))
    return rejected


def _parse_and_merge(column: Column, raw: RawBatch, positions: Sequence[int]) -> tuple[Any, list[Mask], Forms | None]:
    """Return a column's values, its masks of unreadable values and the forms of its times, from one or more columns.

    Each row has the value of the first published column that has one. If two have different values, the row counts as
    unreadable, because either may be correct.
    """
    values, mask, forms = _parse_at(column, raw, positions[0])
    masks = [] if mask is None else [np.asarray(mask)]
    for position in positions[1:]:
        others, mask, other_forms = _parse_at(column, raw, position)
        masks += [] if mask is None else [np.asarray(mask)]
        values, others = to_canonical(values), to_canonical(others)
        different = pc.fill_null(pc.not_equal(values, others), pa.scalar(False))
        masks += [np.asarray(different)] if different.true_count else []
        if forms is not None or other_forms is not None:
            forms = np.where(values.is_valid(), _as_array(forms, values), _as_array(other_forms, values))
        values = pc.coalesce(values, others)
    return values.cast(column.type.working_type), masks, forms


def _as_array(forms: Forms | None, values: Any) -> Forms:
    return np.full(len(values), TimeForm.LOCAL, np.int8) if forms is None else forms


def _parse_at(column: Column, raw: RawBatch, position: int) -> ParsedColumn:
    as_text = partial(raw.texts.column, position) if raw.texts else None
    return parse_column(column, raw.arrays[position], as_text)


def _derive_columns(columns: Mapping[str, Any], month: Month) -> dict[str, Any]:
    pickup = columns["pickup_datetime"]
    derived = {
        "pickup_date": pc.cast(pickup, pa.date32(), safe=False),
        "pickup_hour": pc.hour(pickup),
        "pickup_isodow": pc.day_of_week(pickup, count_from_zero=False, week_start=1),
        "trip_seconds": _trip_seconds(pickup, columns["dropoff_datetime"], month),
    }
    if "total_amount" in columns:
        negative = pc.less(columns["total_amount"].view(pa.int64()), pa.scalar(0))  # cents: faster than decimals
        derived["is_reversal"] = pc.fill_null(negative, pa.scalar(False))
    return derived


def _trip_seconds(pickup: Any, dropoff: Any, month: Month) -> Any:
    seconds = _whole_seconds(pc.cast(pc.subtract(dropoff, pickup), pa.int64()))
    # During these trips the clocks went back by an hour.
    repeated = within_repeated_hour(pickup, dropoff, month, where=pc.less_equal(dropoff, pickup))
    if not repeated.true_count:
        return seconds
    return pc.if_else(repeated, pc.add(seconds, _SECONDS_PER_HOUR), seconds)


def _whole_seconds(microseconds: Any) -> Any:
    """Divide by a million and round towards zero, three times as fast as pc.divide."""
    counts = np.asarray(microseconds.fill_null(0))
    seconds = np.floor_divide(counts, _MICROSECONDS_PER_SECOND)
    if seconds.min(initial=0) < 0:
        seconds += (seconds < 0) & (counts % _MICROSECONDS_PER_SECOND != 0)
    if microseconds.null_count:
        return pc.if_else(microseconds.is_valid(), pa.array(seconds), pa.scalar(None, pa.int64()))
    return pa.array(seconds)
