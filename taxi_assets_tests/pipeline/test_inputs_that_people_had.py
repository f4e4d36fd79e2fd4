"""Files of kinds that people really had: each is read with the right values, or refused with the reason.

The folders of `../shared/cases` have the same 60 invented trips in different forms.
"""

from __future__ import annotations

import gzip
from functools import cache
from typing import TYPE_CHECKING, Any

import pyarrow.parquet
import pytest

from taxi_assets_tests.loopback_publisher import Answer, LoopbackPublisher
from taxi_assets_tests.pipeline_harness import (
    Deployment,
    failure_messages,
    metadata_value,
    read_stored_month,
    stray_files,
)
from taxi_assets_tests.trip_files import REAL

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import dagster as dg

    Runs = Callable[[str], tuple[Deployment, dg.ExecuteInProcessResult]]

CASES = REAL.parent / "cases"
MONTH = "2021-03"
COLUMNS = [
    "pickup_datetime",
    "dropoff_datetime",
    "passenger_count",
    "pickup_location_id",
    "dropoff_location_id",
    "fare_amount",
    "tip_amount",
    "tolls_amount",
    "total_amount",
]
PUBLISHED = [
    *("lpep_pickup_datetime", "lpep_dropoff_datetime", "passenger_count", "pu_location_id", "do_location_id"),
    *("fare_amount", "tip_amount", "tolls_amount", "total_amount"),
]

pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="the folder ../shared/cases is missing")


@pytest.fixture(scope="module")
def trips() -> list[tuple[Any, ...]]:
    """The 60 trips, read without the code under test."""
    table = pyarrow.parquet.read_table(CASES / "01-mage-snake-case" / "green_tripdata_2021-03.parquet")
    return comparable(table.select(PUBLISHED))


def comparable(table: Any) -> list[tuple[Any, ...]]:
    return [
        (*row[:5], *(round(100 * float(amount)) for amount in row[5:]))
        for row in zip(*(column.to_pylist() for column in table.columns), strict=True)
    ]


def service_of(case: str) -> str:
    return next((CASES / case).iterdir()).name.split("_")[0]


def run(case: str, home: Path, month: str = MONTH) -> tuple[Deployment, dg.ExecuteInProcessResult]:
    deployment = Deployment(home, str(CASES / case))
    service = service_of(case)
    layers = [f"{layer}/{service}_trips" for layer in ("raw", "clean", "quarantine", "warehouse")]
    return deployment, deployment.run(service, month, only=layers)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """A function that runs March of a case once. Tests do not change its deployment."""

    @cache
    def first_run(case: str) -> tuple[Deployment, dg.ExecuteInProcessResult]:
        return run(case, tmp_path_factory.mktemp(case))

    return first_run


def stored(deployment: Deployment, service: str) -> list[tuple[Any, ...]]:
    path = deployment.lake / "clean" / f"{service}_trips" / f"{MONTH}.parquet"
    return comparable(pyarrow.parquet.read_table(path).select(COLUMNS))


@pytest.mark.parametrize(
    ("case", "malformed"),
    [
        ("01-mage-snake-case", 0),
        ("03-timestamps-adjusted-to-utc", 0),
        ("06-open-data-csv", 0),
        ("09-spark-directory", 0),
        ("10-both-airport-fees", 0),
        ("12-pandas-index-bom-crlf-quotes", 0),
        ("14a-ehail-a", 0),
        ("16a-polars-ns", 0),
        ("16c-z-suffix", 0),
        ("17-wrong-month", 0),
        ("26-parts-other-order", 1),  # the repeated header
        ("27-parts-more-columns", 1),
        ("28-dlt-layout", 0),
        ("31-quoted-commas", 0),
    ],
)
def test_the_file_is_read_with_the_right_values(
    case: str, malformed: int, trips: list[tuple[Any, ...]], runs: Runs
) -> None:
    deployment, result = runs(case)
    assert failure_messages(result) == []
    service = service_of(case)
    assert stored(deployment, service) == trips
    month = read_stored_month(deployment, service, MONTH)
    assert month.is_consistent
    assert month.quarantine is not None
    assert month.quarantine.rows == malformed


