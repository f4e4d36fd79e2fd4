"""The marts of a real month, compared with sums that pandas computes from the published file."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING, Any, NoReturn

import dagster as dg
import pandas as pd
import pytest

from taxi_assets.assets.mart_tables import mart_asset, mart_key
from taxi_assets.automation.failure_reason import failure_reason
from taxi_assets.build import build_definitions
from taxi_assets.io_managers.warehouse_table import WarehouseTableIOManager
from taxi_assets.marts.mart import marts, read_mart
from taxi_assets.partitions import all_services_partitions
from taxi_assets.settings import Settings
from taxi_assets.storage.lake.local_lake import LocalLake
from taxi_assets.storage.warehouse.duckdb import DuckDBWarehouse
from taxi_assets_tests.contract.mart_trips import ZONES
from taxi_assets_tests.contract.stores.postgres import postgres_server, postgres_url
from taxi_assets_tests.pipeline_harness import Deployment, check_results, failure_messages, materializations
from taxi_assets_tests.table_rows import store_rows

if TYPE_CHECKING:
    from pathlib import Path

    from taxi_assets.build import TaxiDefinitions
    from taxi_assets.marts.mart import Mart
    from taxi_assets.storage.warehouse.base_warehouse import Warehouse

__all__ = ["postgres_server", "postgres_url"]

MONTH = "2023-01"
DAY = pd.Timedelta("1D")
PAYMENTS = {1: "Credit card", 2: "Cash", 3: "No charge", 4: "Dispute", 5: "Unknown", -1: "Not recorded"}
UNKNOWN_ZONES = {264: "Unknown", 265: "Outside of NYC"}
Rows = dict[tuple[Any, ...], dict[str, Any]]


# --- expected: computed by pandas from the file -----------------------------------------------------------------------


def counted(folder: Path) -> pd.DataFrame:
    """Return the month's valid rows, each with what it adds to every mart."""
    rows = pd.read_parquet(folder / f"green_tripdata_{MONTH}.parquet")
    start = pd.Timestamp(f"{MONTH}-01")
    end = start + pd.offsets.MonthBegin()
    pickup, dropoff = rows["lpep_pickup_datetime"], rows["lpep_dropoff_datetime"]
    violated = (
        (pickup < start - pd.offsets.MonthBegin())
        | (pickup >= end + DAY)
        | (dropoff <= pickup)
        | (dropoff - pickup > DAY)
        | (rows["passenger_count"] == 0)
        | ~rows["trip_distance"].between(0, 500)
    )
    rows, pickup, dropoff = rows[~violated], pickup[~violated], dropoff[~violated]
    is_trip = ~(rows["total_amount"] < 0)
    zones = pd.read_csv(folder / "taxi_zone_lookup.csv", keep_default_na=False).set_index("LocationID")
    boroughs, names = ({**zones[column], **UNKNOWN_ZONES} for column in ("Borough", "Zone"))
    payment = rows["payment_type"].fillna(-1).astype(int)
    return pd.DataFrame(
        {
            "data_month": start.date(),
            "service": "green",
            "pickup_date": pickup.dt.date,
            "pickup_hour": pickup.dt.hour,
            "pickup_isodow": pickup.dt.dayofweek + 1,
            "pickup_location_id": rows["PULocationID"],
            "pickup_borough": rows["PULocationID"].map(boroughs),
            "pickup_zone": rows["PULocationID"].map(names),
            "dropoff_borough": rows["DOLocationID"].map(boroughs),
            "payment_type": payment,
            "payment": payment.map(PAYMENTS),
            "days": pickup.dt.dayofweek.map(pd.date_range(start, end, inclusive="left").dayofweek.value_counts()),
            "trips": is_trip.astype(int),
            "trips_within_month": (is_trip & (pickup >= start) & (pickup < end)).astype(int),
            "passengers": rows["passenger_count"].where(is_trip),
            "miles": exact(rows["trip_distance"], "0.001").where(is_trip),
            "seconds": (dropoff - pickup).dt.total_seconds().where(is_trip),
            "timed_trips": is_trip.astype(int).where(is_trip),
            "fare": exact(rows["fare_amount"], "0.01"),
            "tips": exact(rows["tip_amount"], "0.01"),
            "revenue": exact(rows["total_amount"], "0.01"),
        }
    )


