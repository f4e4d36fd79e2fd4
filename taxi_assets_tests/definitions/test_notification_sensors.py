"""The notification sensors, with runs that really fail and servers on loopback that receive the messages."""

from __future__ import annotations

import datetime as dt
import shutil
import socket
import time
from typing import TYPE_CHECKING

import dagster as dg
import pytest
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from pydantic import SecretStr

from taxi_assets.addresses import DuckDBAddress, FolderAddress
from taxi_assets.assets.published import published_asset
from taxi_assets.automation.publication.status import PUBLISHED_MONTHS_LOADED
from taxi_assets.automation.sensors import notification_sensors
from taxi_assets.automation.sensors.notification_sensors import MONTHS_IN_PROGRESS, MONTHS_NOT_CHECKED, OVERDUE_MONTHS
from taxi_assets.automation.sensors.revision_notifications import NEWER, OLDER, REVISION
from taxi_assets.build import build_definitions
from taxi_assets.checks.publication_checks import publication_check
from taxi_assets.resources.publisher import PublisherResource
from taxi_assets.settings import Settings
from taxi_assets.tlc.services.green import GREEN
from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.loopback_sinks import SECRET, HttpSink, MailSink
from taxi_assets_tests.trips import MONTH, csv_lines

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

UI = "https://dagster.example.com"
MISSING = "2020-11"


class Deployment:
    """A publisher of one month, a persistent instance, and ticks of the notification sensors."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance, *notify: str) -> None:
        self.folder = folder
        self.instance = instance
        self.cursors: dict[str, str | None] = {}
        self.deploy(*notify)

    def deploy(self, *notify: str, success: bool = False, more: dg.Definitions | None = None) -> None:
        """Rebuild the definitions with these notifiers, and with `more` definitions."""
        self.notify = SecretStr(",".join(notify))
        settings = Settings(
            lake=FolderAddress(self.folder / "lake"),
            warehouse=DuckDBAddress(self.folder / "warehouse.duckdb"),
            source=str(self.folder / "published"),
            notify_urls=self.notify,
            notify_success=success,
            ui_url=UI,
        )
        self.defs = dg.Definitions.merge(build_definitions(settings), more or dg.Definitions())
        self.repository = self.defs.get_repository_def()

    def publish(self, rows: int = 20) -> None:
        lines = csv_lines(MONTH, rows)
        (self.folder / "published" / f"green_tripdata_{MONTH}.csv").write_text("\n".join(lines) + "\n")

    def run(self, job: str, month: object, *assets: str) -> str:
        found = self.defs.resolve_implicit_global_asset_job_def() if assets else self.defs.resolve_job_def(job)
        result = found.execute_in_process(
            instance=self.instance, partition_key=str(month), raise_on_error=False,
            asset_selection=[dg.AssetKey.from_user_string(key) for key in assets] or None,
        )  # fmt: skip
        return result.run_id

    def killed_run(self, month: object = MISSING, origin: RemoteJobOrigin | None = None) -> dg.DagsterRun:
        """Record a run that was marked as failed from outside, as `fail_orphaned_runs` and Dagster's monitoring do."""
        run = self.instance.create_run_for_job(
            self.defs.resolve_job_def("green"), tags={"dagster/partition": str(month)},
            status=dg.DagsterRunStatus.STARTED, remote_job_origin=origin,
        )  # fmt: skip
        self.instance.report_run_failed(run, "The process of this run is gone: it was killed.")
        return run

    def tick(self, name: str = "notify_failures") -> str:
        """Evaluate a sensor once; return its skip message."""
        with dg.build_sensor_context(
            self.instance, cursor=self.cursors.get(name), repository_def=self.repository, sensor_name=name
        ) as context:
            result = self.repository.get_sensor_def(name).evaluate_tick(context)
        self.cursors[name] = result.cursor
        assert result.run_requests == []
        return result.skip_message or ""


@pytest.fixture
def web() -> Iterator[HttpSink]:
    with HttpSink() as sink:
        yield sink


@pytest.fixture
def mail() -> Iterator[MailSink]:
    with MailSink() as sink:
        yield sink


@pytest.fixture
def deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, web: HttpSink, mail: MailSink) -> Iterator[Deployment]:
    dagster_home = tmp_path / "dagster"
    dagster_home.mkdir()
    (tmp_path / "published").mkdir()
    shutil.copy(REPOSITORY / "dagster.yaml", dagster_home)
    monkeypatch.setenv("DAGSTER_HOME", str(dagster_home))
    with dg.DagsterInstance.get() as instance:
        deployment = Deployment(tmp_path, instance, web.address, mail.address)
        deployment.tick()
        yield deployment


