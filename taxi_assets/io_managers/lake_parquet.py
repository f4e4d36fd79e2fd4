"""Store months of trips in the lake as Parquet."""

import dagster as dg
import pandas as pd

from taxi_assets.automation.step_failures import as_failures
from taxi_assets.io_managers.partition_context import object_prefix_of, retry_number_of
from taxi_assets.storage.lake.base_lake import Lake
from taxi_assets.storage.lake.objects import ParquetPartition, StagedParquet


class LakeParquetIOManager(dg.ConfigurableIOManager):
    """Stores months of trips in the lake as Parquet."""

    lake: dg.ResourceDependency[Lake]

    def handle_output(self, context: dg.OutputContext, obj: StagedParquet | ParquetPartition) -> None:
        """Write a staged month to the lake. Do nothing for a `ParquetPartition`, which is in the lake already."""
        if isinstance(obj, StagedParquet):
            with as_failures(retry_number=retry_number_of(context)):
                ParquetPartition.publish(self.lake, object_prefix_of(context), obj, run_id=context.run_id)

    def load_input(self, context: dg.InputContext) -> ParquetPartition | pd.DataFrame:
        """Return a handle to the month, or its rows if the input is annotated as `pandas.DataFrame`."""
        with as_failures(retry_number=retry_number_of(context)):
            trips = ParquetPartition.get(self.lake, object_prefix_of(context))
            return trips.to_pandas() if context.dagster_type.typing_type is pd.DataFrame else trips