@pytest.mark.parametrize("case", ["03-timestamps-adjusted-to-utc", "16c-z-suffix", "28-dlt-layout"])
def test_the_metadata_says_that_times_marked_as_utc_are_local(case: str, runs: Runs) -> None:
    _, result = runs(case)
    text = str(metadata_value(result, f"clean/{service_of(case)}_trips", "interpretations"))
    assert "pickup_datetime" in text
    assert "UTC" in text


def test_the_airport_fee_is_that_of_the_column_that_has_one(runs: Runs) -> None:
    deployment, _ = runs("10-both-airport-fees")
    published = pyarrow.parquet.read_table(CASES / "10-both-airport-fees" / "yellow_tripdata_2021-03.parquet")
    both = zip(published["airport_fee"].to_pylist(), published["Airport_fee"].to_pylist(), strict=True)
    clean = pyarrow.parquet.read_table(deployment.lake / "clean" / "yellow_trips" / f"{MONTH}.parquet")
    expected = [lower if upper is None else upper for lower, upper in both]
    assert [None if fee is None else float(fee) for fee in clean["airport_fee"].to_pylist()] == expected


def test_an_index_column_of_pandas_has_a_readable_name(runs: Runs) -> None:
    _, result = runs("12-pandas-index-bom-crlf-quotes")
    assert "(field 1)" in str(metadata_value(result, "clean/yellow_trips", "unknown_columns"))


def test_the_file_of_march_is_not_loaded_as_april(tmp_path: Path) -> None:
    deployment, result = run("17-wrong-month", tmp_path, "2021-04")
    (message,) = failure_messages(result)
    assert "yellow 2021-04: 0 of 60 pickups are in 2021-04; 60 in 2021-03" in message
    assert "[WrongMonthError]" in message
    month = read_stored_month(deployment, "yellow", "2021-04")
    assert (month.clean, month.quarantine, month.warehouse, month.loaded) == (None, None, (), None)
    assert stray_files(deployment) == []
    # The refused month does not keep March from being loaded.
    assert failure_messages(run("17-wrong-month", tmp_path)[1]) == []


def test_the_bytes_of_march_are_not_loaded_as_april(runs: Runs, tmp_path: Path) -> None:
    runs("17-wrong-month")[0].copy_to(tmp_path)
    deployment, result = run("17-wrong-month", tmp_path, "2021-04")
    (message,) = failure_messages(result)
    assert "has the same bytes as the file of 2021-03" in message
    assert "[WrongMonthError]" in message
    assert read_stored_month(deployment, "yellow", "2021-04").clean is None


def test_run_config_allows_a_file_of_another_month(runs: Runs, tmp_path: Path) -> None:
    deployment = runs("17-wrong-month")[0].copy_to(tmp_path)
    config = {"allow_other_months": True, "allow_same_file": True}
    layers = [f"{layer}/yellow_trips" for layer in ("raw", "clean", "quarantine", "warehouse")]
    result = deployment.run("yellow", "2021-04", only=layers, cleaning=config)
    assert failure_messages(result) == []
    assert read_stored_month(deployment, "yellow", "2021-04").is_consistent


def test_a_semicolon_is_named(tmp_path: Path) -> None:
    deployment, result = run("15a-semicolon", tmp_path)
    (message,) = failure_messages(result)
    assert "its columns are separated by semicolons, not by commas" in message
    assert read_stored_month(deployment, "yellow", MONTH).raw == {}


def test_a_content_encoding_is_decoded(trips: list[tuple[Any, ...]], tmp_path: Path) -> None:
    (path,) = (CASES / "37-http-content-encoding").iterdir()
    with LoopbackPublisher({}) as publisher:
        encoded = Answer(body=gzip.compress(path.read_bytes()), headers={"Content-Encoding": "gzip", "ETag": '"1"'})
        publisher.script(path.name, *[encoded] * 9)
        deployment = Deployment(tmp_path, publisher.url("").rstrip("/"))
        layers = [f"{layer}/yellow_trips" for layer in ("raw", "clean", "quarantine", "warehouse")]
        assert failure_messages(deployment.run("yellow", MONTH, only=layers)) == []
    assert stored(deployment, "yellow") == trips
