"""The rows, the totals, and the largest ones of the trips that differ between two revisions.

Belongs here: the form of the result. Does not belong here: finding the trips (`row_matching.py`, `large_parts.py`).
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from taxi_assets.marts.all_trips import COLUMNS as COMMON_COLUMNS
from taxi_assets.marts.all_trips import column_sql
from taxi_assets.storage.revision_comparison.row_values import Array, Values, as_text
from taxi_assets.storage.warehouse.duckdb.tables import TYPES, quote
from taxi_assets.tlc.revision_report import ADDED, CHANGED, REMOVED, revision_columns
from taxi_assets.tlc.schema import ColumnType

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import duckdb

    from taxi_assets.storage.revision_comparison.row_matching import Differences
    from taxi_assets.tlc.month import Month
    from taxi_assets.tlc.schema import Service

# A trip has a row for each changed column, so these make up to twenty times as many rows.
_BATCH_DIFFERENCES = 16_384
_LARGEST = 10
_MICROSECONDS_PER_DAY = 86_400_000_000
_KINDS = np.array([ADDED, REMOVED, CHANGED])
_CHANGED = 2


@dataclass(frozen=True)
class LargestDifference:
    """One of the differences that change the total amount the most.

    Attributes:
        change: How the trip differs: "added", "removed" or "changed".
        row_count: How many published rows differ in the same way.
        key: The values that identify the trip, as text, by column: times, zones, and vendor or base.
        old_cents: The total amount of one such row in the older revision; None if it has no such row, or no amount.
        new_cents: The same for the newer revision.
    """

    change: str
    row_count: int
    key: Mapping[str, str | None]
    old_cents: int | None
    new_cents: int | None


TOTAL = "_total"


@dataclass
class Totals:
    """Counts and sums of differences."""

    rows: Counter[tuple[str, int | None]] = field(default_factory=Counter)
    """Rows by kind of change, and by day of the pickup; None for a pickup in another month."""
    cents: Counter[str] = field(default_factory=Counter)
    """The newer sum minus the older one, by money column; `TOTAL` for the total amount."""
    changed: Counter[str] = field(default_factory=Counter)
    """Changed trips by column."""
    largest: list[tuple[tuple[int, int], LargestDifference]] = field(default_factory=list)
    """The largest differences, each after its sort key."""


@dataclass(frozen=True)
class _Changes:
    """The changes in one column.

    Attributes:
        name: The column.
        differences: The indices of the differences in which it has changed.
        old: Its values in the older revision as text, one for each of them.
        new: Its values in the newer revision as text.
    """

    name: str
    differences: Array
    old: pa.DictionaryArray
    new: pa.DictionaryArray


class DifferenceRows:
    """The rows of the result, which are made of the differences of one part of the month after the other.

    Args:
        service: The service.
        month: The month.
        compared: The compared columns.
        key: Those that the rows of a changed trip have in common.
        connection: Computes the total amounts.
    """

    def __init__(
        self,
        service: Service,
        month: Month,
        compared: Sequence[str],
        key: Sequence[str],
        connection: duckdb.DuckDBPyConnection,
    ) -> None:
        self.totals = Totals()
        self._service, self._month, self._key = service, month, key
        self._types = {column.name: column.type for column in service.published_columns if column.name in compared}
        self._connection = connection
        self._values = [name for name in compared if name not in key]
        self.money = [name for name, type_ in self._types.items() if type_ is ColumnType.MONEY]
        # Decimals of 64 bits, which a `TripWriter` stores like those of 128 bits.
        self.schema = pa.schema(
            [
                (column.name, pa.string() if column.type is ColumnType.TEXT else column.type.working_type)
                for column in revision_columns(service)
            ]
        )
        (revenue,) = (column for column in COMMON_COLUMNS if column.name == "revenue")
        self.total = column_sql(revenue, service)
        self._total_columns = [name for name in self._types if re.search(rf"\b{name}\b", self.total or "")]

    def batches(self, differences: Differences) -> Iterator[pa.RecordBatch]:
        """Add differences to the totals, and yield the rows of the result for them."""
        if not len(differences):
            return
        kinds = np.where(differences.old < 0, 0, np.where(differences.new < 0, 1, 2))
        changes = self._add_columns(differences, kinds)
        self._add_rows(differences, kinds)
        self._add_largest(differences, kinds)
        for start in range(0, len(differences), _BATCH_DIFFERENCES):
            stop = min(start + _BATCH_DIFFERENCES, len(differences))
            yield self._batch(differences, kinds, changes, start, stop)

    def _add_columns(self, differences: Differences, kinds: Array) -> list[_Changes]:
        """Add to the sums of cents, and to the changed trips by column. Return the changes of each column."""
        changes = []
        for name in self._values:
            old, new = (differences.columns[name].take(rows) for rows in (differences.old, differences.new))
            differs = np.flatnonzero(old.differ(new))
            if not len(differs):
                continue
            if name in self.money:
                change = new.numbers[differs].astype(np.int64) - old.numbers[differs]
                self.totals.cents[name] += _exact_sum(change, differences.row_count[differs])
            changed = differs[kinds[differs] == _CHANGED]
            if len(changed):
                texts = [as_text(values.take(changed), self._types[name].arrow_type) for values in (old, new)]
                changes.append(_Changes(name, changed, *texts))
                self.totals.changed[name] += int(differences.row_count[changed].sum())
        return changes

    def _add_rows(self, differences: Differences, kinds: Array) -> None:
        pickups = differences.columns["pickup_datetime"].take(_shown(differences))
        start = int(np.datetime64(self._month.start, "us").astype(np.int64))
        days = (pickups.numbers.astype(np.int64) - start) // _MICROSECONDS_PER_DAY
        days[pickups.null_mask() | (days < 0) | (days >= self._month.days)] = -1
        counts = np.zeros((len(_KINDS), self._month.days + 1), np.int64)
        np.add.at(counts, (kinds, days), differences.row_count)
        for kind, day in zip(*np.nonzero(counts), strict=True):
            in_month = None if day == self._month.days else int(day) + 1
            self.totals.rows[str(_KINDS[kind]), in_month] += int(counts[kind, day])

    def _add_largest(self, differences: Differences, kinds: Array) -> None:
        """Add the differences with the largest effect on the total amount, or with the most rows."""
        old, new = (self._total_cents(differences, rows) for rows in (differences.old, differences.new))
        change = new.numbers.astype(np.int64) - old.numbers
        self.totals.cents[TOTAL] += _exact_sum(change, differences.row_count)
        effect = np.abs(change) * differences.row_count
        order = np.lexsort((-differences.row_count, -effect))[:_LARGEST]
        shown = _shown(differences)[order]
        key = {name: as_text(differences.columns[name].take(shown), self._types[name].arrow_type) for name in self._key}
        for place, row in enumerate(order.tolist()):
            difference = LargestDifference(
                change=str(_KINDS[kinds[row]]),
                row_count=int(differences.row_count[row]),
                key={name: texts[place].as_py() for name, texts in key.items()},
                old_cents=None if old.null_mask()[row] else int(old.numbers[row]),
                new_cents=None if new.null_mask()[row] else int(new.numbers[row]),
            )
            self.totals.largest.append(((-int(effect[row]), -difference.row_count), difference))
        # Among equals, the earliest pickup comes first, because parts come in the order of pickup times.
        self.totals.largest = sorted(self.totals.largest, key=lambda each: each[0])[:_LARGEST]

    def _total_cents(self, differences: Differences, rows: Array) -> Values:
        """Return the total amounts of rows in cents; null for a row of index -1, and if there is no amount."""
        columns = {name: differences.columns[name].take(rows) for name in self._total_columns}
        if self.total in columns:
            return columns[self.total]
        if not columns:
            return Values(np.zeros(len(rows), np.int64), np.ones(len(rows), bool))
        # A column that is not compared is null, so that the total amount can name it.
        nulls = "".join(
            f", NULL::{TYPES[column.type]} AS {quote(column.name)}"
            for column in self._service.published_columns
            if column.name not in self._types
        )
        trips = pa.table({name: values.to_arrow(self._types[name].arrow_type) for name, values in columns.items()})
        totals: Any = self._connection.from_arrow(trips).query(
            "trips", f"SELECT (({self.total})::DECIMAL(18,2) * 100)::BIGINT FROM (SELECT *{nulls} FROM trips)"
        )
        return Values.of(totals.to_arrow_table().column(0).chunks).take(np.where(rows < 0, -1, np.arange(len(rows))))

    def _batch(
        self, differences: Differences, kinds: Array, changes: Sequence[_Changes], start: int, stop: int
    ) -> pa.RecordBatch:
        """Return the rows of the differences from `start` to `stop`: one for each changed column."""
        unchanged = np.flatnonzero(kinds[start:stop] != _CHANGED) + start
        found = [unchanged]
        no_text = pa.nulls(len(unchanged), pa.string())
        names, olds, news = [no_text], [no_text], [no_text]
        for change in changes:
            rows = slice(*np.searchsorted(change.differences, [start, stop]))
            found.append(change.differences[rows])
            names.append(pa.repeat(change.name, len(found[-1])))
            olds.append(change.old[rows].dictionary_decode())
            news.append(change.new[rows].dictionary_decode())
        places = np.concatenate(found)
        order = np.argsort(places, kind="stable")
        places = places[order]
        shown, source_rows = _shown(differences)[places], differences.columns["source_row"]
        columns = {
            "data_month": pa.repeat(pa.scalar(self._month.start), len(places)),
            "change": pa.DictionaryArray.from_arrays(kinds[places], pa.array(_KINDS.tolist())).cast(pa.string()),
            "row_count": pa.array(differences.row_count[places]),
            "old_source_row": source_rows.take(differences.old[places]).to_arrow(pa.int64()),
            "new_source_row": source_rows.take(differences.new[places]).to_arrow(pa.int64()),
            **{
                name: pa.concat_arrays(texts).take(pa.array(order))
                for name, texts in (("changed_column", names), ("old_value", olds), ("new_value", news))
            },
        }
        for name in self._types:
            columns[name] = differences.columns[name].take(shown).to_arrow(self.schema.field(name).type)
        absent = {field.name: pa.nulls(len(places), field.type) for field in self.schema if field.name not in columns}
        columns |= absent
        return pa.RecordBatch.from_arrays([columns[name] for name in self.schema.names], schema=self.schema)


def _shown(differences: Differences) -> Array:
    """Return the row of the newer revision of each difference, or that of the older one if there is none."""
    return np.where(differences.new < 0, differences.old, differences.new)


def _exact_sum(values: Array, row_counts: Array) -> int:
    """Return the sum of values times row counts. Neither half of the values overflows 64 bits."""
    high, low = values >> 32, values & 0xFFFFFFFF
    return (int(high @ row_counts) << 32) + int(low @ row_counts)
