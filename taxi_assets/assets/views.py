"""The asset views/duckdb: the file of views over the lake's Parquet, for DuckDB clients and BI tools."""

import hashlib
from collections.abc import Iterator

import dagster as dg

from taxi_assets import metadata
from taxi_assets.automation.conditions import on_lake_change
from taxi_assets.automation.step_failures import as_failures
from taxi_assets.marts.mart import marts
from taxi_assets.storage.lake.base_lake import Lake
from taxi_assets.storage.lake_tables import VIEWS_KEY, VIEWS_SCHEMA, lake_tables

VIEWS = dg.AssetKey(["views", "duckdb"])

_DESCRIPTION = f"""`{VIEWS_KEY}` in the lake: a DuckDB file with a view for each table in the lake.

Open it read-only with a DuckDB client or a BI tool, at any time. The views are in the schema `{VIEWS_SCHEMA}`. They
have the names of the warehouse's tables, such as `green_trips` and `zone_day`. Rejected rows are in views such as
`green_trips_quarantine`, and rows that differ between two revisions of a month in views such as
`green_trips_revisions`. If the lake is a folder, the views show the lake as it was when the asset was materialized.
They stay readable for at least a day after the next materialization. In a bucket, each query reads the current
objects."""


def views_asset(retry: dg.RetryPolicy | None = None) -> dg.AssetsDefinition:
    """Return the asset of the file of views."""

    @dg.asset(
        key=VIEWS,
        description=_DESCRIPTION,
        deps=list(dict.fromkeys(dg.AssetKey.from_user_string(table.asset) for table in lake_tables())),
        group_name="views",
        kinds={"duckdb"},
        tags=metadata.asset_tags("views"),
        code_version=_version(),
        automation_condition=on_lake_change(),
        retry_policy=retry,
    )
    def duckdb_views(context: dg.AssetExecutionContext, lake: Lake) -> Iterator[dg.MaterializeResult[None]]:
        from taxi_assets.storage.duckdb_views import publish_views  # noqa: PLC0415  (imports DuckDB)

        with as_failures(retry_number=context.retry_number):
            names = publish_views(lake, run_id=context.run.run_id)
            months = [(table.name, len(table.stored_keys(lake))) for table in lake_tables() if table.is_monthly]
        missing = [table.name for table in lake_tables() if table.name not in names]
        yield dg.MaterializeResult(
            metadata={
                "views": ", ".join(names),
                "tables_not_in_the_lake": ", ".join(missing) or "none",
                "months_in_the_lake": dg.MetadataValue.md(metadata.markdown_table(["table", "months"], months)),
                **metadata.lake_uri(lake.uri(VIEWS_KEY)),
            }
        )

    return duckdb_views


def _version() -> str:
    """Return a digest of the names, columns and descriptions of all views."""
    content = [
        *((table.name, table.asset, table.description, table.columns) for table in lake_tables()),
        *(mart.sql for mart in marts().values()),
    ]
    return hashlib.sha256(repr(content).encode()).hexdigest()[:16]
