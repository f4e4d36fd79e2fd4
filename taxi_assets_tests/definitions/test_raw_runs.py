"""Runs of the raw asset: its run config, and its retries."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest

from taxi_assets.addresses import DuckDBAddress, FolderAddress
from taxi_assets.build import TaxiDefinitions, build_definitions
from taxi_assets.settings import Settings
from taxi_assets.tlc.month import Month
from taxi_assets_tests.google.cloud_storage import CloudStorage, Fault
from taxi_assets_tests.loopback_publisher import LoopbackPublisher
from taxi_assets_tests.pipeline_harness import data_versions, failure_messages, materializations, metadata_value
from taxi_assets_tests.trips import csv_lines

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

MONTH = "2020-10"
NAME = f"green_tripdata_{MONTH}.csv"
CONTENT = "".join(f"{line}\n" for line in csv_lines(Month.parse(MONTH), 50)).encode()
LAYER_KEYS = [f"{layer}/green_trips" for layer in ("raw", "quarantine", "clean", "warehouse")]


class JobRunner:
    """A deployment in a folder that runs the green job for one month."""

    def __init__(self, folder: Path, source: str, instance: dg.DagsterInstance) -> None:
        self.instance = instance
        self.defs: TaxiDefinitions = build_definitions(
            Settings(
                lake=FolderAddress(folder / "lake"),
                warehouse=DuckDBAddress(folder / "warehouse.duckdb"),
                source=source,
                retry_delay_seconds=0,
            )
        )

    def run(self, *layers: str, cleaning: Mapping[str, Any] | None = None, **config: Any) -> dg.ExecuteInProcessResult:
        configured = {"raw__green_trips": config, "clean_green": cleaning}
        raw = {"ops": {step: {"config": options} for step, options in configured.items() if options}}
        return self.defs.resolve_job_def("green").execute_in_process(
            instance=self.instance,
            partition_key=MONTH,
            asset_selection=[dg.AssetKey([layer, "green_trips"]) for layer in layers] or None,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}} | raw,
            raise_on_error=False,
        )


@pytest.fixture
def publisher() -> Iterator[LoopbackPublisher]:
    with LoopbackPublisher({NAME: CONTENT}) as publisher:
        yield publisher


@pytest.fixture
def runner(tmp_path: Path, publisher: LoopbackPublisher) -> Iterator[JobRunner]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield JobRunner(tmp_path, publisher.base, instance)


# --- run config -------------------------------------------------------------------------------------------------------


def test_force_downloads_a_file_that_has_not_changed(runner: JobRunner, publisher: LoopbackPublisher) -> None:
    first = runner.run()
    assert failure_messages(first) == []
    assert metadata_value(runner.run(), "raw/green_trips", "fetched") == "unchanged"
    forced = runner.run(force=True)
    assert metadata_value(forced, "raw/green_trips", "fetched") == "same bytes again"
    assert "If-None-Match" not in publisher.requests_for(NAME)[-1].headers
    assert data_versions(forced) == data_versions(first)
    assert metadata_value(forced, "warehouse/green_trips", "loaded") == "unchanged"


def test_skip_if_unchanged_ends_the_run_after_raw_if_the_warehouse_has_the_same_bytes(
    runner: JobRunner, publisher: LoopbackPublisher
) -> None:
    first = runner.run()
    publisher.publish(NAME, CONTENT, etag='"the same bytes"')
    result = runner.run(skip_downstream_if_unchanged=True)
    assert failure_messages(result) == []
    assert list(materializations(result)) == ["raw/green_trips"]
    assert metadata_value(result, "raw/green_trips", "etag") == '"the same bytes"'
    assert data_versions(result) == {"raw/green_trips": data_versions(first)["raw/green_trips"]}
    record = runner.instance.get_latest_data_version_record(dg.AssetKey(["raw", "green_trips"]), partition_key=MONTH)
    assert record is not None
    assert record.run_id == result.run_id
    assert metadata_value(runner.run(), "raw/green_trips", "fetched") == "unchanged"  # the lake knows the new ETag


def test_skip_if_unchanged_continues_if_the_file_or_the_warehouse_has_other_bytes(
    runner: JobRunner, publisher: LoopbackPublisher
) -> None:
    assert list(materializations(runner.run(skip_downstream_if_unchanged=True))) == LAYER_KEYS
    publisher.publish(NAME, CONTENT.replace(b"N", b"Y"))
    assert list(materializations(runner.run(skip_downstream_if_unchanged=True))) == LAYER_KEYS
    publisher.publish(NAME, CONTENT)
    runner.run("raw")  # a run that ends here, as a killed one does
    assert list(materializations(runner.run(skip_downstream_if_unchanged=True))) == LAYER_KEYS


def test_skip_if_unchanged_continues_if_clean_has_a_version_that_the_warehouse_never_had(
    runner: JobRunner, publisher: LoopbackPublisher
) -> None:
    first = runner.run()
    publisher.publish(NAME, CONTENT.replace(b"N", b"Y"))
    runner.run("raw", "quarantine", "clean")  # a run whose warehouse failed
    publisher.publish(NAME, CONTENT)
    result = runner.run(skip_downstream_if_unchanged=True)
    assert list(materializations(result)) == LAYER_KEYS
    assert data_versions(result) == data_versions(first)


def test_skip_if_unchanged_continues_if_the_run_cleans_the_month_in_another_way(
    runner: JobRunner, publisher: LoopbackPublisher
) -> None:
    runner.run()
    publisher.publish(NAME, CONTENT.replace(b"N", b"Y"))
    runner.run()
    older = hashlib.sha256(CONTENT).hexdigest()[:12]
    pinned = runner.run(skip_downstream_if_unchanged=True, cleaning={"revision": older})
    assert failure_messages(pinned) == []
    assert metadata_value(pinned, "clean/green_trips", "pinned_revision").startswith(older)
    assert list(materializations(runner.run(skip_downstream_if_unchanged=True, cleaning={"rules": []}))) == LAYER_KEYS


def test_run_config_is_validated_and_described(runner: JobRunner) -> None:
    with pytest.raises(dg.DagsterInvalidConfigError, match="forse"):
        runner.run(forse=True)
    node: Any = runner.defs.resolve_asset_graph().get(dg.AssetKey(["raw", "green_trips"])).assets_def.node_def
    fields = node.config_schema.config_type.fields
    assert {name: bool(field.description) for name, field in fields.items()} == {
        "force": True,
        "skip_downstream_if_unchanged": True,
    }


# --- retries ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[CloudStorage]:
    with CloudStorage() as storage:
        for name, value in storage.environment.items():
            monkeypatch.setenv(name, value)
        storage.put(f"published/{NAME}", CONTENT)
        yield storage


def attempts(result: dg.ExecuteInProcessResult) -> int:
    """Return how often the raw step was started."""
    starts = {dg.DagsterEventType.STEP_START, dg.DagsterEventType.STEP_RESTARTED}
    return len([event for event in result.all_events if event.event_type in starts])


@pytest.fixture
def bucket_runner(tmp_path: Path, storage: CloudStorage) -> Iterator[JobRunner]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield JobRunner(tmp_path, f"gs://{storage.bucket}/published", instance)


def test_a_transient_failure_is_retried(bucket_runner: JobRunner, storage: CloudStorage) -> None:
    storage.script(Fault(corrupt=True), Fault(corrupt=True), method="GET", path="/download/")
    result = bucket_runner.run("raw")
    assert result.success
    assert attempts(result) == 3


def test_a_transient_failure_that_persists_ends_after_four_attempts(
    bucket_runner: JobRunner, storage: CloudStorage
) -> None:
    storage.script(*[Fault(corrupt=True)] * 10, method="GET", path="/download/")
    result = bucket_runner.run("raw")
    assert not result.success
    assert attempts(result) == 4
    assert "was replaced or damaged" in failure_messages(result)[0]


def test_a_permanent_failure_is_not_retried(bucket_runner: JobRunner, storage: CloudStorage) -> None:
    storage.delete(f"published/{NAME}")
    result = bucket_runner.run("raw")
    assert attempts(result) == 1
    assert "is not published" in failure_messages(result)[0]
