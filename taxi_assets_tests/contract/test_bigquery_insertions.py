"""Jobs of BigQuery whose insertion fails: it may have been accepted, or is refused for certain."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from taxi_assets.errors import WarehouseConfigurationError, WarehouseUnreachableError
from taxi_assets.marts.mart import marts
from taxi_assets.storage.lake.local_lake import LocalLake
from taxi_assets.storage.warehouse.bigquery import job_runner, loading
from taxi_assets.tlc.services.green import GREEN
from taxi_assets_tests.contract.bigquery_fixtures import clients_wait_a_hundredth, clock, lake, load, loads, warehouse
from taxi_assets_tests.contract.mart_trips import ZONES
from taxi_assets_tests.contract.test_any_warehouse import holds_exactly
from taxi_assets_tests.google.bigquery import BigQuery, Fault, JobFault
from taxi_assets_tests.table_rows import store_rows
from taxi_assets_tests.trips import MONTH, publish_generated_month

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import ModuleType

    from taxi_assets.storage.lake.gcs_lake import GcsLake
    from taxi_assets.storage.lake.objects import ParquetPartition
    from taxi_assets.storage.warehouse.bigquery import BigQueryWarehouse

__all__ = ["clients_wait_a_hundredth", "clock", "lake", "warehouse"]

SUSPECT = r"The rows of 2020-10 in `taxi-project\.taxi\.green_trips` are suspect until the next load\."
JOBS = "/bigquery/v2/projects/taxi-project/jobs"
ACCEPTED = Fault(status=504, after=True)


@pytest.fixture
def half_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up after half a second instead of ten minutes."""
    for name in ("_INSERT_RETRY", "_GET_JOB_RETRY"):
        limit(monkeypatch, job_runner, name, 0.5)


def limit(monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str, seconds: float) -> None:
    """Give a retry policy of a module less time."""
    monkeypatch.setattr(module, name, getattr(module, name).with_timeout(seconds))


@pytest.fixture
def old(warehouse: BigQueryWarehouse, lake: GcsLake) -> ParquetPartition:
    """Return trips that are loaded."""
    trips = publish_generated_month(lake)
    load(warehouse, trips, "old-run")
    return trips


@pytest.fixture
def new(lake: GcsLake) -> ParquetPartition:
    return publish_generated_month(lake, rows=90, seed=1, layer="newer")


@pytest.mark.usefixtures("old")
@pytest.mark.parametrize("status", [404, 409, 504])
def test_a_job_that_was_accepted_with_an_error_is_found(
    warehouse: BigQueryWarehouse, bigquery: BigQuery, new: ParquetPartition, status: int
) -> None:
    bigquery.script(Fault(status=status, after=True), method="POST", path=JOBS, body="green_trips$")
    load(warehouse, new)
    assert [job.id[-2:] for job in loads(bigquery)] == ["-1", "-1"]
    assert holds_exactly(warehouse, new)


@pytest.mark.usefixtures("old")
def test_a_job_that_is_visible_with_a_delay_is_found(
    warehouse: BigQueryWarehouse, bigquery: BigQuery, new: ParquetPartition
) -> None:
    """Google's client retries the 404 after a 409, too: https://github.com/googleapis/python-bigquery/issues/2134."""
    bigquery.script(Fault(status=503, after=True), method="POST", path=JOBS, body="green_trips$")
    bigquery.script(*[Fault(status=404)] * 3, method="GET", path="/jobs/taxi_assets-green_trips-")
    load(warehouse, new)
    assert holds_exactly(warehouse, new)


@pytest.mark.usefixtures("old", "half_a_second")
def test_a_month_whose_job_may_have_been_accepted_counts_as_not_loaded(
    warehouse: BigQueryWarehouse, bigquery: BigQuery, new: ParquetPartition
) -> None:
    unknown = [Fault(status=504)] * 1000
    bigquery.script(ACCEPTED, *unknown, method="POST", path=JOBS, body="green_trips$")
    bigquery.script(*unknown, method="GET", path="/jobs/taxi_assets-green_trips-")
    with pytest.raises(WarehouseUnreachableError, match=f"504 Gateway Timeout. {SUSPECT} Try again later"):
        load(warehouse, new)
    assert warehouse.loaded_month(GREEN, MONTH) is None
    bigquery.settle()
    assert warehouse.totals(GREEN, MONTH) == new.report.clean
    assert warehouse.loaded_month(GREEN, MONTH) is None
    bigquery.unscript()
    load(warehouse, new, "next-run")
    assert holds_exactly(warehouse, new)


@pytest.mark.usefixtures("old", "half_a_second")
def test_a_job_that_exists_but_is_never_found_is_a_transient_error(
    warehouse: BigQueryWarehouse, bigquery: BigQuery, new: ParquetPartition
) -> None:
    bigquery.script(*[Fault(status=409)] * 1000, method="POST", path=JOBS, body="green_trips$")
    with pytest.raises(WarehouseUnreachableError, match=f"has the job taxi_assets-green.*, but does not.*{SUSPECT}"):
        load(warehouse, new)
    assert warehouse.loaded_month(GREEN, MONTH) is None


