"""Store unpartitioned tables, given as pandas DataFrames, in the warehouse."""

from collections.abc import Mapping

import dagster as dg
import pandas as pd

from taxi_assets import metadata
from taxi_assets.automation.step_failures import as_failures
from taxi_assets.io_managers.partition_context import retry_number_of
from taxi_assets.storage.pandas_types import StagedFrame
from taxi_assets.storage.warehouse.base_warehouse import Warehouse, noop


class WarehouseFrameIOManager(dg.ConfigurableIOManager):
    """Stores unpartitioned tables in the warehouse, each named after the last part of its asset key."""

    warehouse: dg.ResourceDependency[Warehouse]

    def handle_output(self, context: dg.OutputContext, obj: StagedFrame | pd.DataFrame) -> None:
        """Replace the whole table with the frame."""
        with as_failures(retry_number=retry_number_of(context)):
            replace_frame(self.warehouse, context.asset_key.path[-1], obj, metadata.column_descriptions(context))

    def load_input(self, context: dg.InputContext) -> pd.DataFrame:
        """Return the whole table."""
        with as_failures():
            return self.warehouse.read_frame(context.asset_key.path[-1])


def replace_frame(
    warehouse: Warehouse, name: str, output: StagedFrame | pd.DataFrame, descriptions: Mapping[str, str]
) -> None:
    """Replace an unpartitioned table of the warehouse.

    Args:
        warehouse: The warehouse that holds the table.
        name: The table's name, without its schema.
        output: The rows. A `StagedFrame` is written only if its inputs have not changed.
        descriptions: Descriptions of columns by name; the warehouse stores them as comments.

    Raises:
        ConcurrentUpdateError: The inputs of a `StagedFrame` have changed.
    """
    staged = output if isinstance(output, StagedFrame) else StagedFrame(output, noop)
    warehouse.replace_frame(name, staged.frame, descriptions, require_inputs_unchanged=staged.require_inputs_unchanged)
