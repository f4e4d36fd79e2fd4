"""Store rows in tables of the warehouse: trips, marts, and what your own assets return."""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet

from taxi_assets import metadata
from taxi_assets.errors import AssetDefinitionError, WarehouseTableMissingError
from taxi_assets.io_managers.asset_context import (
    add_new_metadata,
    allows_missing_partitions,
    asset_failures,
    asset_label,
    list_keys,
    partition_columns,
    requested_type,
    require_input_type,
    table_partitions,
)
from taxi_assets.marts.mart import MartMonth, marts
from taxi_assets.storage.lake.objects import ParquetPartition
from taxi_assets.storage.lake.staging import temporary_folder
from taxi_assets.storage.pandas_types import StagedFrame
from taxi_assets.storage.partition_rows import Condition, TablePartition, merge_windows
from taxi_assets.storage.query_dataset import QueryDataset
from taxi_assets.storage.table_values import (
    OUTPUT_TYPES,
    is_output_type,
    load_dataset,
    open_rows,
    type_name,
)
from taxi_assets.storage.warehouse.base_warehouse import Warehouse, noop
from taxi_assets.storage.warehouse.table_output import STORED_PARTITIONS, stage_output
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.schema import Service, build_arrow_schema
from taxi_assets.tlc.services.registry import SERVICES
from taxi_assets.tlc.zones import ZONES_TABLE

_TABLE_NAME = re.compile("[a-z_][a-z0-9_]{0,62}")
_PLATFORM_TYPES = {ParquetPartition, MartMonth, StagedFrame}


