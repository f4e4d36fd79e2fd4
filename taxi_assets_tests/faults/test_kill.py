"""kill -9 at every crash point, in the middle of a write, and at random.

Each layer has the old or the new version, the checks detect layers of different versions, and the next run succeeds
without any manual step.
"""

from __future__ import annotations

import gzip
import os
import random
import signal
from dataclasses import replace
from typing import TYPE_CHECKING

import dagster as dg
import pytest

from taxi_assets_tests.faults.child_runs import ChildRun, Plan
from taxi_assets_tests.faults.conftest import FILE, MONTH, OTHER_MONTH, SERVICE
from taxi_assets_tests.pipeline_harness import Deployment, StoredMonth, failure_messages, read_stored_month, stray_files

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from taxi_assets_tests.faults.conftest import Republished

# Every crash point of a run that replaces an older version, and how many of its five writes are published by then. The
# writes are, in this order: raw object, its record, quarantine, clean, warehouse.
REPLACING = {
    "before revision": 0,
    "after revision": 0,
    "publishing revision record": 0,
    "before revision record": 0,
    "after revision record": 0,
    "publishing new record": 0,
    "before new record": 0,
    "after new record": 0,
    "publishing raw object": 0,
    "before raw object": 0,
    "after raw object": 1,
    "publishing raw record": 1,
    "before raw record": 1,
    "after raw record": 2,
    "publishing quarantine": 2,
    "before quarantine": 2,
    "after quarantine": 3,
    "publishing clean": 3,
    "before clean": 3,
    "after clean": 4,
    "before loading": 4,
    "before warehouse table": 4,
    "after warehouse table": 4,
    "after DELETE trips": 4,
    "after INSERT trips": 4,
    "after DELETE ledger": 4,
    "after INSERT ledger": 4,
    "before warehouse month": 4,
    "after warehouse month": 5,
    "after loading": 5,
}
# The same for a first run, which also creates the database file, and has no older file to keep.
FIRST = {
    point: writes
    for known, writes in REPLACING.items()
    if not known.endswith(("revision", "revision record", "new record"))
    for point in (
        (known, "before making warehouse.duckdb", "after making warehouse.duckdb")
        if known == "before loading"
        else (known,)
    )
}
# Between these and the neighboring crash point nothing durable happens, so one of the two is enough.
REDUNDANT = {
    *("publishing revision record", "before revision record", "publishing new record", "before new record"),
    *("publishing raw object", "publishing raw record", "publishing quarantine", "publishing clean"),
    *("before raw object", "before raw record", "before quarantine", "before clean"),
    *("before loading", "before warehouse table", "after DELETE ledger", "after INSERT ledger", "after loading"),
}
# In a first run there are no old rows that its transaction could lose.
REDUNDANT_IN_FIRST_RUN = REDUNDANT | {"after clean", "after DELETE trips", "before warehouse month"}

# The blocking checks that fail if they run alone after the kill. A raw object is compared with its own record instead.
FAILING_CHECKS = {
    "after raw object": set(),
    "after raw record": {"row_counts_reconcile"},
    "after quarantine": {"row_counts_reconcile"},
    "after clean": {"matches_clean"},
    "after warehouse month": set(),
}

NOTHING = StoredMonth(raw={}, record=None, quarantine=None, clean=None, warehouse=(), loaded=None)


def after_writes(older: StoredMonth, newer: StoredMonth, writes: int) -> StoredMonth:
    """Return the layers after this many of the five writes."""
    return StoredMonth(
        raw=(older, newer)[writes >= 1].raw,
        record=(older, newer)[writes >= 2].record,
        quarantine=(older, newer)[writes >= 3].quarantine,
        clean=(older, newer)[writes >= 4].clean,
        warehouse=(older, newer)[writes >= 5].warehouse,
        loaded=(older, newer)[writes >= 5].loaded,
    )


def assert_next_run_repairs(deployment: Deployment, newer: StoredMonth) -> None:
    result = deployment.run(SERVICE, MONTH)
    assert failure_messages(result) == []
    assert result.success
    assert read_stored_month(deployment, SERVICE, MONTH) == newer
    assert stray_files(deployment) == []


