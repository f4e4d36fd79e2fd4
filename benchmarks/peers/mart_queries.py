"""The queries of all marts of a month, without Dagster and without checks."""

from __future__ import annotations

import sys

from benchmarks.measure import measure_here
from taxi_assets.marts.mart import marts
from taxi_assets.storage.warehouse.duckdb import DuckDBWarehouse
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.services.registry import SERVICES


def main(file: str, kind: str = "tables") -> None:
    """Run the same queries as a Dagster run, on trips that are tables or views."""
    warehouse, services = DuckDBWarehouse(file=file, trip_views=kind == "views"), [SERVICES["yellow"]]

    def work() -> None:
        with warehouse.session(writes=True):
            for mart in marts().values():
                warehouse.replace_mart(mart, Month(2021, 1), services, run_id="benchmark")

    measure_here(work)


if __name__ == "__main__":
    main(*sys.argv[1:])
