"""The decision whether a month needs a run, row by row of the tables in `decide`."""

from __future__ import annotations

import dataclasses
import datetime as dt

import dagster as dg
import pytest

from taxi_assets.automation.publication.decision import (
    RETRY_WAITS,
    Decision,
    Deferred,
    MonthState,
    Reason,
    RequestedRun,
    RunNeeded,
    decide,
)
from taxi_assets.automation.publication.materializations import RawMaterialization
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.sources.source_record import FileVersion

NOW = dt.datetime(2021, 5, 10, 12, tzinfo=dt.UTC)
OLD = FileVersion("https://example.com/a.csv", "example", etag='"1"', last_modified=None, bytes=1)
NEW = dataclasses.replace(OLD, etag='"2"')
OTHER_PUBLISHER = dataclasses.replace(NEW, publisher="another")
RAW = RawMaterialization(7, NOW - dt.timedelta(days=1), run_id="loader", version=OLD, sha256="old")

NOT_LOADED = MonthState(
    service="green",
    month=Month(2021, 1),
    raw=None,
    warehouse_sha256=None,
    in_progress=False,
    just_loaded=False,
    requested_runs=[],
)
LOADED = dataclasses.replace(NOT_LOADED, raw=RAW, warehouse_sha256="old")
ONLY_RAW = dataclasses.replace(LOADED, warehouse_sha256=None)
FIRST_REQUEST = 'green 2021-01: "1" replaces nothing'
REVISION_REQUEST = 'green 2021-01: "2" replaces event 7'


def requested_run(request: str, status: str = "FAILURE", attempt: int = 1, **fields: object) -> RequestedRun:
    run = RequestedRun(
        "a run", dg.DagsterRunStatus(status), request, attempt, version='"1"', ended_at=NOW - dt.timedelta(days=2)
    )
    return dataclasses.replace(run, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("state", "published", "expected"),
    [
        (NOT_LOADED, None, None),
        (LOADED, None, None),
        (ONLY_RAW, None, None),
        (NOT_LOADED, OLD, RunNeeded(Reason.NEW, OLD, FIRST_REQUEST, attempt=1)),
        (LOADED, NEW, RunNeeded(Reason.REVISED, NEW, REVISION_REQUEST, attempt=1)),
        (ONLY_RAW, NEW, RunNeeded(Reason.REVISED, NEW, REVISION_REQUEST, attempt=1)),
        (ONLY_RAW, OLD, RunNeeded(Reason.RETRY, OLD, "green 2021-01: complete event 7", attempt=1)),
        (LOADED, OLD, None),
        (LOADED, OTHER_PUBLISHER, None),
    ],
)
def test_state_and_published_version_decide_whether_a_month_needs_a_run(
    state: MonthState, published: FileVersion | None, expected: Decision
) -> None:
    assert decide(state, published, NOW) == expected


def test_a_raw_file_reported_without_version_or_digest_needs_no_run() -> None:
    raw = dataclasses.replace(RAW, version=None, sha256=None)
    assert decide(dataclasses.replace(ONLY_RAW, raw=raw), NEW, NOW) is None


def test_a_raw_file_that_was_loaded_moments_ago_is_not_incomplete() -> None:
    raw = dataclasses.replace(RAW, timestamp=NOW - RETRY_WAITS[0] + dt.timedelta(seconds=1))
    assert decide(dataclasses.replace(ONLY_RAW, raw=raw), OLD, NOW) is None


def test_a_version_that_the_raw_file_was_requested_for_is_no_revision() -> None:
    runs = [requested_run("an earlier revision", "SUCCESS", run_id="loader", version='"2"')]
    assert decide(dataclasses.replace(LOADED, requested_runs=runs), NEW, NOW) is None


def test_an_incomplete_month_whose_run_was_canceled_needs_no_run() -> None:
    runs = [requested_run(FIRST_REQUEST, "CANCELED")]
    assert decide(dataclasses.replace(ONLY_RAW, requested_runs=runs), OLD, NOW) is None


def test_an_incomplete_month_whose_run_failed_is_retried_under_the_same_request() -> None:
    runs = [requested_run(FIRST_REQUEST)]
    expected = RunNeeded(Reason.RETRY, OLD, FIRST_REQUEST, attempt=2)
    assert decide(dataclasses.replace(ONLY_RAW, requested_runs=runs), OLD, NOW) == expected


def test_a_month_whose_materializations_were_wiped_gets_a_request_with_a_new_name() -> None:
    runs = [requested_run(FIRST_REQUEST, "SUCCESS")]
    expected = RunNeeded(Reason.NEW, OLD, f"{FIRST_REQUEST}, after run a run", attempt=1)
    assert decide(dataclasses.replace(NOT_LOADED, requested_runs=runs), OLD, NOW) == expected


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"in_progress": True}, "a run is in progress"),
        ({"just_loaded": True}, "it has just been loaded"),
        ({"requested_runs": [requested_run(FIRST_REQUEST, "CANCELED")]}, "its run has the status CANCELED"),
        ({"requested_runs": [requested_run(FIRST_REQUEST, "QUEUED")]}, "its run has the status QUEUED"),
        ({"requested_runs": [requested_run(FIRST_REQUEST, will_be_retried=True)]}, "Dagster will retry its run"),
        (
            {"requested_runs": [requested_run(FIRST_REQUEST, failed_permanently=True)]},
            "its run failed with a permanent",
        ),
        ({"requested_runs": [requested_run(FIRST_REQUEST, attempt=5)]}, "attempt 5 failed; no further run until"),
        (
            {"requested_runs": [requested_run(FIRST_REQUEST, attempt=2, ended_at=NOW - dt.timedelta(minutes=59))]},
            "its run failed; the next attempt is due at 2021-05-10 12:01 UTC",
        ),
    ],
)
def test_a_needed_run_is_deferred_with_a_reason(changes: dict[str, object], reason: str) -> None:
    state = dataclasses.replace(NOT_LOADED, **changes)  # type: ignore[arg-type]
    decision = decide(state, OLD, NOW)
    assert isinstance(decision, Deferred)
    assert decision.reason.startswith(reason)


def test_a_failed_run_is_retried_when_its_wait_is_over() -> None:
    runs = [requested_run(FIRST_REQUEST, attempt=2, ended_at=NOW - RETRY_WAITS[1])]
    expected = RunNeeded(Reason.RETRY, OLD, FIRST_REQUEST, attempt=3)
    assert decide(dataclasses.replace(NOT_LOADED, requested_runs=runs), OLD, NOW) == expected
