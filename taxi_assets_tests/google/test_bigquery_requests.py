"""How the BigQuery double answers: permissions, faults, many clients; seen through the official client."""

from __future__ import annotations

import contextlib
import gc
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import pytest
from google.api_core import exceptions
from google.cloud.bigquery.retry import DEFAULT_RETRY

from taxi_assets_tests.google.bigquery import BigQuery, Fault
from taxi_assets_tests.google.bigquery_trips import (
    JANUARY,
    PROJECT,
    TABLE,
    ObjectServer,
    client_of,
    load_config,
    make_table,
    trips,
)

SOON = DEFAULT_RETRY.with_delay(initial=0.01, maximum=0.02)


# Permissions


@pytest.mark.parametrize(
    ("permission", "act", "message"),
    [
        (
            "bigquery.datasets.create",
            lambda client: client.create_dataset("new"),
            (
                "Access Denied: Project taxi-project: User does not have bigquery.datasets.create permission "
                "in project taxi-project."
            ),
        ),
        (
            "bigquery.jobs.create",
            lambda client: client.query("SELECT 1"),
            "Access Denied: Project taxi-project: User does not have bigquery.jobs.create permission in project",
        ),
        (
            "bigquery.tables.get",
            lambda client: client.get_table(TABLE),
            (
                "Access Denied: Table taxi-project:trips.yellow: Permission bigquery.tables.get denied on table "
                "taxi-project:trips.yellow (or it may not exist)."
            ),
        ),
        ("bigquery.tables.create", lambda client: client.create_table(TABLE), "denied on dataset taxi-project:trips"),
        ("bigquery.tables.update", lambda client: client.update_table(client.get_table(TABLE), ["labels"]), "Denied"),
        ("bigquery.tables.delete", lambda client: client.delete_table(f"{TABLE}$202101"), "Denied"),
        ("bigquery.tables.getData", lambda client: list(client.list_rows(TABLE)), "Denied"),
        ("bigquery.datasets.get", lambda client: client.get_dataset("trips"), "Denied: Dataset"),
    ],
)
@pytest.mark.usefixtures("table")
def test_a_missing_permission_is_named(
    client: Any, bigquery: BigQuery, permission: str, act: Any, message: str
) -> None:
    bigquery.forbid(permission)
    with pytest.raises(exceptions.Forbidden) as caught:
        act(client)
    assert message in caught.value.message
    assert caught.value.errors[0]["reason"] == "accessDenied"
    bigquery.allow(permission)
    assert client.get_table(TABLE).num_rows == 0


# Faults


@pytest.mark.parametrize("fault", [Fault(status=503), Fault(status=429), Fault(reset=True)])
def test_a_fault_applies_to_one_request_which_has_no_effect(client: Any, bigquery: BigQuery, fault: Fault) -> None:
    bigquery.script(fault, method="POST", path="/datasets")
    client.create_dataset("trips", retry=SOON)
    assert [request.method for request in bigquery.requests] == ["POST", "POST"]


def test_faults_queue_up_and_wait_for_their_request(client: Any, bigquery: BigQuery) -> None:
    bigquery.script(
        Fault(status=503), Fault(reason="quotaExceeded", message="Too much."), method="PATCH", path="/yellow"
    )
    table = make_table(client)
    with pytest.raises(exceptions.Forbidden, match="Too much"):
        client.update_table(table, ["description"], retry=SOON)
    assert [request.method for request in bigquery.requests] == ["POST", "POST", "PATCH", "PATCH"]


@pytest.mark.parametrize("fault", [Fault(status=503, after=True), Fault(reset=True, after=True)])
def test_a_request_whose_answer_is_lost_takes_effect(client: Any, bigquery: BigQuery, fault: Fault) -> None:
    bigquery.script(fault, method="POST", path="/datasets")
    with pytest.raises(exceptions.Conflict, match="Already Exists"):
        client.create_dataset("trips", retry=SOON)


@pytest.mark.usefixtures("table")
def test_an_action_can_run_before_a_request(client: Any, bigquery: BigQuery) -> None:
    bigquery.script(Fault(before=lambda: client.delete_table(TABLE)), method="GET", path="/tables/yellow")
    with pytest.raises(exceptions.NotFound):
        client.get_table(TABLE)


def test_requests_are_recorded_as_sent(client: Any, bigquery: BigQuery) -> None:
    client.create_dataset("trips")
    request = bigquery.requests[-1]
    assert (request.method, request.path) == ("POST", f"/bigquery/v2/projects/{PROJECT}/datasets")
    assert request.body["datasetReference"]["datasetId"] == "trips"
    assert request.query == {"prettyPrint": "false"}
    assert b'"datasetId": "trips"' in request.body_bytes
    assert request.headers["Content-Type"] == "application/json"


def test_an_incomplete_request_has_no_effect(bigquery: BigQuery, client: Any) -> None:
    body = b'{"datasetReference": {"datasetId": "trips"}}'
    target = urlsplit(bigquery.endpoint)
    with socket.create_connection((target.hostname, target.port)) as connection:
        head = f"POST /bigquery/v2/projects/{PROJECT}/datasets HTTP/1.1\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: {len(body) + 10}\r\n\r\n".encode() + body)
        connection.shutdown(socket.SHUT_WR)  # the client dies here
        assert connection.recv(1) == b""
    assert list(client.list_datasets()) == []


# The server itself


@pytest.mark.usefixtures("table")
def test_many_clients_at_once(objects: ObjectServer, bigquery: BigQuery) -> None:
    def replace(number: int) -> int:
        uri, month = f"gs://lake/{number}.parquet", f"{TABLE}$2021{number:02}"
        objects.contents[f"{number}.parquet"] = trips(JANUARY.replace(month=number))
        with contextlib.closing(client_of()) as own:
            return int(own.load_table_from_uri(uri, month, job_config=load_config()).result().output_rows)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(replace, range(1, 13))) == [2] * 12
    assert len(bigquery.rows("trips.yellow")) == 24


def test_it_stops_with_a_connected_client_and_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(threading.enumerate())
    with contextlib.ExitStack() as outlives:
        with BigQuery() as bigquery:
            monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", bigquery.endpoint)
            client = outlives.enter_context(contextlib.closing(client_of()))
            client.create_dataset("trips")
            assert len(threading.enumerate()) > len(before) + 1  # the connection is kept alive
        assert set(threading.enumerate()) == before
    gc.collect()  # an open socket would warn, and a warning is an error
