"""Loads into BigQuery while another run replaces the same lake object or partition, and loads that fail halfway."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import dagster as dg
import pyarrow.parquet
import pytest

from taxi_assets.checks import concurrent_runs
from taxi_assets.checks.warehouse_checks import warehouse_check
from taxi_assets.errors import (
    LakeConflictError,
    ReconciliationError,
    WarehouseBusyError,
    WarehouseConfigurationError,
    WarehouseUnreachableError,
)
from taxi_assets.partitions import monthly_partitions
from taxi_assets.storage.lake.local_lake import LocalLake
from taxi_assets.storage.lake.objects import ParquetPartition, StagedParquet
from taxi_assets.storage.warehouse.bigquery import BigQueryWarehouse
from taxi_assets.tlc.services.green import GREEN
from taxi_assets_tests.contract.bigquery_fixtures import (
    clients_wait_a_hundredth,
    lake,
    load,
    loads,
    warehouse,
)
from taxi_assets_tests.contract.test_any_warehouse import holds_exactly
from taxi_assets_tests.google.bigquery import BigQuery, Fault, JobFault
from taxi_assets_tests.trips import MONTH, publish_generated_month

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from taxi_assets.storage.lake.base_lake import Lake
    from taxi_assets.storage.lake.gcs_lake import GcsLake
    from taxi_assets.tlc.cleaning.report import ControlTotals

__all__ = ["clients_wait_a_hundredth", "lake", "warehouse"]


SUSPECT = r"The rows of 2020-10 in `taxi-project\.taxi\.green_trips` are suspect until the next load\."


def replaced_by(lake: GcsLake, trips: ParquetPartition) -> Callable[[], None]:
    """Return an action in which another run publishes other trips under the same key."""

    def act() -> None:
        publish_generated_month(lake, rows=trips.rows, seed=99)

    return act


def with_wrong_footer(trips: ParquetPartition, change: dict[str, int]) -> ParquetPartition:
    """Publish the rows of an object again, with other control totals in the report of the footer."""
    report = trips.report.model_copy(update={"clean": trips.report.clean.model_copy(update=change)})
    with trips.lake.staging() as folder, trips.as_local_file() as path:
        file = folder / "wrong.parquet"
        table = pyarrow.parquet.read_table(path)
        pyarrow.parquet.write_table(table.replace_schema_metadata(report.footer()), file)
        prefix = trips.key.removesuffix(".parquet")
        return ParquetPartition.publish(trips.lake, prefix, StagedParquet(file, report, trips.version), run_id="a run")


def test_an_object_replaced_between_count_and_load_is_not_recorded_as_the_counted_one(
    warehouse: BigQueryWarehouse, lake: GcsLake, bigquery: BigQuery
) -> None:
    old, new = publish_generated_month(lake, rows=10), publish_generated_month(lake, rows=20)
    load(warehouse, ParquetPartition.get(lake, "clean/green_trips/2020-10"))
    assert old.report.data_version != new.report.data_version
    newer = publish_generated_month(lake, rows=30)
    bigquery.script(Fault(), Fault(before=replaced_by(lake, newer)), method="POST", path="/jobs")
    with pytest.raises(LakeConflictError, match=SUSPECT):
        load(warehouse, newer, "another-run")
    assert warehouse.loaded_month(GREEN, MONTH) is None
    current = ParquetPartition.get(lake, "clean/green_trips/2020-10")
    load(warehouse, current, "another-run")
    assert holds_exactly(warehouse, current)


def test_an_object_replaced_during_its_load_is_not_recorded_as_the_counted_one(
    warehouse: BigQueryWarehouse, lake: GcsLake, bigquery: BigQuery
) -> None:
    trips = publish_generated_month(lake)
    bigquery.script_job(JobFault(before_run=replaced_by(lake, trips)), kind="load", destination="green_trips$")
    with pytest.raises(LakeConflictError, match=SUSPECT):
        load(warehouse, trips)
    assert warehouse.loaded_month(GREEN, MONTH) is None


@pytest.mark.parametrize("change", [{"cents": 4_541_288}, {"source_rows": 1}], ids=["amounts", "row numbers"])
def test_an_object_whose_footer_has_wrong_sums_is_not_recorded_as_loaded(
    warehouse: BigQueryWarehouse, lake: GcsLake, change: dict[str, int]
) -> None:
    load(warehouse, publish_generated_month(lake))
    actual = publish_generated_month(lake, rows=90, seed=1, layer="newer")
    wrong = with_wrong_footer(actual, change)
    with pytest.raises(ReconciliationError, match=f"produced {re.escape(str(actual.report.clean))};.*{SUSPECT}"):
        load(warehouse, wrong, "another-run")
    assert warehouse.loaded_month(GREEN, MONTH) is None


def test_an_object_whose_footer_has_a_wrong_number_of_rows_does_not_replace_the_old_month(
    warehouse: BigQueryWarehouse, lake: GcsLake
) -> None:
    old = publish_generated_month(lake)
    load(warehouse, old)
    wrong = with_wrong_footer(publish_generated_month(lake, rows=90, seed=1, layer="newer"), {"rows": 91})
    with pytest.raises(ReconciliationError, match=r"produced 90 rows.*The month is unchanged\."):
        load(warehouse, wrong, "another-run")
    assert holds_exactly(warehouse, old)


def test_a_month_whose_ledger_row_failed_counts_as_not_loaded_and_is_loaded_again(
    warehouse: BigQueryWarehouse, lake: GcsLake, bigquery: BigQuery
) -> None:
    old, new = publish_generated_month(lake), publish_generated_month(lake, rows=90, seed=1, layer="newer")
    load(warehouse, old)
    ledger_jobs = JobFault(), JobFault("invalid", "No.")  # the first one invalidates the row
    bigquery.script_job(*ledger_jobs, kind="load", destination="green_trips_loads")
    with pytest.raises(WarehouseConfigurationError, match=f"400 No. {SUSPECT}"):
        load(warehouse, new, "another-run")
    assert warehouse.loaded_month(GREEN, MONTH) is None
    assert warehouse.totals(GREEN, MONTH) == new.report.clean
    load(warehouse, new, "another-run")
    assert holds_exactly(warehouse, new)


def test_a_job_left_running_makes_the_month_suspect(
    warehouse: BigQueryWarehouse, lake: GcsLake, bigquery: BigQuery
) -> None:
    old, new = publish_generated_month(lake), publish_generated_month(lake, rows=90, seed=1, layer="newer")
    load(warehouse, old)
    bigquery.script_job(JobFault(after_polls=3), kind="load", destination="green_trips$")
    bigquery.script(Fault(reason="quotaExceeded"), method="GET", path="/jobs/taxi_assets-green_trips-")
    with pytest.raises(WarehouseUnreachableError, match=f"{SUSPECT} Try again later"):
        load(warehouse, new)
    bigquery.settle()
    assert warehouse.totals(GREEN, MONTH) == new.report.clean
    assert warehouse.loaded_month(GREEN, MONTH) is None


# --- two runs at once -------------------------------------------------------------------------------------------------


def test_a_failed_older_load_keeps_the_ledger_row_of_a_newer_one(
    warehouse: BigQueryWarehouse, lake: GcsLake, bigquery: BigQuery
) -> None:
    load(warehouse, publish_generated_month(lake))
    old, new = (
        publish_generated_month(lake, flag="Y", layer="older"),
        publish_generated_month(lake, rows=90, layer="newer"),
    )
    fails = JobFault("invalid", "No.", before_run=lambda: load(warehouse, new, "newer-run"))
    bigquery.script_job(fails, kind="load", destination="green_trips$")
    with pytest.raises(WarehouseConfigurationError, match="400 No"):
        load(warehouse, old)
    assert holds_exactly(warehouse, new)


# --- an older run and a newer one -------------------------------------------------------------------------------------


def newer_run(warehouse: BigQueryWarehouse, lake: Lake) -> Callable[[], None]:
    """Return an action in which another run publishes newer trips and loads them."""

    def act() -> None:
        load(warehouse, publish_generated_month(lake, rows=30, seed=4), "newer-run")
        assert len(warehouse.read_month(GREEN, MONTH)) == 30

    return act


def is_loaded_again(warehouse: BigQueryWarehouse, lake: Lake) -> bool:
    """Return whether the month counts as not loaded, and the next run loads the current trips."""
    assert warehouse.loaded_month(GREEN, MONTH) is None
    current = ParquetPartition.get(lake, f"clean/green_trips/{MONTH}")
    load(warehouse, current, "next-run")
    return holds_exactly(warehouse, current)


def test_an_older_empty_month_does_not_delete_a_newer_one_that_was_loaded_after_the_count(
    warehouse: BigQueryWarehouse, lake: GcsLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = publish_generated_month(lake, rows=0)

    def read_and_be_overtaken(trips: ParquetPartition) -> ControlTotals:
        patch.undo()
        newer_run(warehouse, lake)()
        return trips.report.clean

    with monkeypatch.context() as patch:
        patch.setattr(ParquetPartition, "read_footer_totals", read_and_be_overtaken)
        with pytest.raises(LakeConflictError):
            load(warehouse, old)
    assert holds_exactly(warehouse, ParquetPartition.get(lake, f"clean/green_trips/{MONTH}"))


def test_an_older_empty_month_that_deletes_a_newer_one_leaves_no_valid_ledger_row(
    warehouse: BigQueryWarehouse, lake: GcsLake, bigquery: BigQuery
) -> None:
    old = publish_generated_month(lake, rows=0)
    bigquery.script(Fault(before=newer_run(warehouse, lake)), method="DELETE", path="green_trips$")
    with pytest.raises(LakeConflictError, match=SUSPECT):
        load(warehouse, old)
    assert is_loaded_again(warehouse, lake)


def test_an_older_upload_that_ends_after_a_newer_one_leaves_no_valid_ledger_row(
    warehouse: BigQueryWarehouse, bigquery: BigQuery, tmp_path: Path
) -> None:
    lake = LocalLake(folder=str(tmp_path))
    old = publish_generated_month(lake, rows=20)
    job = JobFault(before_run=newer_run(warehouse, lake))
    bigquery.script_job(job, kind="load", destination="green_trips$")
    with pytest.raises(LakeConflictError, match=SUSPECT):
        load(warehouse, old)
    assert is_loaded_again(warehouse, lake)


@pytest.mark.parametrize("upload", [False, True], ids=["from the bucket", "by upload"])
def test_an_older_job_is_not_started_if_a_newer_month_was_published_after_the_count(
    warehouse: BigQueryWarehouse, lake: GcsLake, bigquery: BigQuery, tmp_path: Path, upload: bool
) -> None:
    layer = LocalLake(folder=str(tmp_path)) if upload else lake
    load(warehouse, publish_generated_month(layer))
    old = publish_generated_month(layer, rows=20)
    # The last request before the insertion of the job.
    last = Fault(before=newer_run(warehouse, layer))
    bigquery.script(Fault(), Fault(), last, method="GET", path="/tables/green_trips")
    with pytest.raises(LakeConflictError):
        load(warehouse, old)
    assert len(loads(bigquery)) == 2
    assert holds_exactly(warehouse, ParquetPartition.get(layer, f"clean/green_trips/{MONTH}"))


# --- what other runs see of a month that is being replaced ------------------------------------------------------------


def check_in(instance: dg.DagsterInstance, warehouse: BigQueryWarehouse, lake: GcsLake) -> dg.AssetCheckEvaluation:
    """Run the check of the table alone; return its evaluation."""

    @dg.asset(key=["warehouse", "green_trips"], partitions_def=monthly_partitions(GREEN))
    def table() -> None:
        pass

    checks = warehouse_check(GREEN)
    result = dg.Definitions(
        [table],
        asset_checks=[checks],
        jobs=[dg.define_asset_job("check", dg.AssetSelection.checks(checks))],
        resources={"lake": lake, "warehouse": warehouse},
    )
    run = result.resolve_job_def("check").execute_in_process(
        instance=instance, tags={"dagster/partition": str(MONTH)}, raise_on_error=False
    )
    (evaluation,) = run.get_asset_check_evaluations()
    return evaluation


@pytest.mark.parametrize("is_known", [True, False], ids=["known", "unknown"])
def test_a_check_warns_while_a_known_run_replaces_the_month_and_fails_if_the_run_is_unknown(
    warehouse: BigQueryWarehouse, lake: GcsLake, bigquery: BigQuery, monkeypatch: pytest.MonkeyPatch, is_known: bool
) -> None:
    monkeypatch.setattr(concurrent_runs, "WAIT_SECONDS", 0)
    trips = publish_generated_month(lake)
    load(warehouse, trips)
    with dg.DagsterInstance.ephemeral() as instance:
        assert check_in(instance, warehouse, lake).passed
        other = loading_run(instance) if is_known else "of-another-instance"
        found: list[dg.AssetCheckEvaluation] = []
        job = JobFault(before_run=lambda: found.append(check_in(instance, warehouse, lake)))
        bigquery.script_job(job, kind="load", destination="green_trips$")
        load(warehouse, trips, other)
        (evaluation,) = found
        assert not evaluation.passed
        assert evaluation.severity == (dg.AssetCheckSeverity.WARN if is_known else dg.AssetCheckSeverity.ERROR)
        assert f"Run {other} has started to replace the month in the table" in (evaluation.description or "")
        assert check_in(instance, warehouse, lake).passed


def loading_run(instance: dg.DagsterInstance) -> str:
    """Return the id of a run that has started and will materialize the table."""

    @dg.asset(key=["warehouse", "green_trips"], partitions_def=monthly_partitions(GREEN))
    def table() -> None:
        pass

    job = dg.Definitions([table], jobs=[dg.define_asset_job("load", [table])]).resolve_job_def("load")
    tags = {"dagster/partition": str(MONTH)}
    run = instance.create_run_for_job(job, tags=tags, asset_selection=frozenset([table.key]))
    instance.report_dagster_event(dg.DagsterEvent("PIPELINE_START", "load"), run.run_id)
    return run.run_id


def test_a_reader_of_the_ledger_waits_for_the_replacing_run_and_names_it_on_timeout(
    warehouse: BigQueryWarehouse, lake: GcsLake, bigquery: BigQuery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BigQueryWarehouse, "replacement_wait_seconds", 0.0)
    trips = publish_generated_month(lake)
    load(warehouse, trips)

    def read() -> None:
        assert warehouse.loaded_month(GREEN, MONTH) is None
        assert warehouse.replacing_run_id(GREEN, MONTH) == "another-run"
        with pytest.raises(WarehouseBusyError, match="Run another-run is replacing green 2020-10"):
            warehouse.loaded_versions([GREEN], MONTH)

    bigquery.script_job(JobFault(before_run=read), kind="load", destination="green_trips$")
    load(warehouse, trips, "another-run")
    assert warehouse.replacing_run_id(GREEN, MONTH) is None
    assert warehouse.loaded_versions([GREEN], MONTH) == {"green": trips.report.data_version}


def test_a_failed_first_load_leaves_no_ledger_row(
    warehouse: BigQueryWarehouse, lake: GcsLake, bigquery: BigQuery
) -> None:
    bigquery.script_job(JobFault("invalid", "No."), kind="load", destination="green_trips$")
    with pytest.raises(WarehouseConfigurationError, match="400 No"):
        load(warehouse, publish_generated_month(lake))
    assert warehouse.loaded_month(GREEN, MONTH) is None
    assert warehouse.replacing_run_id(GREEN, MONTH) is None
