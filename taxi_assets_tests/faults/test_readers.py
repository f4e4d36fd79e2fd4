"""Readers of the lake while runs replace its months: every answer is right, none is refused, and no run waits."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

import duckdb
import polars as pl
import pytest

import taxi_assets
from taxi_assets.cli.worker_pool import WorkerPool
from taxi_assets.tlc.month import Month
from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.contract.stores import child_process
from taxi_assets_tests.trips import csv_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from multiprocessing.connection import Connection
    from pathlib import Path

TABLES = {"green_trips": ("clean", "count(*)", "total_amount"), "zone_day": ("marts", "sum(trips)", "revenue")}
"""By table: its folder in the lake, and what is counted and added up per month."""

Answer = dict[str, tuple[int, Any]]
"""The number of trips and the dollars of each month."""


@pytest.fixture
def months(*, long: bool) -> list[Month]:
    """The months that are replaced: twelve in the long form."""
    return [Month(2020, 1).shift(number) for number in range(12 if long else 4)]


def publish(source: Path, months: Sequence[Month], *, rows: int) -> None:
    source.mkdir(exist_ok=True)
    for number, month in enumerate(months):
        file = source / f"green_tripdata_{month}.csv"
        file.write_text("\n".join(csv_lines(month, rows + number, seed=rows)) + "\n")


def load(home: Path, months: Sequence[Month]) -> None:
    """Materialize months with two workers, then their marts, then the views, as a backfill does."""
    settings = {
        "DAGSTER_HOME": str(home / "dagster"),
        "TAXI_LAKE": str(home / "lake"),
        "TAXI_WAREHOUSE": f"duckdb:///{home / 'warehouse.duckdb'}",
        "TAXI_SOURCE": str(home / "source"),
    }
    (home / "dagster").mkdir(exist_ok=True)
    command = [
        sys.executable,
        "-c",
        "from taxi_assets_tests.faults.test_readers import run_jobs; run_jobs()",
        *map(str, months),
    ]
    subprocess.run(command, cwd=REPOSITORY, env={**os.environ, **settings}, check=True, timeout=800)


def run_jobs() -> None:
    """Run the jobs of a backfill of the months in `sys.argv`, except those for reports and the quality table."""
    months = sys.argv[1:]
    with WorkerPool(2, backfill="test") as pool:
        for jobs in (
            [("green", month) for month in months],
            [("reference", "")],
            [("marts", month) for month in months],
            [("views", "")],
        ):
            for ended in pool.run(jobs):
                assert ended.succeeded, ended.reason


def views_in_one_session(home: Path) -> Callable[[str], Answer]:
    connection = duckdb.connect(home / "lake/views.duckdb", read_only=True)  # open until the process ends
    return lambda table: _query(connection, table, f"taxi.{table}")


def views_opened_each_time(home: Path) -> Callable[[str], Answer]:
    def read(table: str) -> Answer:
        with closing(duckdb.connect(home / "lake/views.duckdb", read_only=True)) as connection:
            return _query(connection, table, f"taxi.{table}")

    return read


def duckdb_on_a_glob(home: Path) -> Callable[[str], Answer]:
    connection = duckdb.connect()

    def read(table: str) -> Answer:
        files = (home / "lake/snapshots/current").resolve() / TABLES[table][0] / table / "*.parquet"
        return _query(connection, table, f"'{files}'")

    return read


def _query(connection: duckdb.DuckDBPyConnection, table: str, relation: str) -> Answer:
    _, count, dollars = TABLES[table]
    rows = connection.sql(f"SELECT data_month, {count}, sum({dollars}) FROM {relation} GROUP BY 1").fetchall()
    return {f"{month:%Y-%m}": (int(trips), total) for month, trips, total in rows}


def polars_on_a_glob(home: Path) -> Callable[[str], Answer]:
    def read(table: str) -> Answer:
        folder, count, dollars = TABLES[table]
        trips = pl.len() if count == "count(*)" else pl.col("trips").sum()
        rows = (
            pl.scan_parquet((home / "lake/snapshots/current").resolve() / folder / table / "*.parquet")
            .group_by("data_month")
            .agg(trips.alias("trips"), pl.col(dollars).sum().alias("dollars"))
            .collect()
        )
        return {f"{month:%Y-%m}": (int(count), total) for month, count, total in rows.iter_rows()}

    return read


def scans_in_polars(home: Path) -> Callable[[str], Answer]:
    os.environ["TAXI_LAKE"] = str(home / "lake")
    datasets = {table: taxi_assets.scan(f"{folder}/{table}") for table, (folder, *_) in TABLES.items()}

    def read(table: str) -> Answer:
        _, count, dollars = TABLES[table]
        trips = pl.len() if count == "count(*)" else pl.col("trips").sum()
        frame = pl.scan_pyarrow_dataset(datasets[table]).group_by("data_month")
        rows = frame.agg(trips.alias("trips"), pl.col(dollars).sum().alias("dollars")).collect()
        return {f"{month:%Y-%m}": (int(count), total) for month, count, total in rows.iter_rows()}

    return read


READERS = [views_in_one_session, views_opened_each_time, duckdb_on_a_glob, polars_on_a_glob, scans_in_polars]


def read_until_stopped(home: Path, open_reader: Callable[[Path], Callable[[str], Answer]], pipe: Connection) -> None:
    """Read all tables again and again; send the answers, each with its number of occurrences."""
    read = open_reader(home)
    answers: dict[str, list[Answer]] = {table: [] for table in TABLES}
    pipe.send("ready")
    while not pipe.poll():
        for table, found in answers.items():
            found.append(read(table))
        time.sleep(0.5)
    pipe.send(answers)


def answers_now(home: Path) -> Mapping[str, Answer]:
    """Return the answers of the warehouse, while no run is writing."""
    with closing(duckdb.connect(home / "warehouse.duckdb", read_only=True)) as connection:
        return {table: _query(connection, table, f"taxi.{table}") for table in TABLES}


@pytest.mark.timeout(1800)
def test_readers_see_each_month_old_or_new_while_two_workers_replace_all_months(
    tmp_path: Path, months: Sequence[Month]
) -> None:
    publish(tmp_path / "source", months, rows=300)
    load(tmp_path, months)
    old = answers_now(tmp_path)
    publish(tmp_path / "source", months, rows=400)
    found = []
    with ExitStack() as stack:
        readers = [stack.enter_context(child_process(read_until_stopped, tmp_path, reader)) for reader in READERS]
        for reader in readers:
            assert reader.receive() == "ready"
        load(tmp_path, months)
        for reader in readers:
            reader.send("stop")
            found.append(reader.receive())
    new = answers_now(tmp_path)
    for table in TABLES:
        assert len(old[table]) == len(new[table]) == len(months)
        assert not old[table].items() & new[table].items()
        for answers in (answers_of_reader[table] for answers_of_reader in found):
            assert len(answers) > 10
            for answer in answers:
                assert answer.items() <= old[table].items() | new[table].items()
                assert len(answer) == len(months)
            assert answers[0] == old[table]
        for answers_of_reader in found[1:]:
            assert answers_of_reader[table][-1] == new[table]
        assert found[0][table][-1] == old[table]  # a session reads one snapshot
