"""Real months on test doubles of Google Cloud: equal to the embedded warehouse, row by row."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg
import duckdb
import pandas as pd
import pytest

from taxi_assets.build import TaxiDefinitions, build_definitions
from taxi_assets.settings import Settings
from taxi_assets.tlc.services.green import GREEN
from taxi_assets_tests.contract.stores.bigquery import bigquery, service_account
from taxi_assets_tests.contract.stores.gcs import cloud_storage
from taxi_assets_tests.google.bigquery import Fault as BigQueryFault
from taxi_assets_tests.google.bigquery import JobFault
from taxi_assets_tests.google.cloud_storage import Fault
from taxi_assets_tests.pipeline_harness import Deployment, failure_messages, metadata_value

if TYPE_CHECKING:
    from pathlib import Path

    from taxi_assets_tests.google.bigquery import BigQuery
    from taxi_assets_tests.google.cloud_storage import CloudStorage
    from taxi_assets_tests.google.service_account import ServiceAccount

__all__ = ["bigquery", "cloud_storage", "service_account"]

FOOTER = 65_536
MONTHS = ["2013-08", "2020-10", "2023-01"]  # CSV, compressed CSV, Parquet


@pytest.fixture
def on_google(
    data: Path,
    cloud_storage: CloudStorage,
    bigquery: BigQuery,
    service_account: ServiceAccount,
    monkeypatch: pytest.MonkeyPatch,
) -> TaxiDefinitions:
    cloud_storage.location = "EU"
    monkeypatch.setenv("TAXI_LAKE", f"gs://{cloud_storage.bucket}/nyc")
    monkeypatch.setenv("TAXI_WAREHOUSE", f"bigquery://{bigquery.project}/taxi?location=EU")
    monkeypatch.setenv("TAXI_SOURCE", str(data / "months"))
    monkeypatch.setenv("TAXI_GOOGLE_CREDENTIALS", service_account.base64)
    monkeypatch.setenv("TAXI_RETRY_DELAY_SECONDS", "0")
    return build_definitions(Settings.from_env())


def run(defs: TaxiDefinitions, month: str) -> dg.ExecuteInProcessResult:
    with dg.DagsterInstance.ephemeral() as instance:
        return defs.resolve_job_def("green").execute_in_process(
            instance=instance, partition_key=month, raise_on_error=False
        )


def table(defs: TaxiDefinitions, month: str) -> pd.DataFrame:
    frame = defs.load_asset_value("warehouse/green_trips", partition_key=month)
    assert isinstance(frame, pd.DataFrame)
    return frame


def test_three_real_months_equal_those_of_duckdb_and_bigquery_loads_them_without_the_worker(
    on_google: TaxiDefinitions, cloud_storage: CloudStorage, bigquery: BigQuery, data: Path, tmp_path: Path
) -> None:
    embedded = build_definitions(
        Settings(
            lake=str(tmp_path / "lake"),  # type: ignore[arg-type]  # read by its validators
            warehouse=f"duckdb:///{tmp_path / 'w.duckdb'}",  # type: ignore[arg-type]
            source=str(data / "months"),
        )
    )
    for month in MONTHS:
        result = run(on_google, month)
        assert result.success, failure_messages(result)
        assert all(check.passed for check in result.get_asset_check_evaluations() if check.blocking)
        assert run(embedded, month).success

        # BigQuery reads the whole clean Parquet file. The worker, which sends the header, reads only its footer.
        reads = [r for r in cloud_storage.requests if f"clean/green_trips/{month}" in r.path and r.method == "GET"]
        size = len(cloud_storage.object(f"nyc/clean/green_trips/{month}.parquet"))
        by_worker = [r.sent_bytes for r in reads if "X-Goog-API-Client" in r.headers]
        by_bigquery = [r.sent_bytes for r in reads if "X-Goog-API-Client" not in r.headers]
        assert max(by_worker) <= FOOTER < size <= max(by_bigquery)

    columns = ", ".join(column.name for column in GREEN.columns)
    query = f"SELECT {columns} FROM taxi.green_trips WHERE data_month = ? ORDER BY source_row"
    with duckdb.connect(str(tmp_path / "w.duckdb"), read_only=True) as connection:
        for month in MONTHS:
            expected = connection.execute(query, [f"{month}-01"]).fetchall()
            loaded = bigquery.sql(query, [f"{month}-01"])
            assert len(loaded) == len(expected) > 0
            assert loaded == expected
    loads = [job.configuration["load"] for job in bigquery.jobs if "load" in job.configuration]
    loaded_tables = [load["destinationTable"]["tableId"] for load in loads]
    assert sorted(name for name in loaded_tables if name.startswith("green_trips$")) == [
        f"green_trips${month.replace('-', '')}" for month in MONTHS
    ]
    pd.testing.assert_frame_equal(table(on_google, MONTHS[0]), table(embedded, MONTHS[0]))


def test_a_lake_that_was_copied_from_a_folder_is_neither_downloaded_nor_cleaned_again(
    on_google: TaxiDefinitions, cloud_storage: CloudStorage, bigquery: BigQuery, data: Path, tmp_path: Path
) -> None:
    local = Deployment(tmp_path, str(data / "months"))
    assert local.run("green", MONTHS[0]).success
    for path in (path for path in local.lake.rglob("*") if path.is_file()):  # as `gcloud storage rsync` does
        cloud_storage.put(f"nyc/{path.relative_to(local.lake)}", path.read_bytes())
    copied = {key: number for key, number in cloud_storage.objects().items() if key.startswith("nyc/")}

    result = run(on_google, MONTHS[0])

    assert result.success, failure_messages(result)
    assert metadata_value(result, "raw/green_trips", "fetched") == "unchanged"
    assert metadata_value(result, "clean/green_trips", "cleaning_outcome") == "unchanged"
    assert copied.items() <= cloud_storage.objects().items()  # no object was written again
    assert bigquery.sql("SELECT count(*) FROM taxi.green_trips") == [(rows_clean(result),)]


@pytest.mark.parametrize(
    ("storage_faults", "bigquery_faults", "job_faults"),
    [
        pytest.param([Fault(status=503)] * 3, [BigQueryFault(status=503)] * 3, [], id="503"),
        pytest.param([Fault(status=429)] * 3, [BigQueryFault(status=429)] * 3, [], id="429"),
        pytest.param([Fault(reset=True)] * 3, [BigQueryFault(reset=True)] * 3, [], id="dropped"),
        pytest.param(
            [Fault(status=503, after=True)] * 2, [BigQueryFault(status=503, after=True)] * 2, [], id="response lost"
        ),
        pytest.param([], [], [JobFault(reason="backendError", after_polls=2)], id="job fails late"),
        pytest.param([], [], [JobFault(reason="rateLimitExceeded")], id="job exceeds a rate"),
    ],
)
def test_transient_failures_are_retried_until_the_run_succeeds(
    on_google: TaxiDefinitions,
    cloud_storage: CloudStorage,
    bigquery: BigQuery,
    storage_faults: list[Fault],
    bigquery_faults: list[BigQueryFault],
    job_faults: list[JobFault],
) -> None:
    cloud_storage.script(*storage_faults, method="POST", path="/upload/")
    bigquery.script(*bigquery_faults, method="POST", path="/jobs")
    bigquery.script_job(*job_faults, kind="load", destination="green_trips$")

    result = run(on_google, MONTHS[0])

    assert result.success, failure_messages(result)
    assert bigquery.sql("SELECT count(*) FROM taxi.green_trips") == [(rows_clean(result),)]


@pytest.mark.parametrize(
    ("fault", "tries", "reason"),
    [
        (JobFault(reason="quotaExceeded", message="Quota exceeded: too many loads."), 4, "too many loads"),
        (
            JobFault(reason="accessDenied", message="Access Denied: bigquery.tables.updateData"),
            1,
            "roles/bigquery.dataEd",
        ),
    ],
)
def test_a_permanent_failure_fails_the_run_with_the_reason_from_google_and_loads_nothing(
    on_google: TaxiDefinitions, bigquery: BigQuery, fault: JobFault, tries: int, reason: str
) -> None:
    bigquery.script_job(*[fault] * tries, kind="load", destination="green_trips$")
    (text,) = failure_messages(run(on_google, MONTHS[0]))
    assert reason in text
    assert "\n" not in text
    assert bigquery.sql("SELECT count(*) FROM taxi.green_trips") == [(0,)]
    assert run(on_google, MONTHS[0]).success


def rows_clean(result: dg.ExecuteInProcessResult) -> int:
    return int(metadata_value(result, "clean/green_trips", "rows_clean"))
