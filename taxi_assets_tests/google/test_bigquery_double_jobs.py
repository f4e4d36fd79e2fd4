"""The life of jobs in the BigQuery double: ids, polls, faults, locations, seen through the official client."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from google.api_core import exceptions
from google.cloud import bigquery as google

from taxi_assets_tests.google.bigquery import BigQuery, Fault, JobFault
from taxi_assets_tests.google.bigquery_trips import (
    PROJECT,
    TABLE,
    ObjectServer,
    load_config,
    trips,
)
from taxi_assets_tests.google.load_jobs import KEY, URI, Load, load, objects

__all__ = ["load", "objects"]

pytestmark = pytest.mark.usefixtures("table")


def _count(bigquery: BigQuery) -> int:
    return len(bigquery.rows("trips.yellow"))


def test_a_job_id_can_be_used_only_once(load: Load, client: Any, objects: ObjectServer) -> None:
    objects.contents[KEY] = 404
    with pytest.raises(exceptions.NotFound):
        load(job_id="run-yellow-2021-01").result()
    objects.contents[KEY] = trips()
    with pytest.raises(exceptions.Conflict, match=r"Already Exists: Job taxi-project:EU\.run-yellow-2021-01"):
        load(job_id="run-yellow-2021-01")
    assert client.get_job("run-yellow-2021-01", location="EU").error_result["reason"] == "notFound"
    with pytest.raises(exceptions.BadRequest, match="Invalid job ID"):
        load(job_id="2021/01")


def test_an_insert_whose_answer_is_lost_creates_a_job(load: Load, client: Any, bigquery: BigQuery) -> None:
    bigquery.script(Fault(status=503, after=True), method="POST", path="/jobs")
    with pytest.raises(exceptions.Conflict):
        load(job_id="mine")
    assert client.get_job("mine").result().output_rows == 2
    assert len(bigquery.jobs) == 1


def test_a_job_runs_at_the_configured_poll(load: Load, bigquery: BigQuery) -> None:
    bigquery.script_job(JobFault(after_polls=3))
    job = load()
    states = [job.state]
    while not job.done():
        states.append(job.state)
        assert bigquery.rows("trips.yellow") == []
    assert states == ["PENDING", "RUNNING", "RUNNING"]
    assert (job.output_rows, bigquery.jobs[0].polls, bigquery.jobs[0].state) == (2, 3, "DONE")


@pytest.mark.parametrize("writes_first", [False, True])
def test_a_failing_job_writes_nothing(load: Load, bigquery: BigQuery, writes_first: bool) -> None:
    load().result()
    bigquery.script_job(JobFault("backendError", "Try again.", after_polls=2, writes_first=writes_first))
    before = bigquery.table("trips", "yellow")
    job = load(write_disposition="WRITE_APPEND")
    assert not job.done()
    with pytest.raises(exceptions.ServerError, match="Try again"):
        job.result()
    assert _count(bigquery) == 2
    assert bigquery.table("trips", "yellow") == before
    assert bigquery.jobs[-1].error == {"reason": "backendError", "message": "Try again."}


def test_a_fault_applies_to_the_next_matching_job(load: Load, client: Any, bigquery: BigQuery) -> None:
    bigquery.script_job(JobFault("backendError"), kind="load", destination="trips.new")
    client.query("SELECT 1").result()
    load().result()
    with pytest.raises(exceptions.ServerError, match="Retrying may solve the problem"):
        load("trips.new$202101").result()


def test_a_canceled_job_writes_nothing(load: Load, bigquery: BigQuery) -> None:
    job = load()
    job.cancel()
    assert job.done()
    assert job.error_result["reason"] == "stopped"
    bigquery.settle()
    assert bigquery.rows("trips.yellow") == []


def test_a_job_ends_without_polls(load: Load, bigquery: BigQuery) -> None:
    load()
    assert bigquery.rows("trips.yellow") == []
    bigquery.settle()
    assert _count(bigquery) == 2


def test_a_job_of_two_pollers_runs_once(load: Load, client: Any, bigquery: BigQuery) -> None:
    runs, may_end = threading.Event(), threading.Event()

    def hold() -> None:
        runs.set()
        assert may_end.wait(600)

    bigquery.script_job(JobFault(before_run=hold))
    job = load(job_id="shared", write_disposition="WRITE_APPEND")
    other = threading.Thread(target=lambda: client.get_job("shared", location="EU").reload())
    other.start()
    assert runs.wait(600)
    assert not job.done()
    may_end.set()
    other.join()
    assert job.result().output_rows == 2
    assert _count(bigquery) == 2


def test_missing_permissions_fail_the_job(load: Load, bigquery: BigQuery) -> None:
    bigquery.forbid("bigquery.tables.updateData")
    with pytest.raises(exceptions.Forbidden, match=r"Access Denied: Table .*bigquery\.tables\.updateData denied"):
        load().result()
    bigquery.allow("bigquery.tables.updateData")
    bigquery.forbid("bigquery.tables.create")
    with pytest.raises(exceptions.Forbidden, match=r"bigquery\.tables\.create denied on dataset taxi-project:trips "):
        load("trips.new$202101").result()


# Locations


def test_a_job_runs_where_its_dataset_is(client: Any, load: Load) -> None:
    with pytest.raises(exceptions.NotFound, match="Not found: Dataset taxi-project:trips was not found in location US"):
        client.load_table_from_uri(URI, TABLE, location="US", job_config=load_config())
    with pytest.raises(exceptions.NotFound, match="Not found: Dataset taxi-project:nowhere"):
        load("nowhere.yellow")
    assert load().location == "EU"


def test_a_regional_job_is_found_only_with_its_location(client: Any, objects: ObjectServer) -> None:
    objects.location = "EUROPE-WEST3"
    dataset = google.Dataset(f"{PROJECT}.regional")
    dataset.location = "europe-west3"
    client.create_dataset(dataset)
    job = client.load_table_from_uri(URI, "regional.yellow", "here", location="europe-west3", job_config=load_config())
    assert job.result().location == "europe-west3"
    for location in (None, "EU"):
        with pytest.raises(exceptions.NotFound, match="Not found: Job"):
            client.get_job("here", location=location)
    assert client.get_job("here", location="europe-west3").output_rows == 2
