"""All marts of a month, made in the warehouse without Dagster, and not checked."""

from __future__ import annotations

import sys

from benchmarks.measure import timed
from taxi_assets.marts.mart import marts
from taxi_assets.storage.warehouse.duckdb import DuckDBWarehouse
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.services.registry import SERVICES


def main(file: str) -> None:
    """The queries, as a run renders them."""
    warehouse, services = DuckDBWarehouse(file=file), [SERVICES["yellow"]]

    def work() -> None:
        with warehouse.session():
            for mart in marts().values():
                warehouse.replace_mart(mart, Month(2021, 1), services, run_id="benchmark")

    timed(work)


if __name__ == "__main__":
    main(sys.argv[1])
