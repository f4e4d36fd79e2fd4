"""Store rows in BigQuery, and read small tables as pandas frames with dagster-gcp-pandas.

The IO manager of dagster-gcp-pandas is not used for writing: it deletes the rows, then appends new ones, so that a
failed load leaves an empty table. It also changes column names to upper case.
"""

from dataclasses import dataclass
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa
from dagster_gcp_pandas import BigQueryPandasTypeHandler
from google.cloud import bigquery

from taxi_assets.dagster_compat import TableSlice
from taxi_assets.io_managers.warehouse_table import StoredTable, WarehouseTableIOManager
from taxi_assets.resources.google import BigQueryClientResource
from taxi_assets.storage.pandas_types import to_frame
from taxi_assets.storage.warehouse.bigquery import BigQueryWarehouse
from taxi_assets.storage.warehouse.bigquery.result_rows import download_batches
from taxi_assets.storage.warehouse.bigquery.table_rows import arrow_schema


class BigQueryTableIOManager(WarehouseTableIOManager):
    """Stores rows in a table of BigQuery; see `WarehouseTableIOManager`."""

    warehouse: dg.ResourceDependency[BigQueryWarehouse]

    def _load_table(self, context: dg.InputContext, table: StoredTable, type_: Any) -> Any:
        if type_ is not pd.DataFrame or table.existing is None:
            return super()._load_table(context, table, type_)
        source = TableSlice(table=table.name, schema=self.warehouse.dataset, database=self.warehouse.project)
        with self.warehouse.client(f"{table.name} cannot be read") as client:
            frame = BigQueryPandasTypeHandler().load_input(context, source, _ArrowClient(client, self.warehouse.api))
        frame.columns = table.existing.names  # dagster-gcp-pandas changes them to lower case
        return frame


@dataclass(frozen=True)
class _ArrowClient:
    """A client whose query results become Arrow-backed frames, which tell a null from a NaN and keep decimals exact."""

    client: bigquery.Client
    api: BigQueryClientResource

    def query(self, query: str, **options: Any) -> "_ArrowResult":
        return _ArrowResult(self.client.query(query, **options), self.api)


@dataclass(frozen=True)
class _ArrowResult:
    job: Any
    api: BigQueryClientResource

    def to_dataframe(self) -> pd.DataFrame:
        table = pa.Table.from_batches(download_batches(self.job, self.api))
        return to_frame(table.cast(arrow_schema(self.job.result().schema)))
