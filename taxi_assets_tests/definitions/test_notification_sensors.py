"""Who is told what: runs that really fail, ticks of the sensors, and servers on loopback that take the messages."""

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
from taxi_assets.automation.sensors.notification_sensors import MONTHS_BUSY, MONTHS_NOT_CHECKED, OVERDUE_MONTHS
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


class Story:
    """A folder that publishes a month, an instance as on a machine of its own, and the ticks of the sensors."""

    def __init__(self, home: Path, instance: dg.DagsterInstance, *notify: str) -> None:
        self.home = home
        self.instance = instance
        self.cursors: dict[str, str | None] = {}
        self.deploy(*notify)

    def deploy(self, *notify: str, success: bool = False, more: dg.Definitions | None = None) -> None:
        """With these notifiers, and perhaps more definitions."""
        self.notify = SecretStr(",".join(notify))
        settings = Settings(
            lake=FolderAddress(self.home / "lake"),
            warehouse=DuckDBAddress(self.home / "warehouse.duckdb"),
            source=str(self.home / "published"),
            notify_urls=self.notify,
            notify_success=success,
            ui_url=UI,
        )
        self.defs = dg.Definitions.merge(build_definitions(settings), more or dg.Definitions())
        self.repository = self.defs.get_repository_def()

    def publish(self, rows: int = 20) -> None:
        lines = csv_lines(MONTH, rows)
        (self.home / "published" / f"green_tripdata_{MONTH}.csv").write_text("\n".join(lines) + "\n")

    def run(self, job: str, month: object, *assets: str) -> str:
        found = self.defs.resolve_implicit_global_asset_job_def() if assets else self.defs.resolve_job_def(job)
        result = found.execute_in_process(
            instance=self.instance, partition_key=str(month), raise_on_error=False,
            asset_selection=[dg.AssetKey.from_user_string(key) for key in assets] or None,
        )  # fmt: skip
        return result.run_id

    def killed_run(self, month: object = MISSING, origin: RemoteJobOrigin | None = None) -> dg.DagsterRun:
        """A run that was ended from outside, as `fail_orphaned_runs` and Dagster's own monitoring do."""
        run = self.instance.create_run_for_job(
            self.defs.resolve_job_def("green"), tags={"dagster/partition": str(month)},
            status=dg.DagsterRunStatus.STARTED, remote_job_origin=origin,
        )  # fmt: skip
        self.instance.report_run_failed(run, "The process of this run is gone: it was killed.")
        return run

    def tick(self, name: str = "notify_failures") -> str:
        """Evaluate a sensor once; returns what the tick says."""
        with dg.build_sensor_context(
            self.instance, cursor=self.cursors.get(name), repository_def=self.repository, sensor_name=name
        ) as context:
            ticked = self.repository.get_sensor_def(name).evaluate_tick(context)
        self.cursors[name] = ticked.cursor
        assert ticked.run_requests == []
        return ticked.skip_message or ""


@pytest.fixture
def web() -> Iterator[HttpSink]:
    with HttpSink() as sink:
        yield sink


@pytest.fixture
def mail() -> Iterator[MailSink]:
    with MailSink() as sink:
        yield sink


@pytest.fixture
def scenario(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, web: HttpSink, mail: MailSink) -> Iterator[Story]:
    home = tmp_path / "dagster"
    home.mkdir()
    (tmp_path / "published").mkdir()
    shutil.copy(REPOSITORY / "dagster.yaml", home)
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    with dg.DagsterInstance.get() as instance:
        scenario = Story(tmp_path, instance, web.address, mail.address)
        scenario.tick()
        yield scenario


def text(mail: MailSink) -> str:
    (message,) = mail.messages
    body = message.get_body(("plain", "html"))
    assert body is not None
    return str(body.get_content())


# --- runs -------------------------------------------------------------------------------------------------------------


def test_a_failed_run_is_told_of_once_to_everybody_with_month_reason_and_link(
    scenario: Story, web: HttpSink, mail: MailSink
) -> None:
    run_id = scenario.run("green", MISSING)
    assert scenario.tick() == f"Told: Run failed: green {MISSING}."
    assert scenario.tick() == "There is nothing to tell."
    (message,) = web.messages
    assert (message["title"], message["type"]) == (f"Run failed: green {MISSING}", "failure")
    first, link = message["message"].split("\n")
    assert first.startswith(f"green {MISSING} is not published at ")
    assert link == f"{UI}/runs/{run_id}"
    assert mail.messages[0]["Subject"] == message["title"]
    assert "three@example.com" in mail.messages[0]["Cc"], "a comma within an address does not end it"
    assert link in text(mail)


