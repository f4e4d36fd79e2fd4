"""Values of TAXI_SOURCE: the publisher, its URLs, and their order."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from taxi_assets.errors import PublisherUnreachableError
from taxi_assets.resources.publisher import PublisherResource
from taxi_assets.tlc.file_format import FileFormat
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.services.green import GREEN
from taxi_assets.tlc.services.registry import SERVICES
from taxi_assets.tlc.services.yellow import YELLOW
from taxi_assets.tlc.sources.publishers import PUBLISHERS, public_url, resolve_publisher, source_of

if TYPE_CHECKING:
    from pathlib import Path

MONTH = Month(2021, 1)
TLC_ZONES = "https://d37ci6vzurychx.cloudfront.net/misc/taxi_zone_lookup.csv"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def urls(source: str, service: str = "yellow", month: Month = MONTH) -> list[str]:
    return [source_url.url for source_url in resolve_publisher(source).source_urls(SERVICES[service], month)]


def mirror(name: str) -> str:
    return f"https://github.com/DataTalksClub/nyc-tlc-data/releases/download/{name}"


def tlc(name: str) -> str:
    return f"https://d37ci6vzurychx.cloudfront.net/trip-data/{name}"


@pytest.mark.parametrize("month", ["2019-01", "2021-07"])
def test_auto_tries_the_mirrors_csv_first_and_tlcs_parquet_second(month: str) -> None:
    assert urls("auto", "green", Month.parse(month)) == [
        mirror(f"green/green_tripdata_{month}.csv.gz"),
        tlc(f"green_tripdata_{month}.parquet"),
    ]


@pytest.mark.parametrize("month", ["2009-01", "2018-12", "2021-08", "2025-02"])
def test_auto_uses_only_tlc_outside_the_mirrors_range(month: str) -> None:
    assert urls("auto", "yellow", Month.parse(month)) == [tlc(f"yellow_tripdata_{month}.parquet")]


def test_source_urls_name_the_actual_publisher_and_the_format() -> None:
    source_urls = resolve_publisher("auto").source_urls(YELLOW, MONTH)
    assert [(c.publisher, c.format) for c in source_urls] == [
        ("datatalksclub", FileFormat.CSV_GZ),
        ("tlc", FileFormat.PARQUET),
    ]


def test_a_publisher_selected_by_name_is_the_only_source() -> None:
    assert urls("tlc") == [tlc("yellow_tripdata_2021-01.parquet")]
    assert urls("datatalksclub") == [mirror("yellow/yellow_tripdata_2021-01.csv.gz")]


def test_the_mirror_selected_by_name_has_urls_outside_its_range() -> None:
    assert urls("datatalksclub", month=Month(2031, 1)) == [mirror("yellow/yellow_tripdata_2031-01.csv.gz")]


def test_the_synthetic_sample_needs_no_network() -> None:
    publisher = resolve_publisher("sample")
    (trips,) = publisher.source_urls(YELLOW, MONTH)
    (zones,) = publisher.zones()
    assert (trips.url, trips.publisher, trips.format) == ("sample:yellow/2021-01", "sample", FileFormat.CSV_GZ)
    assert (zones.url, zones.format) == ("sample:taxi_zone_lookup", FileFormat.CSV)


@pytest.mark.parametrize("source", ["auto", "datatalksclub", "tlc"])
def test_zones_come_from_tlc(source: str) -> None:
    assert [source_url.url for source_url in resolve_publisher(source).zones()] == [TLC_ZONES]


FILE_ENDINGS = (".csv.gz", ".csv", ".parquet", ".zip")
FOLDER_ENDINGS = (".parquet/", ".csv/")


def test_a_folder_is_searched_for_files_and_folders_of_parts_in_order(tmp_path: Path) -> None:
    (tmp_path / "my months").mkdir()
    publisher = resolve_publisher("my months")
    assert publisher.name == "my months"
    folder = (tmp_path / "my months").as_uri()
    assert [c.url for c in publisher.source_urls(GREEN, MONTH)] == [
        f"{folder}/green_tripdata_2021-01{extension}" for extension in (*FILE_ENDINGS, *FOLDER_ENDINGS)
    ]
    assert [c.format for c in publisher.source_urls(GREEN, MONTH)] == [*FileFormat, FileFormat.ZIP, FileFormat.ZIP]
    assert [c.url for c in publisher.zones()] == [f"{folder}/taxi_zone_lookup.csv", "sample:taxi_zone_lookup"]


def test_a_folder_may_be_absolute_or_a_file_url_and_end_in_a_slash(tmp_path: Path) -> None:
    expected = [
        f"{tmp_path.as_uri()}/yellow_tripdata_2021-01{extension}" for extension in (*FILE_ENDINGS, *FOLDER_ENDINGS)
    ]
    for source in (str(tmp_path), f"{tmp_path}/", tmp_path.as_uri(), f"{tmp_path.as_uri()}/"):
        assert urls(source) == expected


def test_a_relative_folder_is_resolved_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "months").mkdir()
    monkeypatch.chdir(tmp_path)
    assert urls("months")[0] == f"{tmp_path.as_uri()}/months/yellow_tripdata_2021-01.csv.gz"


def test_a_publishers_name_takes_precedence_over_a_folder_with_that_name(tmp_path: Path) -> None:
    (tmp_path / "sample").mkdir()
    assert resolve_publisher("sample").name == "sample"
    assert resolve_publisher("./sample").name == "./sample"


def test_a_service_of_another_publisher_keeps_its_file_names_and_has_no_tlc_url(tmp_path: Path) -> None:
    bikes = replace(GREEN, name="bikes", file_name="{month.start:%Y%m}-bikes-tripdata")
    found = [source_url.url for source_url in resolve_publisher(str(tmp_path)).source_urls(bikes, MONTH)]
    assert found == [f"{tmp_path.as_uri()}/202101-bikes-tripdata{end}" for end in (*FILE_ENDINGS, *FOLDER_ENDINGS)]
    for source in ("auto", "tlc", "datatalksclub", "sample"):
        assert resolve_publisher(source).source_urls(bikes, MONTH) == []


def test_a_web_server_is_searched_and_its_zone_table_falls_back_to_tlc() -> None:
    publisher = resolve_publisher("https://files.example.org/taxi/")
    assert [c.url for c in publisher.source_urls(GREEN, MONTH)] == [
        f"https://files.example.org/taxi/green_tripdata_2021-01{extension}" for extension in FILE_ENDINGS
    ]
    assert [c.url for c in publisher.zones()] == ["https://files.example.org/taxi/taxi_zone_lookup.csv", TLC_ZONES]


def test_a_location_keeps_its_secrets_for_requests_but_never_shows_them() -> None:
    publisher = resolve_publisher("https://me:hush@files.example.org:8443/taxi?sig=s3cret#top")
    assert publisher.name == "https://files.example.org:8443/taxi"
    assert "hush" not in repr(publisher)
    assert "s3cret" not in repr(publisher)
    source_url = publisher.source_urls(GREEN, MONTH)[0]
    assert source_url.publisher == publisher.name
    assert source_url.url == "https://me:hush@files.example.org:8443/taxi/green_tripdata_2021-01.csv.gz?sig=s3cret"
    assert public_url(source_url.url) == "https://files.example.org:8443/taxi/green_tripdata_2021-01.csv.gz"


@pytest.mark.parametrize("url", ["sample:yellow/2021-01", "sample:taxi_zone_lookup", "file:///tmp/a%20b/c.csv"])
def test_urls_without_secrets_are_shown_unchanged(url: str) -> None:
    assert public_url(url) == url


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("smaple", "no such publisher and no such folder: smaple"),
        ("../nowhere/months", "no such folder: ../nowhere/months"),
        ("file:///nowhere/months", "no such folder: file:///nowhere/months"),
        ("file://server/months", "write file:///folder"),
        ("file:months", "write file:///folder"),
        ("ftp://me:hush@host/months", "begin with ftp:// are not supported"),
        ("http://", "host or port cannot be read"),
        ("http://me:hu#sh@host/months", "host or port cannot be read"),
        ("https://[::1/hush", "host or port cannot be read"),
        ("", "It is empty"),
        ("  ", "It is empty"),
    ],
)
def test_any_other_value_is_rejected_with_the_accepted_values(source: str, cause: str) -> None:
    with pytest.raises(ValueError, match=f"Use {', '.join(PUBLISHERS)}, a folder that exists") as error:
        resolve_publisher(source)
    assert cause in str(error.value)
    assert "hush" not in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_is_not_a_publisher(tmp_path: Path) -> None:
    (tmp_path / "green_tripdata_2021-01.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="is a file, not a folder"):
        resolve_publisher("green_tripdata_2021-01.csv")


# --- publishers of single services ------------------------------------------------------------------------------------

BIKES = replace(GREEN, name="bikes", file_name="{month}-bikes", publisher="https://bikes.example.org/data")


@pytest.mark.parametrize(
    ("source", "service_sources", "expected"),
    [
        ("auto", {}, "https://bikes.example.org/data"),
        ("tlc", {}, "https://bikes.example.org/data"),
        ("datatalksclub", {"green": "sample"}, "https://bikes.example.org/data"),
        ("sample", {}, "sample"),
        ("/srv/files", {}, "/srv/files"),
        ("gs://bucket/files", {}, "gs://bucket/files"),
        ("auto", {"bikes": "gs://bikes"}, "gs://bikes"),
        ("sample", {"bikes": "gs://bikes"}, "gs://bikes"),
        ("/srv/files", {"bikes": "tlc"}, "tlc"),
    ],
)
def test_the_publisher_of_a_service_is_the_one_that_is_meant(
    source: str, service_sources: dict[str, str], expected: str
) -> None:
    """Documented in docs/settings.md."""
    assert source_of(BIKES, source, service_sources) == expected


def test_a_service_without_a_publisher_of_its_own_uses_the_shared_one() -> None:
    for source in ("auto", "sample", "gs://bucket/files"):
        assert source_of(GREEN, source, {"yellow": "tlc"}) == source
        assert source_of(GREEN, source, {"green": "tlc"}) == "tlc"


def test_a_resource_gives_each_service_its_publisher(tmp_path: Path) -> None:
    resource = PublisherResource(source="auto", service_sources={"green": str(tmp_path), "yellow": str(tmp_path / "x")})
    assert resource.publisher.name == "auto"
    assert resource.publisher_of(GREEN).name == str(tmp_path)
    assert resource.publisher_of(BIKES).name == "https://bikes.example.org/data"
    with pytest.raises(PublisherUnreachableError, match="Restore its folder, or change TAXI_SOURCE_YELLOW"):
        resource.publisher_of(YELLOW)