@pytest.mark.parametrize("reason", ["accessDenied", "invalid", "quotaExceeded"])
def test_a_refused_insertion_keeps_the_old_month_and_its_ledger_row(
    warehouse: BigQueryWarehouse, bigquery: BigQuery, old: ParquetPartition, new: ParquetPartition, reason: str
) -> None:
    bigquery.script(Fault(reason=reason, message="No."), method="POST", path=JOBS, body="green_trips$")
    with pytest.raises((WarehouseConfigurationError, WarehouseUnreachableError), match=r"40[03] No\. [A-Z]"):
        load(warehouse, new)
    assert holds_exactly(warehouse, old)


@pytest.mark.parametrize("kind", ["Table taxi-project:taxi.green_trips", "Dataset taxi-project:taxi", "Project x"])
def test_a_missing_destination_is_a_refusal(
    warehouse: BigQueryWarehouse, bigquery: BigQuery, old: ParquetPartition, new: ParquetPartition, kind: str
) -> None:
    fault = Fault(status=404, message=f"Not found: {kind}")
    bigquery.script(fault, method="POST", path=JOBS, body="green_trips$")
    with pytest.raises(WarehouseConfigurationError) as error:
        load(warehouse, new)
    assert "suspect" not in error.value.problem
    assert holds_exactly(warehouse, old)


@pytest.mark.usefixtures("old")
def test_a_missing_destination_proves_nothing_after_an_uncertain_insertion(
    warehouse: BigQueryWarehouse, bigquery: BigQuery, new: ParquetPartition
) -> None:
    missing = Fault(status=404, message="Not found: Dataset taxi-project:taxi")
    bigquery.script(ACCEPTED, missing, method="POST", path=JOBS, body="green_trips$")
    bigquery.script(Fault(status=404), method="GET", path="/jobs/taxi_assets-green_trips-")
    with pytest.raises(WarehouseConfigurationError, match=SUSPECT):
        load(warehouse, new)
    assert warehouse.loaded_month(GREEN, MONTH) is None


# --- a second fault after a lost answer -------------------------------------------------------------------------------


@pytest.mark.usefixtures("old")
def test_a_job_that_finished_makes_the_month_suspect_if_its_rows_cannot_be_counted(
    warehouse: BigQueryWarehouse, bigquery: BigQuery, new: ParquetPartition
) -> None:
    bigquery.script(ACCEPTED, method="POST", path=JOBS, body="green_trips$")
    bigquery.script(Fault(reason="accessDenied"), method="POST", path=JOBS, body="SELECT COUNT")
    with pytest.raises(WarehouseConfigurationError, match=SUSPECT):
        load(warehouse, new)
    assert warehouse.totals(GREEN, MONTH) == new.report.clean
    assert warehouse.loaded_month(GREEN, MONTH) is None


@pytest.mark.usefixtures("old")
def test_a_job_that_finished_makes_the_month_suspect_if_another_one_is_refused(
    warehouse: BigQueryWarehouse, bigquery: BigQuery, lake: GcsLake, new: ParquetPartition
) -> None:
    foreign = publish_generated_month(lake, rows=30, seed=4, layer="foreign")

    def load_foreign_trips() -> None:
        load(warehouse, foreign, "another-run")

    bigquery.script(ACCEPTED, method="POST", path=JOBS, body="green_trips$")
    bigquery.script(Fault(before=load_foreign_trips), method="POST", path=JOBS, body="SELECT COUNT")
    refused = Fault(reason="quotaExceeded")
    bigquery.script(Fault(), refused, method="POST", path=JOBS, body="green_trips$")
    with pytest.raises(WarehouseUnreachableError, match=SUSPECT):
        load(warehouse, new)
    assert warehouse.totals(GREEN, MONTH) == foreign.report.clean
    assert warehouse.loaded_month(GREEN, MONTH) is None


# --- uploads ----------------------------------------------------------------------------------------------------------


def uploads(bigquery: BigQuery, table: str) -> int:
    """Return how many uploads into a table were started."""
    return len(
        [
            request
            for request in bigquery.requests
            if "/upload/" in request.path and request.method == "POST" and table.encode() in request.body_bytes
        ]
    )


