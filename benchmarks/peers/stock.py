"""Stock Dagster: a pandas asset, a month a partition, and the IO manager that Dagster has for it.

What it does not do: rules but one, quarantine, decimals, checks, descriptions of columns, a lake; and a load is a
delete and an insert that are not one transaction.

Its own settings are `STOCK_SOURCE`, the file of a month, and `STOCK_WAREHOUSE`, a DuckDB file.
"""

import os

import dagster as dg
import pandas as pd
from dagster_duckdb_pandas import DuckDBPandasIOManager


@dg.asset(
    partitions_def=dg.MonthlyPartitionsDefinition("2021-01", fmt="%Y-%m"),
    metadata={"partition_expr": "data_month"},
)
def yellow_trips(context: dg.AssetExecutionContext) -> pd.DataFrame:
    """A month of trips with passengers."""
    source = os.environ["STOCK_SOURCE"]
    if source.endswith(".parquet"):
        frame = pd.read_parquet(source)
    else:
        frame = pd.read_csv(source, parse_dates=["tpep_pickup_datetime", "tpep_dropoff_datetime"], low_memory=False)
    frame = frame[frame["passenger_count"] != 0]
    return frame.assign(data_month=pd.Timestamp(context.partition_key))


defs = dg.Definitions(
    assets=[yellow_trips],
    resources={"io_manager": DuckDBPandasIOManager(database=os.environ["STOCK_WAREHOUSE"], schema="taxi")},
)
