"""How assets are stored: thin Dagster IO managers on top of shelves and warehouse.

An asset function hands over what it made (a fetched file, staged Parquet, clean trips, a frame); the IO manager puts it
in its place and hands lazy handles to the assets downstream. Where nothing has changed it writes nothing.
"""

import time

import dagster as dg
import pandas as pd

from taxi_assets import metadata
from taxi_assets.errors import WarehouseTableMissingError
from taxi_assets.failures import as_failures
from taxi_assets.storage.lake import Lake
from taxi_assets.storage.shelves import ParquetMonth, PublishedFile, StagedFile, StagedParquet
from taxi_assets.storage.warehouse import Warehouse
from taxi_assets.tlc.catalogue import SERVICES
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.schema import Service


class PublishedFileIOManager(dg.ConfigurableIOManager):
    """Published files in the lake, byte for byte, with a record of where they came from."""

    lake: dg.ResourceDependency[Lake]

    def handle_output(self, context: dg.OutputContext, obj: StagedFile | PublishedFile) -> None:
        """Publish what was fetched; a `PublishedFile` is there already."""
        with as_failures():
            if isinstance(obj, StagedFile):
                PublishedFile.publish(self.lake, _stem(context), obj, run_id=context.run_id)
            else:
                obj.tidy()

    def load_input(self, context: dg.InputContext) -> PublishedFile:
        """A handle."""
        with as_failures():
            return PublishedFile.get(self.lake, _stem(context))


class ParquetIOManager(dg.ConfigurableIOManager):
    """Months of trips in the lake, as Parquet."""

    lake: dg.ResourceDependency[Lake]

    def handle_output(self, context: dg.OutputContext, obj: StagedParquet | ParquetMonth) -> None:
        """Publish what was staged; a `ParquetMonth` is there already."""
        if isinstance(obj, StagedParquet):
            with as_failures():
                ParquetMonth.publish(self.lake, _stem(context), obj, run_id=context.run_id)

    def load_input(self, context: dg.InputContext) -> ParquetMonth | pd.DataFrame:
        """A handle, or the month as a frame for an input typed so."""
        with as_failures():
            trips = ParquetMonth.get(self.lake, _stem(context))
            return trips.to_pandas() if _wants_frame(context) else trips


class WarehouseIOManager(dg.ConfigurableIOManager):
    """Tables: a month of a service's trips, or a small table given as a frame."""

    warehouse: dg.ResourceDependency[Warehouse]

    def handle_output(self, context: dg.OutputContext, obj: ParquetMonth | pd.DataFrame) -> None:
        """Replace the month, unless the table holds just these rows; replace a small table."""
        with as_failures():
            if isinstance(obj, pd.DataFrame):
                self.warehouse.replace_frame(context.asset_key.path[-1], obj, metadata.column_descriptions(context))
            else:
                started = time.monotonic()
                loaded = self._load(context, obj)
                rows = self.warehouse.read_month(
                    _service(context), Month.parse(context.partition_key), rows=metadata.PREVIEW_ROWS
                )
                context.add_output_metadata(
                    {
                        "loaded": loaded,
                        "seconds": round(time.monotonic() - started, 3),
                        "preview": metadata.preview(rows),
                    }
                )

    def _load(self, context: dg.OutputContext, trips: ParquetMonth) -> str:
        service, month = _service(context), Month.parse(context.partition_key)
        loaded = self.warehouse.loaded(service, month)
        if (
            loaded is not None
            and loaded.data_version == trips.report.data_version
            and trips.report.clean.rows  # a month without rows looks like a table that has gone
            and self.warehouse.totals(service, month) == trips.report.clean
        ):
            return "unchanged"
        self.warehouse.replace_month(service, month, trips, run_id=context.run_id)
        return "replaced"

    def load_input(self, context: dg.InputContext) -> pd.DataFrame:
        """The partition, or the small table, as a frame."""
        with as_failures():
            if context.has_asset_partitions:
                service, month = _service(context), Month.parse(context.partition_key)
                if self.warehouse.loaded(service, month) is None:
                    raise WarehouseTableMissingError(
                        f"{self.warehouse.table_name(service.table)} does not hold {service.name} {month}.",
                        remedy="Materialize its warehouse asset for this month first.",
                    )
                return self.warehouse.read_month(service, month)
            return self.warehouse.read_frame(context.asset_key.path[-1])


def _stem(context: dg.OutputContext | dg.InputContext) -> str:
    partition = [context.partition_key] if context.has_asset_partitions else []
    return "/".join([*context.asset_key.path, *partition])


def _service(context: dg.OutputContext | dg.InputContext) -> Service:
    table = context.asset_key.path[-1]
    return next(service for service in SERVICES.values() if service.table == table)


def _wants_frame(context: dg.InputContext) -> bool:
    return context.dagster_type.typing_type is pd.DataFrame
