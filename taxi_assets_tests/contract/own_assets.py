"""Assets that a user could add, and the platform's green assets, on any lake and any warehouse."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

import dagster as dg
import pandas as pd

from taxi_assets.assets.clean import clean_asset
from taxi_assets.assets.mart_tables import mart_asset
from taxi_assets.assets.reference import zones_asset
from taxi_assets.assets.warehouse import warehouse_asset
from taxi_assets.io_managers.lake_parquet import LakeParquetIOManager
from taxi_assets.io_managers.warehouse_table import WarehouseTableIOManager
from taxi_assets.marts.mart import marts
from taxi_assets.partitions import monthly_partitions
from taxi_assets.resources.publisher import PublisherResource
from taxi_assets.tlc.services.green import GREEN
from taxi_assets_tests.pipeline_harness import failure_messages
from taxi_assets_tests.trips import MONTH, publish_generated_month

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taxi_assets.storage.lake.base_lake import Lake
    from taxi_assets.storage.warehouse.base_warehouse import Warehouse
    from taxi_assets.tlc.month import Month

MONTHS = [MONTH, MONTH.shift(1), MONTH.shift(2)]
"""The months of green trips that `Platform.publish_months` stores; each has another number of rows."""
ROWS = {month: 30 + 10 * number for number, month in enumerate(MONTHS)}
PARTITIONS = dg.MonthlyPartitionsDefinition("2020-08", fmt="%Y-%m")
"""Months of own assets, from two months before `MONTHS`."""


@cache
def _green_assets() -> list[Any]:
    raw = dg.AssetSpec(["raw", "green_trips"], partitions_def=monthly_partitions(GREEN))
    return [raw, clean_asset(GREEN), warehouse_asset(GREEN), mart_asset(marts()["zone_day"]), zones_asset()]


@dataclass(frozen=True)
class Platform:
    """A lake and a warehouse with the platform's green assets, to which tests add assets."""

    lake: Lake
    warehouse: Warehouse
    instance: dg.DagsterInstance

    def publish_months(self) -> None:
        """Store `MONTHS` of green trips in the lake and in the warehouse."""
        for month, rows in ROWS.items():
            trips = publish_generated_month(self.lake, month, rows, seed=month.number)
            self.warehouse.replace_month(GREEN, month, trips, run_id="a run")

    @cached_property
    def resources(self) -> dict[str, Any]:
        warehouse_table: Any = WarehouseTableIOManager(warehouse=self.warehouse)
        if self.warehouse.kind == "bigquery":
            from taxi_assets.io_managers.bigquery_table import BigQueryTableIOManager  # noqa: PLC0415

            warehouse_table = BigQueryTableIOManager(warehouse=self.warehouse)
        return {
            "lake": self.lake,
            "warehouse": self.warehouse,
            "lake_parquet": LakeParquetIOManager(lake=self.lake),
            "warehouse_table": warehouse_table,
            "publisher": PublisherResource(source="sample"),
        }

    @cached_property
    def _built(self) -> dict[tuple[dg.AssetsDefinition, ...], dg.Definitions]:
        return {}

    def definitions(self, *assets: dg.AssetsDefinition) -> dg.Definitions:
        """Return the platform's green assets together with others; the same definitions for the same assets."""
        if assets not in self._built:
            self._built[assets] = dg.Definitions(assets=[*_green_assets(), *assets], resources=self.resources)
        return self._built[assets]

    def run(
        self, asset: dg.AssetsDefinition, partition: str | Month | None = None, *others: dg.AssetsDefinition
    ) -> dg.ExecuteInProcessResult:
        """Materialize an asset whose inputs are assets of the platform or `others`; errors are not raised."""
        job = self.definitions(asset, *others).resolve_implicit_job_def_def_for_assets([asset.key])
        assert job is not None
        return job.execute_in_process(
            instance=self.instance,
            partition_key=None if partition is None else str(partition),
            asset_selection=[asset.key],
            raise_on_error=False,
        )

    def store(self, asset: dg.AssetsDefinition, partition: str | Month | None = None, *others: Any) -> dg.AssetKey:
        """Materialize an asset, which must succeed."""
        result = self.run(asset, partition, *others)
        assert result.success, failure_messages(result)
        return asset.key

    def error(self, asset: dg.AssetsDefinition, partition: str | Month | None = None, *others: Any) -> str:
        """Materialize an asset, which must fail with one error; return its message."""
        result = self.run(asset, partition, *others)
        assert not result.success
        (message,) = failure_messages(result)
        return message

    def load(
        self, asset: dg.AssetsDefinition, partition: str | Month | None = None, python_type: Any = pd.DataFrame
    ) -> Any:
        """Load an asset, or one partition of it, as a script does."""
        key = None if partition is None else str(partition)
        return self.definitions(asset).load_asset_value(
            asset.key, partition_key=key, python_type=python_type, instance=self.instance
        )


def rows_of(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return rows as dictionaries of Python values, sorted."""
    plain = frame.astype(object).where(frame.notna(), None)
    return sorted([{str(name): value for name, value in row.items()} for row in plain.to_dict("records")], key=str)


def months_of(frames: Sequence[pd.DataFrame] | pd.DataFrame) -> list[str]:
    """Return the months of trips, in the order of the rows."""
    frame = frames if isinstance(frames, pd.DataFrame) else pd.concat(frames)
    return [f"{month:%Y-%m}" for month in frame["data_month"].drop_duplicates()]
