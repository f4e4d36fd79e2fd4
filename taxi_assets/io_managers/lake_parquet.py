"""Store rows in the lake as Parquet: months of trips, and what your own assets return."""

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet

from taxi_assets import metadata
from taxi_assets.errors import AssetDefinitionError, AssetValueError, LakeObjectMissingError
from taxi_assets.io_managers.asset_context import (
    add_new_metadata,
    allows_missing_partitions,
    asset_failures,
    asset_label,
    list_keys,
    object_prefix_of,
    partition_keys,
    requested_type,
    require_input_type,
    single_prefix_of,
)
from taxi_assets.storage.lake.base_lake import Lake
from taxi_assets.storage.lake.objects import ParquetPartition, StagedParquet
from taxi_assets.storage.lake.revisions import months_with_one_revision
from taxi_assets.storage.lake_tables import lake_tables
from taxi_assets.storage.parquet_rows import ASSET, open_files, read_owner, write_rows
from taxi_assets.storage.table_values import OUTPUT_TYPES, is_output_type, load_dataset, open_rows, type_name
from taxi_assets.tlc.services.registry import SERVICES

_PLATFORM_FOLDERS = {"raw", "clean", "quarantine", "reference", "reports", "revisions"}


class LakeParquetIOManager(dg.ConfigurableIOManager):
    """Stores rows in the lake as Parquet: one file per partition, under the asset's key.

    An asset returns a `pandas.DataFrame`, `pyarrow.Table`, `pyarrow.RecordBatchReader`, `polars.DataFrame` or
    `polars.LazyFrame`. Readers and lazy frames are written batch by batch. An input gets the partitions that its
    partition mapping selects: one after the other, or each by itself in a `dict[str, …]`.

        @dg.asset(
            partitions_def=monthly_partitions(SERVICES["green"]),
            ins={"trips": dg.AssetIn(["clean", "green_trips"])},
            io_manager_key="lake_parquet",
        )
        def long_trips(trips: pl.LazyFrame) -> pl.LazyFrame:
            return trips.filter(pl.col("trip_distance") > 20)
    """

    lake: dg.ResourceDependency[Lake]

    @staticmethod
    def check_definition(asset: dg.AssetKey, type_: Any, _metadata: Mapping[str, Any], _partitions: Any) -> None:
        """Raise an error if an asset is defined in a way that this IO manager cannot store.

        Args:
            asset: The asset.
            type_: The type that the asset's function declares to return; `typing.Any` if there is none.
            _metadata: The asset's definition metadata.
            _partitions: The asset's partitions definition, or None.

        Raises:
            AssetDefinitionError: The type cannot be stored.
        """
        if type_ is not Any and type_ not in {StagedParquet, ParquetPartition} and not is_output_type(type_):
            raise AssetDefinitionError(
                f"{asset.to_user_string()} returns {type_name(type_)}, which lake_parquet cannot store.",
                remedy=f"Return one of: {', '.join(OUTPUT_TYPES)}.",
            )
        _require_own_folder(asset)

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Write the rows as one Parquet file, which replaces the old file of the partition.

        A `ParquetPartition` of this asset is in the lake already: nothing is written.
        """
        with asset_failures(context):
            prefix = single_prefix_of(context)
            if isinstance(obj, StagedParquet):
                ParquetPartition.publish(self.lake, prefix, obj, run_id=context.run_id)
            elif not isinstance(obj, ParquetPartition):
                self._store(context, f"{prefix}.parquet", obj)
            elif obj.key != f"{prefix}.parquet":
                raise AssetValueError(
                    f"{asset_label(context)}: the asset returned a handle to {obj.key}, which is the file of another "
                    "asset or partition. Nothing has been stored.",
                    remedy="Annotate the input as pandas.DataFrame or pyarrow.RecordBatchReader, and return its rows.",
                )

    def load_input(self, context: dg.InputContext) -> Any:
        """Return the rows in the type that the input asks for, or handles for the type `ParquetPartition`."""
        with asset_failures(context):
            type_, by_partition = requested_type(context)
            if type_ is not ParquetPartition:
                require_input_type(context, type_)
            elif not by_partition:
                return ParquetPartition.get(self.lake, single_prefix_of(context))
            files = self._files(context)
            if type_ is ParquetPartition:
                prefixes = {key: file.removesuffix(".parquet") for key, file in files.items()}
                return {key: ParquetPartition.get(self.lake, prefix) for key, prefix in prefixes.items()}
            if by_partition:
                return {key: load_dataset(self._open({key: file}), type_) for key, file in files.items()}
            return load_dataset(self._open(files) if files else _no_rows(context.asset_key), type_)

    def _files(self, context: dg.InputContext) -> dict[str, str]:
        """Return the object keys by partition key, in partition order; without the missing ones, if that is allowed."""
        keys = partition_keys(context)
        if keys is None:
            return {"": f"{object_prefix_of(context)}.parquet"}
        files = {key: f"{object_prefix_of(context, key)}.parquet" for key in keys}
        missing = [key for key, file in files.items() if self.lake.version(file) is None]
        if missing and not allows_missing_partitions(context):
            raise self._missing_error(context.asset_key, {key: files[key] for key in missing})
        return {key: file for key, file in files.items() if key not in missing}

    def _missing_error(self, asset: dg.AssetKey, missing: Mapping[str, str]) -> LakeObjectMissingError:
        """Build the error for partitions that an asset lacks; their object keys are given by partition key."""
        service = next((each for each in SERVICES.values() if asset.path == ["revisions", each.table]), None)
        alone = months_with_one_revision(self.lake, service, missing) if service else []
        others = [key for key in missing if key not in alone]
        name, problems, remedies = asset.to_user_string(), [], []
        if others:
            uri = self.lake.uri(missing[others[0]])
            problems.append(f"{name} is not in the lake for {list_keys(others)}: {uri} does not exist.")
            remedies.append(f"Materialize {name} for these partitions first.")
        if alone:
            problems.append(
                f"{name} has no file for {list_keys(alone)}: the lake has only one revision of "
                f"{'each of these months' if len(alone) > 1 else 'this month'}, so there is nothing to compare."
            )
        wish = "read only the others" if others else "get no rows for such a month"
        remedies.append(f"To {wish}, add the metadata allow_missing_partitions: true to the input.")
        return LakeObjectMissingError(" ".join(problems), remedy=" ".join(remedies))

    def _open(self, files: Mapping[str, str]) -> Any:
        with ExitStack() as opened:
            streams = {file: opened.enter_context(self.lake.open(file)) for file in files.values()}
            dataset = open_files(streams)
            opened.pop_all()  # the dataset closes its files
        return dataset

    def _store(self, context: dg.OutputContext, key: str, value: object) -> None:
        _require_own_folder(context.asset_key)
        label, asset = asset_label(context), context.asset_key.to_user_string()
        with self.lake.staging() as folder:
            replaces = self._owned_version(key, asset)
            rows = open_rows(value, label)
            file = folder / "rows.parquet"
            written = write_rows(rows, file, {ASSET: asset})
            first = pyarrow.parquet.ParquetFile(file).iter_batches(batch_size=metadata.PREVIEW_ROWS)
            found = {
                **metadata.rows_metadata(context, rows.schema, written),
                **metadata.rows_preview(rows.schema, next(first, None)),
                "file_bytes": file.stat().st_size,
                **metadata.lake_uri(self.lake.uri(key)),
            }
            self.lake.publish(file, key, replaces=replaces, run_id=context.run_id)
        add_new_metadata(context, found)

    def _owned_version(self, key: str, asset: str) -> str | None:
        """Return the version of the object that will be replaced; raise an error if it belongs to another asset."""
        version = self.lake.version(key)
        if version is None:
            return None
        with self.lake.open(key, version) as file:
            owner = read_owner(file)
        if owner not in {asset, None}:  # None: a damaged file is replaced
            raise AssetDefinitionError(
                f"{asset} would replace {self.lake.uri(key)}, which "
                + (f"the asset {owner} has stored." if owner else "was not stored by an asset of your own."),
                remedy="Rename the asset, or move the file elsewhere.",
            )
        return version


def _no_rows(asset: dg.AssetKey) -> Any:
    """Return a dataset without rows. Its columns are those of the platform's table; for an asset of yours, none."""
    tables = (table.schema for table in lake_tables() if table.asset == asset.to_user_string())
    return pyarrow.dataset.dataset(next(tables, pa.schema([])).empty_table())


def _require_own_folder(asset: dg.AssetKey) -> None:
    """Raise an error if an asset, unless it is the platform's, would be stored in a folder of the platform."""
    folder, *rest = asset.path
    is_platforms = folder in {"clean", "quarantine", "revisions"} and rest in [
        [service.table] for service in SERVICES.values()
    ]
    if (folder in _PLATFORM_FOLDERS or any(part.startswith(".") for part in asset.path)) and not is_platforms:
        raise AssetDefinitionError(
            f"{asset.to_user_string()} would be stored in a folder of the lake that belongs to the platform: {folder}.",
            remedy="Rename the asset: the first part of its key is the folder. No part of it begins with a period.",
        )
