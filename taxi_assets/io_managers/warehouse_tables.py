"""How assets are stored: thin Dagster IO managers on top of shelves and warehouse.

An asset function hands over what it made (a fetched file, staged Parquet, clean trips, a frame); the IO manager puts it
in its place and hands lazy handles to the assets downstream. Where nothing has changed it writes nothing.
"""

import time
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, NamedTuple

import dagster as dg
import pandas as pd

from taxi_assets import metadata
from taxi_assets.automation.step_failures import CONCURRENT_UPDATE_RETRIES, as_failures
from taxi_assets.errors import ConcurrentUpdateError, WarehouseTableMissingError
from taxi_assets.marts.mart import Mart, MartMonth, marts
from taxi_assets.reports.artifact import PAGE, StagedReport, sha256
from taxi_assets.storage.lake.base_lake import Lake
from taxi_assets.storage.lake.objects import ParquetPartition, RawFile, StagedParquet, StagedRawFile
from taxi_assets.storage.pandas_types import StagedFrame
from taxi_assets.storage.warehouse.base_warehouse import Warehouse, noop
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.schema import Service
from taxi_assets.tlc.services.registry import SERVICES


class RawFileIOManager(dg.ConfigurableIOManager):
    """Published files in the lake, byte for byte, with a record of where they came from."""

    lake: dg.ResourceDependency[Lake]

    def handle_output(self, context: dg.OutputContext, obj: StagedRawFile | RawFile) -> None:
        """Publish what was fetched; a `RawFile` is there already."""
        with as_failures(retry_number=_retry_number(context)):
            if isinstance(obj, StagedRawFile):
                RawFile.publish(self.lake, _object_prefix(context), obj, run_id=context.run_id)
            else:
                obj.delete_other_formats()

    def load_input(self, context: dg.InputContext) -> RawFile:
        """A handle."""
        with as_failures():
            return RawFile.get(self.lake, _object_prefix(context))


class LakeParquetIOManager(dg.ConfigurableIOManager):
    """Months of trips in the lake, as Parquet."""

    lake: dg.ResourceDependency[Lake]

    def handle_output(self, context: dg.OutputContext, obj: StagedParquet | ParquetPartition) -> None:
        """Publish what was staged; a `ParquetPartition` is there already."""
        if isinstance(obj, StagedParquet):
            with as_failures(retry_number=_retry_number(context)):
                ParquetPartition.publish(self.lake, _object_prefix(context), obj, run_id=context.run_id)

    def load_input(self, context: dg.InputContext) -> ParquetPartition | pd.DataFrame:
        """A handle, or the month as a frame for an input typed so."""
        with as_failures(retry_number=_retry_number(context)):
            trips = ParquetPartition.get(self.lake, _object_prefix(context))
            return trips.to_pandas() if _wants_frame(context) else trips


class ReportIOManager(dg.ConfigurableIOManager):
    """A folder of the lake for each report: its pictures, and the page that shows them."""

    lake: dg.ResourceDependency[Lake]

    def handle_output(self, context: dg.OutputContext, obj: StagedReport) -> None:
        """Publish what is not there already, the page last; remove pictures that the report has no longer."""
        with as_failures(retry_number=_retry_number(context)):
            keys = {file: f"{_object_prefix(context)}/{file.name}" for file in obj.files}
            new = [file for file, key in keys.items() if not self.lake.has_digest(key, sha256=sha256(file))]
            for file in new:
                self.lake.publish(file, keys[file], replaces=obj.replaces[file.name], run_id=context.run_id)
            for name in obj.removed:
                self.lake.delete(f"{_object_prefix(context)}/{name}")
        context.add_output_metadata({"written": "replaced" if new else "unchanged"})

    def load_input(self, context: dg.InputContext) -> str:
        """The page's HTML."""
        with as_failures(), self.lake.open(f"{_object_prefix(context)}/{PAGE}") as page:
            return page.read().decode()


