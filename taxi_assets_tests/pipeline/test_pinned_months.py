"""A month that TLC has revised twice: it can be rebuilt from each revision, and stays pinned until it is released."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import duckdb
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from taxi_assets.automation.outdated_months import outdated_months
from taxi_assets.cli.backfill import cli
from taxi_assets.cli.doctor import stores
from taxi_assets.cli.doctor.check_runner import CheckRunner
from taxi_assets.storage.lake.local_lake import LocalLake
from taxi_assets.storage.lake.revisions import Revisions
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.services.green import GREEN
from taxi_assets_tests.loopback_publisher import LoopbackPublisher
from taxi_assets_tests.pipeline_harness import (
    Deployment,
    check_results,
    data_versions,
    failure_messages,
    materializations,
    metadata_value,
)
from taxi_assets_tests.trips import csv_lines

if TYPE_CHECKING:
    from collections.abc import Sequence

MONTH = "2021-03"
FILE = f"green_tripdata_{MONTH}.csv"
CLEAN = f"clean/green_trips/{MONTH}.parquet"
LAYERS = ["quarantine/green_trips", "clean/green_trips", "warehouse/green_trips"]
BOTH_PASS = {"row_counts_reconcile": True, "matches_clean": True}


def versions() -> list[bytes]:
    """Return the file as first published; with one row removed and three added; and with one corrected fare."""
    lines = [*csv_lines(Month(2021, 3), 203, dirty=4)]
    first = [*lines[:201], *lines[204:]]
    second = [*lines[:10], *lines[11:]]
    fields = second[20].split(",")
    fields[9] = "77.25"
    third = [*second[:20], ",".join(fields), *second[21:]]
    return ["".join(f"{line}\n" for line in found).encode() for found in (first, second, third)]


def blocking_checks(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    return {name: passed for name, passed in check_results(result).items() if name in BOTH_PASS}


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass(frozen=True)
class RevisedMonth:
    """A deployment with three revisions of a month. Its publisher is gone."""

    deployment: Deployment
    instance: dg.DagsterInstance
    published: list[bytes] = field(default_factory=versions)

    def run(self, only: Sequence[str] = LAYERS, **config: str) -> dg.ExecuteInProcessResult:
        """Run some layers of the month, which must succeed, with this run config of the cleaning step."""
        result = self.deployment.run("green", MONTH, instance=self.instance, only=only, cleaning=config)
        assert failure_messages(result) == []
        return result

    def rows(self) -> list[Any]:
        with duckdb.connect(str(self.deployment.warehouse), read_only=True) as connection:
            return connection.execute(
                "SELECT count(*), sum(fare_amount) FROM taxi.green_trips WHERE data_month = DATE '2021-03-01'"
            ).fetchall()


@pytest.fixture
def month(tmp_path: Path) -> Any:
    with dg.DagsterInstance.ephemeral() as instance:
        with LoopbackPublisher() as publisher:
            revised = RevisedMonth(Deployment(tmp_path / "home", publisher.base), instance)
            for content in revised.published:
                publisher.publish(FILE, content)
                result = revised.deployment.run("green", MONTH, instance=instance)
                assert failure_messages(result) == []
                assert blocking_checks(result) == BOTH_PASS
        yield revised


def test_three_revisions_are_on_disk_as_published_and_each_can_be_rebuilt_without_the_publisher(
    month: RevisedMonth,
) -> None:
    lake = LocalLake(folder=str(month.deployment.lake))
    kept = Revisions.of(lake, GREEN, MONTH).list_all()
    assert [Path(lake.uri(revision.key)).read_bytes() for revision in kept] == month.published[::-1]

    present, data = month.rows(), {}
    for content in month.published:
        result = month.run(revision=digest(content)[:8])
        assert blocking_checks(result) == BOTH_PASS
        assert metadata_value(result, "clean/green_trips", "pinned_revision") == digest(content)
        assert metadata_value(result, "warehouse/green_trips", "raw_sha256") == digest(content)
        assert metadata_value(result, "warehouse/green_trips", "rows_raw") == content.count(b"\n") - 1
        data[data_versions(result)["clean/green_trips"]] = month.rows()
    assert len(data) == 3
    first, second, third = data.values()
    assert [rows[0][0] for rows in (first, second, third)] == [200, 202, 202]
    assert second[0][1] != third[0][1]
    assert third == present

    released = month.run(revision="present")
    assert "pinned_revision" not in materializations(released)["clean/green_trips"].metadata
    assert data_versions(released)["clean/green_trips"] not in data
    assert month.rows() == present


def test_the_comparison_names_exactly_the_rows_that_differ_without_the_publisher_and_while_another_is_pinned(
    month: RevisedMonth, tmp_path: Path
) -> None:
    first, second, _ = map(digest, month.published)
    month.run(revision=first[:12])
    clean = (month.deployment.lake / CLEAN).read_bytes()
    corrected = {"change": "changed", "changed_column": "fare_amount", "new_value": "77.25", "new_source_row": 20}
    assert differences(month) == [{**corrected, "old_source_row": 20, "row_count": 1}]
    assert (month.deployment.lake / CLEAN).read_bytes() == clean

    before = RevisedMonth(Deployment(tmp_path / "before", "sample"), month.instance)  # as if there were no third one
    raw = Path(shutil.copytree(month.deployment.lake / "raw", before.deployment.lake / "raw")) / "green_trips"
    for name in (".csv", ".source.json"):
        (raw / "revisions" / MONTH / f"{second[:12]}{name}").replace(raw / f"{MONTH}{name}")
    unset = {"changed_column": None, "new_value": None, "row_count": 1}
    assert sorted(differences(before), key=str) == sorted(
        [
            {"change": "removed", "old_source_row": 10, "new_source_row": None, **unset},
            *({"change": "added", "old_source_row": None, "new_source_row": row, **unset} for row in (200, 201, 202)),
        ],
        key=str,
    )


def differences(month: RevisedMonth) -> list[dict[str, Any]]:
    """Compare the two newest revisions; return how their rows differ."""
    defs = month.deployment.definitions()
    result = defs.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=month.instance,
        partition_key=MONTH,
        asset_selection=[dg.AssetKey(["revisions", "green_trips"])],
        raise_on_error=False,
    )
    assert failure_messages(result) == []
    columns = ["change", "changed_column", "new_value", "old_source_row", "new_source_row", "row_count"]
    found = pq.read_table(month.deployment.lake / "revisions" / "green_trips" / f"{MONTH}.parquet", columns=columns)
    return list(found.to_pylist())


def test_a_pinned_month_stays_pinned_without_history_and_with_other_rules_until_it_is_released(
    month: RevisedMonth,
) -> None:
    first, last = month.published[0], month.published[-1]
    month.run(revision=digest(first)[:12])
    with dg.DagsterInstance.ephemeral() as other:  # the history is lost
        month = RevisedMonth(month.deployment, other)
        again = month.run()
        assert metadata_value(again, "clean/green_trips", "cleaning_outcome") == "unchanged"
        assert other.get_run_by_id(again.run_id).tags["taxi_assets/pinned"] == digest(first)[:12]  # type: ignore[union-attr]
        fewer_rules = month.deployment.run("green", MONTH, instance=other, only=LAYERS, rules=[])
        assert metadata_value(fewer_rules, "clean/green_trips", "pinned_revision") == digest(first)
        assert blocking_checks(fewer_rules) == BOTH_PASS
        released = month.run(revision="present")
        assert metadata_value(released, "clean/green_trips", "raw_sha256") == digest(last)
        assert "taxi_assets/pinned" not in other.get_run_by_id(released.run_id).tags  # type: ignore[union-attr]


@pytest.mark.parametrize("digits", ["ffff0000", "present ", "no digits"])
def test_an_unknown_revision_is_one_error_that_lists_those_that_exist(month: RevisedMonth, digits: str) -> None:
    before = month.rows()
    result = month.deployment.run("green", MONTH, only=LAYERS, cleaning={"revision": digits})
    (message,) = [text for text in failure_messages(result) if "RevisionError" in text]
    assert f"no revisions begin with {digits!r}" in message
    assert [message.find(digest(content)[:12]) > 0 for content in month.published] == [True] * 3
    assert month.rows() == before


def test_digits_that_several_revisions_share_are_refused(month: RevisedMonth) -> None:
    revisions = Revisions.of(LocalLake(folder=str(month.deployment.lake)), GREEN, MONTH)
    for digits, count in (("", "3"), (" ", "3")):
        with pytest.raises(Exception, match=f"{count} revisions begin with"):
            revisions.find(digits)


def test_the_pinned_revision_is_never_deleted_and_the_commands_show_it(
    month: RevisedMonth, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = (digest(content)[:12] for content in month.published)
    month.run(revision=first)
    monkeypatch.setenv("DAGSTER_HOME", str(month.deployment.home))
    monkeypatch.setenv("TAXI_LAKE", str(month.deployment.lake))

    def command(*options: str) -> list[str]:
        ended = CliRunner().invoke(cli, ["revisions", "--service", "green", *options])
        assert ended.exit_code == 0, ended.output
        return [line for line in ended.output.splitlines() if line]

    listed = command()
    assert [line.split()[2] for line in listed] == [third, second, first]
    assert [line.rpartition("  ")[2] for line in (listed[0], listed[2])] == ["present", "pinned"]
    assert f"{len(month.published[1]):,} bytes, 206 rows  http://127.0.0.1" in listed[1]
    assert command("--month", MONTH) == listed
    assert stores.pinned(_checks()) == f"green {MONTH} ({first}); automation leaves them alone"

    spared = f"Not deleted are the files to which these months are pinned: {MONTH}."
    to_delete, *rest = command("--keep", "0")
    assert (to_delete.split()[2], rest) == (second, ["To delete with DELETE=1: 1.", spared])
    assert command() == listed
    assert command("--keep", "0", "--delete")[-2:] == ["Deleted: 1.", spared]
    assert [line.split()[2] for line in command()] == [third, first]
    assert month.run().success
    month.run(revision="present")
    assert stores.pinned(_checks()) == "none"
    assert command("--keep", "0", "--delete")[-1] == "Deleted: 1."
    assert command() == ["green has no month with older revisions in the lake."]


def _checks() -> CheckRunner:
    checks = CheckRunner(10)
    checks.run("lake", "stores:lake")
    return checks


def test_the_marts_of_an_older_revision_are_computed_in_scratch_stores(month: RevisedMonth, tmp_path: Path) -> None:
    """As docs/how-to/revisions.md describes; hard links take no space."""
    scratch = Deployment(tmp_path / "scratch", "sample")
    shutil.copytree(
        month.deployment.lake / "raw", scratch.lake / "raw", copy_function=lambda a, b: Path(b).hardlink_to(a)
    )
    files = {path: path.read_bytes() for path in month.deployment.home.rglob("*") if path.is_file()}

    older = RevisedMonth(scratch, month.instance)
    older.run(revision=digest(month.published[0])[:12])
    assert scratch.run("reference", None).success
    assert scratch.run("marts", MONTH).success

    with duckdb.connect(str(scratch.warehouse), read_only=True) as connection:
        trips = connection.execute("SELECT sum(trips) FROM taxi.zone_day WHERE service = 'green'").fetchall()
    assert older.rows()[0][0] == 200
    assert 0 < trips[0][0] <= 200
    assert {path: path.read_bytes() for path in month.deployment.home.rglob("*") if path.is_file()} == files


def test_a_pinned_month_is_not_outdated(month: RevisedMonth) -> None:
    changed = replace(GREEN, rules=GREEN.rules[1:])
    assert [str(found.month) for found in outdated_months(month.instance, changed)] == [MONTH]
    month.run(revision=digest(month.published[0])[:12])
    assert outdated_months(month.instance, changed) == []
    month.run(revision="present")
    assert [str(found.month) for found in outdated_months(month.instance, changed)] == [MONTH]