def mail_text(mail: MailSink) -> str:
    (message,) = mail.messages
    body = message.get_body(("plain", "html"))
    assert body is not None
    return str(body.get_content())


# --- runs -------------------------------------------------------------------------------------------------------------


def test_a_failed_run_is_reported_once_to_every_notifier_with_month_reason_and_link(
    deployment: Deployment, web: HttpSink, mail: MailSink
) -> None:
    run_id = deployment.run("green", MISSING)
    assert deployment.tick() == f"Sent: Run failed: green {MISSING}."
    assert deployment.tick() == "Nothing to report."
    (message,) = web.messages
    assert (message["title"], message["type"]) == (f"Run failed: green {MISSING}", "failure")
    first, link = message["message"].split("\n")
    assert first.startswith(f"green {MISSING} is not published at ")
    assert link == f"{UI}/runs/{run_id}"
    assert mail.messages[0]["Subject"] == message["title"]
    assert "three@example.com" in mail.messages[0]["Cc"], "a comma within an address does not split it"
    assert link in mail_text(mail)


def test_a_failed_blocking_check_is_reported_by_name_in_one_message(deployment: Deployment, web: HttpSink) -> None:
    clean, warehouse = dg.AssetKey(["clean", "green_trips"]), dg.AssetKey(["warehouse", "green_trips"])
    selection = dg.AssetSelection.assets(warehouse) | dg.AssetSelection.checks_for_assets(clean, warehouse)
    deployment.deploy(web.address, more=dg.Definitions(jobs=[dg.define_asset_job("reload", selection)]))
    deployment.publish(rows=20)
    deployment.run("green", MONTH)
    deployment.publish(rows=21)
    deployment.run("", MONTH, "raw/green_trips")
    deployment.run("reload", MONTH)
    deployment.tick()
    (message,) = web.messages
    assert message["title"] == f"Run failed: reload {MONTH}"
    expected = (
        f"reload {MONTH}: clean/green_trips, check row_counts_reconcile: The clean trips come from a different file"
    )
    assert message["message"].startswith(expected)


def test_a_run_of_ad_hoc_assets_is_named_by_its_service(deployment: Deployment, web: HttpSink) -> None:
    deployment.run("", MISSING, "raw/green_trips")
    deployment.tick()
    assert web.messages[0]["title"] == f"Run failed: green {MISSING}"


def test_a_run_that_two_monitors_marked_as_failed_is_reported_once(deployment: Deployment, web: HttpSink) -> None:
    run = deployment.killed_run()
    deployment.tick()
    deployment.instance.report_run_failed(run, "Another monitor found it orphaned.")
    assert deployment.tick() == "Nothing to report."
    (message,) = web.messages
    assert message["message"].startswith(f"green {MISSING}: The process of this run is gone: it was killed.\n")


def test_a_run_that_dagster_will_retry_is_not_reported(deployment: Deployment, web: HttpSink) -> None:
    location = RegisteredCodeLocationOrigin("taxi_assets.definitions")
    run = deployment.killed_run(origin=RemoteJobOrigin(RemoteRepositoryOrigin(location, "__repository__"), "green"))
    recorded = deployment.instance.get_run_by_id(run.run_id)
    assert recorded is not None
    assert recorded.tags["dagster/will_retry"] == "true"
    deployment.tick()
    assert web.messages == []


