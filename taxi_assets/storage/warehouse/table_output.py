"""The rows that replace a table, or partitions of it, and the rules that hold for them in every warehouse."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from taxi_assets.errors import AssetDefinitionError, AssetValueError, WarehouseSchemaError
from taxi_assets.storage.parquet_rows import write_rows
from taxi_assets.storage.partition_rows import require_rows_in_partitions
from taxi_assets.storage.table_values import Rows, cast_batch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from taxi_assets.storage.partition_rows import TablePartition

_DECIMAL_DIGITS = 38
"""The precision of an Arrow decimal128."""
_INTEGER_DIGITS = 29
"""Digits before the decimal point of decimals with up to nine places, because BigQuery's NUMERIC has no more."""
STORED_PARTITIONS = "stored_partitions"
"""The ledger of tables that assets store: one row per table and partition, with the asset's key."""
WHOLE_TABLE = ""
"""The partition key in the ledger of a table that is not partitioned."""


@dataclass(frozen=True)
class TableOutput:
    """The rows of a table or of some of its partitions, complete and checked, in a local Parquet file."""

    table: str
    """The table's name, without its schema."""
    asset: str
    """The key of the asset that owns the table, as Dagster's UI shows it."""
    partitions: Sequence[TablePartition] | None
    """The partitions to replace, one of which each row belongs to; None to replace the whole table."""
    file: Path
    """The Parquet file. It has the columns of `schema`, except those of type null."""
    schema: pa.Schema
    """The columns, with types from `warehouse_schema`."""
    rows: int
    """Number of rows."""
    descriptions: Mapping[str, str]
    """Descriptions of columns by name, which the warehouse stores as comments."""
    run_id: str
    """The Dagster run that stores the rows."""
    may_adopt: bool
    """Whether the asset may replace a table that is not in the ledger: one that an earlier version has created."""
    require_inputs_unchanged: Callable[[], None]
    """Raises `ConcurrentUpdateError` if the rows are out of date. Called before the old rows are replaced."""

    @property
    def keys(self) -> list[str]:
        """The partition keys in the ledger."""
        return [WHOLE_TABLE] if self.partitions is None else [partition.key for partition in self.partitions]

    def table_columns(self, existing: pa.Schema | None) -> pa.Schema:
        """Return the columns of a table that has exactly these rows.

        The type of a column that has only nulls is unknown. In a partitioned table, such a column is created with its
        first value. In a table that is replaced as a whole, it keeps its type, or becomes text.

        Args:
            existing: The columns of the table; None if it does not exist.
        """
        known = {} if existing is None else {field.name: field.type for field in existing}
        return pa.schema(
            [
                pa.field(field.name, known.get(field.name, pa.string())) if pa.types.is_null(field.type) else field
                for field in self.schema
                if not pa.types.is_null(field.type) or self.partitions is None
            ]
        )

    def new_columns(self, existing: pa.Schema, qualified_name: str) -> pa.Schema:
        """Return the columns that an existing table lacks; none if the table is replaced as a whole.

        Args:
            existing: The columns of the table.
            qualified_name: The table's name in errors.

        Raises:
            WarehouseSchemaError: A column has another type in the table, or a name that differs only in case.
        """
        if self.partitions is None:  # no rows remain that have the old types
            return pa.schema([])
        names = {name.lower(): name for name in existing.names}
        new = []
        for field in self.table_columns(existing):
            name = names.get(field.name.lower())
            if name is None:
                new.append(field)
            elif name != field.name:
                raise WarehouseSchemaError(
                    f"{qualified_name} has the column {name}; the asset {self.asset} returned {field.name}. Databases "
                    "ignore case.",
                    remedy="Return the column under the name that the table has.",
                )
            elif not _fits(self.schema.field(name).type, existing.field(name).type):
                raise WarehouseSchemaError(
                    f"Column {name} of {qualified_name} has type {existing.field(name).type}; the asset {self.asset} "
                    f"returned {self.schema.field(name).type}. Nothing has been replaced.",
                    remedy="Convert the column in the asset. To change its type, drop the table and materialize all "
                    "partitions again.",
                )
        return pa.schema(new)

    def require_owned(self, entries: Iterable[tuple[str, str]], exists: bool, qualified_name: str) -> None:
        """Raise an error if another asset, or something else, has created the table.

        Args:
            entries: Asset and partition key of the ledger's rows of the table.
            exists: Whether the table exists.
            qualified_name: The table's name in errors.

        Raises:
            AssetDefinitionError: The table is not this asset's, or it was stored without partitions.
        """
        recorded = set(entries)
        found = sorted({asset for asset, _ in recorded})
        if found == [self.asset] and self.partitions is not None and (self.asset, WHOLE_TABLE) in recorded:
            raise AssetDefinitionError(
                f"{self.asset} was stored without partitions in {qualified_name}; now it has partitions.",
                remedy="Drop the table, and materialize the partitions.",
            )
        if found == [self.asset] or (not found and (self.may_adopt or not exists)):
            return
        creator = f"stores the asset {', '.join(found)}" if found else "was not created by an asset of this platform"
        raise AssetDefinitionError(
            f"{self.asset} would replace the table {qualified_name}, which {creator}.",
            remedy="Rename the asset: the table has the name of the last part of its key. Or drop the table first.",
        )


