"""The publication check: which published months are not loaded, and which are not in the warehouse."""

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
from taxi_assets_tests.definitions.publication_harness import NO_PAUSE, PublicationHarness
from taxi_assets_tests.loopback_publisher import Answer, LoopbackPublisher

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[PublicationHarness]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield PublicationHarness(tmp_path / "published", instance)


def run_check(harness: PublicationHarness) -> tuple[bool, dict[str, Any], str]:
    """Run the check; return whether it passed, its metadata and its description."""
    check = publication_check(GREEN, limits=NO_PAUSE, clock=lambda: harness.now)
    job = dg.define_asset_job("check_publication", dg.AssetSelection.checks(check))
    resources = {"publisher": PublisherResource(source=harness.source)}
    defs = dg.Definitions(assets=[published_asset(GREEN)], asset_checks=[check], jobs=[job], resources=resources)
    result = defs.resolve_job_def("check_publication").execute_in_process(instance=harness.instance, run_config=_QUIET)
    (found,) = result.get_asset_check_evaluations()
    assert (found.asset_key, found.check_name) == (dg.AssetKey(["published", "green_trips"]), PUBLISHED_MONTHS_LOADED)
    return found.passed, {name: value.value for name, value in found.metadata.items()}, found.description or ""


def test_months_that_are_published_loaded_and_in_the_warehouse_pass(harness: PublicationHarness) -> None:
    harness.publish("2021-01", "2021-02", "2021-03")
    harness.load("2021-02")
    harness.load("2021-03")
    passed, found, message = run_check(harness)
    assert passed
    assert found == {
        "published_but_not_loaded": [], "revised_but_not_loaded": [], "loaded_but_not_in_the_warehouse": [],
        "months_overdue": [], "months_in_progress": [], "months_not_checked": [],
        "months_missing_between_loaded": [], "months_loaded": 2, "newest_loaded": "2021-03",
    }  # fmt: skip
    assert message == "All published months are loaded and in the warehouse; the newest is 2021-03."


def test_missing_months_are_listed_by_the_layer_where_they_are_missing(harness: PublicationHarness) -> None:
    harness.publish("2020-11", "2020-12", "2021-01", "2021-02", "2021-03")
    for month in ("2020-11", "2021-01"):
        harness.load(month)
    harness.load("2020-12", last_layer="raw")
    harness.publish("2021-01")
    harness.load("2021-01", last_layer="raw")  # the warehouse has it from the previous file
    passed, found, message = run_check(harness)
    assert not passed
    assert found["published_but_not_loaded"] == ["2021-02", "2021-03"]
    assert found["loaded_but_not_in_the_warehouse"] == ["2020-12", "2021-01"]
    assert found["months_overdue"] == ["2020-12", "2021-01", "2021-02", "2021-03"]
    assert message == (
        "Published, but not loaded: 2021-02, 2021-03. Loaded, but not in the warehouse: 2020-12, 2021-01."
    )


def test_gaps_among_older_months_are_listed_and_do_not_fail_the_check(harness: PublicationHarness) -> None:
    harness.publish("2018-05", "2018-06", "2018-07", "2021-01", "2021-02", "2021-03")
    for month in ("2018-05", "2018-07", "2021-01", "2021-02", "2021-03"):
        harness.load(month)
    passed, found, message = run_check(harness)
    assert passed
    assert found["months_missing_between_loaded"][:2] == ["2018-06", "2018-08"]
    assert len(found["months_missing_between_loaded"]) == 1 + 29
    assert message.startswith("Missing between loaded months, published or not: 2018-06, 2018-08, ")
    assert message.endswith(" and 6 more.")


def test_a_revision_whose_runs_all_failed_is_listed_until_it_is_loaded(harness: PublicationHarness) -> None:
    harness.publish("2021-01")
    harness.load("2021-01")
    harness.publish("2021-01")
    for _ in range(5):
        (request,) = harness.tick()
        harness.record_run(request, last_layer="none", status="FAILURE")
        harness.now += dt.timedelta(hours=30)
    passed, found, message = run_check(harness)
    assert not passed
    assert found["revised_but_not_loaded"] == found["months_overdue"] == ["2021-01"]
    assert message == "Revised, but the run of the newer version failed or was canceled: 2021-01."
    harness.load("2021-01")
    assert run_check(harness)[0]


def test_an_empty_instance_misses_the_newest_month_and_not_older_ones(harness: PublicationHarness) -> None:
    harness.publish("2020-12", "2021-01")
    assert run_check(harness)[1]["months_overdue"] == ["2021-01"]


def test_a_revision_whose_run_was_canceled_is_listed_until_it_is_loaded(harness: PublicationHarness) -> None:
    harness.publish("2021-01")
    harness.load("2021-01")
    harness.publish("2021-01")
    (request,) = harness.tick()
    harness.record_run(request, last_layer="none", status="CANCELED")
    assert harness.requested_months() == {}
    assert run_check(harness)[1]["revised_but_not_loaded"] == ["2021-01"]
    harness.load("2021-01")
    assert run_check(harness)[0]


def test_a_month_with_a_run_in_progress_is_listed_as_in_progress_and_not_as_overdue(
    harness: PublicationHarness,
) -> None:
    harness.publish("2021-01")
    tags = {"dagster/partition": "2021-01"}
    harness.instance.add_run(dg.DagsterRun(job_name="green", status=dg.DagsterRunStatus.STARTED, tags=tags))
    passed, found, message = run_check(harness)
    assert passed
    assert message == "In progress: 2021-01."
    assert (found["published_but_not_loaded"], found["months_overdue"], found["months_in_progress"]) == (
        [],
        [],
        ["2021-01"],
    )


def test_a_month_whose_check_failed_is_listed_and_the_others_are_compared(
    harness: PublicationHarness, tmp_path: Path
) -> None:
    names = {month: f"green_tripdata_{month}.csv" for month in ("2020-12", "2021-01")}
    with LoopbackPublisher(dict.fromkeys(names.values(), b"a")) as publisher:
        harness = PublicationHarness(tmp_path / "published", harness.instance, source=publisher.base)
        message = {"url": publisher.url(names["2020-12"]), "publisher": publisher.base, "etag": '"1"', "sha256": "a"}
        harness.materialize(["raw", "green_trips"], "2020-12", message)
        harness.materialize(["warehouse", "green_trips"], "2020-12", {"raw_sha256": "a"})
        publisher.script("green_tripdata_2021-04.csv.gz", then=Answer(status=400))
        passed, found, description = run_check(harness)
        assert not passed
        assert (found["months_overdue"], found["months_not_checked"]) == (["2021-01"], ["2021-04"])
        assert description.startswith("Published, but not loaded: 2021-01. Not checked because of errors: 2021-04. ")
        assert "HTTP 400" in description
    with pytest.raises(dg.Failure, match="connection refused"):
        run_check(harness)


def test_years_of_unpublished_months_are_searched_to_the_end(harness: PublicationHarness) -> None:
    harness.now = dt.datetime(2026, 1, 15, tzinfo=dt.UTC)
    harness.publish("2014-01")
    assert run_check(harness)[1]["published_but_not_loaded"] == ["2014-01"]