@pytest.mark.parametrize("table", ["green_trips_loads$", "green_trips$", "taxi_zones"])
def test_a_failed_upload_is_not_repeated_by_the_client_itself(
    warehouse: BigQueryWarehouse, bigquery: BigQuery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    """The client would repeat it for minutes, and only then would `_INSERT_RETRY` compare the time with its limit."""
    limit(monkeypatch, job_runner, "_INSERT_RETRY", 0)
    bigquery.script(*[Fault(status=503)] * 100, method="POST", path="/upload/", body=table)
    trips = publish_generated_month(LocalLake(folder=str(tmp_path)))
    with pytest.raises(WarehouseUnreachableError):
        store_rows(warehouse, "taxi_zones", ZONES) if table == "taxi_zones" else load(warehouse, trips)
    assert uploads(bigquery, table) == 1


@pytest.mark.usefixtures("old")
def test_a_clean_up_that_is_not_answered_ends_soon_and_is_logged(
    warehouse: BigQueryWarehouse,
    bigquery: BigQuery,
    new: ParquetPartition,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    limit(monkeypatch, loading, "_SHORT_RETRY", 0.5)
    bigquery.script_job(JobFault("invalid", "No."), kind="load", destination="green_trips$")
    hangs = [Fault(hang=True)] * 10  # until the warehouse's own timeout, which is 30 seconds
    bigquery.script(Fault(), *hangs, method="POST", path="/upload/", body="green_trips_loads$")
    with caplog.at_level(logging.WARNING), pytest.raises(WarehouseConfigurationError, match="400 No"):
        load(warehouse, new)
    assert "could not restore the row of green 2020-10" in caplog.text
    assert uploads(bigquery, "green_trips_loads$") < 5


def test_a_clean_up_that_fails_once_is_repeated(
    warehouse: BigQueryWarehouse, bigquery: BigQuery, old: ParquetPartition, new: ParquetPartition
) -> None:
    bigquery.script_job(JobFault("invalid", "No."), kind="load", destination="green_trips$")
    bigquery.script(Fault(), Fault(status=503), method="POST", path="/upload/", body="green_trips_loads$")
    with pytest.raises(WarehouseConfigurationError, match="400 No"):
        load(warehouse, new)
    assert holds_exactly(warehouse, old)


@pytest.mark.usefixtures("old", "half_a_second")
def test_a_mart_or_a_table_whose_job_may_be_running_names_it(
    warehouse: BigQueryWarehouse, bigquery: BigQuery, caplog: pytest.LogCaptureFixture
) -> None:
    store_rows(warehouse, "taxi_zones", ZONES)
    uses: dict[str, Callable[[], object]] = {
        "od_flows": lambda: warehouse.replace_mart(marts()["od_flows"], MONTH, [GREEN], run_id="a-run"),
        "taxi_zones": lambda: store_rows(warehouse, "taxi_zones", ZONES),
    }
    for table, use in uses.items():
        bigquery.script(*[Fault(status=504)] * 1000, method="GET", path=f"/jobs/taxi_assets-{table}")
        bigquery.script(*[ACCEPTED] * 1000, method="POST", path=JOBS, body=f'"{table}')
        with caplog.at_level(logging.WARNING), pytest.raises(WarehouseUnreachableError):
            use()
        assert f"BigQuery may still be running the job taxi_assets-{table}-" in caplog.text
        bigquery.unscript()


# --- queries and limits -----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("old")
def test_a_failed_query_is_run_again_without_asking_for_its_rows(
    warehouse: BigQueryWarehouse, bigquery: BigQuery
) -> None:
    """BigQuery answers a request for the rows of a failed query with the query's error, as often as it is asked."""
    store_rows(warehouse, "taxi_zones", ZONES)
    bigquery.script_job(*[JobFault("backendError", after_polls=3)] * 2, kind="query")
    assert warehouse.totals(GREEN, MONTH).rows == 100
    bigquery.script_job(JobFault("backendError", after_polls=3), kind="query", destination="od_flows$")
    warehouse.replace_mart(marts()["od_flows"], MONTH, [GREEN], run_id="a-run")
    failed = [job.id for job in bigquery.jobs if job.error is not None]
    assert len(failed) == 3
    assert not [
        request.path
        for request in bigquery.requests
        if request.path.rpartition("/")[2] in failed and "/queries/" in request.path
    ]


def test_waits_for_a_rate_limit_are_longer_than_its_ten_seconds(
    warehouse: BigQueryWarehouse, bigquery: BigQuery, old: ParquetPartition, new: ParquetPartition, clock: list[float]
) -> None:
    """A load writes the ledger twice, so the second job waits until the first one no longer counts."""
    bigquery.limit_updates(1, lambda: clock[0])
    load(warehouse, new)
    assert next(job.error["reason"] for job in bigquery.jobs if job.error is not None) == "rateLimitExceeded"
    assert holds_exactly(warehouse, new)
    assert old.report.data_version != new.report.data_version


@pytest.mark.usefixtures("old")
def test_tables_and_views_that_exist_are_read_and_not_created_again(
    warehouse: BigQueryWarehouse, bigquery: BigQuery, new: ParquetPartition
) -> None:
    def replace_all() -> None:
        load(warehouse, new, "another-run")
        store_rows(warehouse, "taxi_zones", ZONES)
        warehouse.replace_mart(marts()["od_flows"], MONTH, [GREEN], run_id="a-run")

    replace_all()
    bigquery.requests.clear()
    replace_all()
    changes = [one for one in bigquery.requests if one.method != "GET" and "/jobs" not in one.path]
    assert not changes
