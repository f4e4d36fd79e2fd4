"""What docker-compose.yaml and the Helm chart run, without containers: Postgres, code server, webserver and daemon.

Each is a process of its own on loopback. A backfill is asked for by GraphQL, as the UI does; in the middle of it the
code server is killed together with the runs in it, then the daemon and the webserver.
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
    settings["concurrency"]["runs"]["max_concurrent_runs"] = len(MONTHS)  # none has to wait for another
    (home / "dagster.yaml").write_text(yaml.safe_dump(settings))
    files = {f"green_tripdata_{m}.csv": "\n".join(csv_lines(Month.parse(m), ROWS)).encode() + b"\n" for m in MONTHS}
    with LoopbackPublisher(files) as publisher:
        monkeypatch.setenv("DAGSTER_HOME", str(home))
        monkeypatch.setenv("DAGSTER_POSTGRES_URL", postgres_url.replace("postgresql:", "postgresql+psycopg2:"))
        monkeypatch.setenv("TAXI_SOURCE", publisher.base)
        monkeypatch.setenv("TAXI_LAKE", str(tmp_path / "lake"))
        monkeypatch.setenv("TAXI_WAREHOUSE", f"duckdb:///{tmp_path / 'w.duckdb'}")
        with dg.DagsterInstance.get() as instance:
            yield Deployment(home, publisher, dict(os.environ), instance)


class WebserverApi:
    """The webserver's GraphQL."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/graphql"

    def query(self, query: str, **variables: Any) -> dict[str, Any]:
        """What it answers; nothing while it is not up."""
        try:
            answer = requests.post(self._url, json={"query": query, "variables": variables}, timeout=20)
        except requests.ConnectionError:
            return {}
        content = answer.json()
        assert "errors" not in content, content
        return dict(content["data"])

    def location_is_loaded(self) -> bool:
        entries = self.query(LOCATIONS).get("workspaceOrError", {}).get("locationEntries", [])
        return [(e["name"], e["locationOrLoadError"]["__typename"]) for e in entries] == [
            (MODULE, "RepositoryLocation")
        ]

    def launch_backfill(self) -> str:
        """Launch the months; returns the backfill's id."""
        assets = [{"path": key.path} for key in LAYERS]
        launched = self.query(LAUNCH, assets=assets, months=MONTHS)["launchPartitionBackfill"]
        assert launched["__typename"] == "LaunchBackfillSuccess", launched
        return str(launched["backfillId"])

    def backfill_status(self, backfill: str) -> str:
        return str(self.query(STATUS, id=backfill)["partitionBackfillOrError"]["status"])


def is_serving(port: int) -> bool:
    """What a container's health check asks: a webserver that finds no code server does not look again."""
    client: Any = DagsterGrpcClient(host="127.0.0.1", port=port)  # its methods have no types
    return bool(client.health_check_query() == "SERVING")


def data_versions(deployment: Deployment, key: dg.AssetKey) -> dict[str, set[str]]:
    """All that was ever materialized of an asset, by month."""
    found: dict[str, set[str]] = {}
    for record in deployment.instance.fetch_materializations(key, limit=100).records:
        materialization = record.asset_materialization
        assert materialization is not None
        assert materialization.partition is not None
        version = (materialization.tags or {})["dagster/data_version"]
        found.setdefault(materialization.partition, set()).add(version)
    return found


@pytest.mark.timeout(180)
def test_a_backfill_ends_well_although_code_server_daemon_and_webserver_are_killed_in_the_middle(
    deployment: Deployment, tmp_path: Path
) -> None:
    code_port, web_port = free_port(), free_port()
    workspace = tmp_path / "workspace.yaml"
    server = {"host": "127.0.0.1", "port": code_port, "location_name": MODULE}
    workspace.write_text(yaml.safe_dump({"load_from": [{"grpc_server": server}]}))
    gate = threading.Event()

    def wait() -> None:
        gate.wait(120)

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
        # It looks for backfills as soon as it starts, and then every half a minute.
        daemon = services.enter_context(deployment.running_service("dagster-daemon", "run", "-w", str(workspace)))
        deployment.wait_until(lambda: len(deployment.runs("STARTED")) == len(MONTHS))
        killed = {run.run_id for run in deployment.runs("STARTED")}
        code_server.kill()
        code_server.start()

        deployment.wait_until(lambda: {run.run_id for run in deployment.runs("FAILURE")} == killed)
        deployment.wait_until(lambda: len(deployment.runs("STARTED")) == len(MONTHS))
        daemon.kill()
        webserver.kill()
        assert api.query(LOCATIONS) == {}, "nobody answers"
        webserver.start()
        gate.set()
        deployment.wait_until(lambda: len(deployment.runs("SUCCESS")) == len(MONTHS))
        deployment.wait_until(api.location_is_loaded)
        assert api.backfill_status(backfill) == "REQUESTED", "nobody has seen that it has ended"
        daemon.start()

        deployment.wait_until(lambda: api.backfill_status(backfill) == "COMPLETED_SUCCESS")
        runs = list(deployment.instance.get_runs(dg.RunsFilter(tags={"dagster/backfill": backfill})))

    succeeded = [run.tags["dagster/partition"] for run in runs if run.status.value == "SUCCESS"]
    assert sorted(succeeded) == MONTHS
    assert {run.run_id for run in runs if run.status.value != "SUCCESS"} == killed
    for key in LAYERS:
        versions = data_versions(deployment, key)
        assert sorted(versions) == MONTHS
        assert {len(found) for found in versions.values()} == {1}, f"{key} is the same, however often it was made"
    with duckdb.connect(str(tmp_path / "w.duckdb"), read_only=True) as connection:
        rows = connection.execute(
            "SELECT strftime(data_month, '%Y-%m'), count(*), count(DISTINCT source_row) "
            "FROM taxi.green_trips GROUP BY 1"
        ).fetchall()
    assert sorted(rows) == [(month, ROWS, ROWS) for month in MONTHS]
