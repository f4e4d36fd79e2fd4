"""The check on what a publisher has: which months are not loaded, and which are not in the warehouse."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest

from taxi_assets.assets.published import published_asset
from taxi_assets.checks.publication_checks import CHECK, publication_check
from taxi_assets.resources.publisher import PublisherResource
from taxi_assets.tlc.services.green import GREEN
from taxi_assets_tests.definitions.publication_harness import AT_ONCE, Publishing
from taxi_assets_tests.loopback_publisher import Answer, LoopbackPublisher

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Publishing]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Publishing(tmp_path / "published", instance)


def look(story: Publishing) -> tuple[bool, dict[str, Any], str]:
    """Whether it passed, what it lists, and what it says."""
    check = publication_check(GREEN, limits=AT_ONCE, clock=lambda: story.now)
    job = dg.define_asset_job("look", dg.AssetSelection.checks(check))
    resources = {"publisher": PublisherResource(source=story.source)}
    defs = dg.Definitions(assets=[published_asset(GREEN)], asset_checks=[check], jobs=[job], resources=resources)
    result = defs.resolve_job_def("look").execute_in_process(instance=story.instance, run_config=_QUIET)
    (found,) = result.get_asset_check_evaluations()
    assert (found.asset_key, found.check_name) == (dg.AssetKey(["published", "green_trips"]), CHECK)
    return found.passed, {name: value.value for name, value in found.metadata.items()}, found.description or ""


def test_what_is_published_loaded_and_in_the_warehouse_passes(story: Publishing) -> None:
    story.publish("2021-01", "2021-02", "2021-03")
    story.load("2021-02")
    story.load("2021-03")
    passed, found, said = look(story)
    assert passed
    assert found == {
        "published_but_not_loaded": [], "revised_but_not_loaded": [], "loaded_but_not_in_the_warehouse": [],
        "months_overdue": [], "months_busy": [], "could_not_be_asked": [],
        "months_missing_in_between": [], "months_loaded": 2, "newest_loaded": "2021-03",
    }  # fmt: skip
    assert said == "All that is published is loaded and in the warehouse, to 2021-03."


def test_months_that_are_missing_are_listed_by_where_they_are_missing(story: Publishing) -> None:
    story.publish("2020-11", "2020-12", "2021-01", "2021-02", "2021-03")
    for month in ("2020-11", "2021-01"):
        story.load(month)
    story.load("2020-12", to="raw")
    story.publish("2021-01")
    story.load("2021-01", to="raw")  # the warehouse has it, from the file before
    passed, found, said = look(story)
    assert not passed
    assert found["published_but_not_loaded"] == ["2021-02", "2021-03"]
    assert found["loaded_but_not_in_the_warehouse"] == ["2020-12", "2021-01"]
    assert found["months_overdue"] == ["2020-12", "2021-01", "2021-02", "2021-03"]
    assert said == ("Published, but not loaded: 2021-02, 2021-03. Loaded, but not in the warehouse: 2020-12, 2021-01.")


def test_holes_in_the_history_are_listed_and_never_called_loaded(story: Publishing) -> None:
    story.publish("2018-05", "2018-06", "2018-07", "2021-01", "2021-02", "2021-03")
    for month in ("2018-05", "2018-07", "2021-01", "2021-02", "2021-03"):
        story.load(month)
    passed, found, said = look(story)
    assert passed
    assert found["months_missing_in_between"][:2] == ["2018-06", "2018-08"]
    assert len(found["months_missing_in_between"]) == 1 + 29
    assert said.startswith("Missing in between, published or not: 2018-06, 2018-08, ")
    assert said.endswith(" and 6 more.")


def test_a_revision_that_was_given_up_is_listed_until_it_is_loaded(story: Publishing) -> None:
    story.publish("2021-01")
    story.load("2021-01")
    story.publish("2021-01")
    for _ in range(5):
        (request,) = story.tick()
        story.run(request, to="none", status="FAILURE")
        story.now += dt.timedelta(hours=30)
    passed, found, said = look(story)
    assert not passed
    assert found["revised_but_not_loaded"] == found["months_overdue"] == ["2021-01"]
    assert said == "Published in a newer version, whose runs failed or were canceled: 2021-01."
    story.load("2021-01")
    assert look(story)[0]


def test_on_an_empty_instance_the_newest_month_is_missing_and_the_history_is_not(story: Publishing) -> None:
    story.publish("2020-12", "2021-01")
    assert look(story)[1]["months_overdue"] == ["2021-01"]


def test_a_revision_that_a_person_canceled_is_listed_until_it_is_loaded(story: Publishing) -> None:
    story.publish("2021-01")
    story.load("2021-01")
    story.publish("2021-01")
    (request,) = story.tick()
    story.run(request, to="none", status="CANCELED")
    assert story.asked() == {}
    assert look(story)[1]["revised_but_not_loaded"] == ["2021-01"]
    story.load("2021-01")
    assert look(story)[0]


def test_a_month_that_a_run_is_working_on_is_not_overdue_and_listed_as_busy(story: Publishing) -> None:
    story.publish("2021-01")
    tags = {"dagster/partition": "2021-01"}
    story.instance.add_run(dg.DagsterRun(job_name="green", status=dg.DagsterRunStatus.STARTED, tags=tags))
    passed, found, _ = look(story)
    assert passed
    assert (found["published_but_not_loaded"], found["months_overdue"], found["months_busy"]) == ([], [], ["2021-01"])


def test_a_month_that_is_answered_with_an_error_is_listed_and_the_others_are_compared(
    story: Publishing, tmp_path: Path
) -> None:
    names = {month: f"green_tripdata_{month}.csv" for month in ("2020-12", "2021-01")}
    with LoopbackPublisher(dict.fromkeys(names.values(), b"a")) as publisher:
        story = Publishing(tmp_path / "published", story.instance, source=publisher.base)
        said = {"url": publisher.url(names["2020-12"]), "publisher": publisher.base, "etag": '"1"', "sha256": "a"}
        story.materialize(["raw", "green_trips"], "2020-12", said)
        story.materialize(["warehouse", "green_trips"], "2020-12", {"raw_sha256": "a"})
        publisher.script("green_tripdata_2021-04.csv.gz", then=Answer(status=400))
        passed, found, description = look(story)
        assert not passed
        assert (found["months_overdue"], found["could_not_be_asked"]) == (["2021-01"], ["2021-04"])
        assert description.startswith("Published, but not loaded: 2021-01. Could not be asked for: 2021-04. ")
        assert "HTTP 400" in description
    with pytest.raises(dg.Failure, match="connection refused"):
        look(story)


def test_years_of_months_that_nobody_publishes_are_asked_for_to_the_end(story: Publishing) -> None:
    story.now = dt.datetime(2026, 1, 15, tzinfo=dt.UTC)
    story.publish("2014-01")
    assert look(story)[1]["published_but_not_loaded"] == ["2014-01"]
