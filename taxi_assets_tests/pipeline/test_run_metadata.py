"""Metadata of a run: what the UI can show of a month, in numbers with units and a sensible precision."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import dagster as dg
import duckdb
import pytest

from taxi_assets.addresses import DuckDBAddress, FolderAddress
from taxi_assets.build import build_definitions
from taxi_assets.settings import Settings
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.services.registry import SERVICES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from taxi_assets.build import TaxiDefinitions

MONTH = "2021-02"
JOBS = ("reference", "green", "green_report", "fhvhv", "marts", "quality")
IN_EVERY_LAYER = {
    *("dagster/partition_row_count", "file_bytes", "duration_seconds"),
    *("publisher", "url", "etag", "fetched_at", "preview"),
}
IN_EVERY_CLEANED_LAYER = {
    *("rows_raw", "rows_clean", "rows_quarantined", "quarantined_percent", "quarantined_by_reason", "rules"),
    *("absent_columns", "unknown_columns", "unreadable_columns", "interpretations", "raw_sha256"),
}
COUNTS = re.compile(r"(^|[_/])(rows?|row_count|row_number_sum|trips|passengers|months)(_|$)")
UNITS = re.compile(r"(^|_)(bytes|seconds|minutes|miles|dollars|percent|days)(_|$)")


@dataclass(frozen=True)
class Shown:
    """What the UI shows of the runs of all jobs."""

    materializations: Mapping[str, Mapping[str, dg.MetadataValue[Any]]]
    """Metadata of each materialization, by asset."""
    checks: Mapping[str, Mapping[str, dg.MetadataValue[Any]]]
    """Metadata of each evaluation, by asset and check."""
    warehouse: Path
    """The DuckDB file."""


def run(definitions: TaxiDefinitions, job: str, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    month = None if job in {"reference", "quality"} else MONTH
    result = definitions.resolve_job_def(job).execute_in_process(instance=instance, partition_key=month)
    assert result.success
    return result


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    home = tmp_path_factory.mktemp("shown")
    settings = Settings(
        lake=FolderAddress(folder=home / "lake"),
        warehouse=DuckDBAddress(file=home / "warehouse.duckdb"),
        source="sample",
    )
    definitions = build_definitions(settings)
    with dg.DagsterInstance.ephemeral() as instance:
        results = [run(definitions, job, instance) for job in JOBS]
    materialized = [event.materialization for r in results for event in r.get_asset_materialization_events()]
    evaluated = [check for r in results for check in r.get_asset_check_evaluations()]
    return Shown(
        {event.asset_key.to_user_string(): event.metadata for event in materialized},
        {f"{check.asset_key.to_user_string()} {check.check_name}": check.metadata for check in evaluated},
        home / "warehouse.duckdb",
    )


def numbers(metadata: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """All numbers, by name; those in JSON or a Markdown table go by the name of the whole."""
    for name, value in metadata.items():
        if isinstance(value, dg.IntMetadataValue | dg.FloatMetadataValue):
            yield name, value.value or 0
        elif isinstance(value, dg.JsonMetadataValue):
            yield from ((name, number) for number in found_in(value.data))


def found_in(data: Any) -> Iterator[float]:
    if isinstance(data, dict | list):
        for part in data.values() if isinstance(data, dict) else data:
            yield from found_in(part)
    elif isinstance(data, int | float):
        yield data


def unreadable_numbers(metadata: Mapping[str, Any]) -> list[str]:
    """Return the numbers with more than 4 decimals, and those that are neither counts nor have a unit in their name."""
    return [
        f"{name}: {number}"
        for name, number in numbers(metadata)
        if round(number, 4) != number or not (COUNTS.search(name) or UNITS.search(name))
    ]


def test_every_number_has_a_unit_in_its_name_or_is_a_count_and_at_most_four_decimals(shown: Shown) -> None:
    everything = {**shown.materializations, **shown.checks}
    assert {name: found for name, metadata in everything.items() if (found := unreadable_numbers(metadata))} == {}


def test_the_uri_of_each_month_in_the_lake_is_that_of_its_file(shown: Shown) -> None:
    files = {
        key: Path(url2pathname(urlsplit(metadata["dagster/uri"].value).path))
        for key, metadata in shown.materializations.items()
        if key.partition("/")[0] in {"raw", "clean", "quarantine", "reports"}
    }
    assert len(files) == 7
    for key, file in files.items():
        assert file.is_file()
        assert key in str(file)
    assert files["raw/green_trips"].stat().st_size == shown.materializations["raw/green_trips"]["file_bytes"].value


def test_every_table_can_be_queried_by_its_name(shown: Shown) -> None:
    tables = {key: metadata for key, metadata in shown.materializations.items() if "dagster/table_name" in metadata}
    assert {key.partition("/")[0] for key in tables} == {"warehouse", "marts", "reference", "quality"}
    with duckdb.connect(shown.warehouse, read_only=True) as client:
        for key, metadata in tables.items():
            name = metadata["dagster/table_name"].value
            assert name == f"warehouse.taxi.{key.partition('/')[2]}"
            rows = metadata.get("dagster/partition_row_count") or metadata["dagster/row_count"]
            assert client.execute(f"SELECT count(*) FROM {name}").fetchall() == [(rows.value,)]


def lineage(shown: Shown, asset: str) -> dict[str, set[tuple[str, str]]]:
    """Return, for each column of an asset, the assets and columns that it comes from."""
    deps = shown.materializations[asset]["dagster/column_lineage"].value.deps_by_column
    return {name: {(dep.asset_key.to_user_string(), dep.column_name) for dep in found} for name, found in deps.items()}


def columns(metadata: Mapping[str, Any]) -> list[str]:
    return [column.name for column in metadata["dagster/column_schema"].value.columns]


@pytest.mark.parametrize("service", ["green", "fhvhv"])
def test_each_column_is_traced_to_the_published_file(shown: Shown, service: str) -> None:
    table, known = f"{service}_trips", SERVICES[service]
    loaded = lineage(shown, f"warehouse/{table}")
    assert loaded == {column.name: {(f"clean/{table}", column.name)} for column in known.columns}

    published = columns(shown.materializations[f"raw/{table}"])
    clean = lineage(shown, f"clean/{table}")
    month = Month.parse(MONTH)
    read = {column.name for column in known.published_columns if column.is_published_in(month)}
    absent = str(shown.materializations[f"clean/{table}"]["absent_columns"].value).split(", ")
    assert clean.keys() == read - {*absent}
    assert {dep for deps in clean.values() for dep in deps} == {(f"raw/{table}", name) for name in published}

    quarantine = lineage(shown, f"quarantine/{table}")
    assert quarantine == {name: clean[name] for name in ("pickup_datetime", "total_amount") if name in clean}
    assert lineage(shown, "marts/zone_day")["trips"]


def test_no_number_in_a_text_or_table_has_more_than_four_decimals(shown: Shown) -> None:
    for name, metadata in {**shown.materializations, **shown.checks}.items():
        texts = {label: value.value for label, value in metadata.items() if isinstance(value.value, str)}
        texts = {label: text for label, text in texts.items() if "data:image/png" not in text}
        assert {label: found for label, text in texts.items() if (found := re.findall(r"\d+\.\d{5,}", text))} == {}, (
            name
        )


def test_every_kind_of_asset_and_check_is_covered(shown: Shown) -> None:
    kinds = {name.partition("/")[0] for name in shown.materializations}
    assert kinds == {"raw", "quarantine", "clean", "warehouse", "reference", "reports", "marts", "quality"}
    assert {name.rpartition(" ")[2] for name in shown.checks} >= {
        *("row_counts_reconcile", "share_quarantined", "row_count_in_range", "matches_clean", "totals_match_trips"),
    }


@pytest.mark.parametrize(
    "metadata",
    [
        {"quarantined_percent": dg.FloatMetadataValue(0.877870967741935)},
        {"quarantined": dg.FloatMetadataValue(0.87)},
        {"took": dg.IntMetadataValue(3)},
        {"rows_by_month": dg.JsonMetadataValue({"2021-01": 1.000004})},
    ],
    ids=["too many decimals", "no unit", "an integer without a unit", "in JSON"],
)
def test_the_search_finds_unreadable_numbers(metadata: Mapping[str, Any]) -> None:
    assert len(unreadable_numbers(metadata)) == 1


@pytest.mark.parametrize("service", ["green", "fhvhv"])
def test_every_layer_shows_its_size_and_its_source(shown: Shown, service: str) -> None:
    layers = {
        key.partition("/")[0]: {name: value.value for name, value in metadata.items()}
        for key, metadata in shown.materializations.items()
        if key.endswith(f"/{service}_trips") and not key.startswith("reports/")
    }

    assert layers.keys() == {"raw", "quarantine", "clean", "warehouse"}
    for layer, metadata in layers.items():
        assert metadata.keys() >= IN_EVERY_LAYER, layer
        assert metadata["publisher"] == "sample"
        assert "not TLC trip records" in str(metadata["sample"]), layer
    for layer in ("quarantine", "clean", "warehouse"):
        assert layers[layer].keys() >= IN_EVERY_CLEANED_LAYER, layer
        assert layers[layer]["raw_sha256"] == layers["raw"]["sha256"]
    assert layers["warehouse"]["loaded"] == "replaced"

    # Money is shown if the service reports a total. Otherwise it is absent, not 0.00.
    has_total = service == "green"
    assert ("quarantined_dollars" in layers["clean"]) == has_total
    assert ("dollars" in str(layers["clean"]["quarantined_by_reason"])) == has_total