def test_a_failure_waits_until_dagster_has_decided_whether_to_retry(deployment: Deployment, web: HttpSink) -> None:
    ended = deployment.killed_run()
    deployment.tick()
    (failure,) = deployment.instance.all_logs(ended.run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
    run = deployment.instance.create_run_for_job(
        deployment.defs.resolve_job_def("green"), tags={"dagster/partition": MISSING}
    )
    # Dagster stores the failure first, and decides about a retry a moment later.
    deployment.instance.event_log_storage.store_event(failure._replace(run_id=run.run_id, timestamp=time.time()))
    assert deployment.tick() == "Nothing to report."
    deployment.instance.add_run_tags(run.run_id, {"dagster/will_retry": "false"})
    assert deployment.tick() == f"Sent: Run failed: green {MISSING}."
    assert len(web.messages) == 2


def test_a_failure_from_before_the_clock_was_set_back_does_not_delay_reports(
    deployment: Deployment, web: HttpSink
) -> None:
    ended = deployment.killed_run()
    deployment.tick()
    (failure,) = deployment.instance.all_logs(ended.run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
    run = deployment.instance.create_run_for_job(
        deployment.defs.resolve_job_def("green"), tags={"dagster/partition": MISSING}
    )
    in_a_year = time.time() + 365 * 24 * 3600
    deployment.instance.event_log_storage.store_event(failure._replace(run_id=run.run_id, timestamp=in_a_year))
    assert deployment.tick() == f"Sent: Run failed: green {MISSING}."
    assert len(web.messages) == 2


def test_many_failures_are_reported_in_few_messages_that_name_every_month(
    deployment: Deployment, web: HttpSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notification_sensors, "EVENTS_PER_TICK", 7)
    months = [f"2020-{month:02d}" for month in range(1, 10)]
    for month in months:
        deployment.killed_run(month)
    deployment.tick()
    deployment.tick()
    first, second = web.messages
    assert first["title"].startswith("7 runs failed: green 2020-01, green 2020-02, ")
    assert first["title"].endswith(" and 2 more")
    assert [month for month in months if f"green {month}" in first["message"]] == months[:7]
    assert [month for month in months if f"green {month}" in second["message"]] == months[7:]


def test_runs_that_failed_before_the_first_tick_are_not_reported(deployment: Deployment, web: HttpSink) -> None:
    deployment.killed_run()
    deployment.cursors["notify_failures"] = "not a cursor of this sensor"
    assert deployment.tick() == "First tick: later events are reported."
    assert deployment.tick() == "Nothing to report."
    assert web.messages == []


def test_runs_of_other_projects_in_the_same_instance_are_not_reported(deployment: Deployment, web: HttpSink) -> None:
    @dg.op
    def fail() -> None:
        raise RuntimeError

    @dg.job
    def another_job() -> None:
        fail()

    @dg.asset
    def another_asset() -> None:
        raise RuntimeError

    for job in (another_job, dg.Definitions([another_asset]).resolve_implicit_global_asset_job_def()):
        assert not job.execute_in_process(instance=deployment.instance, raise_on_error=False).success
    deployment.tick()
    assert web.messages == []


def test_successful_runs_are_reported_if_the_setting_is_on(deployment: Deployment, web: HttpSink) -> None:
    deployment.deploy(web.address, success=True)
    deployment.tick("notify_successes")
    deployment.publish()
    deployment.run("green", MONTH)
    deployment.run("green", MISSING)
    deployment.tick("notify_successes")
    (message,) = web.messages
    assert (message["title"], message["type"]) == (f"Run succeeded: green {MONTH}", "success")
    assert "every blocking check passed" in message["message"]


# --- overdue months ---------------------------------------------------------------------------------------------------


def test_overdue_months_of_the_publication_check_are_reported(deployment: Deployment, web: HttpSink) -> None:
    deployment.publish()
    deployment.run("", MONTH, "raw/green_trips")
    checks = dg.Definitions(
        [published_asset(GREEN)],
        asset_checks=[publication_check(GREEN, clock=lambda: dt.datetime(2020, 12, 1, tzinfo=dt.UTC))],
        resources={"publisher": PublisherResource(source=str(deployment.folder / "published"))},
        jobs=[dg.define_asset_job("run_checks", dg.AssetSelection.all_asset_checks())],
    )
    assert checks.resolve_job_def("run_checks").execute_in_process(instance=deployment.instance).success
    assert deployment.tick("notify_overdue_months") == "Sent: Months are overdue: green."
    (message,) = web.messages
    assert (message["title"], message["type"]) == ("Months are overdue: green", "warning")
    line, link = message["message"].split("\n")
    assert line == f"green {MONTH}: Loaded, but not in the warehouse: {MONTH}. (check {PUBLISHED_MONTHS_LOADED})"
    assert link == f"{UI}/assets/published/green_trips?view=checks"


def evaluate_check(deployment: Deployment, *months: str, **undecided: list[str]) -> str:
    """Report an evaluation of the check that finds these months overdue; return the skip message of the next tick."""
    evaluation = dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey(["published", "green_trips"]), check_name=PUBLISHED_MONTHS_LOADED, passed=not months,
        metadata={OVERDUE_MONTHS: list(months), **undecided},
    )  # fmt: skip
    deployment.instance.report_runless_asset_event(evaluation)
    return deployment.tick("notify_overdue_months")


NOT_SENT, SENT = "Nothing to report.", "Sent: Months are overdue: green."


def test_overdue_months_are_reported_again_only_if_another_one_is_found(deployment: Deployment, web: HttpSink) -> None:
    assert deployment.tick("notify_overdue_months") == NOT_SENT
    for overdue, expected in [
        (["2021-01", "2021-02"], SENT), (["2021-01", "2021-02"], NOT_SENT), (["2021-02"], NOT_SENT),
        (["2021-02", "2021-03"], SENT), ([], NOT_SENT), (["2021-03"], SENT),
    ]:  # fmt: skip
        assert evaluate_check(deployment, *overdue) == expected
    assert [message["message"].partition(":")[0] for message in web.messages] == [
        "green 2021-01, 2021-02", "green 2021-02, 2021-03", "green 2021-03",
    ]  # fmt: skip


@pytest.mark.parametrize("name", [MONTHS_IN_PROGRESS, MONTHS_NOT_CHECKED])
def test_a_reported_month_that_is_in_progress_or_not_checked_is_not_reported_again(
    deployment: Deployment, web: HttpSink, name: str
) -> None:
    assert evaluate_check(deployment, "2021-01") == SENT
    assert evaluate_check(deployment, **{name: ["2021-01", "2021-02"]}) == NOT_SENT
    assert evaluate_check(deployment, "2021-01") == NOT_SENT
    assert evaluate_check(deployment, "2021-01", "2021-02") == SENT
    assert len(web.messages) == 2


def test_reported_months_are_not_reported_again_after_the_publisher_was_down(
    deployment: Deployment, web: HttpSink
) -> None:
    assert evaluate_check(deployment, "2021-01") == SENT
    shutil.rmtree(deployment.folder / "published")
    check = dg.AssetCheckKey(dg.AssetKey(["published", "green_trips"]), PUBLISHED_MONTHS_LOADED)
    job = deployment.defs.resolve_job_def("publication").get_subset(asset_check_selection={check})
    for _ in range(11):
        assert not job.execute_in_process(instance=deployment.instance, raise_on_error=False).success
        assert deployment.tick("notify_overdue_months") == NOT_SENT
    assert evaluate_check(deployment, "2021-01") == NOT_SENT
    deployment.instance.wipe_assets([dg.AssetKey(["published", "green_trips"])])
    assert deployment.tick("notify_overdue_months") == NOT_SENT
    assert evaluate_check(deployment, "2021-01") == NOT_SENT
    assert len(web.messages) == 1


def test_an_unfinished_check_changes_nothing_and_an_invalid_cursor_is_replaced(
    deployment: Deployment, web: HttpSink
) -> None:
    key = dg.AssetKey(["raw", "green_trips"])
    dies = False

    @dg.asset_check(asset=key, metadata={"about": "months"})
    def published_is_loaded() -> dg.AssetCheckResult:
        if dies:
            raise RuntimeError
        return dg.AssetCheckResult(passed=False, metadata={OVERDUE_MONTHS: ["2021-01"]})

    job = dg.define_asset_job("run_checks", dg.AssetSelection.checks(published_is_loaded))
    deployment.deploy(web.address, more=dg.Definitions(asset_checks=[published_is_loaded], jobs=[job]))
    for dies in (False, True):
        check_job = deployment.defs.resolve_job_def("run_checks")
        assert check_job.execute_in_process(instance=deployment.instance, raise_on_error=False).success is not dies
        deployment.tick("notify_overdue_months")
    assert len(web.messages) == 1
    for messages, cursor in enumerate(['["of", "another", "kind"', "[1]", '{"published": {"of": "another"}}'], start=2):
        deployment.cursors["notify_overdue_months"] = cursor
        deployment.tick("notify_overdue_months")
        assert len(web.messages) == messages


# --- notifiers that fail ----------------------------------------------------------------------------------------------


def test_a_notifier_that_is_down_is_named_in_the_tick_and_the_others_get_the_message(
    deployment: Deployment, web: HttpSink, mail: MailSink
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as no_one:
        closed = no_one.getsockname()[1]
    deployment.deploy(f"json://127.0.0.1:{closed}/{SECRET}", web.address, mail.address)
    web.status = 500
    deployment.run("green", MISSING)
    assert deployment.tick() == (
        f"Sent: Run failed: green {MISSING}. Notifier number 1 of TAXI_NOTIFY_URLS (JSON) did not accept the message. "
        "Notifier number 2 of TAXI_NOTIFY_URLS (JSON) did not accept the message."
    )
    assert len(mail.messages) == 1
    assert deployment.tick() == "Nothing to report."


def test_no_secret_reaches_a_file_a_log_or_a_name(
    deployment: Deployment, web: HttpSink, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    web.status = 500
    deployment.run("green", MISSING)
    deployment.tick()
    output = capfd.readouterr()
    assert SECRET not in output.out + output.err + caplog.text
    assert SECRET not in repr(deployment.defs) + str(Settings(notify_urls=deployment.notify))
    files = [path for path in deployment.folder.rglob("*") if path.is_file()]
    assert len(files) > 3
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []


# --- settings ---------------------------------------------------------------------------------------------------------


def test_without_notifiers_there_are_no_notification_sensors() -> None:
    sensors = build_definitions(Settings()).sensors or []
    assert not [sensor.name for sensor in sensors if sensor.name.startswith("notify")]


def test_with_notifiers_the_sensors_are_on_by_default(deployment: Deployment) -> None:
    sensors = {sensor.name: sensor for sensor in deployment.defs.sensors or [] if sensor.name.startswith("notify")}
    assert set(sensors) == {"notify_failures", "notify_overdue_months", "notify_revisions"}
    assert {sensor.default_status for sensor in sensors.values()} == {dg.DefaultSensorStatus.RUNNING}


# --- revised months ---------------------------------------------------------------------------------------------------


def compared(deployment: Deployment, service: str, month: str, sentence: str, new: str = "b", old: str = "a") -> None:
    """Report a comparison of two revisions, as the asset does."""
    key = dg.AssetKey(["revisions", f"{service}_trips"])
    deployment.instance.report_runless_asset_event(
        dg.AssetMaterialization(
            key,
            partition=month,
            metadata={
                REVISION: sentence,
                NEWER: f"sha256 {new}, downloaded 2021-05-01",
                OLDER: f"sha256 {old}, from there",
            },
        )
    )


def test_each_revised_month_is_reported_once_with_its_rows_and_dollars(deployment: Deployment, web: HttpSink) -> None:
    compared(deployment, "green", "2020-01", "before the first tick")
    assert deployment.tick("notify_revisions") == "First tick: later comparisons are reported."
    assert deployment.tick("notify_revisions") == "Nothing to report."
    sentence = "yellow 2021-01 was revised: 312 rows changed, +1,204.50 dollars"
    compared(deployment, "yellow", "2021-01", sentence)
    assert deployment.tick("notify_revisions") == "Sent: The publisher revised: yellow 2021-01."
    link = f"{UI}/assets/revisions/yellow_trips?view=partitions&partition=2021-01"
    assert web.messages[-1]["message"] == f"{sentence}\n{link}"
    compared(deployment, "fhv", "2019-01", "fhv 2019-01 was revised: 1 row added")
    compared(deployment, "green", "2020-02", "green 2020-02 was revised: 2 rows removed")
    assert deployment.tick("notify_revisions") == "Sent: The publisher revised: fhv 2019-01, green 2020-02."
    assert deployment.tick("notify_revisions") == "Nothing to report."
    assert len(web.messages) == 2


def test_a_comparison_of_the_same_files_is_not_reported_again(deployment: Deployment, web: HttpSink) -> None:
    deployment.tick("notify_revisions")
    compared(deployment, "green", "2020-01", "green 2020-01 was revised: 1 row added", "b", "a")
    assert deployment.tick("notify_revisions") == "Sent: The publisher revised: green 2020-01."
    compared(deployment, "green", "2020-01", "green 2020-01 was revised: 2 rows added", "b", "a")  # by other rules
    repeated = "Nothing to report: no other revisions than before were compared."
    assert [deployment.tick("notify_revisions") for _ in "12"] == [repeated, "Nothing to report."]
    compared(deployment, "green", "2020-01", "green 2020-01 was revised: 1 row removed", "a", "b")
    compared(deployment, "green", "2020-02", "green 2020-02 was revised: 1 row added", "b", "a")
    compared(deployment, "green", "2020-02", "green 2020-02 was revised: 1 row added", "b", "a")
    assert deployment.tick("notify_revisions") == "Sent: The publisher revised: green 2020-01, green 2020-02."
    assert len(web.messages) == 2
