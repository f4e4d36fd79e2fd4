"""Store rows in BigQuery, and read small tables as pandas frames with dagster-gcp-pandas.

The IO manager of dagster-gcp-pandas is not used for writing: it deletes the rows, then appends new ones, so that a
failed load leaves an empty table. It also changes column names to upper case.
"""

import warnings
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa
from dagster_gcp_pandas import BigQueryPandasTypeHandler

from taxi_assets.dagster_compat import TableSlice
from taxi_assets.io_managers.warehouse_table import StoredTable, WarehouseTableIOManager
from taxi_assets.storage.pandas_types import to_frame
from taxi_assets.storage.warehouse.bigquery import BigQueryWarehouse


class BigQueryTableIOManager(WarehouseTableIOManager):
    """Stores rows in a table of BigQuery; see `WarehouseTableIOManager`."""

    warehouse: dg.ResourceDependency[BigQueryWarehouse]

    def _load_table(self, context: dg.InputContext, table: StoredTable, type_: Any) -> Any:
        if type_ is not pd.DataFrame or table.existing is None:
            return super()._load_table(context, table, type_)
        source = TableSlice(table=table.name, schema=self.warehouse.dataset, database=self.warehouse.project)
        with self.warehouse.client(f"{table.name} cannot be read") as client, warnings.catch_warnings():
            # The client warns that BigQuery's Storage API would be faster, which small tables do not need.
            warnings.simplefilter("ignore")
            frame = BigQueryPandasTypeHandler().load_input(context, source, client)
        frame.columns = table.existing.names  # dagster-gcp-pandas changes them to lower case
        return to_frame(pa.Table.from_pandas(frame, table.existing, preserve_index=False))
