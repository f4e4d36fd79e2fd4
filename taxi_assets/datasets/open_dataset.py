"""Open the rows of an asset as a `pyarrow.dataset.Dataset`: the implementation of `taxi_assets.scan`.

Belongs here: where an asset is stored, and which of its partitions a scan reads. Does not belong here: the choice of
months (`stored_months.py`), and files (`lake_files.py`).
"""

from __future__ import annotations

import difflib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from taxi_assets.addresses import BigQueryAddress, anchor_path
from taxi_assets.build import build_lake, build_warehouse
from taxi_assets.datasets.lake_files import is_stored_by, partition_files, read_schema, whole_file
from taxi_assets.datasets.stored_months import Bounds, list_months
from taxi_assets.errors import LakeObjectMissingError, ScanArgumentError, WarehouseTableMissingError
from taxi_assets.io_managers.asset_context import build_table_partitions
from taxi_assets.io_managers.warehouse_table import StoredTable
from taxi_assets.partitions import all_services_partitions, monthly_partitions
from taxi_assets.settings import Settings
from taxi_assets.storage.lake_dataset import LakeDataset
from taxi_assets.storage.lake_tables import LakeTable, lake_tables
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.services.registry import SERVICES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from taxi_assets.storage.lake.base_lake import Lake
    from taxi_assets.storage.warehouse.base_warehouse import Warehouse

_SUGGESTIONS = 3
_NO_ROWS = {"published", "raw", "reports", "views"}
"""The first parts of the keys of assets that are not rows."""


def open_dataset(asset_key: str, first: str | None, last: str | None) -> Any:
    """Return the rows of an asset; see `taxi_assets.scan`."""
    bounds = Bounds.parse(first, last)
    settings = project_settings()
    tables = {table.asset: table for table in lake_tables()}
    trips = {f"warehouse/{service.table}": service for service in SERVICES.values()}
    if asset_key in tables:
        return _scan_lake_table(_open_lake(settings), tables[asset_key], bounds)
    if asset_key in trips:
        partitions = monthly_partitions(trips[asset_key])
        return _scan_warehouse_table(settings, asset_key, partitions, {"partition_expr": "data_month"}, bounds)
    return _scan_own_asset(settings, asset_key, bounds, platform_keys=[*tables, *trips])


def project_settings() -> Settings:
    """Return the settings of this project, in any working directory.

    By default, lake and warehouse are in the folder `data` of the project. If the package is installed without the
    project's folder, and for paths in variables, relative paths start in the working directory, as always.
    """
    settings = Settings.from_env()
    project = Path(__file__).parents[2]
    if not (project / "pyproject.toml").is_file():
        return settings
    by_default = {"lake", "warehouse"} - settings.model_fields_set
    return Settings.from_env({name: anchor_path(Settings.model_fields[name].default, project) for name in by_default})


def _open_lake(settings: Settings) -> Lake:
    lake = build_lake(settings)
    if not lake.is_remote:
        return lake
    with dg.build_resources({"lake": lake}) as resources:  # resolves the variable of the key
        return cast("Lake", resources.lake)


def _open_warehouse(settings: Settings) -> Warehouse:
    warehouse = build_warehouse(settings)
    if not isinstance(settings.warehouse, BigQueryAddress):
        return warehouse
    with dg.build_resources({"warehouse": warehouse}) as resources:  # resolves the variable of the key
        return cast("Warehouse", resources.warehouse)


# --- tables of the platform in the lake ------------------------------------------------------------------------------


def _scan_lake_table(lake: Lake, table: LakeTable, bounds: Bounds) -> LakeDataset:
    """Scan a table whose columns are known without opening a file."""
    if not table.is_monthly:
        return _scan_whole_file(lake, table.asset, bounds, table.schema)
    service = next((service for service in SERVICES.values() if table.asset.endswith(f"/{service.table}")), None)
    definition = all_services_partitions() if service is None else monthly_partitions(service)
    files = _by_month(partition_files(lake, table.asset), Month.parse)
    place = lake.uri(table.asset)
    months = _select_months(table.asset, place, files, bounds, definition, missing_error=LakeObjectMissingError)
    # All rows of a file have the month in its name.
    conditions = {files[month]: pc.field("data_month") == pa.scalar(month.start) for month in months}
    return LakeDataset(lake, conditions, table.schema)


def _scan_whole_file(lake: Lake, asset: str, bounds: Bounds, schema: pa.Schema | None = None) -> LakeDataset:
    _refuse_bounds(asset, bounds, "has no partitions")
    key = whole_file(asset)
    if lake.version(key) is None:
        raise _not_stored_error(asset, lake.uri(key))
    return LakeDataset(lake, {key: None}, schema or read_schema(lake, [key]))


# --- your own assets --------------------------------------------------------------------------------------------------