def exact(values: pd.Series[Any], places: str) -> pd.Series[Any]:
    return values.map(lambda value: Decimal(repr(value)).quantize(Decimal(places), ROUND_HALF_UP))


def computed(rows: pd.DataFrame, mart: Mart) -> Rows:
    """Return the rows that the mart must have, by its key."""
    labels = [column.name for column in mart.columns if column.name not in {*mart.key, *mart.measures}]
    found = {}
    for key, group in rows.groupby([*mart.key, *labels]):
        values = dict(zip([*mart.key, *labels], key, strict=True))
        found[key[: len(mart.key)]] = values | {measure: total(group[measure]) for measure in mart.measures}
    return found


def total(values: pd.Series[Any]) -> Decimal | None:
    recorded = [Decimal(str(value)) for value in values if pd.notna(value)]
    return sum(recorded, Decimal(0)) if recorded else None


# --- found: computed by the platform ----------------------------------------------------------------------------------


def materialized(home: Path, data: Path, warehouse: str, *, only: str | None = None) -> TaxiDefinitions:
    """Materialize the month, the zones and all marts; of the month `only` one layer, if the lake has the others."""
    definitions = build_definitions(
        Settings(lake=str(home / "lake"), warehouse=warehouse, source=str(data / "months"))  # type: ignore[arg-type]  # read by its validators
    )
    with dg.DagsterInstance.ephemeral() as instance:
        for job, month in (("green", MONTH), ("reference", None), ("marts", MONTH)):
            result = definitions.resolve_job_def(job).execute_in_process(
                instance=instance,
                partition_key=month,
                asset_selection=[dg.AssetKey([only, "green_trips"])] if only and job == "green" else None,
                raise_on_error=False,
            )
            assert result.success, failure_messages(result)
    return definitions


def stored(definitions: TaxiDefinitions, mart: Mart) -> Rows:
    """Return the rows of the mart, by its key."""
    frame = definitions.load_asset_value(f"marts/{mart.name}", partition_key=MONTH)
    assert isinstance(frame, pd.DataFrame)
    records: list[dict[Any, Any]] = frame.astype(object).to_dict("records")
    for record in records:
        for measure in mart.measures:
            record[measure] = None if pd.isna(record[measure]) else Decimal(str(record[measure]))
    found = {tuple(record[name] for name in mart.key): record for record in records}
    assert len(found) == len(records)
    return found


@pytest.fixture(scope="module")
def rows(data: Path) -> pd.DataFrame:
    return counted(data / "months")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("marts")


@pytest.fixture(scope="module")
def definitions(home: Path, data: Path) -> TaxiDefinitions:
    """Return definitions with a materialized month on DuckDB."""
    return materialized(home, data, f"duckdb:///{home / 'warehouse.duckdb'}")


@pytest.mark.parametrize("name", marts())
def test_a_mart_equals_what_pandas_computes_from_the_file_to_the_cent(
    definitions: TaxiDefinitions, rows: pd.DataFrame, name: str
) -> None:
    assert stored(definitions, marts()[name]) == computed(rows, marts()[name])


def test_the_file_has_the_special_cases_of_marts(rows: pd.DataFrame) -> None:
    assert 0 < (rows["trips"] == 0).sum() < len(rows)  # reversals
    assert rows["trips_within_month"].sum() < rows["trips"].sum()
    assert {"Unknown", "Outside of NYC"} <= {*rows["pickup_borough"]}
    assert rows["passengers"].isna().any()


@pytest.mark.usefixtures("definitions")
def test_trips_per_hour_count_only_pickups_within_the_month(home: Path, rows: pd.DataFrame) -> None:
    warehouse = DuckDBWarehouse(file=str(home / "warehouse.duckdb"))
    found = warehouse.read_portable_frame("SELECT pickup_isodow, pickup_hour, trips_per_hour FROM hour_of_week_ratios")
    hours = rows.groupby(["pickup_isodow", "pickup_hour"])
    wanted = hours["trips_within_month"].sum() / hours["days"].first()
    assert found.set_index(["pickup_isodow", "pickup_hour"])["trips_per_hour"].to_dict() == pytest.approx(
        wanted.to_dict()
    )


