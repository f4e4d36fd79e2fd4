"""Commits to Iceberg tables, with each lake: a month is replaced by one snapshot, and no rows are lost or doubled."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from pyiceberg.exceptions import CommitFailedException
from sqlalchemy.exc import OperationalError

from taxi_assets.errors import (
    CatalogConfigurationError,
    CatalogUnreachableError,
    ConcurrentUpdateError,
    LakeConflictError,
)
from taxi_assets.storage.iceberg import month_commit
from taxi_assets.storage.iceberg.iceberg_catalog import translate_catalog_errors
from taxi_assets.storage.iceberg.iceberg_maintenance import _changed_times
from taxi_assets.storage.iceberg.iceberg_names import lake_root
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.schema import Column, ColumnType
from taxi_assets_tests.iceberg_tables import (
    SOURCE,
    Content,
    commit,
    independent_table,
    lake_content,
    open_catalog,
    polars_content,
    publish_and_commit,
    pyiceberg_content,
    table_content,
    table_folder,
)
from taxi_assets_tests.trips import publish_generated_month

if TYPE_CHECKING:
    from pathlib import Path

    from taxi_assets.storage.iceberg.iceberg_catalog import IcebergCatalog
    from taxi_assets_tests.contract.stores import LakeBackend

JANUARY, FEBRUARY = Month(2021, 1), Month(2021, 2)


@pytest.fixture
def catalog(lake_backend: LakeBackend, tmp_path: Path) -> IcebergCatalog:
    return open_catalog(lake_backend.open(), tmp_path)


def snapshots(catalog: IcebergCatalog) -> list[Any]:
    return list(catalog.open().load_table("taxi.green_trips").snapshots())


def test_a_month_is_one_snapshot_that_names_the_run_and_the_versions(catalog: IcebergCatalog) -> None:
    clean = publish_generated_month(catalog.lake, JANUARY, 50)
    committed = commit(catalog, JANUARY, clean, run_id="run-1", properties={month_commit.DATA_VERSION: "v1"})
    (snapshot,) = snapshots(catalog)
    assert (committed.is_new, committed.snapshot_id, committed.rows) == (True, snapshot.snapshot_id, 50)
    named = {name: snapshot.summary[name] for name in ("taxi.run-id", "taxi.data-version", "taxi.sha256")}
    assert named == {"taxi.run-id": "run-1", "taxi.data-version": "v1", "taxi.sha256": committed.sha256}
    assert table_content(catalog) == lake_content(catalog.lake, JANUARY)


def test_the_data_file_is_the_object_of_the_lake_under_a_name_with_its_digest(catalog: IcebergCatalog) -> None:
    committed = publish_and_commit(catalog, JANUARY, 50)
    (task,) = catalog.open().load_table("taxi.green_trips").scan().plan_files()
    key = task.file.file_path.removeprefix(f"{lake_root(catalog.lake)}/")
    assert key.startswith(f"{table_folder(catalog)}/data/data_month=2021-01-01/{committed.sha256[:16]}-")
    assert catalog.lake.has_digest(key, sha256=committed.sha256)
    assert catalog.lake.has_digest(SOURCE.key(JANUARY), sha256=committed.sha256)


def test_unchanged_rows_make_no_snapshot(catalog: IcebergCatalog) -> None:
    first = publish_and_commit(catalog, JANUARY, 50)
    again = publish_and_commit(catalog, JANUARY, 50, run_id="another-run")
    assert not again.is_new
    assert (again.snapshot_id, again.rows) == (first.snapshot_id, 50)
    assert len(snapshots(catalog)) == 1


def test_a_month_is_replaced_by_one_snapshot_and_each_snapshot_returns_its_rows_to_the_cent(
    catalog: IcebergCatalog,
) -> None:
    expected: dict[int, Content] = {}
    kept: Content = {}
    for number, (month, rows) in enumerate([(JANUARY, 50), (FEBRUARY, 20), (JANUARY, 40), (FEBRUARY, 25)]):
        committed = publish_and_commit(catalog, month, rows, seed=number)
        kept |= lake_content(catalog.lake, month)
        expected[committed.snapshot_id] = dict(kept)
    assert [snapshot.snapshot_id for snapshot in snapshots(catalog)] == list(expected)
    assert {snapshot_id: table_content(catalog, snapshot_id) for snapshot_id in expected} == expected


def test_independent_readers_travel_to_each_snapshot(catalog: IcebergCatalog, tmp_path: Path) -> None:
    if catalog.lake.is_remote:
        pytest.skip("needs a separate process: see test_iceberg_bucket.py")
    expected = {}
    for number, rows in enumerate([50, 40]):
        committed = publish_and_commit(catalog, JANUARY, rows, seed=number)
        expected[committed.snapshot_id] = lake_content(catalog.lake, JANUARY)
    table = independent_table(tmp_path)
    assert {snapshot_id: pyiceberg_content(table, snapshot_id) for snapshot_id in expected} == expected
    assert {snapshot_id: polars_content(table, snapshot_id) for snapshot_id in expected} == expected


def test_of_two_runs_that_create_the_table_at_once_the_loser_uses_the_winners_and_leaves_no_file(
    catalog: IcebergCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake_class: Any = type(catalog.lake)
    publish = lake_class.publish

    def after_another_run(lake: Any, file: Any, key: str, **options: Any) -> None:
        if "/metadata/" in key:
            monkeypatch.setattr(lake_class, "publish", publish)
            publish_and_commit(catalog, FEBRUARY, 20, run_id="the-other-run")
        publish(lake, file, key, **options)

    monkeypatch.setattr(lake_class, "publish", after_another_run)
    publish_and_commit(catalog, JANUARY, 50)
    assert table_content(catalog) == lake_content(catalog.lake, JANUARY, FEBRUARY)
    clean_files = {SOURCE.key(JANUARY), SOURCE.key(FEBRUARY)}
    outside = {key for key in all_keys(catalog.lake) if not key.startswith(f"{table_folder(catalog)}/")}
    assert outside == clean_files


def all_keys(lake: Any) -> list[str]:
    return [*_changed_times(lake, "iceberg"), *_changed_times(lake, "clean")]


def test_a_month_without_rows_replaces_one_with_rows_and_the_other_way_round(catalog: IcebergCatalog) -> None:
    found = []
    for rows in (50, 0, 0, 40):
        committed = publish_and_commit(catalog, JANUARY, rows)
        found.append((committed.is_new, committed.rows, table_content(catalog) == lake_content(catalog.lake, JANUARY)))
    assert found == [(True, 50, True), (True, 0, True), (False, 0, True), (True, 40, True)]
    entries = month_commit.month_entries(catalog.open().load_table("taxi.green_trips"), JANUARY)
    assert [entry.data_file.record_count for entry in entries] == [40]


def test_newer_rows_of_another_run_stay_and_this_run_names_it(
    catalog: IcebergCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_and_commit(catalog, FEBRUARY, 10)
    replace_month = month_commit._replace
    older = publish_generated_month(catalog.lake, JANUARY, 50)

    def after_another_run(*arguments: Any) -> Any:
        monkeypatch.setattr(month_commit, "_replace", replace_month)
        publish_and_commit(catalog, JANUARY, 40, seed=1, run_id="the-other-run")
        return replace_month(*arguments)

    monkeypatch.setattr(month_commit, "_replace", after_another_run)
    with pytest.raises(ConcurrentUpdateError, match="the run the-other-run has committed"):
        commit(catalog, JANUARY, older)
    assert table_content(catalog) == lake_content(catalog.lake, JANUARY, FEBRUARY)


@pytest.mark.parametrize(("older", "newer"), [(50, 0), (0, 50)])
def test_a_concurrent_month_without_rows_is_not_doubled(
    catalog: IcebergCatalog, monkeypatch: pytest.MonkeyPatch, older: int, newer: int
) -> None:
    replace_month = month_commit._replace
    clean = publish_generated_month(catalog.lake, JANUARY, older)

    def after_another_run(*arguments: Any) -> Any:
        monkeypatch.setattr(month_commit, "_replace", replace_month)
        publish_and_commit(catalog, JANUARY, newer, run_id="the-other-run")
        return replace_month(*arguments)

    monkeypatch.setattr(month_commit, "_replace", after_another_run)
    with pytest.raises(ConcurrentUpdateError, match="the-other-run"):
        commit(catalog, JANUARY, clean)
    publish_and_commit(catalog, JANUARY, newer, run_id="a-retry")
    assert table_content(catalog) == lake_content(catalog.lake, JANUARY)
    assert len(month_commit.month_entries(catalog.open().load_table("taxi.green_trips"), JANUARY)) == 1


def test_a_commit_that_kept_losing_to_other_months_names_no_other_run_and_can_be_repeated(
    catalog: IcebergCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_and_commit(catalog, JANUARY, 50, run_id="the-first-run")
    newer = publish_generated_month(catalog.lake, JANUARY, 40, seed=1)
    with monkeypatch.context() as patched:
        patched.setattr(month_commit, "_replace", lambda *_: CommitFailedException("other months were committed"))
        with pytest.raises(CatalogUnreachableError, match=r"has not been committed \(other months were committed"):
            commit(catalog, JANUARY, newer)
    assert commit(catalog, JANUARY, newer).is_new
    assert table_content(catalog) == lake_content(catalog.lake, JANUARY)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("database is locked", CatalogUnreachableError),
        ('connection to server at "db", port 5432 failed: Connection refused', CatalogUnreachableError),
        ('connection to server at "db" failed: FATAL:  the database system is starting up', CatalogUnreachableError),
        ('connection to server at "db" failed: FATAL:  password authentication failed', CatalogConfigurationError),
        ("unable to open database file", CatalogConfigurationError),
    ],
)
def test_a_catalog_that_is_down_is_tried_again_later(message: str, expected: type[Exception]) -> None:
    with (
        pytest.raises(expected, match="The table x cannot be read"),
        translate_catalog_errors("The table x cannot be read"),
    ):
        raise OperationalError("SELECT 1", {}, Exception(message))


def test_rows_that_are_no_longer_in_the_lake_are_not_committed(catalog: IcebergCatalog) -> None:
    older = publish_generated_month(catalog.lake, JANUARY, 50)
    publish_and_commit(catalog, JANUARY, 40, seed=1)
    with pytest.raises(LakeConflictError):
        commit(catalog, JANUARY, older)
    assert table_content(catalog) == lake_content(catalog.lake, JANUARY)


def test_columns_and_descriptions_are_added_to_a_table(catalog: IcebergCatalog) -> None:
    columns = [replace(c, description="Old.") for c in SOURCE.columns if c.name != "congestion_surcharge"]
    catalog.open_table(replace(SOURCE, columns=columns))
    publish_and_commit(catalog, JANUARY, 50)
    table = catalog.open().load_table("taxi.green_trips")
    found = {field.name: field.doc for field in table.schema().fields}
    assert found == {column.name: column.description_with_unit for column in SOURCE.columns}
    mapping: Any = table.name_mapping()
    assert set(SOURCE.schema.names) == {name for field in mapping.root for name in field.names}
    schemas = len(table.schemas())
    publish_and_commit(catalog, FEBRUARY, 5)
    assert len(catalog.open().load_table("taxi.green_trips").schemas()) == schemas


def test_a_column_of_another_type_is_an_error(catalog: IcebergCatalog) -> None:
    columns = [Column("data_month", ColumnType.DATE, "Month."), Column("total_amount", ColumnType.TEXT, "Total.")]
    catalog.open_table(replace(SOURCE, columns=columns))
    with pytest.raises(CatalogConfigurationError, match=r"The columns of taxi\.green_trips cannot be changed"):
        publish_and_commit(catalog, JANUARY, 50)
