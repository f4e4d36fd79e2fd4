"""Runs of a deployment with an Iceberg catalog: each month of trips and marts is committed once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg
import pytest
from pyiceberg.catalog import load_catalog

from taxi_assets.build import build_definitions
from taxi_assets.cli import iceberg_cleanup
from taxi_assets.cli.doctor.catalogs import catalog as check_catalog
from taxi_assets.marts.mart import marts
from taxi_assets.settings import Settings
from taxi_assets.storage.iceberg import month_commit
from taxi_assets.tlc.month import Month
from taxi_assets_tests.iceberg_tables import independent_table, pyiceberg_content
from taxi_assets_tests.pipeline_harness import data_versions, failure_messages, materializations, metadata_value
from taxi_assets_tests.rest_catalog import RestCatalog
from taxi_assets_tests.trips import csv_lines

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

MONTH = "2021-01"


class Deployment:
    """A deployment in a folder, whose publisher is another folder."""

    def __init__(self, home: Path) -> None:
        self.home = home
        (home / "published").mkdir()
        self.defs = build_definitions(Settings.from_env(self.settings))

    @property
    def settings(self) -> dict[str, object]:
        return {
            "source": str(self.home / "published"),
            "lake": str(self.home / "lake"),
            "warehouse": f"duckdb:///{self.home}/warehouse.duckdb",
            "catalog": f"sqlite:///{self.home}/catalog.db",
        }

    def publish(self, rows: int) -> None:
        text = "".join(f"{line}\n" for line in csv_lines(Month.parse(MONTH), rows))
        (self.home / "published" / f"green_tripdata_{MONTH}.csv").write_text(text)

    def run(self, job: str, month: str | None) -> Any:
        with dg.DagsterInstance.ephemeral() as instance:
            result = self.defs.resolve_job_def(job).execute_in_process(
                instance=instance,
                partition_key=month,
                raise_on_error=False,
                run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            )
        assert result.success, failure_messages(result)
        return result


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    return Deployment(tmp_path)


def test_a_run_commits_the_month_and_a_revised_month_is_a_second_snapshot(deployment: Deployment) -> None:
    found = []
    for rows in (100, 100, 80):
        deployment.publish(rows)
        result = deployment.run("green", MONTH)
        assert data_versions(result)["iceberg/green_trips"] == data_versions(result)["clean/green_trips"]
        outcome = metadata_value(result, "iceberg/green_trips", "outcome")
        table = independent_table(deployment.home)
        found.append((outcome, pyiceberg_content(table)[MONTH][0], len(table.snapshots())))
    assert found == [("committed", 100, 1), ("unchanged", 100, 1), ("committed", 80, 2)]
    newest: Any = table.current_snapshot()
    recorded = materializations(result)["iceberg/green_trips"].metadata
    assert recorded["snapshot_id"].value == str(newest.snapshot_id)
    assert recorded["metadata_location"].value == table.metadata_location
    assert recorded["dagster/uri"].value == table.location()
    assert newest.summary["taxi.run-id"] == result.run_id
    assert newest.summary["taxi.raw-sha256"] == metadata_value(result, "raw/green_trips", "sha256")


def test_a_step_that_lost_against_newer_rows_is_retried_and_continues_with_them(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment.publish(100)
    replace_month = month_commit._replace

    def after_another_run(*arguments: Any) -> Any:
        monkeypatch.setattr(month_commit, "_replace", replace_month)
        deployment.publish(80)
        deployment.run("green", MONTH)
        return replace_month(*arguments)

    monkeypatch.setattr(month_commit, "_replace", after_another_run)
    result = deployment.run("green", MONTH)
    assert metadata_value(result, "iceberg/green_trips", "outcome") == "unchanged"
    retries = [event for event in result.all_events if event.event_type_value == "STEP_UP_FOR_RETRY"]
    assert [event.step_key for event in retries] == ["iceberg__green_trips"]
    assert "has committed other rows" in str(retries[0].event_specific_data)
    assert pyiceberg_content(independent_table(deployment.home))[MONTH][0] == 80


def test_a_step_is_retried_after_a_rest_catalog_was_unavailable(deployment: Deployment) -> None:
    with RestCatalog() as server:
        server.fails_at = 0
        address = {"catalog": server.address, "retry_delay_seconds": 0}
        deployment.defs = build_definitions(Settings.from_env({**deployment.settings, **address}))
        deployment.publish(100)
        result = deployment.run("green", MONTH)
        retries = [event for event in result.all_events if event.event_type_value == "STEP_UP_FOR_RETRY"]
        assert [event.step_key for event in retries] == ["iceberg__green_trips"]
        assert "[CatalogUnreachableError]" in str(retries[0].event_specific_data)
        table = load_catalog("taxi", uri=server.address).load_table("taxi.green_trips")
        assert pyiceberg_content(table)[MONTH][0] == 100


def test_marts_doctor_and_cleanup(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Checks:
        def settings(self) -> Settings:
            return Settings.from_env(deployment.settings)

        def require(self, _part: str) -> None: ...

    address = deployment.settings["catalog"]
    checks: Any = Checks()
    assert check_catalog(checks) == f"{address}: does not exist yet; the first run creates it"
    deployment.publish(100)
    deployment.run("green", MONTH)
    deployment.run("reference", None)
    result = deployment.run("marts", MONTH)
    committed = {f"iceberg/{name}" for name in marts()} & set(materializations(result))
    assert {"iceberg/zone_day", "iceberg/hour_of_week"} <= committed
    for key in committed:
        rows = metadata_value(result, key, "dagster/partition_row_count")
        assert rows == metadata_value(result, key.replace("iceberg", "marts"), "dagster/partition_row_count")
    assert check_catalog(checks) == f"{address}: has {len(committed) + 1} tables in the namespace taxi"
    for name, value in deployment.settings.items():
        monkeypatch.setenv(f"TAXI_{name.upper()}", str(value))
    monkeypatch.setenv("TAXI_CATALOG_KEEP_DAYS", "30")
    assert iceberg_cleanup.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert "taxi.green_trips: 0 snapshots expired, 0 files deleted" in lines
    assert len(lines) == 4 + len(marts())


def test_cleanup_without_a_catalog_is_an_error_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert iceberg_cleanup.main() == 1
    assert capsys.readouterr().err == ("TAXI_CATALOG is not set. Set it to the catalog to clean up. [SettingsError]\n")
