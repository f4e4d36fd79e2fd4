"""`make sql` reads the warehouse, prints rows, and changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import duckdb
import pytest
from click.testing import CliRunner

from taxi_assets.cli.sql import sql

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

WRITES = (
    "DROP TABLE zones",
    "DELETE FROM zones",
    "INSERT INTO zones VALUES (2, 'x')",
    "COPY zones TO 'zones.csv'",
    "ATTACH 'other.duckdb'",
    "CREATE TABLE other AS FROM zones",
    "WITH gone AS (DELETE FROM zones RETURNING *) SELECT * FROM gone",
    "SELECT * INTO other FROM zones",
)


@pytest.fixture(autouse=True)
def warehouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "warehouse.duckdb"
    with duckdb.connect(str(file)) as connection:
        connection.execute(
            "CREATE SCHEMA taxi; CREATE TABLE taxi.zones AS SELECT 1 AS id, 'Newark''s; airport' AS name"
        )
    monkeypatch.setenv("TAXI_WAREHOUSE", f"duckdb:///{file}")
    return file


def ask(*arguments: str, typed: str = "") -> Result:
    return CliRunner().invoke(sql, arguments, input=typed)


def test_a_query_prints_its_rows_and_their_number() -> None:
    assert ask("SELECT name, id FROM zones").output.splitlines() == [
        "name               id",
        "-----------------  ----",
        "Newark's; airport  1",
        "(1 row)",
    ]
    shown = ask("FROM range(1200)").output.splitlines()
    assert shown[-1] == "(40 of more rows: sort, filter or count them to find others)"
    assert len(shown) == 43


def test_queries_are_read_until_their_semicolon_and_an_error_ends_none_of_the_others() -> None:
    ended = ask(typed="SELECT id\nFROM zones; -- all\n\nSELEC 1;\nSELECT nope FROM zones;\nSHOW TABLES")
    assert ended.exit_code == 1
    assert ended.stdout.splitlines() == ["id", "----", "1", "(1 row)", "name", "------", "zones", "(1 row)"]
    first, syntax, column = ended.stderr.splitlines()
    assert first.endswith("read-only. A query ends with a semicolon; Ctrl-D ends the session.")
    assert syntax.startswith("Error: The query is not valid SQL, in line 1: ")
    assert 'Referenced column "nope" not found' in column


@pytest.mark.parametrize("statement", WRITES)
def test_a_statement_that_writes_is_refused(statement: str, warehouse: Path) -> None:
    ended = ask(statement)
    assert ended.exit_code == 1
    assert ended.stderr == "Error: Only queries that read are allowed: SELECT, DESCRIBE, SHOW and SUMMARIZE.\n"
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        assert connection.sql("SELECT count(*) FROM taxi.zones").fetchall() == [(1,)]
        assert connection.sql("SELECT count(*) FROM duckdb_tables()").fetchall() == [(1,)]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELECT 'it", "The query is not valid SQL: a quote or a comment does not end."),
        ("FROM zone", "SHOW TABLES lists the tables."),
        ("SELECT sum(name) FROM zones", "No function matches"),
    ],
)
def test_a_wrong_query_is_one_line_and_the_next_one_runs(query: str, message: str) -> None:
    ended = ask(typed=f"{query};\nSELECT id FROM zones;\n")
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("Error: ")]
    assert message in line
    assert "Load a month" not in line
    assert ended.stdout.splitlines()[-1] == "(1 row)"


@pytest.mark.parametrize(
    "query",
    [
        "SELECT id FROM zones; -- all of them",
        "SELECT id FROM zones ORDER BY id -- the first",
        "SELECT id FROM zones LIMIT 1",
        "PIVOT zones ON id USING count(*)",
        "SUMMARIZE zones",
        "DESCRIBE zones",
        "(SELECT id FROM zones) UNION ALL SELECT 2 LIMIT 1",
    ],
)
def test_every_query_that_reads_runs(query: str) -> None:
    ended = ask(query)
    assert ended.exit_code == 0, ended.output
    assert ended.stderr == ""


def test_two_statements_at_once_are_refused() -> None:
    assert ask("SELECT 1; DROP TABLE zones").stderr == "Error: Write one query at a time.\n"


def test_a_wrong_setting_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAXI_WAREHOUSE", "sqlite:///trips.db")
    ended = ask("SELECT 1")
    assert ended.exit_code == 1
    assert ended.stderr.startswith("Error: TAXI_WAREHOUSE='sqlite:///trips.db' is not accepted. Use duckdb:///")