def stage_output(
    rows: Rows,
    folder: Path,
    *,
    label: str,
    table: str,
    asset: str,
    partitions: Sequence[TablePartition] | None,
    descriptions: Mapping[str, str],
    run_id: str,
    may_adopt: bool,
    require_inputs_unchanged: Callable[[], None],
) -> TableOutput:
    """Write rows to a file in a folder, in the types of a warehouse, and check that they belong to the partitions.

    Args:
        rows: The rows.
        folder: A private folder, which has to exist until the rows are stored.
        label: Names the asset and the partition in errors.
        table: See `TableOutput`, as for all other arguments.
        asset: The asset.
        partitions: The partitions to replace.
        descriptions: Descriptions of columns.
        run_id: The run.
        may_adopt: Whether a table that is not in the ledger can be replaced.
        require_inputs_unchanged: Checks the inputs.

    Raises:
        AssetValueError: A column cannot be stored, or the column of a partition is missing.
        RowsOutsidePartitionError: A row belongs to none of the partitions.
    """
    schema = warehouse_schema(rows.schema, label)
    for column in itertools.chain.from_iterable(partition.columns for partition in partitions or ()):
        if column not in schema.names:
            raise AssetValueError(
                f"{label}: the rows have no column {column}, which the metadata partition_expr names.",
                remedy=f"Return the column, or name one of: {', '.join(schema.names)}.",
            )
    batches: Iterator[pa.RecordBatch] = (cast_batch(batch, schema, label) for batch in rows.batches)
    if partitions is not None:
        batches = require_rows_in_partitions(batches, schema, partitions, label)
    # A column without values has the type that it has in the table, so the file leaves it out, if it has others.
    known = pa.schema([field for field in schema if not pa.types.is_null(field.type)])
    are_all_null = not known.names
    if are_all_null:
        known = pa.schema([(name, pa.string()) for name in schema.names])
    file = folder / "rows.parquet"
    written = write_rows(Rows(known, (batch.select(known.names).cast(known) for batch in batches)), file, {})
    return TableOutput(
        table=table,
        asset=asset,
        partitions=partitions,
        file=file,
        schema=known if are_all_null and written else schema,
        rows=written,
        descriptions=descriptions,
        run_id=run_id,
        may_adopt=may_adopt,
        require_inputs_unchanged=require_inputs_unchanged,
    )


def warehouse_schema(schema: pa.Schema, label: str) -> pa.Schema:
    """Return the schema with the types in which every warehouse stores and returns the columns.

    Integers and floats have 64 bits, decimals 29 digits before the point, and times with a zone are in UTC. A column
    without any value has the type null.

    Raises:
        AssetValueError: A column has a type that not every warehouse can store, such as a list.
    """
    types = {field.name: _warehouse_type(field.type) for field in schema}
    unknown = [f"{name} ({schema.field(name).type})" for name, type_ in types.items() if type_ is None]
    if unknown:
        raise AssetValueError(
            f"{label}: a warehouse cannot store the columns {', '.join(unknown)}.",
            remedy="Convert them to text, numbers, dates or times.",
        )
    return pa.schema(types.items())


def _warehouse_type(type_: pa.DataType) -> pa.DataType | None:
    types = pa.types
    if types.is_integer(type_):
        return pa.int64()
    if types.is_floating(type_):
        return pa.float64()
    if types.is_decimal(type_):
        digits = min(_DECIMAL_DIGITS, _INTEGER_DIGITS + type_.scale)
        return pa.decimal128(digits, type_.scale) if 0 <= type_.scale <= _DECIMAL_DIGITS else None
    if types.is_timestamp(type_):
        return pa.timestamp("us", None if type_.tz is None else "UTC")
    is_plain = types.is_string(type_) or types.is_boolean(type_) or types.is_date32(type_) or types.is_null(type_)
    return type_ if is_plain else None


def _fits(type_: pa.DataType, existing: pa.DataType) -> bool:
    """Return whether every value of a type can be stored in a column of an existing one, without a change."""
    if pa.types.is_null(type_):
        return True
    if pa.types.is_decimal(type_) and pa.types.is_decimal(existing):
        return bool(type_.scale <= existing.scale)
    return bool(type_ == existing)
