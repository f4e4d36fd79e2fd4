"""When the automation conditions request the quality table and the views, which cover all months, and when a report."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import dagster as dg
import pytest
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationTargetMaterializationData
from dagster._core.definitions.data_version import DATA_VERSION_TAG
from dagster._core.events import StepMaterializationData

from taxi_assets.addresses import DuckDBAddress, FolderAddress
from taxi_assets.automation.publication.run_tags import UNCOMPARED_TAG
from taxi_assets.build import build_definitions, build_service_assets
from taxi_assets.settings import Settings
from taxi_assets.tlc.services.green import GREEN

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

QUALITY = "quality/month_quality"
VIEWS = "views/duckdb"
ZONES = "reference/taxi_zones"
REPORTS = "reports/green_trips"
CLEAN, WAREHOUSE, REPORT = (dg.AssetKey([layer, "green_trips"]) for layer in ("clean", "warehouse", "reports"))


class AutomationHarness:
    """An instance to which events are reported, and ticks of the sensor `automation_conditions`."""

    def __init__(self, defs: dg.Definitions, instance: dg.DagsterInstance, evaluated: dg.AssetSelection) -> None:
        self.instance = instance
        self.defs = defs
        self.evaluated = evaluated
        self.cursor: dg.AssetDaemonCursor | None = None

    def materialize(self, key: dg.AssetKey, month: str | None, data: str) -> None:
        """Report a materialization of the asset, with this data version."""
        self.instance.report_runless_asset_event(
            dg.AssetMaterialization(key, partition=month, tags={DATA_VERSION_TAG: data})
        )

    def materialize_in_run(self, keys: Sequence[dg.AssetKey], month: str, data: str, tags: Mapping[str, str]) -> None:
        """Record a successful run of the job `green` with these tags that has materialized the assets."""
        job = self.defs.resolve_job_def("green")
        run = self.instance.create_run_for_job(job, tags={"dagster/partition": month}, asset_selection=frozenset(keys))
        self.instance.add_run_tags(run.run_id, {**tags})
        for key in keys:
            materialization = dg.AssetMaterialization(key, partition=month, tags={DATA_VERSION_TAG: data})
            event = dg.DagsterEvent(
                dg.DagsterEventType.ASSET_MATERIALIZATION.value,
                job_name=job.name,
                event_specific_data=StepMaterializationData(materialization),
            )
            self.instance.report_dagster_event(event, run_id=run.run_id)
        for status in (dg.DagsterEventType.RUN_START, dg.DagsterEventType.RUN_SUCCESS):
            self.instance.report_dagster_event(dg.DagsterEvent(status.value, job_name=job.name), run_id=run.run_id)

    def fail_check(self, key: dg.AssetKey, month: str) -> None:
        """Report a failed blocking check of the month's last materialization."""
        (record,) = self.instance.fetch_materializations(
            dg.AssetRecordsFilter(key, asset_partitions=[month]), limit=1
        ).records
        target = AssetCheckEvaluationTargetMaterializationData(
            storage_id=record.storage_id, run_id=record.run_id, timestamp=record.timestamp
        )
        self.instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(
                key, "matches_clean", passed=False, blocking=True, partition=month, target_materialization_data=target
            )
        )

    def start(self, month: str) -> dg.DagsterRun:
        """Report a run in progress that materializes all layers of the month."""
        job = self.defs.resolve_job_def("green")
        keys = frozenset(job.asset_layer.selected_asset_keys)
        run = self.instance.create_run_for_job(job, tags={"dagster/partition": month}, asset_selection=keys)
        self.instance.report_dagster_event(
            dg.DagsterEvent(dg.DagsterEventType.RUN_START.value, job_name=job.name), run_id=run.run_id
        )
        return run

    def tick(self, *wanted: str) -> set[str]:
        """Evaluate the conditions once; return which of the `wanted` assets are requested, with their partitions."""
        result = dg.evaluate_automation_conditions(
            defs=self.defs, instance=self.instance, asset_selection=self.evaluated, cursor=self.cursor
        )
        self.cursor = result.cursor
        requested = set()
        for name in wanted:
            key = dg.AssetKey.from_user_string(name)
            requested |= {f"{name} {partition}" for partition in result.get_requested_partitions(key) if partition}
            requested |= {name} if result.get_num_requested(key) and name not in " ".join(requested) else set()
        return requested


