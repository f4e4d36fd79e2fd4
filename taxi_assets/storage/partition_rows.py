"""Which rows of a table belong to a partition: conditions for queries, and a check of the rows that an asset returned.

Partitions of time belong to a column of dates, times, texts or integers; other partitions to a column of texts,
integers, dates or booleans.
"""

from __future__ import annotations

import datetime as dt
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from taxi_assets.errors import AssetDefinitionError, RowsOutsidePartitionError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dagster import TimeWindow

_OPERATIONS = {"=": pc.equal, ">=": pc.greater_equal, "<": pc.less}


@dataclass(frozen=True)
class Dimension:
    """One dimension of a partition. Most partitions have only one."""

    column: str
    """The column that assigns rows to partitions, as the metadata `partition_expr` names it."""
    key: str
    """The partition key of this dimension, such as "2021-01" or "queens"."""
    window: TimeWindow | None = None
    """The time in the partition's own time zone, if it is a dimension of time."""


class Condition(NamedTuple):
    """A comparison that holds for the rows of a partition."""

    column: str
    operator: str
    """One of "=", ">=", "<"."""
    value: Any
    """A text, integer, boolean, date or datetime, as the column's type requires."""


@dataclass(frozen=True)
class TablePartition:
    """A partition of a table."""

    key: str
    """The partition key, as Dagster shows it."""
    dimensions: Sequence[Dimension]

    @property
    def columns(self) -> list[str]:
        """The columns that assign rows to partitions."""
        return [dimension.column for dimension in self.dimensions]

    def conditions(self, schema: pa.Schema) -> list[Condition]:
        """Return the conditions that hold for all rows of the partition, and for no other rows.

        Args:
            schema: The columns of the table; see `storable_type`.

        Raises:
            AssetDefinitionError: A column is missing, or its type cannot tell the partitions apart.
        """
        return [condition for dimension in self.dimensions for condition in _conditions(dimension, schema)]


def merge_windows(partitions: Sequence[TablePartition], schema: pa.Schema) -> list[Condition] | None:
    """Return the conditions of several partitions of time as one range, if each begins where the one before ends.

    Rows in the order of the column are then in the order of the partitions.

    Args:
        partitions: The partitions, in order.
        schema: The columns of the table.

    Returns:
        The conditions; None if the partitions are not one range of time.
    """
    dimensions = [partition.dimensions[0] for partition in partitions if len(partition.dimensions) == 1]
    windows = [dimension.window for dimension in dimensions if dimension.window is not None]
    if len(windows) < max(2, len(partitions)) or any(
        before.end != after.start for before, after in itertools.pairwise(windows)
    ):
        return None
    first, *_, last = dimensions
    conditions = _conditions(first, schema)[:1] + _conditions(last, schema)[1:]
    return conditions if [condition.operator for condition in conditions] == [">=", "<"] else None


def require_rows_in_partitions(
    batches: Iterator[pa.RecordBatch], schema: pa.Schema, partitions: Sequence[TablePartition], label: str
) -> Iterator[pa.RecordBatch]:
    """Yield the batches; raise an error at the first row that belongs to none of the partitions.

    Args:
        batches: The rows.
        schema: The columns of the rows.
        partitions: The partitions of the run.
        label: Names the asset and the partition in errors.

    Raises:
        RowsOutsidePartitionError: A row belongs to another partition, or its column is null.
        AssetDefinitionError: See `TablePartition.conditions`.
    """
    alternatives: list[list[Condition]] | None = None
    row = 0
    for batch in batches:
        if batch.num_rows and alternatives is None:
            alternatives = [partition.conditions(schema) for partition in partitions]
        if batch.num_rows:
            inside = np.zeros(batch.num_rows, bool)
            for conditions in alternatives or ():
                inside |= _mask(batch, conditions)
            if not inside.all():
                raise _outside_error(batch, int(np.argmin(inside)), row, partitions, label)
        row += batch.num_rows
        yield batch


