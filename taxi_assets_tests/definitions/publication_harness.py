"""What the tests of publication sensors, schedules and checks share: a publisher, an instance and a clock.

The runs are not executed: each leaves the materializations and the status that a real run would leave. That Dagster's
daemon treats a run request in the same way is shown in `deployments/test_first_month_walkthrough.py`.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import uuid
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest
from dagster._core.events import StepMaterializationData

from taxi_assets.automation.policies import MONTHLY
from taxi_assets.automation.publication.status import ScanLimits
from taxi_assets.automation.schedules import publication_schedules
from taxi_assets.automation.sensors.publication_sensor import publication_sensor
from taxi_assets.build import build_definitions
from taxi_assets.metadata import source_metadata
from taxi_assets.resources.publisher import PublisherResource
from taxi_assets.settings import Settings
from taxi_assets.tlc.file_format import FileFormat
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.services.green import GREEN
from taxi_assets.tlc.sources.source_record import SourceRecord
from taxi_assets.tlc.sources.version_check import check_version

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from taxi_assets.tlc.schema import Service

NO_PAUSE = ScanLimits(pause_seconds=0)
_REQUESTER_TAGS = {"dagster/sensor_name", "dagster/schedule_name"}
MONTHS_OF_2020 = [f"2020-{number:02}" for number in range(1, 13)]
FETCHED_AT = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)


class PublicationHarness:
    """A publisher, an instance and a clock for the sensor, schedules and check of one service.

    `now` is the time of the clock. The publisher is `folder`, unless `source` names another one.
    """

    def __init__(
        self,
        folder: Path,
        instance: dg.DagsterInstance,
        *,
        source: str = "",
        service_sources: Mapping[str, str] | None = None,
        limits: ScanLimits = NO_PAUSE,
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.instance = instance
        self.source = source or str(folder)
        self.publisher = PublisherResource(source=self.source, service_sources=dict(service_sources or {}))
        self.limits = limits
        self.now = dt.datetime(2021, 5, 10, 12, tzinfo=dt.UTC)
        self.cursor: str | None = None
        self.skip_message = ""
        self.versions = 0
        self.defs = build_definitions(Settings(source=self.source, service_sources=dict(service_sources or {})))

    # --- the publisher ---

    def publish(self, *months: str, service: Service = GREEN, content: str = "") -> None:
        """Publish months, or revisions of them: each gets a new modification time, and so a new ETag."""
        for month in months:
            self.versions += 1
            path = self.folder / f"{service.name}_tripdata_{month}.csv"
            path.write_text(content or f"version {self.versions}")
            os.utime(path, ns=(self.versions * 10**9,) * 2)

    def etag(self, month: str) -> str:
        found = (self.folder / f"green_tripdata_{month}.csv").stat()
        return f'"{found.st_mtime_ns}-{found.st_size}-{found.st_ctime_ns}-{found.st_ino}"'

    # --- the daemon and its runs ---

    def tick(self, service: Service = GREEN) -> list[dg.RunRequest]:
        """Evaluate the sensor once, with the cursor of the last tick; return its run requests."""
        sensor = publication_sensor(service, limits=self.limits, clock=lambda: self.now)
        with dg.build_sensor_context(
            instance=self.instance,
            cursor=self.cursor,
            definitions=self.defs,
            resources={"publisher": self.publisher},
        ) as context:
            result = sensor.evaluate_tick(context)
        self.cursor, self.skip_message = result.cursor, result.skip_message or ""
        return [request for request in result.run_requests or [] if self._is_first(request)]

    def evaluate_schedule(
        self, interval: str = "monthly", *, cron: str = MONTHLY, timezone: str = "UTC"
    ) -> dg.RunRequest | str:
        """Evaluate a schedule now; return its run request, or its reason to skip."""
        (schedule,) = (
            schedule
            for schedule in publication_schedules(GREEN, cron=cron, timezone=timezone)
            if schedule.name == f"green_{interval}"
        )
        with dg.build_schedule_context(
            instance=self.instance,
            scheduled_execution_time=self.now,
            repository_def=self.defs.get_repository_def(),
            resources={"publisher": self.publisher},
        ) as context:
            result = schedule.evaluate_tick(context)
        requests = [request for request in result.run_requests or [] if self._is_first(request)]
        return requests[0] if requests else str(result.skip_message)

    def requested_months(self, service: Service = GREEN) -> dict[str, str]:
        """Evaluate the sensor once; return the months it requests, with the reasons. The runs never start."""
        requests = self.tick(service)
        return {str(request.partition_key): request.tags["taxi_assets/reason"] for request in requests}

    def record_run(
        self, request: dg.RunRequest, *, last_layer: str = "warehouse", status: str = "SUCCESS"
    ) -> dg.DagsterRun:
        """Record a run with this status that materialized the layers up to `last_layer`: none, raw or warehouse."""
        run = dg.DagsterRun(
            job_name="green",
            run_id=str(uuid.uuid4()),
            status=dg.DagsterRunStatus(status),
            tags={**request.tags, **self._identity(request), "dagster/partition": str(request.partition_key)},
        )
        self.instance.add_run(run)
        if last_layer != "none":
            self.load(str(request.partition_key), run_id=run.run_id, last_layer=last_layer)
        return run

    def run_requested_months(self) -> dict[str, str]:
        """Evaluate the sensor once, and record a successful run of each month it requests; return the reasons."""
        requests = self.tick()
        for request in requests:
            self.record_run(request)
        return {str(request.partition_key): request.tags["taxi_assets/reason"] for request in requests}

    def load(self, month: str, *, run_id: str = "", last_layer: str = "warehouse", service: Service = GREEN) -> None:
        """Record the materializations of a month, as it is published now."""
        publisher = self.publisher.publisher_of(service)
        version = check_version(f"{service.name} {month}", publisher.source_urls(service, Month.parse(month)))
        assert version is not None
        path = self.folder / version.url.rpartition("/")[2]
        record = SourceRecord(
            url=version.url,
            publisher=version.publisher,
            format=FileFormat.CSV,
            bytes=version.bytes or 0,
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            rows=1,
            etag=version.etag,
            last_modified=version.last_modified,
            fetched_at=FETCHED_AT,
        )
        metadata = {"file_bytes": record.bytes, **source_metadata(record, digest_key="sha256")}
        self.materialize(["raw", service.table], month, metadata, run_id)
        if last_layer == "warehouse":
            self.materialize(["warehouse", service.table], month, {"raw_sha256": record.sha256}, run_id)

    def materialize(self, key: list[str], month: str, metadata: dict[str, Any], run_id: str = "") -> None:
        """Record one materialization."""
        materialization = dg.AssetMaterialization(key, partition=month, metadata=metadata)
        event = dg.DagsterEvent(
            event_type_value=dg.DagsterEventType.ASSET_MATERIALIZATION.value,
            job_name="green",
            event_specific_data=StepMaterializationData(materialization),
        )
        self.instance.report_dagster_event(event, run_id=run_id or str(uuid.uuid4()))

    def _is_first(self, request: dg.RunRequest) -> bool:
        """Return whether the run key is new: Dagster drops one that the same sensor, or schedule and time, has used."""
        return not self.instance.get_runs(dg.RunsFilter(tags=self._identity(request)))

    def _identity(self, request: dg.RunRequest) -> dict[str, str]:
        requester = {name: value for name, value in request.tags.items() if name in _REQUESTER_TAGS}
        if "dagster/schedule_name" in requester:
            requester["dagster/scheduled_execution_time"] = self.now.astimezone(dt.UTC).isoformat()
        return {**requester, "dagster/run_key": str(request.run_key)}


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def harness(tmp_path: Path, instance: dg.DagsterInstance) -> PublicationHarness:
    return PublicationHarness(tmp_path / "published", instance)