def test_the_marts_on_postgres_equal_those_on_duckdb(
    definitions: TaxiDefinitions, home: Path, data: Path, postgres_url: str
) -> None:
    on_postgres = materialized(home, data, postgres_url, only="warehouse")
    for mart in marts().values():
        assert stored(on_postgres, mart) == stored(definitions, mart)


# --- custom marts -----------------------------------------------------------------------------------------------------

AIRPORTS = """/*
description: Trips from the airports, and what they cost beyond the fare.
counts: some
key: [data_month, service, pickup_location_id]
columns:
  extras: {type: money_sum, unit: US dollars, description: What was charged beyond fare and tip.}
measures: [trips, extras, revenue]
*/
SELECT data_month, service, pickup_location_id,
  SUM(revenue - fare - tips) AS extras, SUM(trips) AS trips, SUM(revenue) AS revenue
FROM all_trips
WHERE pickup_location_id IN (1, 132, 138)
GROUP BY data_month, service, pickup_location_id;
CREATE VIEW airports_ratios AS
SELECT data_month, pickup_location_id, CAST(extras AS DOUBLE) / NULLIF(trips, 0) AS extras_per_trip FROM airports
"""


def run(mart: Mart, home: Path, *others: dg.AssetsDefinition) -> dg.ExecuteInProcessResult:
    """Materialize the month of a mart and other assets, as a deployment would, with the mart's checks."""
    warehouse = DuckDBWarehouse(file=str(home / "warehouse.duckdb"))
    retry = dg.RetryPolicy(max_retries=2)
    with dg.DagsterInstance.ephemeral() as instance:
        return (
            dg.Definitions(
                assets=[mart_asset(mart, retry), *others],
                resources={
                    "lake": LocalLake(folder=str(home / "lake")),
                    "warehouse": warehouse,
                    "warehouse_table": WarehouseTableIOManager(warehouse=warehouse),
                },
            )
            .resolve_implicit_global_asset_job_def()
            .execute_in_process(instance=instance, partition_key=MONTH, raise_on_error=False)
        )


@pytest.mark.usefixtures("definitions")
def test_a_mart_with_a_custom_measure_over_some_trips_needs_only_its_sql_file(home: Path, rows: pd.DataFrame) -> None:
    mart = read_mart("airports", AIRPORTS)
    result = run(mart, home)
    assert result.success, failure_messages(result)
    assert check_results(result) == {"key_is_unique": True}
    rows = rows[rows["pickup_location_id"].isin([1, 132, 138])]
    found = DuckDBWarehouse(file=str(home / "warehouse.duckdb")).read_portable_frame("SELECT * FROM airports")
    extras = (rows["revenue"] - rows["fare"] - rows["tips"]).groupby(rows["pickup_location_id"]).sum()
    assert dict(zip(found["pickup_location_id"], found["extras"], strict=True)) == extras.to_dict()
    assert found["trips"].sum() == rows["trips"].sum() > 0


@pytest.mark.usefixtures("definitions")
def test_custom_measures_are_not_compared_with_the_trips(home: Path) -> None:
    text = AIRPORTS.replace("counts: some\n", "").replace("WHERE pickup_location_id IN (1, 132, 138)\n", "")
    result = run(read_mart("extras", text.replace("airports", "extras")), home)
    assert check_results(result) == {"key_is_unique": True, "totals_match_trips": True}


@pytest.mark.usefixtures("definitions")
def test_a_mart_without_a_service_column_is_compared_with_the_trips_of_all_services(home: Path) -> None:
    text = AIRPORTS.replace("counts: some\n", "").replace("service, ", "").replace("airports", "together")
    fewer = read_mart("together", text)
    whole = read_mart("together", text.replace("WHERE pickup_location_id IN (1, 132, 138)\n", ""))
    for mart, totals_match_trips in ((fewer, False), (whole, True)):
        assert check_results(run(mart, home)) == {"key_is_unique": True, "totals_match_trips": totals_match_trips}


@pytest.mark.usefixtures("definitions")
def test_a_mart_that_leaves_trips_out_without_declaring_it_fails_its_check(home: Path) -> None:
    result = run(read_mart("fewer", AIRPORTS.replace("counts: some\n", "").replace("airports", "fewer")), home)
    assert check_results(result) == {"key_is_unique": True, "totals_match_trips": False}


