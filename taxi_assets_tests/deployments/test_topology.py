"""The services of docker-compose.yaml and the Helm chart without containers: Postgres, code server, webserver, daemon.

Each service is a process on loopback. The test launches a backfill over GraphQL, as the UI does. During the backfill it
kills the code server with its runs until the daemon has noticed it, then the daemon and the webserver.
"""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import dagster as dg
import duckdb
import pytest
import requests
import yaml
from dagster._grpc.client import DagsterGrpcClient

from taxi_assets.tlc.month import Month
from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.contract.stores.postgres import postgres_server, postgres_url
from taxi_assets_tests.deployments.files import read_yaml
from taxi_assets_tests.deployments.processes import Deployment, free_port
from taxi_assets_tests.loopback_publisher import Answer, LoopbackPublisher
from taxi_assets_tests.trips import MONTH, csv_lines

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["postgres_server", "postgres_url"]

ROWS = 50
MONTHS = [str(MONTH.shift(shift)) for shift in range(3)]
LAYERS = [dg.AssetKey([layer, "green_trips"]) for layer in ("raw", "clean", "quarantine", "warehouse")]
MODULE = "taxi_assets.definitions"
BACKFILL_WAITS = "DAGSTER_BACKFILL_RETRY_DEFINITION_CHANGED_ERROR"
"""Without this variable, a backfill fails if the daemon's workspace has no assets because the code server is down."""

LAUNCH = """
    mutation ($assets: [AssetKeyInput!], $months: [String!]) {
        launchPartitionBackfill(backfillParams: {assetSelection: $assets, partitionNames: $months}) {
            __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message }
        }
    }
"""
LOCATIONS = """
    { workspaceOrError { ... on Workspace { locationEntries { name locationOrLoadError { __typename } } } } }
"""
STATUS = "query ($id: String!) { partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status } } }"