class WarehouseTableIOManager(dg.ConfigurableIOManager):
    """Tables: a month of a service's trips, a month of a mart, or a small table given as a frame."""

    warehouse: dg.ResourceDependency[Warehouse]

    def handle_output(
        self, context: dg.OutputContext, obj: ParquetPartition | MartMonth | StagedFrame | pd.DataFrame
    ) -> None:
        """Replace the month, unless the table holds just these rows; replace a small table.

        A `MartMonth` is there already: its asset has replaced it in the connection of its checks.
        """
        if isinstance(obj, MartMonth):
            return
        with as_failures(retry_number=_retry_number(context)):
            if isinstance(obj, StagedFrame | pd.DataFrame):
                replace_frame(self.warehouse, context.asset_key.path[-1], obj, metadata.column_descriptions(context))
                return
            started = time.monotonic()
            said = self._load(context, obj)
            context.add_output_metadata({**said, "seconds": round(time.monotonic() - started, 3)})

    def _load(self, context: dg.OutputContext, trips: ParquetPartition) -> dict[str, Any]:
        service, month = _service(context), Month.parse(context.partition_key)
        # Others wait while the warehouse is held, so not while the trips are fetched from a remote lake.
        with nullcontext() if trips.lake.is_remote else self.warehouse.session():
            loaded = self.warehouse.loaded(service, month)
            unchanged = (
                loaded is not None
                and loaded.data_version == trips.report.data_version
                and trips.report.clean.rows  # a month without rows looks like a table that has gone
                and self.warehouse.totals(service, month) == trips.report.clean
            )
            if not unchanged:
                self.warehouse.replace_month(service, month, trips, run_id=context.run_id)
            rows = self.warehouse.read_month(service, month, rows=metadata.PREVIEW_ROWS)
        return {"loaded": "unchanged" if unchanged else "replaced", "preview": metadata.preview(rows)}

    def load_input(self, context: dg.InputContext) -> pd.DataFrame:
        """The partition, or the small table, as a frame."""
        name = context.asset_key.path[-1]
        with as_failures():
            if not context.has_asset_partitions:
                return self.warehouse.read_frame(name)
            month = Month.parse(context.partition_key)
            if name in marts():
                return self.warehouse.read_portable_frame(_rows_of(marts()[name], month))
            service = _service(context)
            if self.warehouse.loaded_after_wait(service, month) is None:
                raise WarehouseTableMissingError(
                    f"{self.warehouse.table_name(service.table)} does not hold {service.name} {month}.",
                    remedy="Materialize its warehouse asset for this month first.",
                )
            return self.warehouse.read_month(service, month)


def replace_frame(
    warehouse: Warehouse, name: str, output: StagedFrame | pd.DataFrame, descriptions: Mapping[str, str]
) -> None:
    """Replace a small table, where what it was made of is still so."""
    staged = output if isinstance(output, StagedFrame) else StagedFrame(output, noop)
    warehouse.replace_frame(name, staged.frame, descriptions, require_current=staged.require_current)


class ReplacedMart(NamedTuple):
    """A month of a mart that is in the warehouse: the number of its rows, and the first of them."""

    rows: int
    first: pd.DataFrame


def replace_mart(warehouse: Warehouse, output: MartMonth, *, run_id: str) -> ReplacedMart:
    """Replace the month, unless another run has loaded other trips meanwhile: then raises `ConcurrentUpdateError`."""
    mart, month = output.mart, output.month
    with warehouse.session():
        rows = warehouse.replace_mart(
            mart, month, output.services, run_id=run_id, require_current=lambda: _require_same(warehouse, output)
        )
        return ReplacedMart(rows, warehouse.read_portable_frame(_rows_of(mart, month, metadata.PREVIEW_ROWS)))


def _require_same(warehouse: Warehouse, output: MartMonth) -> None:
    found = warehouse.versions(output.mart.services, output.month)
    if found != output.versions:
        changed = sorted({name for name, _ in found.items() ^ output.versions.items()})
        raise ConcurrentUpdateError(
            f"marts/{output.mart.name} {output.month}: another run has loaded {', '.join(changed)} since this one "
            "looked at what is loaded.",
            remedy="Materialize it once more.",
        )


def _rows_of(mart: Mart, month: Month, rows: int | None = None) -> str:
    columns = ", ".join(column.name for column in mart.columns)
    query = f"SELECT {columns} FROM {mart.name} WHERE data_month = CAST('{month.start}' AS DATE) "  # noqa: S608  (of our own names)
    return query + f"ORDER BY {', '.join(mart.key)}" + (f" LIMIT {rows}" if rows else "")


def _retry_number(context: dg.OutputContext | dg.InputContext) -> int:
    """How many attempts of the step have failed; where there is no step, none can be retried."""
    try:
        return context.step_context.previous_attempt_count
    except dg.DagsterInvariantViolationError:
        return CONCURRENT_UPDATE_RETRIES


def _object_prefix(context: dg.OutputContext | dg.InputContext) -> str:
    partition = [context.partition_key] if context.has_asset_partitions else []
    return "/".join([*context.asset_key.path, *partition])


def _service(context: dg.OutputContext | dg.InputContext) -> Service:
    table = context.asset_key.path[-1]
    return next(service for service in SERVICES.values() if service.table == table)


def _wants_frame(context: dg.InputContext) -> bool:
    return context.dagster_type.typing_type is pd.DataFrame
