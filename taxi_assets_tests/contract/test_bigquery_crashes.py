"""A load into BigQuery that is killed with SIGKILL: the table of crash points in `MonthLoad`, row by row."""

from __future__ import annotations

import signal
import uuid
from typing import TYPE_CHECKING

import dagster as dg
import pytest

from taxi_assets.io_managers.warehouse_table import WarehouseTableIOManager
from taxi_assets.storage.lake.objects import ParquetPartition
from taxi_assets.tlc.services.green import GREEN
from taxi_assets_tests.contract.bigquery_fixtures import clients_wait_a_hundredth, lake, load, loads
from taxi_assets_tests.contract.stores import child_process
from taxi_assets_tests.contract.test_any_warehouse import holds_exactly, records, rows_of
from taxi_assets_tests.google.bigquery import BigQuery, Fault
from taxi_assets_tests.trips import MONTH, publish_generated_month

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

    from taxi_assets.storage.lake.base_lake import Lake
    from taxi_assets.storage.lake.gcs_lake import GcsLake
    from taxi_assets.storage.warehouse.base_warehouse import Warehouse
    from taxi_assets.storage.warehouse.bigquery import BigQueryWarehouse
    from taxi_assets_tests.contract.stores import ChildProcess, WarehouseBackend

__all__ = ["clients_wait_a_hundredth", "lake"]

KILLED_RUN = "killed-run"

# A load inserts these jobs, in this order.
INVALIDATION, TRIPS_LOAD, COUNT, LEDGER_LOAD = range(4)


def load_month(
    open_warehouse: Callable[[], BigQueryWarehouse], open_lake: Callable[[], Lake], layer: str, _pipe: Connection
) -> None:
    load(open_warehouse(), ParquetPartition.get(open_lake(), f"{layer}/green_trips/{MONTH}"), KILLED_RUN)


def kill_load(backend: WarehouseBackend, bigquery: BigQuery, layer: str, job: int, *, accepted: bool) -> None:
    """Kill a process that loads a month at the insertion of a job, before or after BigQuery has accepted the job."""
    running: list[ChildProcess] = []

    def kill() -> None:
        running[0].process.kill()  # not waited for here: two threads that wait would take each other's result

    fault = Fault(before=kill, reset=not accepted)
    bigquery.script(*[Fault()] * job, fault, method="POST", path="/jobs")
    with child_process(load_month, backend.open, backend.open_lake, layer) as process:
        running.append(process)
        process.process.join(600)
        assert process.process.exitcode == -signal.SIGKILL


def materialize(warehouse: Warehouse, trips: ParquetPartition) -> object:
    """Store the month as the asset's run does; return whether the run reports it as replaced or unchanged."""
    context = dg.build_output_context(
        asset_key=dg.AssetKey(["warehouse", "green_trips"]), partition_key=str(MONTH), run_id=uuid.uuid4().hex
    )
    WarehouseTableIOManager(warehouse=warehouse).handle_output(context, trips)
    return context.get_logged_metadata()["loaded"].value


@pytest.mark.parametrize(
    ("job", "accepted", "ledger", "partition", "next_run"),
    [
        pytest.param(INVALIDATION, False, "old", "old", "replaced", id="before the invalidation"),
        pytest.param(INVALIDATION, True, "invalidated", "old", "replaced", id="after the invalidation"),
        pytest.param(TRIPS_LOAD, False, "invalidated", "old", "replaced", id="before the job is accepted"),
        pytest.param(TRIPS_LOAD, True, "invalidated", "new", "replaced", id="while the job runs"),
        pytest.param(COUNT, False, "invalidated", "new", "replaced", id="before the count"),
        pytest.param(LEDGER_LOAD, False, "invalidated", "new", "replaced", id="before the ledger row"),
        pytest.param(LEDGER_LOAD, True, "new", "new", "unchanged", id="after the ledger row"),
    ],
)
def test_a_killed_load_leaves_what_the_table_of_crash_points_says(
    bigquery_warehouse: WarehouseBackend,
    lake: GcsLake,
    bigquery: BigQuery,
    job: int,
    accepted: bool,
    ledger: str,
    partition: str,
    next_run: str,
) -> None:
    warehouse = bigquery_warehouse.open()
    trips = {"old": publish_generated_month(lake), "new": publish_generated_month(lake, rows=90, seed=1, layer="newer")}
    assert materialize(warehouse, trips["old"]) == "replaced"
    kill_load(bigquery_warehouse, bigquery, "newer", job, accepted=accepted)
    if job == TRIPS_LOAD and accepted:
        assert warehouse.totals(GREEN, MONTH) == trips["old"].report.clean
    bigquery.settle()
    assert records(warehouse.read_month(GREEN, MONTH)) == rows_of(trips[partition])
    loaded = warehouse.loaded_month(GREEN, MONTH)
    if ledger == "invalidated":
        assert loaded is None
        assert warehouse.replacing_run_id(GREEN, MONTH) == KILLED_RUN
    else:
        assert loaded is not None
        assert loaded.data_version == trips[ledger].report.data_version
    assert materialize(warehouse, trips["new"]) == next_run
    assert holds_exactly(warehouse, trips["new"])


@pytest.mark.parametrize("job", [TRIPS_LOAD, LEDGER_LOAD], ids=["while the job runs", "before the ledger row"])
def test_a_retry_of_a_killed_run_reuses_the_job_of_the_first_attempt(
    bigquery_warehouse: WarehouseBackend, lake: GcsLake, bigquery: BigQuery, job: int
) -> None:
    warehouse = bigquery_warehouse.open()
    trips = publish_generated_month(lake)
    kill_load(bigquery_warehouse, bigquery, "clean", job, accepted=job == TRIPS_LOAD)
    warehouse.replace_month(GREEN, MONTH, trips, run_id=KILLED_RUN)
    assert [one.id[-2:] for one in loads(bigquery)] == ["-1"]
    assert holds_exactly(warehouse, trips)


def test_an_old_version_with_equal_totals_is_loaded_again_after_a_killed_load_of_the_new_one(
    bigquery_warehouse: WarehouseBackend, lake: GcsLake, bigquery: BigQuery
) -> None:
    warehouse = bigquery_warehouse.open()
    old, new = publish_generated_month(lake), publish_generated_month(lake, flag="Y", layer="newer")
    assert (old.report.clean, old.rows) == (new.report.clean, new.rows)
    assert materialize(warehouse, old) == "replaced"
    assert materialize(warehouse, old) == "unchanged"
    kill_load(bigquery_warehouse, bigquery, "newer", LEDGER_LOAD, accepted=False)
    assert records(warehouse.read_month(GREEN, MONTH)) == rows_of(new)
    assert warehouse.loaded_month(GREEN, MONTH) is None
    assert materialize(warehouse, old) == "replaced"
    assert holds_exactly(warehouse, old)
