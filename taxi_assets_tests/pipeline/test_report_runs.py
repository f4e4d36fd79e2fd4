"""The reports of real months, compared with numbers that pandas computes from the published file."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import dagster as dg
import duckdb
import pandas as pd
import pytest

from taxi_assets.assets.quality import months_in
from taxi_assets.build import build_definitions
from taxi_assets.settings import Settings
from taxi_assets.storage.lake.local_lake import LocalLake
from taxi_assets_tests.contract.stores.gcs import cloud_storage, open_lake
from taxi_assets_tests.html_pages import HtmlPage
from taxi_assets_tests.pipeline_harness import Deployment, materializations

if TYPE_CHECKING:
    from pathlib import Path

    from taxi_assets_tests.google.cloud_storage import CloudStorage

__all__ = ["cloud_storage"]

FOOTER = 65_536
GREEN = "reports/green_trips"
DASH = "\N{EN DASH}"
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


@dataclass(frozen=True)
class Independent:
    """What a month's page must show, computed by pandas from the published file."""

    trips: int
    revenue: Decimal
    busiest_day: str
    busiest_hour: int
    busiest_trips: float
    miles: float
    minutes: float
    card_tips: float
    reasons: dict[str, int]
    top_zone: tuple[int, int]

    @classmethod
    def of(cls, path: Path, month: str) -> Independent:
        rows = pd.read_parquet(path)
        start = pd.Timestamp(f"{month}-01")
        end = start + pd.offsets.MonthBegin()
        pickup, dropoff = rows["lpep_pickup_datetime"], rows["lpep_dropoff_datetime"]
        violated = pd.DataFrame(
            {
                "pickup_outside_month": (pickup < start - pd.offsets.MonthBegin())
                | (pickup >= end + pd.Timedelta("1D")),
                "dropoff_not_after_pickup": dropoff <= pickup,
                "zero_passengers": rows["passenger_count"] == 0,
                "distance_out_of_range": (rows["trip_distance"] < 0) | (rows["trip_distance"] > 500),
                "longer_than_24_hours": dropoff - pickup > pd.Timedelta("1D"),
            }
        )
        clean = rows[~violated.any(axis=1)]
        trips = clean[~(clean["total_amount"] < 0)]
        pickup = trips["lpep_pickup_datetime"]
        within = pickup[(pickup >= start) & (pickup < end)]
        by_hour = Counter(zip(within.dt.dayofweek, within.dt.hour, strict=True))
        of_weekday = Counter(pd.date_range(start, end, inclusive="left").dayofweek)
        mean = {(day, hour): trips / of_weekday[day] for (day, hour), trips in by_hour.items()}
        weekday, hour = max(mean, key=lambda place: mean[place])
        card = clean[clean["payment_type"] == 1]
        zones = trips["PULocationID"].value_counts()
        return cls(
            trips=len(trips),
            revenue=sum((Decimal(str(v)).quantize(Decimal("0.01")) for v in clean["total_amount"]), Decimal(0)),
            busiest_day=DAYS[weekday],
            busiest_hour=int(hour),
            busiest_trips=mean[weekday, hour],
            miles=trips["trip_distance"].mean(),
            minutes=(trips["lpep_dropoff_datetime"] - pickup).dt.total_seconds().mean() / 60,
            card_tips=card["tip_amount"].sum() / card["fare_amount"].sum(),
            reasons={str(name): int(count) for name, count in violated.sum().items() if count},
            top_zone=(int(zones.index[0]), int(zones.iloc[0])),
        )


@dataclass(frozen=True)
class Reported:
    """A lake with the months green 2023-01 and 2023-02, and fhv 2019-01, and the materializations of their reports."""

    deployment: Deployment
    materializations: dict[str, dg.AssetMaterialization]

    def folder(self, service: str, month: str) -> Path:
        return self.deployment.lake / "reports" / f"{service}_trips" / month

    def page(self, service: str, month: str) -> HtmlPage:
        return HtmlPage((self.folder(service, month) / "report.html").read_text())


