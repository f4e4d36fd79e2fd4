"""Store reports in the lake: one folder each, with the charts and the page that shows them."""

import dagster as dg

from taxi_assets.automation.step_failures import as_failures
from taxi_assets.io_managers.partition_context import object_prefix_of, retry_number_of
from taxi_assets.reports.artifact import PAGE, StagedReport, sha256
from taxi_assets.storage.lake.base_lake import Lake


class ReportIOManager(dg.ConfigurableIOManager):
    """Stores each report in a folder of the lake: its charts, and the page that shows them."""

    lake: dg.ResourceDependency[Lake]

    def handle_output(self, context: dg.OutputContext, obj: StagedReport) -> None:
        """Upload the changed files, the page last; then delete charts that are no longer in the report."""
        prefix = object_prefix_of(context)
        with as_failures(retry_number=retry_number_of(context)):
            keys = {file: f"{prefix}/{file.name}" for file in obj.files}
            changed = [file for file, key in keys.items() if not self.lake.has_digest(key, sha256=sha256(file))]
            for file in changed:
                self.lake.publish(file, keys[file], replaces=obj.replaces[file.name], run_id=context.run_id)
            for name in obj.removed:
                self.lake.delete(f"{prefix}/{name}")
        context.add_output_metadata({"written": "replaced" if changed else "unchanged"})

    def load_input(self, context: dg.InputContext) -> str:
        """Return the HTML of the page."""
        with as_failures(), self.lake.open(f"{object_prefix_of(context)}/{PAGE}") as page:
            return page.read().decode()
