"""kill -9 before and after each durable write of a commit, and two workers while readers scan the table."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from pyiceberg.catalog.sql import SqlCatalog

from taxi_assets.storage.iceberg.month_commit import month_entries
from taxi_assets.storage.lake.gcs_lake import GcsLake
from taxi_assets.storage.lake.local_lake import LocalLake
from taxi_assets.tlc.month import Month
from taxi_assets_tests.contract.stores import child_process
from taxi_assets_tests.iceberg_tables import (
    commit,
    independent_table,
    lake_content,
    open_catalog,
    polars_content,
    publish_and_commit,
    pyiceberg_content,
    table_content,
)
from taxi_assets_tests.trips import publish_generated_month

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from multiprocessing.connection import Connection
    from pathlib import Path

    from taxi_assets.storage.lake.base_lake import Lake
    from taxi_assets_tests.contract.stores import LakeBackend

JANUARY, FEBRUARY = Month(2021, 1), Month(2021, 2)
WRITES = [
    *((lake, method) for lake in (LocalLake, GcsLake) for method in ("publish", "copy_object")),
    *((SqlCatalog, method) for method in ("create_tables", "create_namespace", "commit_table")),
]
"""Each of these methods makes something durable. Of `commit_table`, the end is the commit in the catalog."""


def commit_in_child(open_lake: Callable[[], Lake], folder: Path, month: Month, dies_at: int, pipe: Connection) -> None:
    """Commit a month; die at a crash point, by its number from 0. Otherwise, send the number of crash points."""
    reached = 0

    def reach() -> None:
        nonlocal reached
        if reached == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        reached += 1

    def reporting(method: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            reach()
            result = method(*arguments, **options)
            reach()
            return result

        return call

    catalog = open_catalog(open_lake(), folder)
    clean: Any = publish_generated_month(catalog.lake, month, 40, seed=1)
    with ExitStack() as stack:
        for owner, name in WRITES:
            stack.enter_context(mock.patch.object(owner, name, reporting(getattr(owner, name))))
        commit(catalog, month, clean, run_id=f"dies-at-{dies_at}")
    pipe.send(reached)


@pytest.mark.parametrize("is_first", [True, False], ids=["first month", "replaced month"])
def test_a_killed_commit_leaves_the_old_rows_or_the_new_ones_and_the_next_run_completes(
    lake_backend: LakeBackend, tmp_path: Path, *, is_first: bool, long: bool
) -> None:
    """The short form kills at every fourth crash point."""
    catalog = open_catalog(lake_backend.open(), tmp_path)
    if not is_first:
        publish_and_commit(catalog, FEBRUARY, 20)
    killed, dies_at = 0, 0
    while True:
        if not is_first:
            publish_and_commit(catalog, JANUARY, 50)
        old = table_content(catalog) if not is_first else {}
        with child_process(commit_in_child, lake_backend.open, tmp_path, JANUARY, dies_at) as child:
            if child.wait_for_exit() == 0:
                break
        killed += 1
        new = {**old, **lake_content(catalog.lake, JANUARY)}
        if (tmp_path / "catalog.db").exists() and catalog.open().table_exists("taxi.green_trips"):
            assert table_content(catalog) in (old, new), dies_at
        publish_and_commit(catalog, JANUARY, 40, seed=1, run_id="the-next-run")
        assert table_content(catalog) == new, dies_at
        assert len(month_entries(catalog.open().load_table("taxi.green_trips"), JANUARY)) == 1
        if is_first:
            _forget(catalog, tmp_path)
        dies_at += 1 if long else 4
    assert killed >= (12 if long else 3), "the link, two manifests, their list, the metadata and the commit"


def _forget(catalog: Any, folder: Path) -> None:
    """Begin again without a catalog. The files of the old tables stay, as after a crash."""
    catalog.open().engine.dispose()
    (folder / "catalog.db").unlink()


def commit_months(open_lake: Callable[[], Lake], folder: Path, months: Sequence[Month], pipe: Connection) -> None:
    """Commit months one after the other, and then revise the first three, as a worker does."""
    catalog = open_catalog(open_lake(), folder)
    for seed, selected in enumerate([months, months[:3]]):
        for month in selected:
            publish_and_commit(catalog, month, 20 + month.start.month, seed=seed, run_id=f"worker-{os.getpid()}")
    pipe.send("done")


def test_readers_see_whole_months_while_two_workers_commit_24_months_and_revise_six(tmp_path: Path) -> None:
    open_lake = partial(LocalLake, folder=str(tmp_path / "lake"))
    months = [JANUARY.shift(number) for number in range(24)]
    catalog, scratch = open_catalog(open_lake(), tmp_path), LocalLake(folder=str(tmp_path / "scratch"))
    allowed: dict[str, set[Any]] = {str(month): set() for month in months}
    for seed in range(2):
        for month in months:
            publish_generated_month(scratch, month, 20 + month.start.month, seed=seed)
            allowed[str(month)] |= set(lake_content(scratch, month).values())
    publish_and_commit(catalog, months[0], 20 + months[0].start.month)
    scans = 0
    with (
        child_process(commit_months, open_lake, tmp_path, months[:12]) as first,
        child_process(commit_months, open_lake, tmp_path, months[12:]) as second,
    ):
        while not (first.pipe.poll() and second.pipe.poll()):
            for read in (pyiceberg_content, polars_content):
                found = read(independent_table(tmp_path))
                assert found, "the table was empty"
                assert all(content in allowed[month] for month, content in found.items()), found
                scans += 1
        assert (first.receive(), second.receive()) == ("done", "done")
    assert scans >= 2
    table = independent_table(tmp_path)
    expected = lake_content(catalog.lake, *months)
    assert pyiceberg_content(table) == polars_content(table) == expected
    assert len(table.snapshots()) == 30
    _check_each_snapshot(table, allowed)


def _check_each_snapshot(table: Any, allowed: dict[str, set[Any]]) -> None:
    """Each snapshot adds or replaces one month, and keeps the others to the cent."""
    before: dict[str, Any] = {}
    for snapshot in table.snapshots():
        found = pyiceberg_content(table, snapshot.snapshot_id)
        changed = [month for month, content in found.items() if before.get(month) != content]
        assert len(changed) == 1
        assert set(before) <= set(found)
        assert found[changed[0]] in allowed[changed[0]]
        before = found