@pytest.fixture(scope="module")
def reported(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Reported:
    home = tmp_path_factory.mktemp("reported")
    materialized = {}
    for source, service, months in (("months", "green", ["2023-01", "2023-02"]), ("first100", "fhv", ["2019-01"])):
        deployment = Deployment(home, str(data / source))
        if service == "green":
            zones = deployment.definitions().resolve_job_def("reference")
            with dg.DagsterInstance.ephemeral() as instance:
                assert zones.execute_in_process(instance=instance).success
        for month in months:
            assert deployment.run(service, month).success
            result = deployment.run_report(service, month)
            assert result.success
            materialized[f"{service} {month}"] = materializations(result)[f"reports/{service}_trips"]
    return Reported(deployment, materialized)


@pytest.fixture(scope="module")
def january(data: Path) -> Independent:
    return Independent.of(data / "months" / "green_tripdata_2023-01.parquet", "2023-01")


@pytest.fixture(scope="module")
def february(data: Path) -> Independent:
    return Independent.of(data / "months" / "green_tripdata_2023-02.parquet", "2023-02")


def test_the_headline_equals_what_pandas_finds_in_the_file(reported: Reported, january: Independent) -> None:
    page = reported.page("green", "2023-01")
    assert page.text_after("Trips") == f"{january.trips:,}"
    assert page.text_after("Revenue") == f"${january.revenue:,.0f}"
    hours = f"{january.busiest_hour:02d}:00{DASH}{january.busiest_hour + 1:02d}:00"
    assert page.text_after("Busiest hour") == f"{january.busiest_day[:3]} {hours}"
    assert page.text_after("Trips in the busiest hour") == f"{january.busiest_trips:,.0f}"
    assert page.text_after("Mean distance") == f"{january.miles:.2f} miles"
    assert page.text_after("Mean duration") == f"{january.minutes:.1f} minutes"
    assert page.text_after("Tips as a share of fares") == f"{january.card_tips:.1%}"


def test_the_metrics_that_the_ui_plots_are_rounded_and_equal_what_pandas_finds_in_the_file(
    reported: Reported, january: Independent
) -> None:
    shown: dict[str, Any] = {
        name: value.value for name, value in reported.materializations["green 2023-01"].metadata.items()
    }
    assert shown["trips"] == january.trips
    assert shown["revenue_dollars"] == round(january.revenue)
    assert shown["miles_per_trip"] == round(january.miles, 2)
    assert shown["minutes_per_trip"] == round(january.minutes, 1)
    assert shown["trips_in_busiest_hour"] == round(january.busiest_trips)
    assert shown["page"] == str(reported.folder("green", "2023-01") / "report.html")


def test_the_metadata_shows_the_main_content_of_the_page(reported: Reported, january: Independent) -> None:
    shown = reported.materializations["green 2023-01"].metadata["report"]
    assert isinstance(shown, dg.MarkdownMetadataValue)
    markdown = shown.md_str or ""
    assert markdown.startswith("# Green taxi, January 2023\n\n- Trips: ")
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown.splitlines() if "|" in line]
    rows = {row[0]: row[1:] for row in cells}
    assert rows["Trips"][:2] == [f"{january.trips:,}", "not loaded"]
    assert rows["Revenue"][0] == f"${january.revenue:,.0f}"
    assert rows["Credit card"][3] == f"{january.card_tips:.1%}"
    for reason, count in january.reasons.items():
        assert rows[reason.replace("_", "\\_")][0] == f"{count:,}", reason
    assert re.findall(r"!\[([\w ]+)\]\(data:image/png;base64,", markdown) == ["trips per day", "hour by weekday"]
    assert markdown.endswith(r"/reports/green\_trips/2023-01/report.html")
    assert len(markdown) < 60_000


def test_the_quarantine_table_counts_the_rows_that_violate_each_rule(reported: Reported, january: Independent) -> None:
    page = reported.page("green", "2023-01")
    table = page.texts[page.texts.index("Share of file") : page.texts.index("Source")]
    for reason, rows in january.reasons.items():
        assert table[table.index(reason) + 2] == f"{rows:,}", reason