def _mask(batch: pa.RecordBatch, conditions: Sequence[Condition]) -> Any:
    mask = np.ones(batch.num_rows, bool)
    for condition in conditions:
        column = batch.column(condition.column)
        if pa.types.is_null(column.type):
            return np.zeros(batch.num_rows, bool)
        holds = _OPERATIONS[condition.operator](column, pa.scalar(condition.value, column.type))
        mask &= np.asarray(pc.fill_null(holds, pa.scalar(False)))
    return mask


def _outside_error(
    batch: pa.RecordBatch, place: int, rows_before: int, partitions: Sequence[TablePartition], label: str
) -> RowsOutsidePartitionError:
    columns = partitions[0].columns
    found = ", ".join(f"{name} {_shown(batch.column(name)[place].as_py())}" for name in columns)
    wanted = " or ".join(_described(partition) for partition in partitions[:3])
    return RowsOutsidePartitionError(
        f"{label}: row {rows_before + place + 1:,} has {found}, which is outside the partition ({wanted}). Nothing has "
        "been stored.",
        remedy="Return only rows of the partition, or name another column in the metadata partition_expr.",
    )


def _shown(value: Any) -> str:
    return "null" if value is None else str(value)


def _described(partition: TablePartition) -> str:
    return ", ".join(
        f"{dimension.column} = {dimension.key}"
        if dimension.window is None
        else f"{dimension.column} from {_moment(dimension.window.start)} to before {_moment(dimension.window.end)}"
        for dimension in partition.dimensions
    )


def _moment(moment: dt.datetime) -> str:
    local = moment.replace(tzinfo=None)
    return str(local.date() if local.time() == dt.time() else local)


def _conditions(dimension: Dimension, schema: pa.Schema) -> list[Condition]:
    if dimension.column not in schema.names:
        raise AssetDefinitionError(
            f"There is no column {dimension.column}, which the metadata partition_expr names.",
            remedy=f"Name one of the columns: {', '.join(schema.names)}.",
        )
    name, type_ = dimension.column, schema.field(dimension.column).type
    if dimension.window is not None and (pa.types.is_timestamp(type_) or pa.types.is_date(type_)):
        start, end = (_bound(moment, type_, dimension) for moment in dimension.window)
        if start >= end:
            raise AssetDefinitionError(
                f"The partition {dimension.key} is in the hour that daylight saving time repeats, and times without a "
                "zone are the same in both.",
                remedy=f"Give the column {dimension.column} a time zone.",
            )
        return [Condition(name, ">=", start), Condition(name, "<", end)]
    return [Condition(name, "=", _value(dimension, type_))]


def _bound(moment: dt.datetime, type_: pa.DataType, dimension: Dimension) -> dt.date:
    if pa.types.is_timestamp(type_):
        return moment.replace(tzinfo=None) if type_.tz is None else moment.astimezone(dt.UTC)
    if moment.time() != dt.time():
        raise AssetDefinitionError(
            f"The column {dimension.column} has dates without times, but the partition {dimension.key} begins or ends "
            "within a day.",
            remedy="Name a column of times in the metadata partition_expr.",
        )
    return moment.date()


def _value(dimension: Dimension, type_: pa.DataType) -> Any:
    key, types = dimension.key, pa.types
    if types.is_string(type_) or types.is_null(type_):
        return key
    try:
        value: Any = None
        if types.is_integer(type_):
            value = int(key)
        elif types.is_date(type_):
            value = dt.date.fromisoformat(key)
        elif types.is_boolean(type_):
            value = {"true": True, "false": False}.get(key)
    except ValueError:
        value = None
    # Otherwise two keys, such as "1" and "01", would be partitions of the same rows.
    if value is not None and str(value).lower() == key:
        return value
    if types.is_integer(type_) or types.is_date(type_) or types.is_boolean(type_):
        raise AssetDefinitionError(
            f"The partition key {key!r} is not a value of the column {dimension.column} ({type_}).",
            remedy="Use the values of the column as partition keys, written as 7, 2021-01-31 or true; or name another "
            "column in partition_expr.",
        )
    raise AssetDefinitionError(
        f"The column {dimension.column} has the type {type_}, which cannot tell partitions apart.",
        remedy="Name a column of texts, integers, dates or times in the metadata partition_expr.",
    )