@pytest.mark.parametrize("crash_points", [FIRST, REPLACING])
def test_every_durable_write_has_a_crash_point(
    republished: Republished, copy_of: Callable[[Deployment], Deployment], crash_points: dict[str, int]
) -> None:
    """Fails if a durable write is added without its crash points above, where the other tests kill the run."""
    deployment = copy_of(republished.empty if crash_points is FIRST else republished.outdated)
    outcome = ChildRun(deployment, SERVICE, MONTH).wait()
    assert outcome.succeeded, outcome.failures
    assert outcome.crash_points == list(crash_points)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The short form tries every second crash point."""
    crash_points = {
        "crash_point_in_first_run": [point for point in FIRST if point not in REDUNDANT_IN_FIRST_RUN],
        "crash_point_in_replacement": [point for point in REPLACING if point not in REDUNDANT],
    }
    for name, points in crash_points.items():
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, points if metafunc.config.getoption("--long") else points[::2])


def test_the_next_run_repairs_a_first_run_that_was_killed(
    republished: Republished, copy_of: Callable[[Deployment], Deployment], crash_point_in_first_run: str
) -> None:
    deployment = copy_of(republished.empty)
    assert (
        ChildRun(deployment, SERVICE, MONTH, Plan(dies_at=crash_point_in_first_run)).wait().exit_code == -signal.SIGKILL
    )
    assert read_stored_month(deployment, SERVICE, MONTH) == after_writes(
        NOTHING, republished.newer, FIRST[crash_point_in_first_run]
    )
    assert_next_run_repairs(deployment, republished.newer)


def test_the_next_run_repairs_a_replacement_that_was_killed(
    republished: Republished, copy_of: Callable[[Deployment], Deployment], crash_point_in_replacement: str
) -> None:
    deployment, crash_point = copy_of(republished.outdated), crash_point_in_replacement
    writes = REPLACING[crash_point]
    other_month = read_stored_month(deployment, SERVICE, OTHER_MONTH)

    assert ChildRun(deployment, SERVICE, MONTH, Plan(dies_at=crash_point)).wait().exit_code == -signal.SIGKILL

    found = read_stored_month(deployment, SERVICE, MONTH)
    assert found == after_writes(republished.older, republished.newer, writes)
    assert found.is_consistent == (writes in {0, 5})
    if crash_point in FAILING_CHECKS:
        checks = deployment.run_checks(SERVICE, MONTH)
        assert {name for name in ("row_counts_reconcile", "matches_clean") if not checks[name]} == FAILING_CHECKS[
            crash_point
        ]
    assert_next_run_repairs(deployment, republished.newer)
    assert read_stored_month(deployment, SERVICE, OTHER_MONTH) == other_month


@pytest.mark.parametrize("crash_point", ["after raw record", "after quarantine", "after clean"])
def test_checks_detect_mixed_versions_with_equal_row_counts(
    republished: Republished, tmp_path: Path, crash_point: str
) -> None:
    """The versions differ in one pickup time only, so rows and dollars are equal in every mixture."""
    deployment = replace(republished.current.copy_to(tmp_path / "home"), source=str(tmp_path))
    corrected = republished.newer_file.replace(b"2013-08-01 09:13:00", b"2013-08-01 09:13:01", 1)
    (tmp_path / FILE).write_bytes(corrected)
    ChildRun(deployment, SERVICE, MONTH, Plan(dies_at=crash_point)).wait()
    found = read_stored_month(deployment, SERVICE, MONTH)
    assert not found.is_consistent
    checks = deployment.run_checks(SERVICE, MONTH)
    assert checks["row_counts_reconcile"] == (crash_point == "after clean")
    assert checks["matches_clean"] == (crash_point != "after clean")
    assert found.clean is not None
    assert found.loaded is not None
    assert (found.loaded[0] != found.clean.data_version) == (crash_point == "after clean")


@pytest.mark.parametrize(
    ("already", "size", "half_written", "writes"),
    [
        (None, 50_000, "lake/.staging/*/download.csv", 0),
        ("after raw record", 20_000, "lake/.staging/*/clean.parquet", 2),
        # DuckDB first writes a commit to its write-ahead log, and from there to its file.
        ("after clean", 100_000, "warehouse.duckdb.wal", 4),
        ("after clean", 600_000, "warehouse.duckdb.wal", 5),
    ],
)
def test_a_write_that_was_interrupted_leaves_the_old_or_the_new_version(
    republished: Republished,
    copy_of: Callable[[Deployment], Deployment],
    already: str | None,
    size: int,
    half_written: str,
    writes: int,
) -> None:
    """The kernel kills the run when a file reaches the size. A run killed at `already` has written smaller files."""
    deployment = copy_of(republished.outdated)
    if already is not None:
        ChildRun(deployment, SERVICE, MONTH, Plan(dies_at=already)).wait()

    assert ChildRun(deployment, SERVICE, MONTH, Plan(max_file_bytes=size)).wait().exit_code == -signal.SIGXFSZ

    assert list(deployment.home.glob(half_written))
    assert read_stored_month(deployment, SERVICE, MONTH) == after_writes(republished.older, republished.newer, writes)
    assert_next_run_repairs(deployment, republished.newer)


def test_random_kills_without_repair_in_between_leave_old_or_new_layers(
    republished: Republished, tmp_path: Path, kill_seed: int
) -> None:
    """The publisher alternates between the two versions, and no run finishes in between."""
    chance = random.Random(kill_seed)  # noqa: S311  (not a secret)
    versions = (republished.older, republished.newer)
    files = (republished.older_file, republished.newer_file)
    deployment = replace(republished.outdated.copy_to(tmp_path / "home"), source=str(tmp_path))
    for kill in range(1, 9):
        (tmp_path / FILE).write_bytes(files[kill % 2])

        ChildRun(deployment, SERVICE, MONTH).wait(kill_after=chance.uniform(0.1, 0.9))

        found = read_stored_month(deployment, SERVICE, MONTH)
        assert found.raw in [version.raw for version in versions]
        assert found.record is not None
        assert found.record["sha256"] in [digest for version in versions for digest in version.raw.values()]
        assert found.quarantine in [version.quarantine for version in versions]
        assert found.clean in [version.clean for version in versions]
        assert (found.warehouse, found.loaded) in [(version.warehouse, version.loaded) for version in versions]
    result = deployment.run(SERVICE, MONTH)
    assert failure_messages(result) == []
    found = read_stored_month(deployment, SERVICE, MONTH)
    assert found.is_consistent
    assert (found.raw, found.clean, found.warehouse) == (versions[0].raw, versions[0].clean, versions[0].warehouse)
    assert stray_files(deployment) == []


def test_a_raw_object_that_contradicts_its_record_is_replaced(republished: Republished, tmp_path: Path) -> None:
    """A run dies between object and record, then the old file is published again, so the record seems current."""
    deployment, file = Deployment(tmp_path / "home", str(tmp_path)), tmp_path / FILE
    file.write_bytes(republished.older_file)
    published = file.stat()
    assert failure_messages(deployment.run(SERVICE, MONTH)) == []
    older = read_stored_month(deployment, SERVICE, MONTH)
    file.write_bytes(republished.newer_file)
    ChildRun(deployment, SERVICE, MONTH, Plan(dies_at="after raw object")).wait()
    file.write_bytes(republished.older_file)
    os.utime(file, ns=(published.st_atime_ns, published.st_mtime_ns))
    assert read_stored_month(deployment, SERVICE, MONTH) == replace(older, raw=republished.newer.raw)

    assert_next_run_repairs(deployment, older)


def test_a_killed_run_in_the_history_does_not_block_the_next_run(
    republished: Republished, copy_of: Callable[[Deployment], Deployment], tmp_path: Path
) -> None:
    deployment = copy_of(republished.outdated)
    ChildRun(deployment, SERVICE, MONTH, Plan(dies_at="after quarantine", instance=tmp_path)).wait()
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        result = deployment.run(SERVICE, MONTH, instance=instance)
        statuses = [run.status for run in instance.get_runs()]
    assert failure_messages(result) == []
    assert read_stored_month(deployment, SERVICE, MONTH) == republished.newer
    assert statuses == [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.STARTED]


def test_the_next_run_removes_the_object_of_an_older_format(republished: Republished, tmp_path: Path) -> None:
    """The first run is killed before the removal. For the next run the newer object is unchanged."""
    deployment = Deployment(tmp_path / "home", str(tmp_path))
    older = tmp_path / f"{FILE}.gz"
    older.write_bytes(gzip.compress(republished.older_file))
    assert deployment.run(SERVICE, MONTH).success
    older.unlink()
    (tmp_path / FILE).write_bytes(republished.newer_file)

    assert (
        ChildRun(deployment, SERVICE, MONTH, Plan(dies_at="before removing csv.gz")).wait().exit_code == -signal.SIGKILL
    )

    assert failure_messages(deployment.run(SERVICE, MONTH)) == []
    assert read_stored_month(deployment, SERVICE, MONTH).raw == republished.newer.raw
    assert read_stored_month(deployment, SERVICE, MONTH).is_consistent
    assert stray_files(deployment) == []