def test_taxi_zones_are_shown_by_name(reported: Reported, january: Independent, data: Path) -> None:
    names = pd.read_csv(data / "months" / "taxi_zone_lookup.csv").set_index("LocationID")
    number, trips = january.top_zone
    (words,) = [image["alt"] for image in reported.page("green", "2023-01").images if "taxi zones" in image["alt"]]
    assert f"First: {names['Zone'][number]}, {names['Borough'][number]}, {trips:,} trips" in words


def test_a_month_is_compared_with_the_month_before(
    reported: Reported, january: Independent, february: Independent
) -> None:
    page = reported.page("green", "2023-02")
    row = page.texts.index("Trips", page.texts.index("Metric"))
    change = f"{february.trips / january.trips - 1:+.1%}".replace("-", "\N{MINUS SIGN}")
    assert page.texts[row : row + 4] == ["Trips", f"{february.trips:,}", f"{january.trips:,}", change]
    assert "Feb 2022: not loaded" in page.texts


def test_the_page_loads_nothing_and_its_charts_are_files_next_to_it(reported: Reported) -> None:
    for service, month, charts in (("green", "2023-01", 5), ("fhv", "2019-01", 2)):
        page = reported.page(service, month)
        assert page.loaded_urls == []
        assert all(image["alt"] and image["src"].startswith("data:image/png;base64,") for image in page.images)
        stored = {path.read_bytes() for path in reported.folder(service, month).glob("*.png")}
        assert set(page.png_bytes()) == stored
        assert len(stored) == charts


def test_the_page_of_a_service_without_money_shows_no_dollars(reported: Reported, data: Path) -> None:
    rows = pd.read_csv(data / "first100" / "fhv_tripdata_2019-01.csv", parse_dates=[1, 2])
    taken = rows["dropOff_datetime" if "dropOff_datetime" in rows else "dropoff_datetime"] - rows["pickup_datetime"]
    taken = taken[taken <= pd.Timedelta("1D")]
    page = reported.page("fhv", "2019-01")
    assert page.text_after("Trips") == f"{len(rows)}"
    assert page.text_after("Mean duration") == f"{taken.dt.total_seconds().mean() / 60:.1f} minutes"
    assert "$" not in " ".join(page.texts)


def test_a_report_whose_inputs_have_not_changed_is_not_written_again(reported: Reported) -> None:
    folder = reported.folder("green", "2023-01")
    before = {path.name: (path.stat().st_ino, hashlib.sha256(path.read_bytes()).digest()) for path in folder.iterdir()}
    again = materializations(reported.deployment.run_report("green", "2023-01"))[GREEN]
    after = {path.name: (path.stat().st_ino, hashlib.sha256(path.read_bytes()).digest()) for path in folder.iterdir()}
    assert after == before
    assert again.metadata["written"].value == "unchanged"
    first = reported.materializations["green 2023-01"].tags or {}
    assert (again.tags or {})["dagster/data_version"] == first["dagster/data_version"]


def test_a_report_without_zone_names_has_another_data_version_than_one_with_them(
    reported: Reported, tmp_path: Path
) -> None:
    copy = reported.deployment.copy_to(tmp_path)
    with duckdb.connect(str(copy.warehouse)) as connection:
        connection.execute("DROP TABLE taxi.taxi_zones")
    without = materializations(copy.run_report("green", "2023-01"))[GREEN]
    assert "First: Zone 74, " in (copy.lake / GREEN / "2023-01" / "report.html").read_text()
    assert without.tags != reported.materializations["green 2023-01"].tags


def test_a_chart_that_a_report_no_longer_has_is_deleted(reported: Reported, tmp_path: Path) -> None:
    copy = reported.deployment.copy_to(tmp_path)
    stale = copy.lake / "reports" / "fhv_trips" / "2019-01" / "fares_and_tips.png"
    stale.write_bytes(b"of a report that had money")
    assert copy.run_report("fhv", "2019-01").success
    assert not stale.exists()


