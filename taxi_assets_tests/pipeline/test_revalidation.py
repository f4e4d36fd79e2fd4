"""Running a month again does not rewrite unchanged data and requests nothing downstream.

The tests run the whole service job against a real HTTP server, which publishes a month several times: unchanged, with
other bytes, and in another format.
"""

from __future__ import annotations

import gzip
import io
from pathlib import PurePath
from typing import TYPE_CHECKING

import dagster as dg
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from taxi_assets_tests.faults.conftest import FILE, MONTH, OTHER_MONTH, SERVICE, republished
from taxi_assets_tests.loopback_publisher import LoopbackPublisher
from taxi_assets_tests.pipeline_harness import (
    Deployment,
    data_versions,
    failure_messages,
    file_states,
    metadata_value,
    read_stored_month,
    stray_files,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from taxi_assets_tests.faults.conftest import Republished

__all__ = ["republished"]

RAW, CLEAN, WAREHOUSE = (f"{layer}/{SERVICE}_trips" for layer in ("raw", "clean", "warehouse"))
RECORD = f"lake/raw/{SERVICE}_trips/{MONTH}.source.json"


@pytest.fixture
def server(republished: Republished, data: Path) -> Iterator[LoopbackPublisher]:
    other_month = f"{SERVICE}_tripdata_{OTHER_MONTH}.csv"
    files = {FILE: republished.older_file, other_month: (data / "first100" / other_month).read_bytes()}
    with LoopbackPublisher(files) as publisher:
        yield publisher


def outcomes(result: dg.ExecuteInProcessResult) -> list[str]:
    return [
        metadata_value(result, RAW, "fetched"),
        metadata_value(result, CLEAN, "cleaning_outcome"),
        metadata_value(result, WAREHOUSE, "loaded"),
    ]


def test_nothing_is_written_if_the_publisher_reports_no_change(server: LoopbackPublisher, tmp_path: Path) -> None:
    deployment = Deployment(tmp_path / "home", server.base)
    first = deployment.run(SERVICE, MONTH)
    assert outcomes(first) == ["new bytes", "rebuilt", "replaced"]
    before, requests = file_states(deployment), len(server.requests_for(FILE))

    again = deployment.run(SERVICE, MONTH)

    assert failure_messages(again) == []
    assert outcomes(again) == ["unchanged", "unchanged", "unchanged"]
    assert file_states(deployment) == before
    assert data_versions(again) == data_versions(first)
    (request,) = server.requests_for(FILE)[requests:]
    assert request.headers["If-None-Match"]
    assert stray_files(deployment) == []


def test_only_the_source_record_is_written_if_the_same_bytes_are_published_again(
    server: LoopbackPublisher, republished: Republished, tmp_path: Path
) -> None:
    deployment = Deployment(tmp_path / "home", server.base)
    first = deployment.run(SERVICE, MONTH)
    before = file_states(deployment)
    server.publish(FILE, republished.older_file, etag='"again"')

    again = deployment.run(SERVICE, MONTH)

    assert outcomes(again) == ["same bytes again", "unchanged", "unchanged"]
    after = file_states(deployment)
    assert {path for path in before | after if before.get(path) != after.get(path)} == {RECORD}
    record = read_stored_month(deployment, SERVICE, MONTH).record
    assert record is not None
    assert record["etag"] == '"again"'
    assert data_versions(again) == data_versions(first)
    # The next run sends the new ETag.
    assert outcomes(deployment.run(SERVICE, MONTH)) == ["unchanged", "unchanged", "unchanged"]
    assert server.requests_for(FILE)[-1].headers["If-None-Match"] == '"again"'


def test_changed_bytes_replace_every_layer_of_that_month_only(
    server: LoopbackPublisher, republished: Republished, tmp_path: Path
) -> None:
    deployment = Deployment(tmp_path / "home", server.base)
    assert failure_messages(deployment.run(SERVICE, OTHER_MONTH)) == []
    first = deployment.run(SERVICE, MONTH)
    before, other_month = file_states(deployment), read_stored_month(deployment, SERVICE, OTHER_MONTH)
    server.publish(FILE, republished.newer_file)

    again = deployment.run(SERVICE, MONTH)

    assert outcomes(again) == ["new bytes", "rebuilt", "replaced"]
    found = read_stored_month(deployment, SERVICE, MONTH)
    assert found.is_consistent
    # The objects do not depend on the publisher: a lake filled from another publisher has identical bytes.
    assert (found.raw, found.quarantine, found.clean) == (
        republished.newer.raw, republished.newer.quarantine, republished.newer.clean,
    )  # fmt: skip
    assert found.warehouse == republished.newer.warehouse
    assert not set(data_versions(first).values()) & set(data_versions(again).values())
    after = file_states(deployment)
    assert {PurePath(path).name.partition(".")[0] for path in before if before[path] != after[path]} == {
        MONTH,
        "warehouse",
    }
    assert read_stored_month(deployment, SERVICE, OTHER_MONTH) == other_month


def test_the_older_raw_object_is_deleted_if_another_format_is_published(
    server: LoopbackPublisher, data: Path, tmp_path: Path
) -> None:
    month, prefix = "2023-01", f"{SERVICE}_tripdata_2023-01"
    with pyarrow.parquet.ParquetFile(data / "months" / f"{prefix}.parquet") as file:
        trips = pa.Table.from_batches([next(file.iter_batches(batch_size=600))])
    text, parquet = io.BytesIO(), io.BytesIO()
    pyarrow.csv.write_csv(trips, text, pyarrow.csv.WriteOptions(quoting_style="none"))
    pyarrow.parquet.write_table(trips.slice(0, 500), parquet)
    server.publish(f"{prefix}.csv.gz", gzip.compress(text.getvalue()))
    deployment = Deployment(tmp_path / "home", server.base)
    assert failure_messages(deployment.run(SERVICE, OTHER_MONTH)) == []
    assert failure_messages(deployment.run(SERVICE, month)) == []
    stored, other_month = (
        read_stored_month(deployment, SERVICE, month),
        read_stored_month(deployment, SERVICE, OTHER_MONTH),
    )
    assert stored.is_consistent
    assert len(stored.warehouse) > 500
    server.withdraw(f"{prefix}.csv.gz")
    server.publish(f"{prefix}.parquet", parquet.getvalue())

    result = deployment.run(SERVICE, month)

    assert outcomes(result) == ["new bytes", "rebuilt", "replaced"]
    found = read_stored_month(deployment, SERVICE, month)
    assert list(found.raw) == ["parquet"]
    assert found.is_consistent
    assert found.record is not None
    assert found.record["rows"] == 500
    assert read_stored_month(deployment, SERVICE, OTHER_MONTH) == other_month
    assert stray_files(deployment) == []


def test_downstream_assets_are_requested_only_if_the_bytes_changed(
    server: LoopbackPublisher, republished: Republished, tmp_path: Path
) -> None:
    deployment = Deployment(tmp_path / "home", server.base)
    definitions, clean = deployment.definitions(), dg.AssetKey.from_user_string(CLEAN)
    with dg.DagsterInstance.ephemeral() as instance:
        first = deployment.run(SERVICE, MONTH, instance=instance)
        tick = dg.evaluate_automation_conditions(definitions, instance)

        server.publish(FILE, republished.older_file, etag='"again"')
        again = deployment.run(SERVICE, MONTH, instance=instance, only=[RAW])
        assert metadata_value(again, RAW, "fetched") == "same bytes again"
        assert data_versions(again) == {RAW: data_versions(first)[RAW]}
        tick = dg.evaluate_automation_conditions(definitions, instance, cursor=tick.cursor)
        assert tick.total_requested == 0

        server.publish(FILE, republished.newer_file)
        changed = deployment.run(SERVICE, MONTH, instance=instance, only=[RAW])
        assert data_versions(changed) != data_versions(again)
        tick = dg.evaluate_automation_conditions(definitions, instance, cursor=tick.cursor)
        assert tick.get_requested_partitions(clean) == {MONTH}