def test_a_failed_blocking_check_is_one_message_that_names_it(scenario: Story, web: HttpSink) -> None:
    clean, warehouse = dg.AssetKey(["clean", "green_trips"]), dg.AssetKey(["warehouse", "green_trips"])
    selection = dg.AssetSelection.assets(warehouse) | dg.AssetSelection.checks_for_assets(clean, warehouse)
    scenario.deploy(web.address, more=dg.Definitions(jobs=[dg.define_asset_job("load_again", selection)]))
    scenario.publish(rows=20)
    scenario.run("green", MONTH)
    scenario.publish(rows=21)
    scenario.run("", MONTH, "raw/green_trips")
    scenario.run("load_again", MONTH)
    scenario.tick()
    (message,) = web.messages
    assert message["title"] == f"Run failed: load_again {MONTH}"
    expected = (
        f"load_again {MONTH}: clean/green_trips, check row_counts_reconcile: The clean trips come from a different file"
    )
    assert message["message"].startswith(expected)


def test_what_was_materialized_ad_hoc_is_named_by_its_service(scenario: Story, web: HttpSink) -> None:
    scenario.run("", MISSING, "raw/green_trips")
    scenario.tick()
    assert web.messages[0]["title"] == f"Run failed: green {MISSING}"


def test_a_run_that_two_have_found_dead_is_told_of_once(scenario: Story, web: HttpSink) -> None:
    run = scenario.killed_run()
    scenario.tick()
    scenario.instance.report_run_failed(run, "Found dead once more.")
    assert scenario.tick() == "There is nothing to tell."
    (message,) = web.messages
    assert message["message"].startswith(f"green {MISSING}: The process of this run is gone: it was killed.\n")


def test_a_run_that_dagster_runs_again_is_not_told_of(scenario: Story, web: HttpSink) -> None:
    location = RegisteredCodeLocationOrigin("taxi_assets.definitions")
    run = scenario.killed_run(origin=RemoteJobOrigin(RemoteRepositoryOrigin(location, "__repository__"), "green"))
    tags = scenario.instance.get_run_by_id(run.run_id)
    assert tags is not None
    assert tags.tags["dagster/will_retry"] == "true"
    scenario.tick()
    assert web.messages == []