@pytest.fixture
def deployment(tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    home = tmp_path / "dagster"
    home.mkdir()
    settings = yaml.safe_load((REPOSITORY / "deploy/postgres/dagster.yaml").read_text())
    settings["concurrency"]["runs"]["max_concurrent_runs"] = len(MONTHS)  # all months run at the same time
    (home / "dagster.yaml").write_text(yaml.safe_dump(settings))
    files = {f"green_tripdata_{m}.csv": "\n".join(csv_lines(Month.parse(m), ROWS)).encode() + b"\n" for m in MONTHS}
    with LoopbackPublisher(files) as publisher:
        compose: Any = read_yaml("docker-compose.yaml")
        monkeypatch.setenv(BACKFILL_WAITS, compose["services"]["daemon"]["environment"][BACKFILL_WAITS])
        monkeypatch.setenv("DAGSTER_HOME", str(home))
        monkeypatch.setenv("DAGSTER_POSTGRES_URL", postgres_url.replace("postgresql:", "postgresql+psycopg2:"))
        monkeypatch.setenv("TAXI_SOURCE", publisher.base)
        monkeypatch.setenv("TAXI_LAKE", str(tmp_path / "lake"))
        monkeypatch.setenv("TAXI_WAREHOUSE", f"duckdb:///{tmp_path / 'w.duckdb'}")
        with dg.DagsterInstance.get() as instance:
            yield Deployment(home, publisher, dict(os.environ), instance)


class WebserverApi:
    """A client of the webserver's GraphQL API."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/graphql"

    def query(self, query: str, **variables: Any) -> dict[str, Any]:
        """Return the data of the answer; an empty dict while the webserver is down."""
        try:
            response = requests.post(self._url, json={"query": query, "variables": variables}, timeout=120)
        except requests.ConnectionError:
            return {}
        content = response.json()
        assert "errors" not in content, content
        return dict(content["data"])

    def location_is_loaded(self) -> bool:
        """Return whether the webserver has loaded the code location without errors."""
        entries = self.query(LOCATIONS).get("workspaceOrError", {}).get("locationEntries", [])
        return [(e["name"], e["locationOrLoadError"]["__typename"]) for e in entries] == [
            (MODULE, "RepositoryLocation")
        ]

    def launch_backfill(self) -> str:
        """Launch a backfill of all layers for `MONTHS`; return its id."""
        assets = [{"path": key.path} for key in LAYERS]
        launched = self.query(LAUNCH, assets=assets, months=MONTHS)["launchPartitionBackfill"]
        assert launched["__typename"] == "LaunchBackfillSuccess", launched
        return str(launched["backfillId"])

    def backfill_status(self, backfill: str) -> str:
        """Return the status of a backfill."""
        return str(self.query(STATUS, id=backfill)["partitionBackfillOrError"]["status"])


def is_serving(port: int) -> bool:
    """Return whether the code server is healthy. The webserver must start after it: it does not retry."""
    client: Any = DagsterGrpcClient(host="127.0.0.1", port=port)  # its methods have no types
    return bool(client.health_check_query() == "SERVING")


def data_versions(deployment: Deployment, key: dg.AssetKey) -> dict[str, set[str]]:
    """Return all data versions that were ever materialized of an asset, by month."""
    found: dict[str, set[str]] = {}
    for record in deployment.instance.fetch_materializations(key, limit=100).records:
        materialization = record.asset_materialization
        assert materialization is not None
        assert materialization.partition is not None
        version = (materialization.tags or {})["dagster/data_version"]
        found.setdefault(materialization.partition, set()).add(version)
    return found


@pytest.mark.timeout(1800)
def test_a_backfill_succeeds_although_code_server_daemon_and_webserver_are_killed(
    deployment: Deployment, tmp_path: Path
) -> None:
    code_port, web_port = free_port(), free_port()
    workspace = tmp_path / "workspace.yaml"
    server = {"host": "127.0.0.1", "port": code_port, "location_name": MODULE}
    workspace.write_text(yaml.safe_dump({"load_from": [{"grpc_server": server}]}))
    gate = threading.Event()

    def wait() -> None:
        gate.wait(1800)

    for month in MONTHS:
        deployment.publisher.script(f"green_tripdata_{month}.csv", then=Answer(before=wait))
    api = WebserverApi(web_port)
    serve = ("code-server", "start", "-m", MODULE, "-h", "127.0.0.1", "-p", str(code_port))
    with ExitStack() as services:
        code_server = services.enter_context(deployment.running_service("dagster", *serve))
        deployment.wait_until(lambda: is_serving(code_port))
        web = ("dagster-webserver", "-w", str(workspace), "-h", "127.0.0.1", "-p", str(web_port))
        webserver = services.enter_context(deployment.running_service(*web))
        deployment.wait_until(api.location_is_loaded)
        backfill = api.launch_backfill()
        # The daemon checks for backfills when it starts, and then every 30 seconds.
        daemon = services.enter_context(deployment.running_service("dagster-daemon", "run", "-w", str(workspace)))
        deployment.wait_until(lambda: len(deployment.runs("STARTED")) == len(MONTHS))
        killed = {run.run_id for run in deployment.runs("STARTED")}
        code_server.kill()
        # The daemon loads the workspace again every 60 seconds.
        deployment.wait_until(
            lambda: f"Backfill {backfill} was unable to continue" in deployment.read_log("dagster-daemon")
        )
        code_server.start()

        deployment.wait_until(lambda: {run.run_id for run in deployment.runs("FAILURE")} == killed)
        deployment.wait_until(lambda: len(deployment.runs("STARTED")) == len(MONTHS))
        daemon.kill()
        webserver.kill()
        assert api.query(LOCATIONS) == {}, "the webserver is down"
        webserver.start()
        gate.set()
        deployment.wait_until(lambda: len(deployment.runs("SUCCESS")) == len(MONTHS))
        deployment.wait_until(api.location_is_loaded)
        assert api.backfill_status(backfill) == "REQUESTED", "only the daemon updates the status of a backfill"
        daemon.start()

        deployment.wait_until(lambda: api.backfill_status(backfill) == "COMPLETED_SUCCESS")
        runs = list(deployment.instance.get_runs(dg.RunsFilter(tags={"dagster/backfill": backfill})))

    succeeded = [run.tags["dagster/partition"] for run in runs if run.status.value == "SUCCESS"]
    assert sorted(succeeded) == MONTHS
    assert {run.run_id for run in runs if run.status.value != "SUCCESS"} == killed
    for key in LAYERS:
        versions = data_versions(deployment, key)
        assert sorted(versions) == MONTHS
        assert {len(found) for found in versions.values()} == {1}, (
            f"{key} was materialized with different data versions"
        )
    with duckdb.connect(str(tmp_path / "w.duckdb"), read_only=True) as connection:
        rows = connection.execute(
            "SELECT strftime(data_month, '%Y-%m'), count(*), count(DISTINCT source_row) "
            "FROM taxi.green_trips GROUP BY 1"
        ).fetchall()
    assert sorted(rows) == [(month, ROWS, ROWS) for month in MONTHS]
