"""`python -m taxi_assets.cli.iceberg_cleanup`: expire snapshots of Iceberg tables, and delete files that none needs.

`TAXI_CATALOG_KEEP_DAYS` decides which snapshots expire. Run it at any time, also while runs commit.
"""

from __future__ import annotations

import sys

import dagster as dg

from taxi_assets.build import build_stores
from taxi_assets.errors import SettingsError, TaxiAssetsError
from taxi_assets.marts.mart import marts
from taxi_assets.settings import Settings
from taxi_assets.storage.iceberg.iceberg_names import table_name
from taxi_assets.storage.lake_tables import mart_table, trips_table
from taxi_assets.tlc.services.registry import SERVICES


def main() -> int:
    """Clean up all tables, print one line for each, and return the exit code."""
    try:
        settings = Settings.from_env()
        if settings.catalog is None:
            raise SettingsError("TAXI_CATALOG is not set.", remedy="Set it to the catalog to clean up.")
        if settings.catalog_keep_days is None:
            print("No snapshot expires, because TAXI_CATALOG_KEEP_DAYS is not set.")  # noqa: T201  (output)
        from taxi_assets.storage.iceberg.iceberg_maintenance import clean_up  # noqa: PLC0415

        with dg.build_resources({"catalog": build_stores(settings)["catalog"]}) as resources:
            for source in [*map(trips_table, SERVICES.values()), *map(mart_table, marts().values())]:
                expired, deleted = clean_up(resources.catalog, source, settings.catalog_keep_days)
                print(f"{table_name(source)}: {expired} snapshots expired, {deleted} files deleted", flush=True)  # noqa: T201  (output)
    except TaxiAssetsError as error:
        print(error, file=sys.stderr)  # noqa: T201  (output)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
