"""The commands of the documentation, run as users run them: in new processes, on real months."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import duckdb
import pytest
from click.testing import CliRunner

from taxi_assets.cli.backfill import cli
from taxi_assets.partitions import monthly_partitions
from taxi_assets.tlc.services.registry import SERVICES
from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.pipeline.losing_lake import MONTH as LOSING_MONTH

BIN = Path(sys.executable).parent
VENV = f"VENV={BIN.parent}"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture(scope="module")
def without_rules(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The home of a backfill of two months with run config, which selects no rules; and the command's outcome."""
    home = tmp_path_factory.mktemp("without_rules")
    config = home / "no_rules.yaml"
    config.write_text("ops:\n  clean_green:\n    config:\n      rules: []\n")
    months = ["SERVICE=green", "FROM=2021-01", "TO=2021-02"]
    return home, run(home, "make", "backfill", VENV, *months, f"CONFIG={config}", TAXI_SOURCE="sample")


def run(home: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the repository's folder, with its data in `home`."""
    return subprocess.run(
        command,
        cwd=REPOSITORY,
        env={
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "HOME": os.environ.get("HOME", str(home)),
            "DAGSTER_HOME": str(home / "dagster"),
            "TAXI_LAKE": str(home / "lake"),
            "TAXI_WAREHOUSE": f"duckdb:///{home / 'warehouse.duckdb'}",
            "TAXI_SOURCE": "../shared/data/months",
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=800,
    )


def rows_in_warehouse(home: Path, table: str = "green_trips") -> dict[str, int]:
    with duckdb.connect(str(home / "warehouse.duckdb"), read_only=True) as connection:
        counts = connection.execute(f"SELECT strftime(data_month, '%Y-%m'), count(*) FROM taxi.{table} GROUP BY 1")
        return dict(counts.fetchall())


def fingerprints(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(p): (p.stat().st_ino, p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()}


@pytest.mark.usefixtures("data")
def test_materialize_a_month_and_again_without_writing(home: Path) -> None:
    command = ["dagster", "asset", "materialize", "-m", "taxi_assets.definitions", "--select", "group:green"]
    first = run(home, *command, "--partition", "2020-10", DAGSTER_HOME="")
    assert first.returncode == 0, first.stderr
    assert rows_in_warehouse(home) == {"2020-10": 94_664}
    before = fingerprints(home / "lake") | fingerprints(home / "warehouse.duckdb")

    second = run(home, *command, "--partition", "2020-10", DAGSTER_HOME="")

    assert second.returncode == 0, second.stderr
    assert "unchanged at file://" in second.stderr
    assert fingerprints(home / "lake") | fingerprints(home / "warehouse.duckdb") == before


def test_duckdb_does_not_complain_at_the_end_whichever_is_imported_first(home: Path) -> None:
    for first, second in [("duckdb", "taxi_assets.definitions"), ("taxi_assets.definitions", "duckdb")]:
        ended = run(home, sys.executable, "-c", f"import {first}, {second}")
        assert ended.returncode == 0, ended.stderr
        assert "leak" not in ended.stderr


@pytest.mark.usefixtures("data")
def test_one_wrong_setting_is_one_line(home: Path) -> None:
    ended = run(home, "dagster", "asset", "list", "-m", "taxi_assets.definitions", TAXI_WAREHOUSE="duckdb:trips")
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert "Error: TAXI_WAREHOUSE='duckdb:trips' is not accepted. Use duckdb:///" in ended.stderr


@pytest.mark.usefixtures("data")
def test_a_backfill_continues_after_a_missing_month_and_a_failed_check(home: Path) -> None:
    ended = run(
        home,
        *(sys.executable, "-m", "taxi_assets.cli.backfill", "backfill"),
        *("--service", "green", "--from", "2023-01", "--to", "2023-03"),
        *("--module", "taxi_assets_tests.pipeline.losing_lake"),
        DAGSTER_HOME=_instance(home),
    )

    assert ended.returncode == 1, ended.stderr
    assert "runs succeeded" in ended.stdout
    reasons = ended.stdout.split("runs succeeded")[1]
    assert (
        "green 2023-02: clean/green_trips, check row_counts_reconcile: 64,809 raw rows, 64,317 clean + 491" in reasons
    )
    assert "green 2023-03 is not published at file://" in reasons
    assert rows_in_warehouse(home) == {"2023-01": 67_779}
    with dg.DagsterInstance.from_config(_instance(home)) as instance:
        assert _health(instance, "warehouse") == {
            "2023-01": "MATERIALIZED",
            LOSING_MONTH: "FAILED",
            "2023-03": "FAILED",
        }
        assert _health(instance, "raw") == {
            "2023-01": "MATERIALIZED",
            LOSING_MONTH: "MATERIALIZED",
            "2023-03": "FAILED",
        }


def test_run_config_applies_to_every_month_of_a_range(
    without_rules: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    home, ended = without_rules
    assert ended.returncode == 0, ended.stderr
    assert f"Every run of the job green has the run config in {home / 'no_rules.yaml'}." in ended.stdout
    assert "] reference  ok  " in ended.stdout
    assert _quarantined(ended.stdout) == {"2021-01": 0, "2021-02": 0}
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        runs = {run.tags["dagster/partition"]: run for run in instance.get_runs(dg.RunsFilter(job_name="green"))}
    for month in ("2021-01", "2021-02"):
        assert runs[month].run_config["ops"] == {"clean_green": {"config": {"rules": []}}}


@pytest.mark.usefixtures("data")
def test_a_later_make_backfill_uses_all_rules_and_loads_a_month_with_marts_report_quality_and_views(
    without_rules: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    home, _ = without_rules
    ended = run(home, "make", "backfill", VENV, "SERVICE=green", "FROM=2023-02", "TO=2023-02")

    assert ended.returncode == 0, ended.stderr
    assert _quarantined(ended.stdout)["2023-02"] > 0
    for job in ["green 2023-02", "marts 2023-02", "green_report 2023-02", "quality", "views"]:
        assert f"] {job}  ok  " in ended.stdout
    assert "5 of 5 runs succeeded" in ended.stdout
    assert rows_in_warehouse(home)["2023-02"] == 64_317

    views = home / "lake/views.duckdb"
    views.unlink()
    written = run(home, "make", "views", VENV)
    assert written.returncode == 0, written.stderr
    assert written.stdout.splitlines()[-1] == f"Open it read-only, at any time: {views}"
    with duckdb.connect(views, read_only=True) as connection:
        trips = connection.sql("SELECT count(*) FROM taxi.green_trips WHERE data_month = '2023-02-01'")
        assert trips.fetchall() == [(64_317,)]


def test_make_backfill_without_a_range_is_an_error(home: Path) -> None:
    ended = run(home, "make", "backfill", VENV, "SERVICE=green")
    assert ended.returncode == 2
    assert "FROM (the first month) is not set: make backfill SERVICE=green FROM=2020-01 TO=2020-12" in ended.stderr


def test_make_views_of_an_empty_lake_says_so_in_one_line(home: Path) -> None:
    # An instance with a storage section belongs to the user: make must not overwrite it, however old it is.
    instance = home / "dagster" / "dagster.yaml"
    instance.parent.mkdir()
    instance.write_text(f"storage:\n  sqlite:\n    base_dir: {home / 'runs'}\n")
    os.utime(instance, (0, 0))

    ended = run(home, "make", "views", VENV)
    assert ended.returncode == 2
    assert "views.duckdb cannot be written: the lake has no table yet. Materialize a month of any" in ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr
    assert "base_dir" in instance.read_text()
    assert (home / "runs").is_dir()


@pytest.mark.parametrize(
    ("service", "first", "last", "message"),
    [
        ("green", "2020-13", "2020-12", "A month is numbered 1 to 12"),
        ("green", "Jan 2020", "2020-12", "A month is written YYYY-MM"),
        ("green", "2009-01", "2020-12", "green has no month 2009-01: it has 2013-08 to"),
        ("green", "2020-02", "2020-01", "The range is empty"),
        ("purple", "2020-01", "2020-01", "'purple' is not one of 'fhv', 'fhvhv', 'green', 'yellow'"),
    ],
)
def test_a_backfill_of_an_invalid_range_fails(home: Path, service: str, first: str, last: str, message: str) -> None:
    arguments = ["backfill", "--service", service, "--from", first, "--to", last]
    ended = CliRunner().invoke(cli, arguments, env={"DAGSTER_HOME": str(home)})
    assert ended.exit_code == 2
    assert message in ended.stderr
    assert not list(home.iterdir())


@pytest.mark.parametrize("rules", ["[zero_pasengers]", "["])
def test_no_run_is_created_and_nothing_is_written_if_the_run_config_is_invalid(home: Path, rules: str) -> None:
    config = home / "month.yaml"
    config.write_text(f"ops:\n  clean_green:\n    config:\n      rules: {rules}\n")
    ended = run(
        home,
        *(sys.executable, "-m", "taxi_assets.cli.backfill", "backfill"),
        *("--service", "green", "--from", "2021-01", "--to", "2021-03", "--config", str(config)),
        DAGSTER_HOME=_instance(home),
        TAXI_SOURCE="sample",
    )
    assert ended.returncode == 1
    assert not ended.stdout
    assert ended.stderr.startswith(f"Error: The run config {config}, line ")
    assert ended.stderr.endswith("[RunConfigError]\nNo run was started.\n")
    written = {path.relative_to(home).as_posix() for path in home.rglob("*")}
    assert written == {"month.yaml", "dagster", "dagster/dagster.yaml"}


def test_a_range_without_an_end_is_incomplete(home: Path) -> None:
    arguments = ["backfill", "--service", "green", "--from", "2021-01"]
    ended = CliRunner().invoke(cli, arguments, env={"DAGSTER_HOME": str(home)})
    assert ended.exit_code == 2
    assert "The range is incomplete. Set FROM and TO, or MONTHS (--from and --to, or --months)." in ended.stderr
    assert not list(home.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["revisions", "--keep", "abc"], "KEEP (--keep): 'abc' is not accepted. Write a whole number of at least 0."),
        (["revisions", "--keep", "-1"], "KEEP (--keep): '-1' is not accepted. Write a whole number of at least 0."),
        (
            ["backfill", "--workers", "0"],
            "WORKERS (--workers): '0' is not accepted. Write a whole number of at least 1.",
        ),
        (["revisions", "--service", "blue"], "SERVICE (--service): 'blue' is not one of"),
    ],
)
def test_an_error_names_the_variable_of_make_and_the_option(home: Path, arguments: list[str], message: str) -> None:
    given = [*arguments, *(["--service", "green"] if "--service" not in arguments else [])]
    ended = CliRunner().invoke(cli, given, env={"DAGSTER_HOME": str(home)})
    assert ended.exit_code == 2
    assert f"Invalid value for {message}" in ended.stderr


def _quarantined(output: str) -> dict[str, int]:
    """Return the number of quarantined rows by month, from the table that a backfill prints."""
    rows = [line.split() for line in output.splitlines() if line.startswith("green ")]
    return {month: int(quarantined.replace(",", "")) for _, month, _, _, quarantined, *_ in rows}


def _instance(home: Path) -> str:
    folder = home / "dagster"
    folder.mkdir(exist_ok=True)
    (folder / "dagster.yaml").write_text((REPOSITORY / "dagster.yaml").read_text())
    return str(folder)


def _health(instance: dg.DagsterInstance, layer: str) -> dict[str, str]:
    keys = ["2023-01", "2023-02", "2023-03"]
    partitions = monthly_partitions(SERVICES["green"])
    statuses = instance.get_status_by_partition(dg.AssetKey([layer, "green_trips"]), keys, partitions)
    return {key: status.name if status else "MISSING" for key, status in (statuses or {}).items()}


def test_make_sql_runs_the_query_as_it_is_written(home: Path) -> None:
    query = "SELECT '$HOME' AS home, 'it''s' AS quoted, regexp_matches('ab', 'b$') AS ends"
    ended = run(home, "make", "sql", f"VENV={BIN.parent}", f"QUERY={query}")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[2].split() == ["$HOME", "it's", "True"]