@pytest.mark.usefixtures("definitions")
def test_a_failed_check_stops_downstream_assets_and_is_not_retried(home: Path) -> None:
    mart = read_mart("stopped", AIRPORTS.replace("counts: some\n", "").replace("airports", "stopped"))

    @dg.asset(deps=[mart_key(mart)], partitions_def=all_services_partitions())
    def downstream() -> None: ...

    result = run(mart, home, downstream)
    assert not result.success
    assert set(materializations(result)) == {"marts/stopped"}
    assert not [event for event in result.all_events if event.is_step_up_for_retry]
    (failure,) = failure_messages(result)
    assert failure.startswith(
        "marts/stopped 2023-01, check totals_match_trips: The totals differ from those of the trips: green trips: "
    )
    assert failure_reason(result.all_events).startswith(
        "marts/stopped, check totals_match_trips: The totals differ from those of the trips"
    )
    passing = read_mart("passed", AIRPORTS.replace("airports", "passed"))
    other = downstream.with_attributes(asset_key_replacements={mart_key(mart): mart_key(passing)})
    assert set(materializations(run(passing, home, other))) == {"marts/passed", "downstream"}


@pytest.mark.usefixtures("definitions")
@pytest.mark.parametrize("name", ["key_is_unique", "totals_match_trips"])
def test_a_check_can_be_executed_without_its_mart(definitions: TaxiDefinitions, name: str) -> None:
    selection = dg.AssetSelection.checks(dg.AssetCheckKey(dg.AssetKey(["marts", "zone_day"]), name))
    job = dg.define_asset_job("only_check", selection)
    with dg.DagsterInstance.ephemeral() as instance:
        result = (
            dg.Definitions.merge(definitions, dg.Definitions(jobs=[job]))
            .resolve_job_def("only_check")
            .execute_in_process(instance=instance, tags={"dagster/partition": MONTH})
        )
    assert check_results(result) == {name: True}
    assert not materializations(result)


@pytest.mark.usefixtures("definitions")
def test_a_mart_whose_check_cannot_be_evaluated_is_materialized_and_the_run_fails(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(warehouse: Warehouse, *_: object, **__: object) -> NoReturn:
        raise warehouse.table_missing_error("all_of_them")

    monkeypatch.setattr("taxi_assets.assets.mart_tables.evaluate_mart", broken)
    result = run(read_mart("airports", AIRPORTS), home)
    (failure,) = failure_messages(result)
    assert "The table " in failure
    assert " does not exist in " in failure
    assert set(materializations(result)) == {"marts/airports"}


@pytest.mark.usefixtures("definitions")
@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("SELECT data_month, service", "SELEC data_month, service", "cannot be parsed"),
        ("SUM(revenue - fare - tips)", "SUM(revenue - fare - tolls)", "Column 'tolls' could not be resolved"),
    ],
)
def test_an_sql_error_in_a_mart_fails_the_run_without_a_retry(home: Path, right: str, wrong: str, message: str) -> None:
    result = run(read_mart("mistaken", AIRPORTS.replace(right, wrong).replace("airports", "mistaken")), home)
    (failure,) = failure_messages(result)
    assert "mistaken: " in failure
    assert message in failure
    assert not [event for event in result.all_events if event.is_step_up_for_retry]


def test_a_mart_is_skipped_if_only_services_are_loaded_that_it_does_not_count(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path, "sample")
    store_rows(DuckDBWarehouse(file=str(deployment.warehouse)), "taxi_zones", ZONES)
    messages = failure_messages(deployment.run("marts", "2021-01"))
    assert len(messages) == len(marts())
    assert all("2021-01: the warehouse has no trips of " in each for each in messages)
    assert deployment.run("fhv", "2021-01").success
    result = deployment.run("marts", "2021-01")
    assert result.success, failure_messages(result)
    assert set(materializations(result)) == {f"marts/{name}" for name in marts()} - {"marts/payment_mix"}
    evaluated = {check.asset_key.path[-1] for check in result.get_asset_check_evaluations()}
    assert evaluated == {*marts()} - {"payment_mix"}