@pytest.fixture(scope="module")
def defs(tmp_path_factory: pytest.TempPathFactory) -> dg.Definitions:
    folder = tmp_path_factory.mktemp("stores")
    return build_definitions(
        Settings(lake=FolderAddress(folder=folder / "lake"), warehouse=DuckDBAddress(file=folder / "w.duckdb"))
    )


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def harness(defs: dg.Definitions, instance: dg.DagsterInstance) -> AutomationHarness:
    """A harness that evaluates the conditions of all assets, except the reports and the loads of other services."""
    layers = ("raw", "quarantine", "warehouse", "reports")
    others = [[layer, f"{service}_trips"] for layer in layers for service in ("fhv", "fhvhv", "yellow")]
    return AutomationHarness(defs, instance, dg.AssetSelection.all() - dg.AssetSelection.assets(*others))


def test_months_loaded_before_the_first_tick_cause_no_request(harness: AutomationHarness) -> None:
    harness.materialize(CLEAN, "2023-01", "a")
    assert harness.tick(QUALITY) == set()
    assert harness.tick(QUALITY) == set()


def test_all_changed_months_cause_one_request_and_the_next_change_another(harness: AutomationHarness) -> None:
    harness.tick()
    for month in ("2023-01", "2023-02"):
        harness.materialize(CLEAN, month, "a")
    harness.materialize(dg.AssetKey(["clean", "fhv_trips"]), "2019-01", "a")
    assert harness.tick(QUALITY) == {QUALITY}
    assert harness.tick(QUALITY) == set()

    harness.materialize(dg.AssetKey(["quality", "month_quality"]), None, "q")
    assert harness.tick(QUALITY) == set()

    harness.materialize(CLEAN, "2023-01", "a")  # cleaned again, with the same result
    assert harness.tick(QUALITY) == set()

    harness.materialize(CLEAN, "2023-01", "b")
    assert harness.tick(QUALITY) == {QUALITY}


def test_the_views_are_written_once_after_the_quality_table_and_the_marts(harness: AutomationHarness) -> None:
    harness.tick()
    harness.materialize(CLEAN, "2023-01", "a")
    assert harness.tick(VIEWS, QUALITY) == {QUALITY}
    harness.materialize(dg.AssetKey(["quality", "month_quality"]), None, "q")
    harness.materialize(dg.AssetKey(["marts", "zone_day"]), "2023-01", "m")
    assert harness.tick(VIEWS, QUALITY) == {VIEWS}
    assert harness.tick(VIEWS, QUALITY) == set()

    harness.materialize(dg.AssetKey(["quarantine", "green_trips"]), "2023-01", "a")
    assert harness.tick(VIEWS, QUALITY) == {VIEWS}


def test_the_request_waits_while_months_are_in_progress_and_then_comes_once(harness: AutomationHarness) -> None:
    harness.tick()
    harness.materialize(CLEAN, "2023-01", "a")
    run = harness.start("2023-02")
    assert harness.tick(QUALITY) == set()
    assert harness.tick(QUALITY) == set()

    harness.materialize(CLEAN, "2023-02", "a")
    harness.instance.report_run_failed(run)
    assert harness.tick(QUALITY) == {QUALITY}
    assert harness.tick(QUALITY) == set()


@pytest.fixture
def with_zones(defs: dg.Definitions, instance: dg.DagsterInstance) -> AutomationHarness:
    """A harness that evaluates the conditions of a report and of the assets upstream of it."""
    harness = AutomationHarness(defs, instance, dg.AssetSelection.assets(REPORT).upstream())
    harness.materialize(dg.AssetKey.from_user_string(ZONES), None, "z")
    harness.tick()
    return harness


