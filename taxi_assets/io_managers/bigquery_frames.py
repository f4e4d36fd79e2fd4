"""Small tables on BigQuery, as pandas frames: by dagster-gcp-pandas' IO manager.

As it comes, that manager empties the table, then appends, and writes names in upper case; a load that fails leaves an
empty table. Here a frame is written by one job that replaces all at once, and what is read has the types of every other
warehouse.
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
    """Frames as tables of the warehouse's dataset, named after the last part of the asset's key."""

    warehouse: dg.ResourceDependency[BigQueryWarehouse]

    @staticmethod
    def type_handlers() -> Sequence[DbTypeHandler[Any]]:
        """None: they need the warehouse, see `create_io_manager`."""
        return []

    def create_io_manager(self, context: Any) -> DbIOManager:  # noqa: ARG002  (given by Dagster)
        """The manager at work."""
        return DbIOManager(
            type_handlers=[_Frames(self.warehouse)],
            db_client=_Client(self.warehouse),
            database=self.project,
            schema=self.dataset,
            io_manager_name=type(self).__name__,
            default_load_type=pd.DataFrame,
        )


class _Frames(BigQueryPandasTypeHandler):
    def __init__(self, warehouse: BigQueryWarehouse) -> None:
        self._warehouse = warehouse

    @property
    def supported_types(self) -> Sequence[type[Any]]:
        """The types of what assets hand over."""
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
            # It warns that BigQuery's storage API would be faster, which small tables do not need.
            warnings.simplefilter("ignore")
            try:
                frame = super().load_input(context, table_slice, connection)
            except api_errors.NotFound:
                raise self._warehouse.missing_error(table_slice.table) from None
        return to_frame(pa.Table.from_pandas(frame, preserve_index=False))


class _Client(BigQueryClient):
    """Connects as the warehouse does, with its errors; nothing is deleted, because writing replaces."""

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
