"""kill -9, at every moment at which something durable happens, in the middle of a write, and at random.

No mixture ever, what differs can be told, and the next run succeeds by itself.
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

from taxi_assets_tests.faults.children import Child, Plan
from taxi_assets_tests.faults.conftest import FILE, MONTH, NEIGHBOUR, SERVICE
from taxi_assets_tests.pipeline_harness import Deployment, StoredMonth, failures, read_stored_month, stray_files

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from taxi_assets_tests.faults.conftest import Republished

# Every moment of a run that replaces an older version, and how many of the five things it writes are then of the newer
# one; in this order: raw object, its record, quarantine, clean, warehouse.
REPLACING = {
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
    "after DELETE note": 4,
    "after INSERT note": 4,
    "before warehouse month": 4,
    "after warehouse month": 5,
    "after loading": 5,
}
# The same of a first run, which makes the database file as well.
FIRST = {
    moment: steps
    for known, steps in REPLACING.items()
    for moment in (
        (known, "before making warehouse.duckdb", "after making warehouse.duckdb")
        if known == "before loading"
        else (known,)
    )
}
# Where between two moments nothing durable happens, one of them is enough.
ALIKE = {
    *("publishing raw object", "publishing raw record", "publishing quarantine", "publishing clean"),
    *("before raw object", "before raw record", "before quarantine", "before clean"),
    *("before loading", "before warehouse table", "after DELETE note", "after INSERT note", "after loading"),
}
# A first run has no old rows that its transaction could lose.
ALIKE_FIRST = ALIKE | {"after clean", "after DELETE trips", "before warehouse month"}

# The blocking checks that fail when run alone afterwards. Of a raw object its own record tells.
TOLD = {
    "after raw object": set(),
    "after raw record": {"row_counts_reconcile"},
    "after quarantine": {"row_counts_reconcile"},
    "after clean": {"matches_clean"},
    "after warehouse month": set(),
}

NOTHING = StoredMonth(raw={}, record=None, quarantine=None, clean=None, warehouse=(), loaded=None)


def progressed(older: StoredMonth, newer: StoredMonth, steps: int) -> StoredMonth:
    """The shelves after so many of the five writes."""
    return StoredMonth(
        raw=(older, newer)[steps >= 1].raw,
        record=(older, newer)[steps >= 2].record,
        quarantine=(older, newer)[steps >= 3].quarantine,
        clean=(older, newer)[steps >= 4].clean,
        warehouse=(older, newer)[steps >= 5].warehouse,
        loaded=(older, newer)[steps >= 5].loaded,
    )


def assert_next_run_heals(deployment: Deployment, newer: StoredMonth) -> None:
    result = deployment.run(SERVICE, MONTH)
    assert failures(result) == []
    assert result.success
    assert read_stored_month(deployment, SERVICE, MONTH) == newer
    assert stray_files(deployment) == []


@pytest.mark.parametrize("moments", [FIRST, REPLACING])
def test_every_durable_write_has_a_crash_point(
    republished: Republished, copy_of: Callable[[Deployment], Deployment], moments: dict[str, int]
) -> None:
    """Whoever adds a write adds its moments here, and so has it killed there."""
    deployment = copy_of(republished.empty if moments is FIRST else republished.held)
    outcome = Child(deployment, SERVICE, MONTH).end()
    assert outcome.succeeded, outcome.failures
    assert outcome.moments == list(moments)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The short form tries every second moment."""
    of_both = {
        "first_moment": [moment for moment in FIRST if moment not in ALIKE_FIRST],
        "moment_replacing": [moment for moment in REPLACING if moment not in ALIKE],
    }
    for name, moments in of_both.items():
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, moments if metafunc.config.getoption("--long") else moments[::2])


def test_killed_in_a_first_run(
    republished: Republished, copy_of: Callable[[Deployment], Deployment], first_moment: str
) -> None:
    deployment = copy_of(republished.empty)
    assert Child(deployment, SERVICE, MONTH, Plan(dies=first_moment)).end().exit_code == -signal.SIGKILL
    assert read_stored_month(deployment, SERVICE, MONTH) == progressed(NOTHING, republished.newer, FIRST[first_moment])
    assert_next_run_heals(deployment, republished.newer)


def test_killed_while_replacing_an_older_version(
    republished: Republished, copy_of: Callable[[Deployment], Deployment], moment_replacing: str
) -> None:
    deployment, moment = copy_of(republished.held), moment_replacing
    steps = REPLACING[moment]
    neighbour = read_stored_month(deployment, SERVICE, NEIGHBOUR)

    assert Child(deployment, SERVICE, MONTH, Plan(dies=moment)).end().exit_code == -signal.SIGKILL

    found = read_stored_month(deployment, SERVICE, MONTH)
    assert found == progressed(republished.older, republished.newer, steps)
    assert found.agree == (steps in {0, 5})
    if moment in TOLD:
        checks = deployment.check(SERVICE, MONTH)
        assert {name for name in ("row_counts_reconcile", "matches_clean") if not checks[name]} == TOLD[moment]
    assert_next_run_heals(deployment, republished.newer)
    assert read_stored_month(deployment, SERVICE, NEIGHBOUR) == neighbour


