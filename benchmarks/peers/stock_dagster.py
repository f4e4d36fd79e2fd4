"""Stock Dagster: a pandas asset with monthly partitions, and Dagster's own IO manager for DuckDB.

It has one rule, and no quarantine, decimals, checks, column descriptions or lake. A load deletes and inserts in two
transactions.

Its settings are `STOCK_SOURCE`, the file of a month, and `STOCK_WAREHOUSE`, a DuckDB file.
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
    """Trips of a month that have passengers."""
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
