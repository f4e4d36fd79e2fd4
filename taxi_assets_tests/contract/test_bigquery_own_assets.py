"""Own assets in BigQuery: jobs that fail, conflict or whose answers are lost, and writes of other runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from taxi_assets_tests.contract.bigquery_fixtures import clients_wait_a_hundredth
from taxi_assets_tests.contract.own_asset_runs import OwnStore
from taxi_assets_tests.contract.stores.bigquery import DATASET
from taxi_assets_tests.google.bigquery import BigQuery, Fault, JobFault
from taxi_assets_tests.pipeline_harness import failure_messages

if TYPE_CHECKING:
    from pathlib import Path

    import dagster as dg

    from taxi_assets_tests.contract.stores import WarehouseBackend

__all__ = ["clients_wait_a_hundredth"]

MONTH, OTHER_MONTH = "2020-10", "2020-11"
CONFLICT = JobFault(
    "invalidQuery", f"Could not serialize access to table taxi-project:{DATASET}.own due to concurrent update"
)
# The query jobs of a run, in this order; before the second one, a load job writes the staging table.
OWNERS, MERGE, LEDGER = range(3)


@dataclass(frozen=True)
class OwnTable:
    """Two months of an own asset in the BigQuery double; the other month never changes."""

    store: OwnStore
    double: BigQuery

    def run(self, version: int, month: str | None = MONTH) -> dg.ExecuteInProcessResult:
        """Materialize a version; errors are not raised."""
        with self.store.platform() as platform:
            return platform.run(self.store.asset("own", version, partitioned=month is not None), month)

    def holds(self, version: int | None) -> bool:
        """Whether readers see exactly this version of the month, and the staging tables are gone."""
        return (
            self.store.find_version("own", MONTH) == version
            and self.store.find_version("own", OTHER_MONTH) == 1000
            and not self.staging_tables()
        )

    def staging_tables(self) -> list[str]:
        query = f"SELECT table_name FROM information_schema.tables WHERE table_schema = '{DATASET}'"
        return [name for (name,) in self.double.sql(query) if name.startswith("_staging")]


@pytest.fixture
def table(bigquery_warehouse: WarehouseBackend, bigquery: BigQuery, tmp_path: Path) -> OwnTable:
    backend = bigquery_warehouse
    store = OwnStore("warehouse_table", "bigquery", backend.open_lake, backend.open, tmp_path, None)
    store.store("own", 1000, OTHER_MONTH)
    store.store("own", 1, MONTH)
    return OwnTable(store, bigquery)


def requests_of_a_run(table: OwnTable, version: int) -> list[tuple[str, str]]:
    """Run, and return the requests that are not GET."""
    known = len(table.double.requests)
    assert table.run(version).success
    return [(request.method, request.path) for request in table.double.requests[known:] if request.method != "GET"]


@pytest.mark.parametrize("lost", [Fault(status=503, after=True), Fault(reset=True, after=True)], ids=["503", "reset"])
def test_a_run_succeeds_whichever_answer_is_lost(table: OwnTable, lost: Fault) -> None:
    requests = requests_of_a_run(table, 2)
    version = 2
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        for number in range(sum(verb == method for verb, _ in requests)):
            version += 1
            table.double.script(*[Fault()] * number, lost, method=method)
            result = table.run(version)
            assert result.success, (method, number, failure_messages(result))
            assert table.holds(version), (method, number)


def test_a_table_that_has_all_columns_is_not_updated(table: OwnTable) -> None:
    """BigQuery limits the updates of a table's metadata: 5 within 10 seconds."""
    assert "PATCH" not in [method for method, _ in requests_of_a_run(table, 1)]


@pytest.mark.parametrize("job", [OWNERS, MERGE, LEDGER])
@pytest.mark.parametrize(
    "fault", [JobFault("backendError", writes_first=True), CONFLICT], ids=["transient", "conflict"]
)
def test_a_statement_that_failed_for_a_passing_reason_runs_again(table: OwnTable, fault: JobFault, job: int) -> None:
    table.double.script_job(*[JobFault()] * job, fault, fault, kind="query")
    result = table.run(2)
    assert result.success, failure_messages(result)
    assert table.holds(2)


def test_a_load_of_a_staging_table_that_failed_for_a_passing_reason_runs_again(table: OwnTable) -> None:
    table.double.script_job(JobFault("backendError", writes_first=True), kind="load", destination="_staging_own")
    assert table.run(2).success
    assert table.holds(2)


@pytest.mark.parametrize("kind", ["load", "query"])
def test_a_job_that_fails_for_good_leaves_the_old_rows(table: OwnTable, kind: str) -> None:
    fault = JobFault("invalid", "The disk is full.", writes_first=True)
    table.double.script_job(*[JobFault()] * (MERGE if kind == "query" else 0), fault, kind=kind)
    result = table.run(2)
    (message,) = failure_messages(result)
    assert "The disk is full" in message
    assert table.holds(1)
    assert table.run(2).success
    assert table.holds(2)


def test_statements_that_keep_conflicting_end_as_a_busy_warehouse_and_leave_the_old_rows(table: OwnTable) -> None:
    table.double.script_job(JobFault(), *[CONFLICT] * 6, kind="query")
    (message,) = failure_messages(table.run(2))
    assert f"{DATASET}.own` could not be written: other runs changed it during each of 6 attempts" in message
    assert "WarehouseBusyError" in message
    assert table.holds(1)
    assert table.run(2).success
    assert table.holds(2)


def test_first_rows_of_a_partition_that_two_runs_insert_at_once_are_stored_once(table: OwnTable) -> None:
    """BigQuery lets both MERGE statements succeed, because neither of them deletes a row."""
    assert table.run(5, "2020-12").success
    table.double.sql(f"CREATE TABLE of_another_run AS SELECT * FROM {DATASET}.own WHERE month = DATE '2020-12-01'")
    table.double.sql(f"DELETE FROM {DATASET}.own WHERE month = DATE '2020-12-01'")

    def insert_rows_of_another_run() -> None:
        table.double.sql(f"INSERT INTO {DATASET}.own BY NAME SELECT * FROM of_another_run")

    # The other run's statement ends before this run counts its rows.
    table.double.script_job(JobFault(), JobFault(), JobFault(before_run=insert_rows_of_another_run), kind="query")
    result = table.run(6, "2020-12")
    assert result.success, failure_messages(result)
    assert table.store.find_version("own", "2020-12") == 6
    assert table.holds(1)
