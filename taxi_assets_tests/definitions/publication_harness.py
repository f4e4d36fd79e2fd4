"""A folder that publishes months, an instance that loads them, and a clock: what tests of sensors and schedules share.

The runs are not executed: each leaves the materializations and the status that it would have left. That Dagster's
daemon does with a request what is done here is shown in `deployments/test_first_month_walkthrough.py`.
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
    from collections.abc import Iterator
    from pathlib import Path

    from taxi_assets.tlc.schema import Service

AT_ONCE = ScanLimits(pause_seconds=0)
_ASKED_BY = {"dagster/sensor_name", "dagster/schedule_name"}
YEAR = [f"2020-{number:02}" for number in range(1, 13)]
LONG_AGO = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)


class Publishing:
    """See the module. `now` is the clock; `source` is the folder, unless another publisher is given."""

    def __init__(
        self, folder: Path, instance: dg.DagsterInstance, *, source: str = "", limits: ScanLimits = AT_ONCE
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.instance = instance
        self.source = source or str(folder)
        self.limits = limits
        self.now = dt.datetime(2021, 5, 10, 12, tzinfo=dt.UTC)
        self.cursor: str | None = None
        self.message = ""
        self.versions = 0
        self.defs = build_definitions(Settings(source=self.source))

    # --- the publisher ---

    def publish(self, *months: str, service: Service = GREEN, content: str = "") -> None:
        """Bring out a month, or a revision of it: another modification time, and so another ETag."""
        for month in months:
            self.versions += 1
            path = self.folder / f"{service.name}_tripdata_{month}.csv"
            path.write_text(content or f"version {self.versions}")
            os.utime(path, ns=(self.versions * 10**9,) * 2)

    def etag(self, month: str) -> str:
        found = (self.folder / f"green_tripdata_{month}.csv").stat()
        return f'"{found.st_mtime_ns}-{found.st_size}"'

    # --- the daemon, and the runs ---

    def tick(self, service: Service = GREEN) -> list[dg.RunRequest]:
        """What the sensor asks for; its cursor moves as the daemon moves it."""
        sensor = publication_sensor(service, limits=self.limits, clock=lambda: self.now)
        with dg.build_sensor_context(
            instance=self.instance,
            cursor=self.cursor,
            definitions=self.defs,
            resources={"publisher": PublisherResource(source=self.source)},
        ) as context:
            result = sensor.evaluate_tick(context)
        self.cursor, self.message = result.cursor, result.skip_message or ""
        return [request for request in result.run_requests or [] if self._is_first(request)]

    def on_schedule(self, word: str = "monthly", *, cron: str = MONTHLY, timezone: str = "UTC") -> dg.RunRequest | str:
        """The run that a schedule asks for when it is evaluated now, or its reason not to."""
        (schedule,) = (
            schedule
            for schedule in publication_schedules(GREEN, cron=cron, timezone=timezone)
            if schedule.name == f"green_{word}"
        )
        with dg.build_schedule_context(
            instance=self.instance,
            scheduled_execution_time=self.now,
            repository_def=self.defs.get_repository_def(),
            resources={"publisher": PublisherResource(source=self.source)},
        ) as context:
            result = schedule.evaluate_tick(context)
        requests = [request for request in result.run_requests or [] if self._is_first(request)]
        return requests[0] if requests else str(result.skip_message)

    def asked(self, service: Service = GREEN) -> dict[str, str]:
        """The months that a tick asks for, with the reason; nothing becomes of the runs."""
        requests = self.tick(service)
        return {str(request.partition_key): request.tags["taxi_assets/reason"] for request in requests}

    def run(self, request: dg.RunRequest, *, to: str = "warehouse", status: str = "SUCCESS") -> dg.DagsterRun:
        """What a run leaves that comes as far as the shelf `to` (none, raw or warehouse), and ends so."""
        run = dg.DagsterRun(
            job_name="green",
            run_id=str(uuid.uuid4()),
            status=dg.DagsterRunStatus(status),
            tags={**request.tags, **self._identity(request), "dagster/partition": str(request.partition_key)},
        )
        self.instance.add_run(run)
        if to != "none":
            self.load(str(request.partition_key), run_id=run.run_id, to=to)
        return run

    def run_all(self) -> dict[str, str]:
        """A tick, and a successful run of each month that it asks for; the months with the reason."""
        requests = self.tick()
        for request in requests:
            self.run(request)
        return {str(request.partition_key): request.tags["taxi_assets/reason"] for request in requests}

    def load(self, month: str, *, run_id: str = "", to: str = "warehouse", service: Service = GREEN) -> None:
        """The materializations of a month, as it is published now."""
        publisher = PublisherResource(source=self.source).publisher
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
            fetched_at=LONG_AGO,
        )
        message = {"file_bytes": record.bytes, **source_metadata(record, digest="sha256")}
        self.materialize(["raw", service.table], month, message, run_id)
        if to == "warehouse":
            self.materialize(["warehouse", service.table], month, {"raw_sha256": record.sha256}, run_id)

    def materialize(self, key: list[str], month: str, message: dict[str, Any], run_id: str = "") -> None:
        """One materialization."""
        materialization = dg.AssetMaterialization(key, partition=month, metadata=message)
        event = dg.DagsterEvent(
            event_type_value=dg.DagsterEventType.ASSET_MATERIALIZATION.value,
            job_name="green",
            event_specific_data=StepMaterializationData(materialization),
        )
        self.instance.report_dagster_event(event, run_id=run_id or str(uuid.uuid4()))

    def _is_first(self, request: dg.RunRequest) -> bool:
        """Dagster drops a run key that the same sensor has asked for, or the same schedule at the same time."""
        return not self.instance.get_runs(dg.RunsFilter(tags=self._identity(request)))

    def _identity(self, request: dg.RunRequest) -> dict[str, str]:
        by = {name: value for name, value in request.tags.items() if name in _ASKED_BY}
        if "dagster/schedule_name" in by:
            by["dagster/scheduled_execution_time"] = self.now.astimezone(dt.UTC).isoformat()
        return {**by, "dagster/run_key": str(request.run_key)}


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def scenario(tmp_path: Path, instance: dg.DagsterInstance) -> Publishing:
    return Publishing(tmp_path / "published", instance)