@pytest.mark.parametrize("moment", ["after raw record", "after quarantine", "after clean"])
def test_versions_of_as_many_rows_are_told_apart(republished: Republished, tmp_path: Path, moment: str) -> None:
    """One time is corrected: rows, and dollars, are the same in every mixture."""
    deployment = replace(republished.current.copy_to(tmp_path / "home"), source=str(tmp_path))
    corrected = republished.newer_file.replace(b"2013-08-01 09:13:00", b"2013-08-01 09:13:01", 1)
    (tmp_path / FILE).write_bytes(corrected)
    Child(deployment, SERVICE, MONTH, Plan(dies=moment)).end()
    found = read_stored_month(deployment, SERVICE, MONTH)
    assert not found.agree
    checks = deployment.check(SERVICE, MONTH)
    assert checks["row_counts_reconcile"] == (moment == "after clean")
    assert checks["matches_clean"] == (moment != "after clean")
    assert found.clean is not None
    assert found.loaded is not None
    assert (found.loaded[0] != found.clean.data_version) == (moment == "after clean")


@pytest.mark.parametrize(
    ("already", "size", "half_written", "steps"),
    [
        (None, 50_000, "lake/.staging/*/download.csv", 0),
        ("after raw record", 20_000, "lake/.staging/*/clean.parquet", 2),
        # DuckDB writes what is committed into its log first, and from there into its file.
        ("after clean", 100_000, "warehouse.duckdb.wal", 4),
        ("after clean", 600_000, "warehouse.duckdb.wal", 5),
    ],
)
def test_killed_in_the_middle_of_a_write(
    republished: Republished,
    copy_of: Callable[[Deployment], Deployment],
    already: str | None,
    size: int,
    half_written: str,
    steps: int,
) -> None:
    """The kernel ends the run when a file reaches the size; shorter ones were written by a run that died `already`."""
    deployment = copy_of(republished.held)
    if already is not None:
        Child(deployment, SERVICE, MONTH, Plan(dies=already)).end()

    assert Child(deployment, SERVICE, MONTH, Plan(dies_writing=size)).end().exit_code == -signal.SIGXFSZ

    assert list(deployment.home.glob(half_written))
    assert read_stored_month(deployment, SERVICE, MONTH) == progressed(republished.older, republished.newer, steps)
    assert_next_run_heals(deployment, republished.newer)


def test_killed_again_and_again_at_random(republished: Republished, tmp_path: Path, kill_seed: int) -> None:
    """With the other version published each time, and nothing healed in between."""
    chance = random.Random(kill_seed)  # noqa: S311  (no secret)
    versions = (republished.older, republished.newer)
    files = (republished.older_file, republished.newer_file)
    deployment = replace(republished.held.copy_to(tmp_path / "home"), source=str(tmp_path))
    for kill in range(1, 9):
        (tmp_path / FILE).write_bytes(files[kill % 2])

        Child(deployment, SERVICE, MONTH).end(kill_after=chance.uniform(0.1, 0.9))

        found = read_stored_month(deployment, SERVICE, MONTH)
        assert found.raw in [version.raw for version in versions]
        assert found.record is not None
        assert found.record["sha256"] in [digest for version in versions for digest in version.raw.values()]
        assert found.quarantine in [version.quarantine for version in versions]
        assert found.clean in [version.clean for version in versions]
        assert (found.warehouse, found.loaded) in [(version.warehouse, version.loaded) for version in versions]
    result = deployment.run(SERVICE, MONTH)
    assert failures(result) == []
    found = read_stored_month(deployment, SERVICE, MONTH)
    assert found.agree
    assert (found.raw, found.clean, found.warehouse) == (versions[0].raw, versions[0].clean, versions[0].warehouse)
    assert stray_files(deployment) == []


def test_killed_between_raw_object_and_record_and_then_published_as_before(
    republished: Republished, tmp_path: Path
) -> None:
    """To the publisher the record is current, but the object beside it is the other version's."""
    deployment, file = Deployment(tmp_path / "home", str(tmp_path)), tmp_path / FILE
    file.write_bytes(republished.older_file)
    published = file.stat()
    assert failures(deployment.run(SERVICE, MONTH)) == []
    older = read_stored_month(deployment, SERVICE, MONTH)
    file.write_bytes(republished.newer_file)
    Child(deployment, SERVICE, MONTH, Plan(dies="after raw object")).end()
    file.write_bytes(republished.older_file)
    os.utime(file, ns=(published.st_atime_ns, published.st_mtime_ns))
    assert read_stored_month(deployment, SERVICE, MONTH) == replace(older, raw=republished.newer.raw)

    assert_next_run_heals(deployment, older)


def test_killed_run_in_the_history_does_not_hinder_the_next(
    republished: Republished, copy_of: Callable[[Deployment], Deployment], tmp_path: Path
) -> None:
    deployment = copy_of(republished.held)
    Child(deployment, SERVICE, MONTH, Plan(dies="after quarantine", instance=tmp_path)).end()
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        result = deployment.run(SERVICE, MONTH, instance=instance)
        statuses = [run.status for run in instance.get_runs()]
    assert failures(result) == []
    assert read_stored_month(deployment, SERVICE, MONTH) == republished.newer
    assert statuses == [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.STARTED]


def test_killed_before_the_object_of_an_older_format_is_removed(republished: Republished, tmp_path: Path) -> None:
    """The next run removes it, though to that run the newer one is unchanged."""
    deployment = Deployment(tmp_path / "home", str(tmp_path))
    older = tmp_path / f"{FILE}.gz"
    older.write_bytes(gzip.compress(republished.older_file))
    assert deployment.run(SERVICE, MONTH).success
    older.unlink()
    (tmp_path / FILE).write_bytes(republished.newer_file)

    assert Child(deployment, SERVICE, MONTH, Plan(dies="before removing csv.gz")).end().exit_code == -signal.SIGKILL

    assert failures(deployment.run(SERVICE, MONTH)) == []
    assert read_stored_month(deployment, SERVICE, MONTH).raw == republished.newer.raw
    assert read_stored_month(deployment, SERVICE, MONTH).agree
    assert stray_files(deployment) == []