def load(harness: AutomationHarness, month: str, data: str = "a") -> None:
    """Report that a run loaded the month, up to the warehouse."""
    for key in (CLEAN, WAREHOUSE):
        harness.materialize(key, month, data)


def requested_reports(harness: AutomationHarness) -> list[str]:
    """Evaluate the conditions once, and report a materialization of each requested report; return the months."""
    months = sorted(report.removeprefix(f"{REPORTS} ") for report in harness.tick(REPORTS))
    for month in months:
        harness.materialize(REPORT, month, f"materialized after tick {id(harness.cursor)}")
    return months


def test_a_report_is_requested_when_the_warehouse_changes_not_when_the_clean_trips_do(
    with_zones: AutomationHarness,
) -> None:
    load(with_zones, "2023-01")
    assert requested_reports(with_zones) == ["2023-01"]
    with_zones.materialize(CLEAN, "2023-01", "b")
    assert requested_reports(with_zones) == []

    with_zones.materialize(WAREHOUSE, "2023-01", "b")
    assert requested_reports(with_zones) == ["2023-01"]
    assert requested_reports(with_zones) == []


def test_on_a_new_instance_the_first_report_waits_for_the_taxi_zones(harness: AutomationHarness) -> None:
    harness.tick()
    load(harness, "2023-02")
    assert harness.tick(REPORTS, ZONES) == {ZONES}
    assert requested_reports(harness) == []

    harness.materialize(dg.AssetKey.from_user_string(ZONES), None, "z")
    assert requested_reports(harness) == ["2023-02"]
    assert requested_reports(harness) == []


def test_revised_zones_alone_request_no_report(with_zones: AutomationHarness) -> None:
    load(with_zones, "2023-02")
    assert requested_reports(with_zones) == ["2023-02"]
    with_zones.materialize(dg.AssetKey.from_user_string(ZONES), None, "revised")
    assert requested_reports(with_zones) == []


def test_a_loaded_month_requests_its_report_and_the_next_month_s_and_no_other(with_zones: AutomationHarness) -> None:
    for month in ("2023-02", "2023-03", "2024-01"):
        load(with_zones, month)
    assert requested_reports(with_zones) == ["2023-02", "2023-03", "2024-01"]  # none waits for the month before it

    load(with_zones, "2023-01")
    assert requested_reports(with_zones) == ["2023-01", "2023-02"]
    assert requested_reports(with_zones) == []

    load(with_zones, "2023-01")  # with the same result
    assert requested_reports(with_zones) == []


def test_a_month_that_is_not_loaded_gets_no_report_when_the_month_before_changes(with_zones: AutomationHarness) -> None:
    load(with_zones, "2023-01")
    assert requested_reports(with_zones) == ["2023-01"]
    assert requested_reports(with_zones) == []
    load(with_zones, "2023-02")
    assert requested_reports(with_zones) == ["2023-02"]


def test_the_first_month_of_a_service_has_a_report(with_zones: AutomationHarness) -> None:
    load(with_zones, "2013-08")
    assert requested_reports(with_zones) == ["2013-08"]


def test_a_report_waits_while_the_month_before_is_being_loaded(with_zones: AutomationHarness) -> None:
    run = with_zones.start("2023-01")
    load(with_zones, "2023-02")
    assert requested_reports(with_zones) == []

    load(with_zones, "2023-01")
    with_zones.instance.report_dagster_event(
        dg.DagsterEvent(dg.DagsterEventType.RUN_SUCCESS.value, job_name=run.job_name), run_id=run.run_id
    )
    assert requested_reports(with_zones) == ["2023-01", "2023-02"]
    assert requested_reports(with_zones) == []


def test_a_month_that_failed_its_check_gets_no_report_and_neither_does_the_next_one(
    with_zones: AutomationHarness,
) -> None:
    for month in ("2023-01", "2023-02", "2023-03"):
        load(with_zones, month)
    with_zones.fail_check(WAREHOUSE, "2023-01")
    assert requested_reports(with_zones) == ["2023-03"]

    load(with_zones, "2023-01", "repaired")
    assert requested_reports(with_zones) == ["2023-01", "2023-02"]