def _scan_own_asset(settings: Settings, asset_key: str, bounds: Bounds, *, platform_keys: Sequence[str]) -> Any:
    # Not imported before, because a scan of the platform's rows does not depend on your own definitions.
    from taxi_assets.definitions import defs  # noqa: PLC0415

    key = dg.AssetKey.from_user_string(asset_key)
    known = {other.to_user_string() for other in defs.resolve_all_asset_keys()}
    if asset_key not in known:
        dataset = _scan_files_of_other_project(_open_lake(settings), asset_key, bounds)
        if dataset is None:
            names = [name for name in {*known, *platform_keys} if name.split("/")[0] not in _NO_ROWS]
            raise _unknown_error(asset_key, sorted(names))
        return dataset
    asset = defs.resolve_assets_def(key)
    match asset.get_io_manager_key_for_asset_key(key):
        case "lake_parquet":
            lake = _open_lake(settings)
            if asset.partitions_def is None:
                return _scan_whole_file(lake, asset_key, bounds)
            return _scan_partition_files(lake, asset_key, asset.partitions_def, bounds)
        case "warehouse_table":
            metadata = asset.specs_by_key[key].metadata
            return _scan_warehouse_table(settings, asset_key, asset.partitions_def, metadata, bounds)
    table = key.path[-1]
    raise ScanArgumentError(
        f"{asset_key} is not stored as rows.",
        remedy=f"Scan clean/{table}, quarantine/{table} or warehouse/{table}."
        if f"clean/{table}" in platform_keys
        else "Scan an asset whose io_manager_key is lake_parquet or warehouse_table.",
    )


def _scan_partition_files(
    lake: Lake, asset: str, definition: dg.PartitionsDefinition[Any], bounds: Bounds
) -> LakeDataset:
    files = _in_partition_order(partition_files(lake, asset), definition)
    month_of = _month_of(definition)
    place = lake.uri(asset)
    if month_of is not None:
        by_month = _by_month(files, month_of)
        months = _select_months(asset, place, by_month, bounds, definition, missing_error=LakeObjectMissingError)
        keys = [by_month[month] for month in months]
    else:
        _refuse_bounds(asset, bounds, "is not partitioned by month")
        keys = list(files.values())
    if not keys:
        raise _not_stored_error(asset, place)
    return LakeDataset(lake, dict.fromkeys(keys), read_schema(lake, keys))


def _scan_files_of_other_project(lake: Lake, asset: str, bounds: Bounds) -> LakeDataset | None:
    """Scan files that `lake_parquet` has stored for an asset of another project; None if there are none.

    Without the asset's definition, it counts as partitioned by month if its partition keys are months.
    """
    if any(part in {"", ".", ".."} for part in asset.split("/")):
        return None
    if is_stored_by(lake, whole_file(asset), asset):
        return _scan_whole_file(lake, asset, bounds)
    files = partition_files(lake, asset)
    if not files or not is_stored_by(lake, next(iter(files.values())), asset):
        return None
    by_month = _by_month(files, Month.parse)
    if len(by_month) < len(files):
        _refuse_bounds(asset, bounds, "is not partitioned by month")
        keys = list(files.values())
    else:
        months = _select_months(asset, lake.uri(asset), by_month, bounds, missing_error=LakeObjectMissingError)
        keys = [by_month[month] for month in months]
    return LakeDataset(lake, dict.fromkeys(keys), read_schema(lake, keys))


# --- tables of the warehouse ------------------------------------------------------------------------------------------


def _scan_warehouse_table(
    settings: Settings,
    asset_key: str,
    definition: dg.PartitionsDefinition[Any] | None,
    metadata: Mapping[str, Any],
    bounds: Bounds,
) -> Any:
    warehouse = _open_warehouse(settings)
    key = dg.AssetKey.from_user_string(asset_key)
    with warehouse.session():
        table = StoredTable(warehouse, key, warehouse.table_schema(key.path[-1]))
        if definition is None:
            _refuse_bounds(asset_key, bounds, "has no partitions")
            return table.dataset(None)
        month_of = _month_of(definition)
        if month_of is None:
            _refuse_bounds(asset_key, bounds, "is not partitioned by month")
        keys = _partition_keys(definition)
        if keys is None:
            keys = sorted(warehouse.stored_partitions(table.name) or {})
        if month_of is not None:
            keys = [partition for partition in keys if bounds.contains(month_of(partition))]
        is_present = table.presence()
        partitions = build_table_partitions(key, metadata, definition, keys)
        present = {partition.key: partition for partition in partitions if is_present(partition)}
    place = f"the table {warehouse.table_name(table.name)} of {warehouse.uri()}"
    if month_of is None and not present:
        raise _not_loaded_error(asset_key, place)
    if month_of is not None:
        by_month = _by_month({partition: partition for partition in present}, month_of)
        months = _select_months(
            asset_key, place, by_month, bounds, definition, missing_error=WarehouseTableMissingError
        )
        present = {by_month[month]: present[by_month[month]] for month in months}
    return table.dataset(list(present.values()))


