"""A load of a clean month into Postgres, by `PostgresWarehouse` or by `to_sql` as in the course.

`to_sql` writes columns of the same exact types, without an index and without verification. Creating the frame is not
measured.
"""

from __future__ import annotations

import sys

import sqlalchemy

from benchmarks.measure import measure_here
from taxi_assets.storage.lake.local_lake import LocalLake
from taxi_assets.storage.lake.objects import ParquetPartition
from taxi_assets.storage.warehouse.postgres import PostgresWarehouse
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.schema import ColumnType
from taxi_assets.tlc.services.registry import SERVICES

_SERVICE, _MONTH = SERVICES["yellow"], Month(2021, 1)

_EXACT = {
    ColumnType.INTEGER: sqlalchemy.BigInteger(),
    ColumnType.MONEY: sqlalchemy.Numeric(12, 2),
    ColumnType.MILES: sqlalchemy.Numeric(12, 3),
    ColumnType.DEGREES: sqlalchemy.Double(),
    ColumnType.TEXT: sqlalchemy.Text(),
    ColumnType.DATETIME: sqlalchemy.DateTime(),
    ColumnType.DATE: sqlalchemy.Date(),
    ColumnType.BOOLEAN: sqlalchemy.Boolean(),
}


def main(method: str, url: str, lake: str) -> None:
    """Measure one of the two."""
    trips = ParquetPartition.get(LocalLake(folder=lake), f"clean/{_SERVICE.table}/{_MONTH}")
    if method == "to_sql":
        frame = trips.to_pandas()
        types = {column.name: _EXACT[column.type] for column in _SERVICE.columns}
        engine = sqlalchemy.create_engine(url.replace("postgresql:", "postgresql+psycopg2:"))
        measure_here(
            lambda: frame.to_sql("by_pandas", engine, index=False, if_exists="replace", chunksize=100_000, dtype=types)
        )
    else:
        warehouse = PostgresWarehouse(url=url)
        measure_here(lambda: warehouse.replace_month(_SERVICE, _MONTH, trips, run_id="benchmark"))


if __name__ == "__main__":
    main(*sys.argv[1:])
