"""A month that the publisher revises twice: the comparison names exactly the rows that differ."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from taxi_assets.automation.publication.run_tags import PARTITION_TAG, UNCOMPARED_TAG
from taxi_assets.partitions import monthly_partitions
from taxi_assets.tlc.revision_report import RevisionReport, revision_columns
from taxi_assets.tlc.schema import build_arrow_schema
from taxi_assets.tlc.services.green import GREEN
from taxi_assets_tests.html_pages import HtmlPage
from taxi_assets_tests.pipeline_harness import Deployment, failure_messages, materializations
from taxi_assets_tests.trips import csv_lines

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

from taxi_assets.tlc.month import Month

MONTH = "2021-03"
ASSET = "revisions/green_trips"
LINES = list(csv_lines(Month(2021, 3), 200, dirty=3))
FARE, TOTAL = 9, 16  # positions in a line


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    (tmp_path / "published").mkdir()
    return Deployment(tmp_path / "home", source=str(tmp_path / "published"))


def load(deployment: Deployment, lines: Sequence[str], instance: dg.DagsterInstance) -> Mapping[str, str]:
    """Publish a file, and load the month; return the tags of the run."""
    published = deployment.home.parent / "published" / f"green_tripdata_{MONTH}.csv"
    published.write_text("\n".join(lines) + "\n")
    result = deployment.run("green", MONTH, instance=instance)
    assert failure_messages(result) == []
    assert ASSET not in materializations(result)
    run = instance.get_run_by_id(result.run_id)
    assert run is not None
    return run.tags


def compare(deployment: Deployment, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    job = dg.define_asset_job("compare", dg.AssetSelection.assets(["revisions", "green_trips"]))
    merged = dg.Definitions.merge(deployment.definitions(), dg.Definitions(jobs=[job]))
    return merged.resolve_job_def("compare").execute_in_process(
        instance=instance, tags={PARTITION_TAG: MONTH}, partition_key=MONTH, raise_on_error=False
    )


def differences(deployment: Deployment) -> list[dict[str, Any]]:
    return list(pq.read_table(deployment.lake / ASSET / f"{MONTH}.parquet").to_pylist())


def with_fare(line: str, fare: str, total: str) -> str:
    fields = line.split(",")
    fields[FARE], fields[TOTAL] = fare, total
    return ",".join(fields)


def metadata_of(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    assert failure_messages(result) == []
    return {name: value.value for name, value in materializations(result)[ASSET].metadata.items()}


def test_the_comparison_of_a_month_that_was_revised_twice(deployment: Deployment, instance: dg.DagsterInstance) -> None:
    load(deployment, LINES, instance)
    load(deployment, [*LINES[:50], *LINES[52:]], instance)  # rows 50 and 51 are removed
    first = metadata_of(compare(deployment, instance))
    assert (first["rows_removed"], first["rows_added"], first["rows_changed"]) == (2, 0, 0)
    assert [(row["change"], row["old_source_row"]) for row in differences(deployment)] == [
        ("removed", 50),
        ("removed", 51),
    ]

    # The removed rows are back, one of them at the end; another row is new, and a fare is corrected.
    corrected = with_fare(LINES[10], "1.00", "2000.00")
    new = LINES[20].replace("2021-03-01 04", "2021-03-07 04")
    second = [LINES[0], new, *LINES[1:10], corrected, *LINES[11:50], LINES[51], *LINES[52:], LINES[50]]
    load(deployment, second, instance)
    found = metadata_of(compare(deployment, instance))
    old_total = Decimal(LINES[10].split(",")[TOTAL])
    cents = [Decimal(line.split(",")[TOTAL]) for line in (new, LINES[50], LINES[51])]
    difference = sum(cents) + 2000 - old_total
    assert found["cents"] == int(difference * 100)
    assert found["revision"] == f"green {MONTH} was revised: 1 row changed, 3 rows added, +{difference:,.2f} dollars"
    rows = differences(deployment)
    assert Counter(row["change"] for row in rows) == {"changed": 2, "added": 3}
    shown = ["changed_column", "new_value", "new_source_row"]
    assert [tuple(row[name] for name in shown) for row in rows if row["change"] == "changed"] == [
        ("fare_amount", "1.00", 11), ("total_amount", "2000.00", 11),
    ]  # fmt: skip
    assert sorted(row["new_source_row"] for row in rows if row["change"] == "added") == [1, 51, len(second) - 1]
    assert "2,000.00" in found["largest_differences"]
    assert found["quarantined_newer"] == found["quarantined_older"] == 3

    # Nothing else is written: the clean month is that of the newest file, and no temporary file remains.
    footer = pq.read_metadata(deployment.lake / ASSET / f"{MONTH}.parquet").metadata
    report = RevisionReport.from_footer(footer)
    assert report is not None
    assert report.new_sha256[:12] in found["newer"]
    assert [*(deployment.lake / ".staging").rglob("*")] == []
    frame = deployment.definitions().load_asset_value(ASSET, partition_key=MONTH)
    assert len(frame) == len(rows)  # type: ignore[arg-type]


def test_a_month_with_one_revision_is_not_compared_and_says_so(
    deployment: Deployment, instance: dg.DagsterInstance
) -> None:
    load(deployment, LINES, instance)
    assert metadata_of(compare(deployment, instance)) == {
        "nothing_to_compare": f"green {MONTH}: the lake has one revision, so there is nothing to compare."
    }
    assert not (deployment.lake / "revisions").exists()


def test_runs_mark_a_revised_month_for_automation_until_it_has_been_compared(
    deployment: Deployment, instance: dg.DagsterInstance
) -> None:
    def marks(lines: Sequence[str]) -> bool:
        return UNCOMPARED_TAG in load(deployment, lines, instance)

    revised = [*LINES[:50], *LINES[51:]]
    assert [marks(LINES), marks(LINES), marks(revised), marks(revised)] == [False, False, True, True]
    compare(deployment, instance)
    assert [marks(revised), marks(LINES)] == [False, True]


def test_a_damaged_clean_file_is_named_and_can_be_deleted_and_built_again(
    deployment: Deployment, instance: dg.DagsterInstance
) -> None:
    load(deployment, LINES, instance)
    load(deployment, [*LINES[:50], *LINES[51:]], instance)
    clean = deployment.lake / "clean" / "green_trips" / f"{MONTH}.parquet"
    content = clean.read_bytes()
    clean.write_bytes(content[:4] + bytes(2000) + content[2004:])
    (message,) = failure_messages(compare(deployment, instance))
    assert message.startswith(f"{clean} is damaged: its rows cannot be read (")
    assert "Delete this file, and materialize the clean asset of this month again." in message
    assert message.endswith("[LakeObjectDamagedError]")

    clean.unlink()
    load(deployment, [*LINES[:50], *LINES[51:]], instance)
    assert metadata_of(compare(deployment, instance))["rows_removed"] == 1


def own_asset(allowed: dict[str, bool], found: list[Any]) -> dg.AssetsDefinition:
    rows = dg.AssetIn(["revisions", "green_trips"], metadata=allowed)

    @dg.asset(key=["mine", "reader"], partitions_def=monthly_partitions(GREEN), ins={"rows": rows})
    def reader(rows: pa.Table) -> None:
        found.append(rows)

    return reader


def test_an_own_asset_is_not_advised_to_compare_a_month_with_one_revision_and_can_read_it_as_no_rows(
    deployment: Deployment, instance: dg.DagsterInstance
) -> None:
    def read(**allowed: bool) -> tuple[list[str], list[Any]]:
        found: list[Any] = []
        job = dg.define_asset_job("read", dg.AssetSelection.assets(["mine", "reader"]))
        own = dg.Definitions(assets=[own_asset(allowed, found)], jobs=[job])
        merged = dg.Definitions.merge(deployment.definitions(), own)
        result = merged.resolve_job_def("read").execute_in_process(
            instance=instance, partition_key=MONTH, raise_on_error=False
        )
        return failure_messages(result), found

    load(deployment, LINES, instance)
    compare(deployment, instance)
    ((message,), _) = read()
    assert message == (
        f"{ASSET} has no file for {MONTH}: the lake has only one revision of this month, so there is nothing to "
        "compare. To get no rows for such a month, add the metadata allow_missing_partitions: true to the input. "
        "[LakeObjectMissingError]"
    )
    messages, (rows,) = read(allow_missing_partitions=True)
    assert messages == []
    assert (rows.num_rows, rows.schema) == (0, build_arrow_schema(revision_columns(GREEN)))

    load(deployment, [*LINES[:50], *LINES[51:]], instance)
    ((message,), _) = read()
    assert f"Materialize {ASSET} for these partitions first." in message
    compare(deployment, instance)
    messages, (rows,) = read()
    assert (messages, rows.num_rows) == ([], 1)


def test_a_first_run_of_all_assets_of_a_service_makes_the_report_of_the_month(
    deployment: Deployment, instance: dg.DagsterInstance
) -> None:
    """Dagster skips what depends on an asset that is not materialized."""
    load(deployment, LINES, instance)
    defs = deployment.definitions()
    job = dg.define_asset_job("all_of_green", dg.AssetSelection.groups("green"))
    result = (
        dg.Definitions.merge(defs, dg.Definitions(jobs=[job]))
        .resolve_job_def("all_of_green")
        .execute_in_process(instance=instance, partition_key=MONTH)
    )
    assert result.success
    assert (deployment.lake / "reports" / "green_trips" / MONTH / "report.html").exists()


def test_a_month_that_was_cleaned_by_other_rules_is_compared_by_the_present_ones(
    deployment: Deployment, instance: dg.DagsterInstance
) -> None:
    load(deployment, LINES, instance)
    load(deployment, LINES[:-1], instance)  # the last row has zero passengers
    deployment.run("green", MONTH, instance=instance, rules=[])
    assert pq.read_metadata(deployment.lake / "clean" / "green_trips" / f"{MONTH}.parquet").num_rows == len(LINES) - 2
    found = metadata_of(compare(deployment, instance))
    assert (found["rows_newer"], found["rows_older"]) == (200, 200)
    assert (found["quarantined_newer"], found["quarantined_older"]) == (2, 3)
    assert found["revision"] == f"green {MONTH} was revised: no clean row differs"


def test_the_report_shows_the_comparison_of_the_month_as_it_is_until_the_month_is_revised_again(
    deployment: Deployment, instance: dg.DagsterInstance
) -> None:
    def report() -> HtmlPage:
        result = deployment.run_report("green", MONTH)
        assert failure_messages(result) == []
        return HtmlPage((deployment.lake / "reports" / "green_trips" / MONTH / "report.html").read_text())

    chart = deployment.lake / "reports" / "green_trips" / MONTH / "revision.png"
    load(deployment, LINES, instance)
    load(deployment, [*LINES[:50], *LINES[52:]], instance)
    assert "Revision" not in report().texts
    sentence = metadata_of(compare(deployment, instance))["revision"]
    compared = report()
    assert compared.text_after("Revision").startswith(f"{sentence}. The clean trips")
    assert any("trips that differ between the two newest revisions" in image["alt"] for image in compared.images)
    assert chart.read_bytes() in compared.png_bytes()
    load(deployment, LINES[:190], instance)
    assert "Revision" not in report().texts
    assert not chart.exists()


def test_a_revision_that_cannot_be_cleaned_is_named_in_the_error(
    deployment: Deployment, instance: dg.DagsterInstance
) -> None:
    load(deployment, LINES, instance)
    load(deployment, LINES[:-1], instance)
    (older,) = (deployment.lake / "raw" / "green_trips" / "revisions" / MONTH).glob("*.csv")
    older.write_bytes(b"x" * older.stat().st_size)
    (message,) = failure_messages(compare(deployment, instance))
    assert older.stem in message
    assert not (deployment.lake / "revisions").exists()
