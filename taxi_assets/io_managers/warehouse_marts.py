"""Store months of marts in the warehouse, which computes them from the trips that are loaded."""

from typing import NamedTuple

import dagster as dg
import pandas as pd

from taxi_assets import metadata
from taxi_assets.automation.step_failures import as_failures
from taxi_assets.errors import ConcurrentUpdateError
from taxi_assets.marts.mart import Mart, MartMonth, marts
from taxi_assets.storage.warehouse.base_warehouse import Warehouse
from taxi_assets.tlc.month import Month


class WarehouseMartIOManager(dg.ConfigurableIOManager):
    """Reads months of marts. The asset writes them with `replace_mart`."""

    warehouse: dg.ResourceDependency[Warehouse]

    def handle_output(self, context: dg.OutputContext, obj: MartMonth) -> None:
        """Do nothing: the asset has already replaced the month, to share a warehouse session with its checks."""

    def load_input(self, context: dg.InputContext) -> pd.DataFrame:
        """Return the month's rows, ordered by the mart's key."""
        mart = marts()[context.asset_key.path[-1]]
        with as_failures():
            return self.warehouse.read_portable_frame(_month_query(mart, Month.parse(context.partition_key)))


class ReplacedMart(NamedTuple):
    """A month of a mart that has been replaced."""

    rows: int
    """Number of rows."""
    preview: pd.DataFrame
    """The first rows."""


def replace_mart(warehouse: Warehouse, output: MartMonth, *, run_id: str) -> ReplacedMart:
    """Compute the month in the warehouse and replace its rows.

    Raises:
        ConcurrentUpdateError: Another run has loaded other trips since `output.versions` was read.
    """
    mart, month = output.mart, output.month
    with warehouse.session():
        rows = warehouse.replace_mart(
            mart,
            month,
            output.services,
            run_id=run_id,
            require_inputs_unchanged=lambda: _require_same_versions(warehouse, output),
        )
        return ReplacedMart(rows, warehouse.read_portable_frame(_month_query(mart, month, metadata.PREVIEW_ROWS)))


def _require_same_versions(warehouse: Warehouse, output: MartMonth) -> None:
    found = warehouse.loaded_versions(output.mart.services, output.month)
    if found != output.versions:
        changed = sorted({name for name, _ in found.items() ^ output.versions.items()})
        raise ConcurrentUpdateError(
            f"marts/{output.mart.name} {output.month}: another run has loaded {', '.join(changed)} since this run "
            "read the loaded versions.",
            remedy="Materialize it again.",
        )


def _month_query(mart: Mart, month: Month, rows: int | None = None) -> str:
    columns = ", ".join(column.name for column in mart.columns)
    query = f"SELECT {columns} FROM {mart.name} WHERE data_month = CAST('{month.start}' AS DATE) "  # noqa: S608  (names from the mart's definition)
    return query + f"ORDER BY {', '.join(mart.key)}" + (f" LIMIT {rows}" if rows else "")