@pytest.mark.parametrize(("newest_first", "most"), [(False, 1), (True, 2)])
def test_a_backfill_requests_each_report_at_most_twice(
    with_zones: AutomationHarness, newest_first: bool, most: int
) -> None:
    months = sorted((f"2022-{number:02d}" for number in range(1, 5)), reverse=newest_first)
    requests: Counter[str] = Counter()
    for month in months:
        load(with_zones, month)
        requests.update(requested_reports(with_zones))
    requests.update(requested_reports(with_zones))
    assert requests.keys() == set(months)
    assert max(requests.values()) == most


# --- comparisons of revisions -----------------------------------------------------------------------------------------

RAW = dg.AssetKey(["raw", "green_trips"])
REVISIONS = "revisions/green_trips"


def test_a_month_is_compared_when_other_bytes_have_replaced_its_file(harness: AutomationHarness) -> None:
    harness.materialize(RAW, "2023-02", "old")
    harness.tick()
    harness.materialize(RAW, "2023-01", "a")  # the first file of the month
    assert harness.tick(REVISIONS) == set()
    harness.materialize(RAW, "2023-01", "a")  # the same bytes again
    assert harness.tick(REVISIONS) == set()
    harness.materialize(RAW, "2023-01", "b")
    harness.materialize(RAW, "2023-02", "new")
    assert harness.tick(REVISIONS) == {f"{REVISIONS} 2023-01", f"{REVISIONS} 2023-02"}
    assert harness.tick(REVISIONS) == set()
    harness.materialize(CLEAN, "2023-01", "other rules")
    assert harness.tick(REVISIONS) == set()


def test_a_month_that_is_loaded_and_revised_between_two_ticks_is_compared_once(harness: AutomationHarness) -> None:
    def download(month: str, data: str, *, uncompared: bool) -> None:
        harness.materialize_in_run([RAW], month, data, {UNCOMPARED_TAG: data} if uncompared else {})

    download("2020-01", "a", uncompared=False)
    harness.tick()
    download("2023-01", "a", uncompared=False)
    download("2023-01", "b", uncompared=True)
    download("2023-01", "b", uncompared=True)  # the same bytes again
    download("2023-02", "a", uncompared=False)  # never replaced
    download("2023-02", "a", uncompared=False)
    assert harness.tick(REVISIONS) == {f"{REVISIONS} 2023-01"}
    assert harness.tick(REVISIONS) == set()
    download("2023-01", "b", uncompared=True)  # before the comparison has ended
    assert harness.tick(REVISIONS) == set()
    harness.materialize(dg.AssetKey.from_user_string(REVISIONS), "2023-01", "a and b")
    download("2023-01", "b", uncompared=False)
    assert harness.tick(REVISIONS) == set()
    download("2023-01", "c", uncompared=True)
    assert harness.tick(REVISIONS) == {f"{REVISIONS} 2023-01"}
    assert harness.tick(REVISIONS) == set()


def test_automation_compares_nothing_if_no_revision_is_kept() -> None:
    revisions = dg.AssetKey(["revisions", "green_trips"])
    for keep, automated in (("all", True), ("1", True), ("0", False)):
        assets = build_service_assets(GREEN, Settings(keep_revisions=keep))  # type: ignore[arg-type]
        specs = [spec for each in assets if isinstance(each, dg.AssetsDefinition) for spec in each.specs]
        (condition,) = [spec.automation_condition for spec in specs if spec.key == revisions]
        assert (condition is not None) == automated


def test_the_comparison_waits_for_the_run_that_loads_the_revision(
    harness: AutomationHarness, instance: dg.DagsterInstance
) -> None:
    harness.tick()
    harness.materialize(RAW, "2023-01", "a")
    harness.tick()
    run = harness.start("2023-01")
    harness.materialize(RAW, "2023-01", "b")
    assert harness.tick(REVISIONS) == set()
    instance.report_run_failed(run)
    assert harness.tick(REVISIONS) == {f"{REVISIONS} 2023-01"}
