"""What the UI can show of a month after a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg
import pytest

from taxi_assets.addresses import DuckDBAddress, FolderAddress
from taxi_assets.build import build_definitions
from taxi_assets.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

EVERYWHERE = {"dagster/partition_row_count", "bytes", "publisher", "url", "etag", "fetched_at", "seconds", "preview"}
OF_CLEANING = {
    *("rows_raw", "rows_clean", "rows_quarantined", "share_quarantined", "quarantined_by_reason", "rules"),
    *("absent_columns", "unknown_columns", "raw_sha256"),
}


def metadata_of(home: Path, service: str, month: str) -> dict[str, dict[str, object]]:
    """Metadata of each shelf's materialization."""
    settings = Settings(
        lake=FolderAddress(folder=home / "lake"),
        warehouse=DuckDBAddress(file=home / "warehouse.duckdb"),
        source="sample",
    )
    with dg.DagsterInstance.ephemeral() as instance:
        job = build_definitions(settings).resolve_job_def(service)
        result = job.execute_in_process(instance=instance, partition_key=month)
    assert result.success
    return {
        event.materialization.asset_key.path[0]: {
            name: entry.value for name, entry in event.materialization.metadata.items()
        }
        for event in result.get_asset_materialization_events()
    }


@pytest.mark.parametrize("service", ["green", "fhvhv"])
def test_every_shelf_says_what_it_holds_and_where_it_came_from(tmp_path: Path, service: str) -> None:
    layers = metadata_of(tmp_path, service, "2021-02")

    assert layers.keys() == {"raw", "quarantine", "clean", "warehouse"}
    for layer, metadata in layers.items():
        assert metadata.keys() >= EVERYWHERE, layer
        assert metadata["publisher"] == "sample"
        assert "not TLC's records" in str(metadata["sample"]), layer
    for layer in ("quarantine", "clean", "warehouse"):
        assert layers[layer].keys() >= OF_CLEANING, layer
        assert layers[layer]["raw_sha256"] == layers["raw"]["sha256"]
    assert layers["warehouse"]["loaded"] == "replaced"

    # Money is shown where the service reports a total, and no 0.00 where it does not.
    has_total = service == "green"
    assert ("quarantined_dollars" in layers["clean"]) == has_total
    assert ("dollars" in str(layers["clean"]["quarantined_by_reason"])) == has_total
