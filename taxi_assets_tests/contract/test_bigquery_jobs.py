"""Load jobs that are retried, whose answers are lost, or that fail."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from google.api_core import exceptions as api_errors

from taxi_assets.errors import (
    WarehouseConfigurationError,
    WarehouseUnreachableError,
)
from taxi_assets.storage.lake.local_lake import LocalLake
from taxi_assets.storage.warehouse.bigquery import job_runner
from taxi_assets_tests.contract.bigquery_fixtures import (
    clients_wait_a_hundredth,
    lake,
    load,
    loads,
    warehouse,
)
from taxi_assets_tests.contract.stores.bigquery import DATASET, PROJECT
from taxi_assets_tests.contract.test_any_warehouse import holds_exactly
from taxi_assets_tests.google.bigquery import BigQuery, Fault, JobFault
from taxi_assets_tests.trips import publish_generated_month

if TYPE_CHECKING:
    from pathlib import Path

    from taxi_assets.storage.lake.gcs_lake import GcsLake
    from taxi_assets.storage.warehouse.bigquery import BigQueryWarehouse

__all__ = ["clients_wait_a_hundredth", "lake", "warehouse"]


# --- retries of a run -------------------------------------------------------------------------------------------------


def test_a_retry_reuses_the_finished_job(warehouse: BigQueryWarehouse, lake: GcsLake, bigquery: BigQuery) -> None:
    trips = publish_generated_month(lake)
    for _ in range(2):
        load(warehouse, trips)
    assert [job.id[-2:] for job in loads(bigquery)] == ["-1"]
    assert holds_exactly(warehouse, trips)


@pytest.mark.parametrize("by_another", [True, False], ids=["replaced", "dropped"])
def test_a_retry_loads_again_if_the_result_of_its_finished_job_is_gone(
    warehouse: BigQueryWarehouse, lake: GcsLake, bigquery: BigQuery, by_another: bool
) -> None:
    trips = publish_generated_month(lake)
    load(warehouse, trips)
    if by_another:
        load(warehouse, publish_generated_month(lake, rows=90, seed=1, layer="newer"), "another-run")
    else:
        with warehouse.api.get_client() as client:
            client.delete_table(f"{PROJECT}.{DATASET}.green_trips")
    load(warehouse, trips)
    assert [job.id[-2:] for job in loads(bigquery)] == [*(["-1", "-1"] if by_another else ["-1"]), "-2"]
    assert holds_exactly(warehouse, trips)


def test_a_retry_attaches_to_the_running_job(warehouse: BigQueryWarehouse, lake: GcsLake, bigquery: BigQuery) -> None:
    trips = publish_generated_month(lake)
    bigquery.script_job(JobFault(after_polls=3), kind="load", destination="green_trips$")
    bigquery.script(Fault(reason="quotaExceeded"), method="GET", path="/jobs/taxi_assets-green_trips-")
    with pytest.raises(WarehouseUnreachableError):
        load(warehouse, trips)
    assert [job.state for job in loads(bigquery)] == ["PENDING"]
    load(warehouse, trips)
    assert [job.state for job in loads(bigquery)] == ["DONE"]
    assert holds_exactly(warehouse, trips)


def test_another_run_of_the_same_data_loads_again(
    warehouse: BigQueryWarehouse, lake: GcsLake, bigquery: BigQuery
) -> None:
    trips = publish_generated_month(lake)
    for run in ("one", "another"):
        load(warehouse, trips, run)
    assert len({job.id for job in loads(bigquery)}) == 2


@pytest.mark.parametrize("lost", [Fault(status=503, after=True), Fault(reset=True, after=True)], ids=["503", "reset"])
@pytest.mark.parametrize("upload", [False, True], ids=["from the bucket", "by upload"])
def test_a_job_whose_insertion_was_not_answered_is_found(
    warehouse: BigQueryWarehouse, lake: GcsLake, bigquery: BigQuery, tmp_path: Path, lost: Fault, upload: bool
) -> None:
    trips = publish_generated_month(LocalLake(folder=str(tmp_path)) if upload else lake)
    bigquery.script(Fault(), lost, method="POST", path="/jobs")  # the job before it invalidates the ledger row
    load(warehouse, trips)
    assert [job.id[-2:] for job in loads(bigquery)] == ["-1"]
    assert holds_exactly(warehouse, trips)


# --- jobs that fail ---------------------------------------------------------------------------------------------------


def test_a_job_that_fails_late_for_a_transient_reason_is_retried(
    warehouse: BigQueryWarehouse, lake: GcsLake, bigquery: BigQuery
) -> None:
    trips = publish_generated_month(lake)
    bigquery.script_job(
        JobFault("backendError", after_polls=3, writes_first=True), kind="load", destination="green_trips$"
    )
    load(warehouse, trips)
    assert [(job.id[-2:], job.error is None) for job in loads(bigquery)] == [("-1", False), ("-2", True)]
    assert holds_exactly(warehouse, trips)


def test_a_retry_of_a_run_whose_jobs_all_failed_starts_new_jobs(
    warehouse: BigQueryWarehouse, lake: GcsLake, bigquery: BigQuery
) -> None:
    old, new = publish_generated_month(lake), publish_generated_month(lake, rows=90, seed=1, layer="newer")
    load(warehouse, old)
    bigquery.script_job(
        *[JobFault("backendError", "The backend is down.")] * 4, kind="load", destination="green_trips$"
    )
    with pytest.raises(WarehouseUnreachableError, match=r"The backend is down \(4 times\)"):
        load(warehouse, new)
    assert holds_exactly(warehouse, old)
    load(warehouse, new)
    assert [job.id[-2:] for job in loads(bigquery)] == ["-1", "-1", "-2", "-3", "-4", "-5"]
    assert holds_exactly(warehouse, new)


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        (
            JobFault("invalid", "Bad\nfile.", writes_first=True),
            WarehouseConfigurationError,
            ": 400 Bad file. Check TAXI_WARE",
        ),
        (
            JobFault("accessDenied", "Access Denied: X."),
            WarehouseConfigurationError,
            ": 403 Access Denied: X. Grant the",
        ),
        (
            JobFault("quotaExceeded", "Quota exceeded: imports per table."),
            WarehouseUnreachableError,
            ": 403 Quota exceeded: imports per table. Try again later.",
        ),
    ],
)
def test_a_permanent_job_error_quotes_the_service_and_the_old_month_stays(
    warehouse: BigQueryWarehouse,
    lake: GcsLake,
    bigquery: BigQuery,
    fault: JobFault,
    error: type[Exception],
    message: str,
) -> None:
    old, new = publish_generated_month(lake), publish_generated_month(lake, rows=90, seed=1, layer="newer")
    load(warehouse, old)
    bigquery.script_job(fault, kind="load", destination="green_trips$")
    with pytest.raises(error) as raised:
        load(warehouse, new)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert holds_exactly(warehouse, old)


def test_a_canceled_job_is_reported_as_canceled(
    warehouse: BigQueryWarehouse, lake: GcsLake, bigquery: BigQuery
) -> None:
    bigquery.script_job(
        JobFault("stopped", "Job execution was cancelled: User requested cancellation"),
        kind="load",
        destination="green_trips$",
    )
    with pytest.raises(
        WarehouseConfigurationError, match=r": the job was canceled \(.*\)\. Materialize the asset again\. \["
    ):
        load(warehouse, publish_generated_month(lake))


def test_an_interruption_after_a_job_has_failed_stays_an_interruption(
    warehouse: BigQueryWarehouse, lake: GcsLake, bigquery: BigQuery, monkeypatch: pytest.MonkeyPatch
) -> None:
    trips = publish_generated_month(lake)
    wait = job_runner.wait_for_job

    def wait_and_be_interrupted(job: Any) -> None:
        try:
            wait(job)
        except api_errors.GoogleAPICallError:
            raise KeyboardInterrupt from None

    monkeypatch.setattr(job_runner, "wait_for_job", wait_and_be_interrupted)
    bigquery.script_job(JobFault("backendError"), kind="load", destination="green_trips$")
    with pytest.raises(KeyboardInterrupt):
        load(warehouse, trips)
    assert len(loads(bigquery)) == 1


@pytest.mark.parametrize("reason", ["backendError", "tableUnavailable", "jobInternalError"])
def test_a_ledger_row_that_fails_for_a_transient_reason_is_retried(
    warehouse: BigQueryWarehouse, lake: GcsLake, bigquery: BigQuery, reason: str
) -> None:
    trips = publish_generated_month(lake)
    bigquery.script_job(JobFault(reason), kind="load", destination="green_trips_loads")
    load(warehouse, trips)
    assert holds_exactly(warehouse, trips)


def test_a_quota_error_is_transient_and_a_rate_limit_is_waited_for(
    warehouse: BigQueryWarehouse, lake: GcsLake, bigquery: BigQuery
) -> None:
    trips = publish_generated_month(lake)
    bigquery.script(
        Fault(), Fault(reason="quotaExceeded", message="Quota exceeded: jobs."), method="POST", path="/jobs"
    )
    with pytest.raises(WarehouseUnreachableError, match="403 Quota exceeded: jobs"):
        load(warehouse, trips)
    faults = Fault(reason="rateLimitExceeded"), Fault(reset=True)
    bigquery.script(Fault(), *faults, method="POST", path="/jobs")
    load(warehouse, trips)
    assert holds_exactly(warehouse, trips)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_every_kind_of_request_is_retried_after_a_transient_failure(
    warehouse: BigQueryWarehouse, lake: GcsLake, bigquery: BigQuery, method: str
) -> None:
    trips = publish_generated_month(lake)
    for path in ("/datasets", "/tables", "/jobs", "/queries", "/data"):
        for fault in (Fault(status=503), Fault(status=429), Fault(reset=True)):
            bigquery.script(fault, method=method, path=path)
    load(warehouse, trips)
    assert holds_exactly(warehouse, trips)
