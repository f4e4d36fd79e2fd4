"""Store unpartitioned tables, given as pandas DataFrames, in BigQuery, with the IO manager of dagster-gcp-pandas.

On its own, that IO manager deletes the rows, then appends new ones: a failed load leaves an empty table. It also
changes column names to upper case. Here one job replaces the table atomically, and reads return the same types as from
other warehouses.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa
from dagster_gcp.bigquery.io_manager import BigQueryClient
from dagster_gcp_pandas import BigQueryPandasIOManager, BigQueryPandasTypeHandler
from google.api_core import exceptions as api_errors

from taxi_assets import metadata
from taxi_assets.automation.step_failures import as_failures
from taxi_assets.dagster_compat import DbIOManager, DbTypeHandler, TableSlice
from taxi_assets.io_managers.warehouse_frames import replace_frame
from taxi_assets.storage.pandas_types import StagedFrame, to_frame
from taxi_assets.storage.warehouse.bigquery import BigQueryWarehouse


class BigQueryFrameIOManager(BigQueryPandasIOManager):
    """Stores unpartitioned tables in BigQuery, each named after the last part of its asset key."""

    warehouse: dg.ResourceDependency[BigQueryWarehouse]

    @staticmethod
    def type_handlers() -> Sequence[DbTypeHandler[Any]]:
        """Return no type handlers: `create_io_manager` adds one, because it needs the warehouse."""
        return []

    def create_io_manager(self, context: Any) -> DbIOManager:  # noqa: ARG002  (given by Dagster)
        """Return Dagster's database IO manager, with the type handler and the client of this warehouse."""
        return DbIOManager(
            type_handlers=[_FrameTypeHandler(self.warehouse)],
            db_client=_ReplacingClient(self.warehouse),
            database=self.project,
            schema=self.dataset,
            io_manager_name=type(self).__name__,
            default_load_type=pd.DataFrame,
        )


class _FrameTypeHandler(BigQueryPandasTypeHandler):
    def __init__(self, warehouse: BigQueryWarehouse) -> None:
        self._warehouse = warehouse

    @property
    def supported_types(self) -> Sequence[type[Any]]:
        """The types that assets may return."""
        return [pd.DataFrame, StagedFrame]

    def handle_output(
        self,
        context: dg.OutputContext,
        table_slice: TableSlice,
        obj: StagedFrame | pd.DataFrame,
        connection: Any,  # noqa: ARG002
    ) -> None:
        replace_frame(self._warehouse, table_slice.table, obj, metadata.column_descriptions(context))

    def load_input(self, context: dg.InputContext, table_slice: TableSlice, connection: Any) -> pd.DataFrame:
        with warnings.catch_warnings():
            # The client warns that BigQuery's Storage API would be faster, which small tables do not need.
            warnings.simplefilter("ignore")
            try:
                frame = super().load_input(context, table_slice, connection)
            except api_errors.NotFound:
                raise self._warehouse.table_missing_error(table_slice.table) from None
        return to_frame(pa.Table.from_pandas(frame, preserve_index=False))


class _ReplacingClient(BigQueryClient):
    """Uses the warehouse's client and errors. Deletes nothing, because `replace_frame` replaces the table."""

    def __init__(self, warehouse: BigQueryWarehouse) -> None:
        super().__init__()
        self._warehouse = warehouse

    @contextmanager
    def connect(self, context: Any, table_slice: TableSlice) -> Iterator[Any]:  # type: ignore[override]  # noqa: ARG002
        with as_failures(), self._warehouse.client(f"{table_slice.table} cannot be read or written") as client:
            yield client

    @staticmethod
    def ensure_schema_exists(context: Any, table_slice: TableSlice, connection: Any) -> None:
        pass

    @staticmethod
    def delete_table_slice(context: Any, table_slice: TableSlice, connection: Any) -> None:
        pass