# --- partitions and months --------------------------------------------------------------------------------------------


def _partition_keys(definition: dg.PartitionsDefinition[Any]) -> list[str] | None:
    """Return the keys of all partitions in order; None for dynamic partitions, which only Dagster's instance knows."""
    parts = [definition]
    if isinstance(definition, dg.MultiPartitionsDefinition):
        parts = [dimension.partitions_def for dimension in definition.partitions_defs]
    if any(isinstance(part, dg.DynamicPartitionsDefinition) for part in parts):
        return None
    return [str(key) for key in definition.get_partition_keys()]


def _in_partition_order(files: Mapping[str, str], definition: dg.PartitionsDefinition[Any]) -> dict[str, str]:
    """Return the files of the partitions in order, without files of partitions that the asset no longer has."""
    keys = _partition_keys(definition)
    return {key: files[key] for key in (sorted(files) if keys is None else keys) if key in files}


def _month_of(definition: dg.PartitionsDefinition[Any]) -> Callable[[str], Month] | None:
    """Return a function that returns the month of a partition; None if the partitions are not calendar months."""
    if not isinstance(definition, dg.TimeWindowPartitionsDefinition):
        return None
    first = definition.get_first_partition_key()
    if first is None:
        return None

    def month_of(key: str) -> Month:
        start = definition.time_window_for_partition_key(key).start
        return Month(start.year, start.month)

    window = definition.time_window_for_partition_key(first)
    is_month = (window.start.date(), window.end.date()) == (month_of(first).start, month_of(first).end)
    return month_of if is_month else None


def _by_month(partitions: Mapping[str, str], month_of: Callable[[str], Month]) -> dict[Month, str]:
    """Return values of partitions by month, in order, without those whose key is not a month."""
    found = {}
    for key, value in partitions.items():
        with suppress(ValueError):
            found[month_of(key)] = value
    return dict(sorted(found.items()))


def _select_months(
    asset: str,
    place: str,
    stored: Iterable[Month],
    bounds: Bounds,
    definition: dg.PartitionsDefinition[Any] | None = None,
    *,
    missing_error: type[LakeObjectMissingError | WarehouseTableMissingError],
) -> list[Month]:
    """Return the months of a scan, all of which are stored.

    Raises:
        ScanArgumentError: A bound is before the asset's first month.
        LakeObjectMissingError, WarehouseTableMissingError: A month is not stored, or none is.
    """
    month_of = None if definition is None else _month_of(definition)
    if month_of is not None:
        begin = month_of(str(definition.get_first_partition_key()))  # type: ignore[union-attr]  # it has months
        early = [bound for bound in bounds if bound is not None and bound < begin]
        if early:
            raise ScanArgumentError(
                f"{asset} begins in {begin}; {early[0]} is before that.", remedy=f'Begin with "{begin}".'
            )
    months = list(stored)
    if not months and missing_error is LakeObjectMissingError:
        raise _not_stored_error(asset, place)
    if not months:
        raise _not_loaded_error(asset, place)
    selected = bounds.select(months)
    missing = [month for month in selected if month not in set(months)]
    if missing:
        raise missing_error(
            f"{asset} is not stored for {list_months(missing)} in {place}.{_one_revision(asset)}",
            remedy=f"Materialize the asset for these months, or choose others. Stored: {list_months(months)}.",
        )
    return selected


# --- errors -----------------------------------------------------------------------------------------------------------


def _one_revision(asset: str) -> str:
    return " A month with only one revision has no file." if asset.startswith("revisions/") else ""


def _not_stored_error(asset: str, place: str) -> LakeObjectMissingError:
    return LakeObjectMissingError(
        f"{asset} is not stored in the lake: {place} contains no file.{_one_revision(asset)}",
        remedy="Materialize the asset, or set TAXI_LAKE to the lake that contains it: a folder, or gs://bucket/prefix.",
    )


def _not_loaded_error(asset: str, place: str) -> WarehouseTableMissingError:
    return WarehouseTableMissingError(
        f"{asset} is not loaded: {place} does not exist, or does not contain these partitions.",
        remedy="Materialize the asset, or set TAXI_WAREHOUSE to the warehouse that contains it.",
    )


def _refuse_bounds(asset: str, bounds: Bounds, reason: str) -> None:
    if bounds != Bounds(None, None):
        raise ScanArgumentError(
            f"{asset} {reason}, so months cannot be selected.", remedy="Leave out the first and the last month."
        )


def _unknown_error(asset: str, known: Sequence[str]) -> ScanArgumentError:
    close = difflib.get_close_matches(asset, known, n=_SUGGESTIONS) or list(known)
    return ScanArgumentError(f"There is no asset {asset}.", remedy=f"Use one of: {', '.join(close)}.")