class WarehouseTableIOManager(dg.ConfigurableIOManager):
    """Stores rows in a table of the warehouse, which has the name of the last part of the asset's key.

    An asset returns a `pandas.DataFrame`, `pyarrow.Table`, `pyarrow.RecordBatchReader`, `polars.DataFrame` or
    `polars.LazyFrame`. The rows replace the partition of the run, or the whole table if the asset is not partitioned.
    The metadata `partition_expr` names the column that assigns rows to partitions. For multi-dimensional partitions, it
    names one column per dimension. An input gets the partitions that its partition mapping selects: one after the
    other, or each by itself in a `dict[str, …]`.

        @dg.asset(
            partitions_def=monthly_partitions(SERVICES["green"]),
            ins={"trips": dg.AssetIn(["warehouse", "green_trips"])},
            io_manager_key="warehouse_table",
            metadata={"partition_expr": "data_month"},
        )
        def tips_per_zone(trips: pd.DataFrame) -> pd.DataFrame:
            return trips.groupby(["data_month", "pickup_location_id"], as_index=False)["tip_amount"].sum()
    """

    warehouse: dg.ResourceDependency[Warehouse]

    @staticmethod
    def check_definition(
        asset: dg.AssetKey, type_: Any, definition_metadata: Mapping[str, Any], partitions: Any
    ) -> None:
        """Raise an error if an asset is defined in a way that this IO manager cannot store.

        Args:
            asset: The asset.
            type_: The type that the asset's function declares to return; `typing.Any` if there is none.
            definition_metadata: The asset's definition metadata.
            partitions: The asset's partitions definition, or None.

        Raises:
            AssetDefinitionError: The type cannot be stored, another asset has the table's name, or the column that
                assigns rows to partitions is not given.
        """
        if type_ is not Any and type_ not in _PLATFORM_TYPES and not is_output_type(type_):
            raise AssetDefinitionError(
                f"{asset.to_user_string()} returns {type_name(type_)}, which warehouse_table cannot store.",
                remedy=f"Return one of: {', '.join(OUTPUT_TYPES)}.",
            )
        _require_own_table(asset)
        if partitions is not None:
            partition_columns(asset, definition_metadata, partitions)

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Replace the partition of the run, or the whole table.

        Trips replace their month with the clean trips in the lake, unless the table contains exactly these trips. The
        month of a mart has already been replaced by its asset, to share a warehouse session with its checks.
        """
        with asset_failures(context):
            service = _service_of(context.asset_key)
            if service is not None and isinstance(obj, ParquetPartition):
                started = time.monotonic()
                outcome = self._load_trips(service, Month.parse(context.partition_key), obj, context.run_id)
                context.add_output_metadata({**outcome, **metadata.duration_metadata(time.monotonic() - started)})
            elif not (isinstance(obj, MartMonth) and context.asset_key.path == ["marts", obj.mart.name]):
                self._store(context, obj)

    def load_input(self, context: dg.InputContext) -> Any:
        """Return the rows in the type that the input asks for.

        Trips come in the order of the published file, marts in the order of their key, other rows in no particular
        order within a partition.

        Raises:
            dagster.Failure: The table does not contain a partition (`WarehouseTableMissingError`), or another error of
                this package.
        """
        with asset_failures(context):
            type_, by_partition = requested_type(context)
            require_input_type(context, type_)
            upstream_metadata: Mapping[str, Any] = getattr(context.upstream_output, "definition_metadata", None) or {}
            partitions = table_partitions(context, upstream_metadata)
            with self.warehouse.session():
                existing = self.warehouse.table_schema(context.asset_key.path[-1])
                table = StoredTable(self.warehouse, context.asset_key, existing)
                present = [] if partitions is None else _present_partitions(context, table, partitions)
            # Outside the session: pyarrow runs the queries in its own threads, which would wait for the session's end.
            if partitions is None:
                return self._load_table(context, table, type_)
            if by_partition:
                return {partition.key: load_dataset(table.dataset([partition]), type_) for partition in present}
            return load_dataset(table.dataset(present), type_)

    def _load_table(self, context: dg.InputContext, table: "StoredTable", type_: Any) -> Any:  # noqa: ARG002  (for BigQuery)
        """Return all rows of a table without partitions."""
        return load_dataset(table.dataset(None), type_)

    # --- trips -------------------------------------------------------------------------------------------------------

    def _load_trips(self, service: Service, month: Month, trips: ParquetPartition, run_id: str) -> dict[str, Any]:
        with self.warehouse.session():  # a month that is loaded already is only read: others can read, too
            loaded = self.warehouse.loaded_month(service, month)
            unchanged = (
                loaded is not None
                and loaded.data_version == trips.report.data_version
                and trips.report.clean.rows  # an empty month is always loaded: a missing table has the same totals
                and self.warehouse.totals(service, month) == trips.report.clean
            )
            rows = self.warehouse.read_month(service, month, rows=metadata.PREVIEW_ROWS) if unchanged else None
        if rows is None:  # without a session: others would wait for a download from the lake
            self.warehouse.replace_month(service, month, trips, run_id=run_id)
            rows = self.warehouse.read_month(service, month, rows=metadata.PREVIEW_ROWS)
        return {"loaded": "unchanged" if unchanged else "replaced", "preview": metadata.preview(rows)}

    # --- rows of other assets ----------------------------------------------------------------------------------------

    def _store(self, context: dg.OutputContext, value: Any) -> None:
        asset, label = context.asset_key, asset_label(context)
        _require_own_table(asset)
        definition_metadata = context.definition_metadata or {}
        partitions = table_partitions(context, definition_metadata)
        check = value.require_inputs_unchanged if isinstance(value, StagedFrame) else noop
        rows = open_rows(value.frame if isinstance(value, StagedFrame) else value, label)
        with temporary_folder() as folder:
            output = stage_output(
                rows,
                folder,
                label=label,
                table=asset.path[-1],
                asset=asset.to_user_string(),
                partitions=partitions,
                descriptions=metadata.column_descriptions(context),
                run_id=context.run_id,
                may_adopt=asset.path[-1] in _platform_tables(),
                require_inputs_unchanged=check,
            )
            self.warehouse.replace_rows(output)
            first = pyarrow.parquet.ParquetFile(output.file).iter_batches(batch_size=metadata.PREVIEW_ROWS)
            found = {
                **metadata.rows_metadata(context, output.schema, output.rows),
                **metadata.rows_preview(output.schema, next(first, None)),
                **metadata.table_location(self.warehouse, output.table),
            }
        add_new_metadata(context, found)


@dataclass(frozen=True)
class StoredTable:
    """A table of the warehouse that an input reads."""

    warehouse: Warehouse
    asset: dg.AssetKey
    existing: pa.Schema | None
    """The columns that the table has; None if it does not exist."""

    @property
    def name(self) -> str:
        """The name of the table, without its schema."""
        return self.asset.path[-1]

    def dataset(self, partitions: Sequence[TablePartition] | None) -> QueryDataset:
        """Return the rows of the partitions, or of the whole table, without reading them."""
        if self.existing is None:
            if partitions is None:
                asset = self.asset.to_user_string()
                raise WarehouseTableMissingError(
                    f"The table {self.warehouse.table_name(self.name)} of {asset} does not exist in "
                    f"{self.warehouse.uri()}.",
                    remedy=f"Materialize {asset} first.",
                )
            return QueryDataset(pa.schema([]), [])  # partitions without rows, of a table without a column yet
        schema, order_by = self._definition(self.existing)
        conditions: Sequence[Sequence[Condition]] = [()]
        if partitions is not None:
            stored = self._with_rows(partitions)
            conditions = [partition.conditions(self.existing) for partition in stored]
            window = None if order_by else merge_windows(stored, self.existing)
            if window is not None:  # one query, instead of one for each day of a year
                conditions, order_by = [window], stored[0].columns
        return QueryDataset(schema, [partial(self._query, self.existing, found, order_by) for found in conditions])

    def _definition(self, existing: pa.Schema) -> tuple[pa.Schema, Sequence[str]]:
        """Return the columns of the rows and the columns that order them.

        Trips and marts have the columns of their definition. Those that the table does not have yet are null.
        """
        service = _service_of(self.asset)
        if service is not None:
            return service.arrow_schema, ["source_row"]
        mart = marts().get(self.name) if self.asset.path[0] == "marts" else None
        return (existing, []) if mart is None else (build_arrow_schema(mart.columns), mart.key)

    def _with_rows(self, partitions: Sequence[TablePartition]) -> list[TablePartition]:
        names = set(self.existing.names) if self.existing is not None else set()
        without_column = [partition for partition in partitions if not set(partition.columns) <= names]
        if not without_column or self.warehouse.stored_partitions(self.name) is None:
            return list(partitions)
        # A column is created with its first value. Without it, none of the partitions stored so far has a row.
        return [partition for partition in partitions if partition not in without_column]

    def _query(
        self,
        existing: pa.Schema,
        conditions: Sequence[Condition],
        order_by: Sequence[str],
        columns: Sequence[str],
        limit: int | None,
    ) -> pa.RecordBatchReader:
        # If the table has none of the columns, the rows still count.
        found = [name for name in columns if name in existing.names] or existing.names[:1]
        return self.warehouse.read_rows(self.name, found, conditions, order_by=order_by, limit=limit)

    def presence(self) -> Callable[[TablePartition], bool]:
        """Return a function that tells whether the table contains a partition."""
        service = _service_of(self.asset)
        if service is not None:
            return lambda partition: (
                self.warehouse.wait_for_loaded_month(service, Month.parse(partition.key)) is not None
            )
        stored = self.warehouse.stored_partitions(self.name)
        if stored is not None and self.existing is not None:
            return lambda partition: partition.key in stored
        if stored is not None:  # without a table, only partitions that never had rows
            return lambda partition: not stored.get(partition.key, True)
        existing = self.existing
        if existing is None:
            return lambda _partition: False
        # Nothing records the partitions of a mart, or of a table that another tool writes: those with rows are there.
        return lambda partition: bool(
            self.warehouse.read_rows(self.name, partition.columns[:1], partition.conditions(existing), limit=1)
            .read_all()
            .num_rows
        )


def _present_partitions(
    context: dg.InputContext, table: "StoredTable", partitions: Sequence[TablePartition]
) -> list[TablePartition]:
    """Return the partitions that the table contains.

    Raises:
        WarehouseTableMissingError: One is missing, and the input does not allow that.
    """
    is_present = table.presence()
    present = [partition for partition in partitions if is_present(partition)]
    present_keys = {partition.key for partition in present}
    missing = [partition.key for partition in partitions if partition.key not in present_keys]
    if missing and not allows_missing_partitions(context):
        asset, name = context.asset_key.to_user_string(), table.warehouse.table_name(table.name)
        raise WarehouseTableMissingError(
            f"{name} does not contain {asset} for {list_keys(missing)}."
            if table.existing is not None
            else f"The table {name} of {asset} does not exist in {table.warehouse.uri()}.",
            remedy=f"Materialize {asset} for {'these partitions' if len(missing) > 1 else missing[0]} first. To read "
            "only partitions that exist, add the metadata allow_missing_partitions: true to the input.",
        )
    return present


def _service_of(asset: dg.AssetKey) -> Service | None:
    """Return the service whose trips an asset of the platform stores; None for any other asset."""
    return next((s for s in SERVICES.values() if asset.path == ["warehouse", s.table]), None)


def _platform_tables() -> dict[str, str | None]:
    """Return the tables and views of the platform, each with the key of its asset; None if there is no asset."""
    tables: dict[str, str | None] = dict.fromkeys(["loaded_months", STORED_PARTITIONS])
    for service in SERVICES.values():
        tables |= {service.table: f"warehouse/{service.table}", f"{service.table}_loads": None}
    for mart in marts().values():
        tables |= {mart.name: f"marts/{mart.name}"} | dict.fromkeys(mart.views)
    return tables | {ZONES_TABLE: f"reference/{ZONES_TABLE}", "month_quality": "quality/month_quality"}


def _require_own_table(asset: dg.AssetKey) -> None:
    tables, table = _platform_tables(), asset.path[-1]
    if not _TABLE_NAME.fullmatch(table):
        raise AssetDefinitionError(
            f"{asset.to_user_string()}: {table!r} cannot be the name of a table in every database.",
            remedy="Rename the asset: the last part of its key can have up to 63 lower-case letters, digits and "
            "underscores.",
        )
    if table in tables and tables[table] != asset.to_user_string():
        raise AssetDefinitionError(
            f"{asset.to_user_string()} would replace the table {table}, which belongs to "
            f"{'the platform' if tables[table] is None else f'the asset {tables[table]}'}.",
            remedy="Rename the asset: the table has the name of the last part of its key.",
        )
