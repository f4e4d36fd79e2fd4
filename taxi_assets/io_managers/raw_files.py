"""Store published files in the lake, byte for byte, each with a record of its source."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from taxi_assets.errors import AssetDefinitionError
from taxi_assets.io_managers.asset_context import (
    asset_failures,
    object_prefix_of,
    partition_keys,
    requested_type,
    single_prefix_of,
)
from taxi_assets.storage.lake.base_lake import Lake
from taxi_assets.storage.lake.objects import RawFile, StagedRawFile
from taxi_assets.storage.lake.revisions import Revisions
from taxi_assets.storage.table_values import type_name


class RawFileIOManager(dg.ConfigurableIOManager):
    """Stores published files in the lake, byte for byte, each with a record of its source.

    It stores only the platform's raw assets. An input gets a handle to the file, or handles by partition:

        @dg.asset(
            partitions_def=monthly_partitions(SERVICES["green"]),
            ins={"raw": dg.AssetIn(["raw", "green_trips"])},
        )
        def published_file(raw: RawFile) -> None:
            print(raw.record.url, raw.record.sha256)
    """

    lake: dg.ResourceDependency[Lake]

    @staticmethod
    def check_definition(asset: dg.AssetKey, type_: Any, _metadata: Mapping[str, Any], _partitions: Any) -> None:
        """Raise `AssetDefinitionError` if an asset returns anything but a published file."""
        if type_ not in {Any, StagedRawFile, RawFile}:
            raise _not_a_file_error(asset, type_)

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Publish a downloaded file. A `RawFile` is in the lake already: delete only older files of other formats."""
        with asset_failures(context):
            prefix = single_prefix_of(context)
            if isinstance(obj, StagedRawFile):
                revisions = Revisions(self.lake, prefix)
                RawFile.publish(self.lake, prefix, obj, run_id=context.run_id, revisions=revisions)
            elif isinstance(obj, RawFile) and obj.prefix == prefix:
                obj.delete_other_formats()
            else:
                raise _not_a_file_error(context.asset_key, type(obj))

    def load_input(self, context: dg.InputContext) -> RawFile | dict[str, RawFile]:
        """Return a handle to the stored file, or handles by partition key, without reading the files."""
        with asset_failures(context):
            by_partition = requested_type(context)[1]
            if not by_partition:
                return RawFile.get(self.lake, single_prefix_of(context))
            return {
                key: RawFile.get(self.lake, object_prefix_of(context, key)) for key in partition_keys(context) or []
            }


def _not_a_file_error(asset: dg.AssetKey, type_: Any) -> AssetDefinitionError:
    return AssetDefinitionError(
        f"{asset.to_user_string()} returns {type_name(type_)}, but raw_files stores only files as published.",
        remedy="Use the IO manager lake_parquet or warehouse_table for rows.",
    )