def test_a_report_fails_if_the_warehouse_does_not_hold_the_clean_trips(reported: Reported, tmp_path: Path) -> None:
    copy = reported.deployment.copy_to(tmp_path)
    assert copy.run("fhv", "2019-01", only=["clean/fhv_trips", "quarantine/fhv_trips"], rules=[]).success
    result = copy.run_report("fhv", "2019-01")
    assert not result.success
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert "Materialize its warehouse asset" in str(failure.step_failure_data)


def test_the_quality_table_has_every_month_of_the_lake(reported: Reported, january: Independent) -> None:
    definitions = reported.deployment.definitions()
    with dg.DagsterInstance.ephemeral() as instance:
        result = definitions.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=instance, asset_selection=[dg.AssetKey(["quality", "month_quality"])]
        )
    (event,) = result.get_asset_materialization_events()
    table = definitions.load_asset_value("quality/month_quality")
    assert isinstance(table, pd.DataFrame)
    assert event.materialization.metadata["months"].value == 3
    months = table[table["reason"] == "all"]
    assert sorted(zip(months["service"], months["data_month"].astype(str), strict=True)) == [
        ("fhv", "2019-01-01"),
        ("green", "2023-01-01"),
        ("green", "2023-02-01"),
    ]
    of_january = table[(table["service"] == "green") & (table["data_month"].astype(str) == "2023-01-01")]
    found = of_january.set_index("reason")["rows_quarantined"].to_dict()
    assert {name: rows for name, rows in found.items() if name != "all"} == january.reasons
    assert (months["rows_raw"] == months["rows_clean"] + months["rows_quarantined"]).all()


@pytest.fixture
def bucket(reported: Reported, cloud_storage: CloudStorage) -> CloudStorage:
    """A bucket with the raw and clean objects of the lake's folder."""
    for layer in ("raw", "clean"):
        for path in (reported.deployment.lake / layer).rglob("*.*"):
            cloud_storage.put(f"nyc/taxi/{path.relative_to(reported.deployment.lake)}", path.read_bytes())
    return cloud_storage


def test_only_the_footers_of_the_months_in_a_bucket_are_read(reported: Reported, bucket: CloudStorage) -> None:
    lakes = open_lake(bucket.environment, bucket.bucket), LocalLake(folder=str(reported.deployment.lake))
    found, same = ([month.report for month in months_in(lake).values() if month is not None] for lake in lakes)
    assert found == same
    assert len(found) == 3
    assert max(request.sent_bytes for request in bucket.requests) <= FOOTER


def test_in_a_bucket_the_charts_are_published_before_the_page(reported: Reported, bucket: CloudStorage) -> None:
    definitions = build_definitions(
        Settings(warehouse=f"duckdb:///{reported.deployment.warehouse}"),  # type: ignore[arg-type]  # read by its validators
        resources={"lake": open_lake(bucket.environment, bucket.bucket)},
    )
    with dg.DagsterInstance.ephemeral() as instance:
        result = definitions.resolve_job_def("green_report").execute_in_process(
            instance=instance, partition_key="2023-01"
        )
    assert result.success
    folder = "nyc/taxi/reports/green_trips/2023-01"
    published = [key for key, _ in sorted(bucket.objects().items(), key=lambda item: item[1]) if key.startswith(folder)]
    assert [key.rpartition("/")[2] for key in published] == [
        *("trips_per_day.png", "hour_by_weekday.png", "top_zones.png", "fares_and_tips.png", "quarantine.png"),
        "report.html",
    ]
    local = reported.folder("green", "2023-01")
    for key in published:
        assert bucket.object(key) == (local / key.rpartition("/")[2]).read_bytes()
    page = materializations(result)["reports/green_trips"].metadata["page"].value
    assert page == f"https://storage.cloud.google.com/{bucket.bucket}/{folder}/report.html"
