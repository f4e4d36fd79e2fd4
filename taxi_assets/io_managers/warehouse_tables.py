"""Store a service's months of trips as partitions of one warehouse table."""

import time
from contextlib import nullcontext
from typing import Any

import dagster as dg
import pandas as pd

from taxi_assets import metadata
from taxi_assets.automation.step_failures import as_failures
from taxi_assets.errors import WarehouseTableMissingError
from taxi_assets.io_managers.partition_context import retry_number_of, service_of
from taxi_assets.storage.lake.objects import ParquetPartition
from taxi_assets.storage.warehouse.base_warehouse import Warehouse
from taxi_assets.tlc.month import Month


class WarehouseTableIOManager(dg.ConfigurableIOManager):
    """Stores months of trips in the warehouse: each is a partition of the service's table."""

    warehouse: dg.ResourceDependency[Warehouse]

    def handle_output(self, context: dg.OutputContext, obj: ParquetPartition) -> None:
        """Replace the month with the clean trips in the lake, unless the table contains exactly these trips."""
        with as_failures(retry_number=retry_number_of(context)):
            started = time.monotonic()
            outcome = self._load(context, obj)
            context.add_output_metadata({**outcome, **metadata.duration_metadata(time.monotonic() - started)})

    def load_input(self, context: dg.InputContext) -> pd.DataFrame:
        """Return the month's trips, in the order of the published file.

        Raises:
            dagster.Failure: The table does not contain the month (`WarehouseTableMissingError`).
        """
        service, month = service_of(context), Month.parse(context.partition_key)
        with as_failures():
            if self.warehouse.wait_for_loaded_month(service, month) is None:
                raise WarehouseTableMissingError(
                    f"{self.warehouse.table_name(service.table)} does not contain {service.name} {month}.",
                    remedy="Materialize its warehouse asset for this month first.",
                )
            return self.warehouse.read_month(service, month)

    def _load(self, context: dg.OutputContext, trips: ParquetPartition) -> dict[str, Any]:
        service, month = service_of(context), Month.parse(context.partition_key)
        # DuckDB's session locks the file. With a remote lake, none is opened: others would wait for the download.
        with nullcontext() if trips.lake.is_remote else self.warehouse.session():
            loaded = self.warehouse.loaded_month(service, month)
            unchanged = (
                loaded is not None
                and loaded.data_version == trips.report.data_version
                and trips.report.clean.rows  # an empty month is always loaded: a missing table has the same totals
                and self.warehouse.totals(service, month) == trips.report.clean
            )
            if not unchanged:
                self.warehouse.replace_month(service, month, trips, run_id=context.run_id)
            rows = self.warehouse.read_month(service, month, rows=metadata.PREVIEW_ROWS)
        return {"loaded": "unchanged" if unchanged else "replaced", "preview": metadata.preview(rows)}