def test_one_that_is_not_decided_about_waits_for_the_next_tick(scenario: Story, web: HttpSink) -> None:
    ended = scenario.killed_run()
    scenario.tick()
    (failure,) = scenario.instance.all_logs(ended.run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
    run = scenario.instance.create_run_for_job(
        scenario.defs.resolve_job_def("green"), tags={"dagster/partition": MISSING}
    )
    # What Dagster does first of all when a run fails; it decides a moment later.
    scenario.instance.event_log_storage.store_event(failure._replace(run_id=run.run_id, timestamp=time.time()))
    assert scenario.tick() == "There is nothing to tell."
    scenario.instance.add_run_tags(run.run_id, {"dagster/will_retry": "false"})
    assert scenario.tick() == f"Told: Run failed: green {MISSING}."
    assert len(web.messages) == 2


def test_one_of_before_the_clock_was_set_back_does_not_hold_up_the_news(scenario: Story, web: HttpSink) -> None:
    ended = scenario.killed_run()
    scenario.tick()
    (failure,) = scenario.instance.all_logs(ended.run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
    run = scenario.instance.create_run_for_job(
        scenario.defs.resolve_job_def("green"), tags={"dagster/partition": MISSING}
    )
    in_a_year = time.time() + 365 * 24 * 3600
    scenario.instance.event_log_storage.store_event(failure._replace(run_id=run.run_id, timestamp=in_a_year))
    assert scenario.tick() == f"Told: Run failed: green {MISSING}."
    assert len(web.messages) == 2


def test_many_failures_at_once_are_few_messages_that_name_every_month(
    scenario: Story, web: HttpSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notification_sensors, "_RUNS_PER_TICK", 7)
    months = [f"2020-{month:02d}" for month in range(1, 10)]
    for month in months:
        scenario.killed_run(month)
    scenario.tick()
    scenario.tick()
    first, second = web.messages
    assert first["title"].startswith("7 runs failed: green 2020-01, green 2020-02, ")
    assert first["title"].endswith(" and 2 more")
    assert [month for month in months if f"green {month}" in first["message"]] == months[:7]
    assert [month for month in months if f"green {month}" in second["message"]] == months[7:]


def test_what_failed_before_it_was_switched_on_is_no_news(scenario: Story, web: HttpSink) -> None:
    scenario.killed_run()
    scenario.cursors["notify_failures"] = "no cursor of ours"
    assert scenario.tick() == "It tells of what happens from now on."
    assert scenario.tick() == "There is nothing to tell."
    assert web.messages == []


def test_runs_of_other_projects_in_the_same_instance_are_not_told_of(scenario: Story, web: HttpSink) -> None:
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
        assert not job.execute_in_process(instance=scenario.instance, raise_on_error=False).success
    scenario.tick()
    assert web.messages == []


def test_success_is_told_of_where_that_is_wanted(scenario: Story, web: HttpSink) -> None:
    scenario.deploy(web.address, success=True)
    scenario.tick("notify_successes")
    scenario.publish()
    scenario.run("green", MONTH)
    scenario.run("green", MISSING)
    scenario.tick("notify_successes")
    (message,) = web.messages
    assert (message["title"], message["type"]) == (f"Run succeeded: green {MONTH}", "success")
    assert "every blocking check has passed" in message["message"]


# --- overdue months ---------------------------------------------------------------------------------------------------


def test_months_that_the_check_finds_overdue_are_told_of(scenario: Story, web: HttpSink) -> None:
    scenario.publish()
    scenario.run("", MONTH, "raw/green_trips")
    look = dg.Definitions(
        [published_asset(GREEN)],
        asset_checks=[publication_check(GREEN, clock=lambda: dt.datetime(2020, 12, 1, tzinfo=dt.UTC))],
        resources={"publisher": PublisherResource(source=str(scenario.home / "published"))},
        jobs=[dg.define_asset_job("look", dg.AssetSelection.all_asset_checks())],
    )
    assert look.resolve_job_def("look").execute_in_process(instance=scenario.instance).success
    assert scenario.tick("notify_overdue_months") == "Told: Months are overdue: green."
    (message,) = web.messages
    assert (message["title"], message["type"]) == ("Months are overdue: green", "warning")
    said, link = message["message"].split("\n")
    assert said == f"green {MONTH}: Loaded, but not in the warehouse: {MONTH}. (check {PUBLISHED_MONTHS_LOADED})"
    assert link == f"{UI}/assets/published/green_trips?view=checks"


def found(scenario: Story, *months: str, **undecided: list[str]) -> str:
    """An evaluation of the check, and what the next tick says of it."""
    evaluation = dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey(["published", "green_trips"]), check_name=PUBLISHED_MONTHS_LOADED, passed=not months,
        metadata={OVERDUE_MONTHS: list(months), **undecided},
    )  # fmt: skip
    scenario.instance.report_runless_asset_event(evaluation)
    return scenario.tick("notify_overdue_months")


QUIET, TOLD = "There is nothing to tell.", "Told: Months are overdue: green."


def test_they_are_told_of_again_only_when_one_comes_in_addition(scenario: Story, web: HttpSink) -> None:
    assert scenario.tick("notify_overdue_months") == QUIET
    assert [found(scenario, "2021-01", "2021-02"), found(scenario, "2021-01", "2021-02"), found(scenario, "2021-02")] == [
        TOLD, QUIET, QUIET,
    ]  # fmt: skip
    assert [found(scenario, "2021-02", "2021-03"), found(scenario), found(scenario, "2021-03")] == [TOLD, QUIET, TOLD]
    assert [message["message"].partition(":")[0] for message in web.messages] == [
        "green 2021-01, 2021-02", "green 2021-02, 2021-03", "green 2021-03",
    ]  # fmt: skip


@pytest.mark.parametrize("name", [MONTHS_BUSY, MONTHS_NOT_CHECKED])
def test_a_month_that_is_busy_or_cannot_be_asked_for_at_the_moment_is_not_forgotten(
    scenario: Story, web: HttpSink, name: str
) -> None:
    assert found(scenario, "2021-01") == TOLD
    assert found(scenario, **{name: ["2021-01", "2021-02"]}) == QUIET
    assert found(scenario, "2021-01") == QUIET
    assert found(scenario, "2021-01", "2021-02") == TOLD
    assert len(web.messages) == 2


def test_what_was_told_is_not_forgotten_while_the_publisher_is_down(scenario: Story, web: HttpSink) -> None:
    assert found(scenario, "2021-01") == TOLD
    shutil.rmtree(scenario.home / "published")
    check = dg.AssetCheckKey(dg.AssetKey(["published", "green_trips"]), PUBLISHED_MONTHS_LOADED)
    look = scenario.defs.resolve_job_def("publication").get_subset(asset_check_selection={check})
    for _ in range(11):
        assert not look.execute_in_process(instance=scenario.instance, raise_on_error=False).success
        assert scenario.tick("notify_overdue_months") == QUIET
    assert found(scenario, "2021-01") == QUIET
    scenario.instance.wipe_assets([dg.AssetKey(["published", "green_trips"])])
    assert scenario.tick("notify_overdue_months") == QUIET
    assert found(scenario, "2021-01") == QUIET
    assert len(web.messages) == 1


def test_a_check_under_way_changes_nothing_and_a_broken_cursor_is_made_anew(scenario: Story, web: HttpSink) -> None:
    key = dg.AssetKey(["raw", "green_trips"])
    dies = False

    @dg.asset_check(asset=key, metadata={"about": "months"})
    def published_is_loaded() -> dg.AssetCheckResult:
        if dies:
            raise RuntimeError
        return dg.AssetCheckResult(passed=False, metadata={OVERDUE_MONTHS: ["2021-01"]})

    job = dg.define_asset_job("look", dg.AssetSelection.checks(published_is_loaded))
    scenario.deploy(web.address, more=dg.Definitions(asset_checks=[published_is_loaded], jobs=[job]))
    for dies in (False, True):
        look = scenario.defs.resolve_job_def("look")
        assert look.execute_in_process(instance=scenario.instance, raise_on_error=False).success is not dies
        scenario.tick("notify_overdue_months")
    assert len(web.messages) == 1
    for messages, broken in enumerate(['["of", "another", "kind"', "[1]", '{"published": {"of": "another"}}'], start=2):
        scenario.cursors["notify_overdue_months"] = broken
        scenario.tick("notify_overdue_months")
        assert len(web.messages) == messages


# --- notifiers that fail ----------------------------------------------------------------------------------------------


def test_one_that_is_down_is_named_in_the_tick_and_the_others_get_theirs(
    scenario: Story, web: HttpSink, mail: MailSink
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as no_one:
        closed = no_one.getsockname()[1]
    scenario.deploy(f"json://127.0.0.1:{closed}/{SECRET}", web.address, mail.address)
    web.status = 500
    scenario.run("green", MISSING)
    assert scenario.tick() == (
        f"Told: Run failed: green {MISSING}. Notifier number 1 of TAXI_NOTIFY_URLS (JSON) did not take the message. "
        "Notifier number 2 of TAXI_NOTIFY_URLS (JSON) did not take the message."
    )
    assert len(mail.messages) == 1
    assert scenario.tick() == "There is nothing to tell."


def test_no_secret_is_in_any_file_log_or_name(
    scenario: Story, web: HttpSink, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    web.status = 500
    scenario.run("green", MISSING)
    scenario.tick()
    said = capfd.readouterr()
    assert SECRET not in said.out + said.err + caplog.text
    assert SECRET not in repr(scenario.defs) + str(Settings(notify_urls=scenario.notify))
    kept = [path for path in scenario.home.rglob("*") if path.is_file()]
    assert len(kept) > 3
    assert [path for path in kept if SECRET.encode() in path.read_bytes()] == []


# --- settings ---------------------------------------------------------------------------------------------------------


def test_without_notifiers_there_is_no_sensor_of_them() -> None:
    sensors = build_definitions(Settings()).sensors or []
    assert not [sensor.name for sensor in sensors if sensor.name.startswith("notify")]


def test_with_notifiers_the_sensors_run_from_the_start(scenario: Story) -> None:
    found = {sensor.name: sensor for sensor in scenario.defs.sensors or [] if sensor.name.startswith("notify")}
    assert set(found) == {"notify_failures", "notify_overdue_months"}
    assert {sensor.default_status for sensor in found.values()} == {dg.DefaultSensorStatus.RUNNING}
