"""Store reports in the lake: one folder each, with the charts and the page that shows them."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from taxi_assets.errors import AssetDefinitionError
from taxi_assets.io_managers.asset_context import asset_failures, single_prefix_of
from taxi_assets.reports.artifact import PAGE, StagedReport, sha256
from taxi_assets.storage.lake.base_lake import Lake
from taxi_assets.storage.table_values import type_name


class ReportIOManager(dg.ConfigurableIOManager):
    """Stores each report in a folder of the lake: its charts, and the page that shows them.

    It stores only the platform's reports. An input gets the HTML of the page:

        @dg.asset(
            partitions_def=monthly_partitions(SERVICES["green"]),
            ins={"page": dg.AssetIn(["reports", "green_trips"])},
        )
        def report_mail(page: str) -> None:
            print(page)
    """

    lake: dg.ResourceDependency[Lake]

    @staticmethod
    def check_definition(asset: dg.AssetKey, type_: Any, _metadata: Mapping[str, Any], _partitions: Any) -> None:
        """Raise `AssetDefinitionError` if an asset returns anything but a report."""
        if type_ not in {Any, StagedReport}:
            raise _not_a_report_error(asset, type_)

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Upload the changed files, the page last; then delete charts that are no longer in the report."""
        with asset_failures(context):
            if not isinstance(obj, StagedReport):
                raise _not_a_report_error(context.asset_key, type(obj))
            prefix = single_prefix_of(context)
            keys = {file: f"{prefix}/{file.name}" for file in obj.files}
            changed = [file for file, key in keys.items() if not self.lake.has_digest(key, sha256=sha256(file))]
            for file in changed:
                self.lake.publish(file, keys[file], replaces=obj.replaces[file.name], run_id=context.run_id)
            for name in obj.removed:
                self.lake.delete(f"{prefix}/{name}")
        context.add_output_metadata({"written": "replaced" if changed else "unchanged"})

    def load_input(self, context: dg.InputContext) -> str:
        """Return the HTML of the page."""
        with asset_failures(context), self.lake.open(f"{single_prefix_of(context)}/{PAGE}") as page:
            return page.read().decode()


def _not_a_report_error(asset: dg.AssetKey, type_: Any) -> AssetDefinitionError:
    return AssetDefinitionError(
        f"{asset.to_user_string()} returns {type_name(type_)}, but the IO manager reports stores only monthly reports.",
        remedy="Use the IO manager lake_parquet or warehouse_table for rows.",
    )
