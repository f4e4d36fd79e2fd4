"""The check on what a publisher has: which months are not loaded, and which are not in the warehouse."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest

from taxi_assets.assets.published import published_asset
from taxi_assets.automation.publication.status import PUBLISHED_MONTHS_LOADED
from taxi_assets.checks.publication_checks import publication_check
from taxi_assets.resources.publisher import PublisherResource
from taxi_assets.tlc.services.green import GREEN
from taxi_assets_tests.definitions.publication_harness import AT_ONCE, Publishing
from taxi_assets_tests.loopback_publisher import Answer, LoopbackPublisher

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@pytest.fixture
def scenario(tmp_path: Path) -> Iterator[Publishing]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Publishing(tmp_path / "published", instance)


def look(scenario: Publishing) -> tuple[bool, dict[str, Any], str]:
    """Whether it passed, what it lists, and what it says."""
    check = publication_check(GREEN, limits=AT_ONCE, clock=lambda: scenario.now)
    job = dg.define_asset_job("look", dg.AssetSelection.checks(check))
    resources = {"publisher": PublisherResource(source=scenario.source)}
    defs = dg.Definitions(assets=[published_asset(GREEN)], asset_checks=[check], jobs=[job], resources=resources)
    result = defs.resolve_job_def("look").execute_in_process(instance=scenario.instance, run_config=_QUIET)
    (found,) = result.get_asset_check_evaluations()
    assert (found.asset_key, found.check_name) == (dg.AssetKey(["published", "green_trips"]), PUBLISHED_MONTHS_LOADED)
    return found.passed, {name: value.value for name, value in found.metadata.items()}, found.description or ""


def test_what_is_published_loaded_and_in_the_warehouse_passes(scenario: Publishing) -> None:
    scenario.publish("2021-01", "2021-02", "2021-03")
    scenario.load("2021-02")
    scenario.load("2021-03")
    passed, found, message = look(scenario)
    assert passed
    assert found == {
        "published_but_not_loaded": [], "revised_but_not_loaded": [], "loaded_but_not_in_the_warehouse": [],
        "months_overdue": [], "months_busy": [], "could_not_be_asked": [],
        "months_missing_in_between": [], "months_loaded": 2, "newest_loaded": "2021-03",
    }  # fmt: skip
    assert message == "All that is published is loaded and in the warehouse, to 2021-03."


def test_months_that_are_missing_are_listed_by_where_they_are_missing(scenario: Publishing) -> None:
    scenario.publish("2020-11", "2020-12", "2021-01", "2021-02", "2021-03")
    for month in ("2020-11", "2021-01"):
        scenario.load(month)
    scenario.load("2020-12", to="raw")
    scenario.publish("2021-01")
    scenario.load("2021-01", to="raw")  # the warehouse has it, from the file before
    passed, found, message = look(scenario)
    assert not passed
    assert found["published_but_not_loaded"] == ["2021-02", "2021-03"]
    assert found["loaded_but_not_in_the_warehouse"] == ["2020-12", "2021-01"]
    assert found["months_overdue"] == ["2020-12", "2021-01", "2021-02", "2021-03"]
    assert message == (
        "Published, but not loaded: 2021-02, 2021-03. Loaded, but not in the warehouse: 2020-12, 2021-01."
    )


def test_holes_in_the_history_are_listed_and_never_called_loaded(scenario: Publishing) -> None:
    scenario.publish("2018-05", "2018-06", "2018-07", "2021-01", "2021-02", "2021-03")
    for month in ("2018-05", "2018-07", "2021-01", "2021-02", "2021-03"):
        scenario.load(month)
    passed, found, message = look(scenario)
    assert passed
    assert found["months_missing_in_between"][:2] == ["2018-06", "2018-08"]
    assert len(found["months_missing_in_between"]) == 1 + 29
    assert message.startswith("Missing in between, published or not: 2018-06, 2018-08, ")
    assert message.endswith(" and 6 more.")


def test_a_revision_that_was_given_up_is_listed_until_it_is_loaded(scenario: Publishing) -> None:
    scenario.publish("2021-01")
    scenario.load("2021-01")
    scenario.publish("2021-01")
    for _ in range(5):
        (request,) = scenario.tick()
        scenario.run(request, to="none", status="FAILURE")
        scenario.now += dt.timedelta(hours=30)
    passed, found, message = look(scenario)
    assert not passed
    assert found["revised_but_not_loaded"] == found["months_overdue"] == ["2021-01"]
    assert message == "Published in a newer version, whose runs failed or were canceled: 2021-01."
    scenario.load("2021-01")
    assert look(scenario)[0]


def test_on_an_empty_instance_the_newest_month_is_missing_and_the_history_is_not(scenario: Publishing) -> None:
    scenario.publish("2020-12", "2021-01")
    assert look(scenario)[1]["months_overdue"] == ["2021-01"]


def test_a_revision_that_a_person_canceled_is_listed_until_it_is_loaded(scenario: Publishing) -> None:
    scenario.publish("2021-01")
    scenario.load("2021-01")
    scenario.publish("2021-01")
    (request,) = scenario.tick()
    scenario.run(request, to="none", status="CANCELED")
    assert scenario.asked() == {}
    assert look(scenario)[1]["revised_but_not_loaded"] == ["2021-01"]
    scenario.load("2021-01")
    assert look(scenario)[0]


def test_a_month_that_a_run_is_working_on_is_not_overdue_and_listed_as_busy(scenario: Publishing) -> None:
    scenario.publish("2021-01")
    tags = {"dagster/partition": "2021-01"}
    scenario.instance.add_run(dg.DagsterRun(job_name="green", status=dg.DagsterRunStatus.STARTED, tags=tags))
    passed, found, _ = look(scenario)
    assert passed
    assert (found["published_but_not_loaded"], found["months_overdue"], found["months_busy"]) == ([], [], ["2021-01"])


def test_a_month_that_is_answered_with_an_error_is_listed_and_the_others_are_compared(
    scenario: Publishing, tmp_path: Path
) -> None:
    names = {month: f"green_tripdata_{month}.csv" for month in ("2020-12", "2021-01")}
    with LoopbackPublisher(dict.fromkeys(names.values(), b"a")) as publisher:
        scenario = Publishing(tmp_path / "published", scenario.instance, source=publisher.base)
        message = {"url": publisher.url(names["2020-12"]), "publisher": publisher.base, "etag": '"1"', "sha256": "a"}
        scenario.materialize(["raw", "green_trips"], "2020-12", message)
        scenario.materialize(["warehouse", "green_trips"], "2020-12", {"raw_sha256": "a"})
        publisher.script("green_tripdata_2021-04.csv.gz", then=Answer(status=400))
        passed, found, description = look(scenario)
        assert not passed
        assert (found["months_overdue"], found["could_not_be_asked"]) == (["2021-01"], ["2021-04"])
        assert description.startswith("Published, but not loaded: 2021-01. Could not be asked for: 2021-04. ")
        assert "HTTP 400" in description
    with pytest.raises(dg.Failure, match="connection refused"):
        look(scenario)


def test_years_of_months_that_nobody_publishes_are_asked_for_to_the_end(scenario: Publishing) -> None:
    scenario.now = dt.datetime(2026, 1, 15, tzinfo=dt.UTC)
    scenario.publish("2014-01")
    assert look(scenario)[1]["published_but_not_loaded"] == ["2014-01"]
