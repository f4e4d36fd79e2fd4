"""Store published files in the lake, byte for byte, each with a record of its source."""

import dagster as dg

from taxi_assets.automation.step_failures import as_failures
from taxi_assets.io_managers.partition_context import object_prefix_of, retry_number_of
from taxi_assets.storage.lake.base_lake import Lake
from taxi_assets.storage.lake.objects import RawFile, StagedRawFile


class RawFileIOManager(dg.ConfigurableIOManager):
    """Stores published files in the lake, byte for byte, each with a record of its source."""

    lake: dg.ResourceDependency[Lake]

    def handle_output(self, context: dg.OutputContext, obj: StagedRawFile | RawFile) -> None:
        """Publish a downloaded file. A `RawFile` is in the lake already: delete only older files of other formats."""
        with as_failures(retry_number=retry_number_of(context)):
            if isinstance(obj, StagedRawFile):
                RawFile.publish(self.lake, object_prefix_of(context), obj, run_id=context.run_id)
            else:
                obj.delete_other_formats()

    def load_input(self, context: dg.InputContext) -> RawFile:
        """Return a handle to the stored file, without reading the file."""
        with as_failures():
            return RawFile.get(self.lake, object_prefix_of(context))
