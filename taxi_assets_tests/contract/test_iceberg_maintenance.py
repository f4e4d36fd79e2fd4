"""Old snapshots expire, and only files that no snapshot and no run needs are deleted."""

from __future__ import annotations

import datetime as dt
import os
from typing import TYPE_CHECKING, Any

import pytest

from taxi_assets.errors import CatalogConfigurationError
from taxi_assets.storage.iceberg import iceberg_catalog, iceberg_maintenance, month_commit
from taxi_assets.storage.iceberg.iceberg_maintenance import clean_up
from taxi_assets.storage.lake.objects import ParquetPartition
from taxi_assets.tlc.month import Month
from taxi_assets_tests.iceberg_tables import (
    SOURCE,
    commit,
    lake_content,
    open_catalog,
    publish_and_commit,
    table_content,
    table_folder,
)
from taxi_assets_tests.trips import publish_generated_month

if TYPE_CHECKING:
    from pathlib import Path

    from taxi_assets.storage.iceberg.iceberg_catalog import IcebergCatalog
    from taxi_assets_tests.contract.stores import LakeBackend

JANUARY = Month(2021, 1)


@pytest.fixture
def catalog(lake_backend: LakeBackend, tmp_path: Path) -> IcebergCatalog:
    return open_catalog(lake_backend.open(), tmp_path)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that sets the clock of the cleanup some days ahead."""

    def set_clock(days: float) -> None:
        class Clock(dt.datetime):
            @classmethod
            def now(cls, tz: dt.tzinfo | None = None) -> Any:
                return dt.datetime.now(tz) + dt.timedelta(days=days)

        class Module:
            datetime, timedelta, UTC = Clock, dt.timedelta, dt.UTC

        monkeypatch.setattr(iceberg_maintenance, "dt", Module)

    return set_clock


def data_files(catalog: IcebergCatalog) -> list[str]:
    return [*catalog.lake.sizes_in(f"{table_folder(catalog)}/data/data_month=2021-01-01")]


def test_nothing_is_deleted_by_default_even_after_years(catalog: IcebergCatalog, later: Any) -> None:
    committed = [publish_and_commit(catalog, JANUARY, rows) for rows in (50, 40)]
    later(3000)
    assert clean_up(catalog, SOURCE, None) == (0, 0)
    assert [sum(n for n, _ in table_content(catalog, c.snapshot_id).values()) for c in committed] == [50, 40]


def test_a_snapshot_expires_when_it_was_replaced_long_enough_ago_and_its_files_are_deleted(
    catalog: IcebergCatalog, later: Any
) -> None:
    committed = [publish_and_commit(catalog, JANUARY, rows) for rows in (50, 40, 30)]
    later(9)
    assert clean_up(catalog, SOURCE, 10)[0] == 0
    later(11)
    expired, deleted = clean_up(catalog, SOURCE, 10)
    assert expired == 2
    assert deleted >= 4, "two data files, and the lists of two snapshots"
    table = catalog.open().load_table("taxi.green_trips")
    assert [snapshot.snapshot_id for snapshot in table.snapshots()] == [committed[-1].snapshot_id]
    assert table_content(catalog) == lake_content(catalog.lake, JANUARY)
    assert len(data_files(catalog)) == 1
    assert clean_up(catalog, SOURCE, 10) == (0, 0)


def test_the_file_of_a_killed_run_is_deleted_and_that_of_a_concurrent_run_is_not(
    catalog: IcebergCatalog, monkeypatch: pytest.MonkeyPatch, later: Any
) -> None:
    publish_and_commit(catalog, JANUARY, 50)
    replace_month = month_commit._replace

    def killed(*_arguments: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(month_commit, "_replace", killed)
    clean = publish_generated_month(catalog.lake, JANUARY, 40)
    with pytest.raises(KeyboardInterrupt):
        commit(catalog, JANUARY, clean)
    assert len(data_files(catalog)) == 2
    assert clean_up(catalog, SOURCE, None) == (0, 0), "it may belong to a run that is about to commit it"
    later(4)
    assert clean_up(catalog, SOURCE, None) == (0, 1)

    def after_cleanup(*arguments: Any) -> Any:
        later(2)
        assert clean_up(catalog, SOURCE, 1)[1] == 0
        return replace_month(*arguments)

    monkeypatch.setattr(month_commit, "_replace", after_cleanup)
    assert commit(catalog, JANUARY, clean).is_new
    assert table_content(catalog) == lake_content(catalog.lake, JANUARY)


def test_the_link_to_an_old_file_of_the_lake_is_not_taken_for_an_old_file(
    catalog: IcebergCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    if catalog.lake.is_remote:
        pytest.skip("needs a folder: objects of a bucket are copied, not linked")
    publish_generated_month(catalog.lake, JANUARY, 40)
    long_ago = dt.datetime(2020, 1, 1, tzinfo=dt.UTC).timestamp()
    os.utime(catalog.lake.uri(SOURCE.key(JANUARY)), (long_ago, long_ago))
    clean = ParquetPartition.get(catalog.lake, SOURCE.key(JANUARY).removesuffix(".parquet"))
    replace_month = month_commit._replace

    def after_cleanup(*arguments: Any) -> Any:
        assert clean_up(catalog, SOURCE, 1) == (0, 0)
        return replace_month(*arguments)

    monkeypatch.setattr(month_commit, "_replace", after_cleanup)
    assert commit(catalog, JANUARY, clean).is_new
    assert len(data_files(catalog)) == 1


def test_a_table_that_does_not_exist_has_nothing_to_clean_up(catalog: IcebergCatalog) -> None:
    assert clean_up(catalog, SOURCE, 1) == (0, 0)


@pytest.mark.parametrize("is_older", [False, True], ids=["new tables", "a table of an older version"])
def test_the_cleanup_of_a_catalog_deletes_no_file_of_another_catalog_on_the_same_lake(
    catalog: IcebergCatalog, tmp_path: Path, later: Any, monkeypatch: pytest.MonkeyPatch, *, is_older: bool
) -> None:
    """Older versions put the table of each catalog into the same folder, whose name has no suffix."""
    (tmp_path / "other").mkdir()
    other = open_catalog(catalog.lake, tmp_path / "other")
    if is_older:
        with monkeypatch.context() as patched:
            patched.setattr(iceberg_catalog, "new_folder", lambda source: f"iceberg/{source.name}")
            publish_and_commit(other, JANUARY, 50)
        assert table_folder(other) == "iceberg/green_trips"
    committed = [publish_and_commit(each, JANUARY, rows) for rows in (50, 40) for each in (catalog, other)]
    later(11)
    expired, deleted = clean_up(catalog, SOURCE, 10)
    assert (expired, deleted >= 2) == (1, True)
    assert [sum(n for n, _ in table_content(other, c.snapshot_id).values()) for c in committed[1::2]] == [50, 40]
    assert clean_up(other, SOURCE, 10)[0] == 1
    assert table_content(catalog) == table_content(other) == lake_content(catalog.lake, JANUARY)
    assert len(data_files(catalog)) == len(data_files(other)) == 1


def test_no_file_is_deleted_in_a_folder_that_has_other_files_of_the_lake(
    catalog: IcebergCatalog, later: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(iceberg_catalog, "new_folder", lambda _: "clean")
    publish_and_commit(catalog, JANUARY, 50)
    later(11)
    with pytest.raises(CatalogConfigurationError, match=r"/clean of an Iceberg table may contain other files"):
        clean_up(catalog, SOURCE, 10)
    assert table_content(catalog) == lake_content(catalog.lake, JANUARY)
