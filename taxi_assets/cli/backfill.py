"""The commands `backfill`, for a range of months, `demo` and `views`.

`make backfill SERVICE=green FROM=2020-01 TO=2020-12`, `make demo` and `make views` call them.
"""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import click
import dagster as dg
from tabulate import tabulate

from taxi_assets.assets.reference import ZONES
from taxi_assets.automation.stale_months import months_of_older_code
from taxi_assets.cli.run_config_file import RunConfigFile
from taxi_assets.cli.worker_pool import JobRun, WorkerPool, is_materialized
from taxi_assets.errors import RunConfigError
from taxi_assets.partitions import monthly_partitions
from taxi_assets.reports.artifact import PAGE
from taxi_assets.settings import Settings
from taxi_assets.storage.lake.objects import object_prefix
from taxi_assets.storage.lake_tables import VIEWS_KEY
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.services.registry import SERVICES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

_LAYERS = {"raw": "raw", "clean": "clean", "quarantine": "quarantined", "warehouse": "in the warehouse"}

_VIEWS = ("views", "")

_DEMO_MONTH = "2021-01"


@click.group()
def cli() -> None:
    """Load months of trips, several at a time."""
    if not os.environ.get("DAGSTER_HOME"):
        raise click.UsageError(
            "DAGSTER_HOME is not set, so the runs would leave no history. Use make, or set DAGSTER_HOME."
        )


@cli.command()
@click.option("--service", type=click.Choice(sorted(SERVICES)), required=True)
@click.option("--from", "first", metavar="YYYY-MM", help="The first month.")
@click.option("--to", "last", metavar="YYYY-MM", help="The last month.")
@click.option(
    "--stale",
    "only_stale",
    is_flag=True,
    help="Run only the months that were cleaned with other rules, columns or code. --from and --to are then optional.",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=os.cpu_count() or 1,
    help="How many months to run at the same time.",
    show_default=True,
)
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    help="A YAML file with the run config of every run of the service's job, such as rules and force.",
)
@click.option("--module", default="taxi_assets.definitions", help="The module that defines `defs`.", show_default=True)
def backfill(
    service: str,
    first: str | None,
    last: str | None,
    only_stale: bool,
    workers: int,
    config_file: Path | None,
    module: str,
) -> None:
    """Materialize all layers of a range of months, their marts and reports, the quality table and the file of views.

    Load the taxi zones if they are missing.
    """
    started = time.monotonic()
    if not only_stale and not (first and last):
        raise click.UsageError("The range is incomplete. Set --from and --to, or --stale.")
    months = months_between(service, first, last)
    file = _read_run_config(config_file) if config_file else None
    with WorkerPool(workers, backfill=uuid.uuid4().hex[:8], module=module) as pool:
        if file:
            _validate_run_config(file, pool.job(service))
        if only_stale:
            months = _stale_months(service, months)
            if not months:
                return
        if file:
            click.echo(f"Every run of the job {service} has the run config in {file.path}.\n")
        ended = _run(pool, [(service, month) for month in months], run_config=file.config if file else None)
    _print_outcome(ended, seconds=time.monotonic() - started)


def _stale_months(service: str, months: Sequence[str]) -> list[str]:
    """Return the months that older code has cleaned, and print how many there are."""
    with dg.DagsterInstance.get() as instance:
        of_older_code = {str(month) for month in months_of_older_code(instance, SERVICES[service])}
    stale = [month for month in months if month in of_older_code]
    found = f"Stale months of {service} from {months[0]} to {months[-1]}: {len(stale)}."
    click.echo(
        f"{found} They were cleaned with other rules, columns or code.\n" if stale else f"{found} Nothing to do."
    )
    return stale


def _read_run_config(path: Path) -> RunConfigFile:
    try:
        return RunConfigFile.read(path)
    except RunConfigError as error:
        raise click.ClickException(f"{error}\nNo run was started.") from None


def _validate_run_config(file: RunConfigFile, job: dg.JobDefinition) -> None:
    if errors := file.validate(job):
        raise click.ClickException("\n".join([*map(str, errors), "No run was started."]))


@cli.command()
def demo() -> None:
    """Materialize one generated month of every service, with marts and reports, and print where the results are."""
    from taxi_assets.build import build_lake, build_warehouse  # noqa: PLC0415
    from taxi_assets.tlc import synthetic  # noqa: PLC0415  (only the demo needs the generator)

    click.echo(
        "Loading one month of generated trips of every service, through all layers, into an embedded warehouse:\n"
    )
    started = time.monotonic()
    with WorkerPool(os.cpu_count() or 1, backfill=uuid.uuid4().hex[:8]) as pool:
        ended = _run(pool, [(service, _DEMO_MONTH) for service in synthetic.services()])
    _print_outcome(ended, seconds=time.monotonic() - started)
    settings = Settings.from_env()
    lake, warehouse = build_lake(settings), build_warehouse(settings)
    addresses = {
        "quarantine": lake.uri("quarantine"),
        "report": lake.uri(f"{object_prefix('reports', SERVICES['yellow'], _DEMO_MONTH)}/{PAGE}"),
        "warehouse": warehouse.uri(),
        "views": lake.uri(VIEWS_KEY),
    }
    click.echo(_NEXT_STEPS.format(**{name: _relative_to_cwd(address) for name, address in addresses.items()}))


@cli.command()
@click.option("--module", default="taxi_assets.definitions", help="The module that defines `defs`.", show_default=True)
def views(module: str) -> None:
    """Write views.duckdb to the lake: a DuckDB file with a view for each table in the lake."""
    from taxi_assets.build import build_lake  # noqa: PLC0415

    started = time.monotonic()
    with WorkerPool(1, backfill=uuid.uuid4().hex[:8], module=module) as pool:
        ended = list(pool.run([_VIEWS]))
    _print_outcome(ended, seconds=time.monotonic() - started)
    click.echo(f"Open it read-only, at any time: {_relative_to_cwd(build_lake(Settings.from_env()).uri(VIEWS_KEY))}")


def _relative_to_cwd(address: str) -> str:
    return address.replace(f"{Path.cwd()}/", "")


_NEXT_STEPS = """
Next steps:
  make demo-ui    shows these results in Dagster's UI: lineage, partitions, previews, checks
  make dev        starts Dagster for TLC's real files (TAXI_SOURCE selects the publisher)

  {report}
                  one month on one page; open it in a browser
  {quarantine}
                  every rejected row, with its reasons and its original text
  {views}
                  the tables, for any DuckDB client: taxi.yellow_trips, taxi.zone_day, taxi.month_quality ...
  {warehouse}
                  the warehouse, with the same tables; a client that has it open makes runs wait"""


def months_between(service: str, first: str | None, last: str | None) -> list[str]:
    """Return the months of a range, oldest first.

    Args:
        service: Name of the service.
        first: The first month, such as "2020-01"; None for the first of the service.
        last: The last month, included; None for the last that has ended.

    Raises:
        click.UsageError: A month is malformed, the service does not have it, or the range is empty.
    """
    known = monthly_partitions(SERVICES[service]).get_partition_keys()
    try:
        start, end = Month.parse(first or known[0]), Month.parse(last or known[-1])
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    for month in (start, end):
        if str(month) not in known:
            raise click.UsageError(f"{service} has no month {month}: it has {known[0]} to {known[-1]}.")
    if start > end:
        raise click.UsageError(f"The range is empty: {start} is later than {end}.")
    return [month for month in known if start <= Month.parse(month) <= end]


def _run(
    pool: WorkerPool, months: Sequence[tuple[str, str]], *, run_config: Mapping[str, Any] | None = None
) -> list[JobRun]:
    """Run the services' jobs with the run config, then the jobs that depend on them, and return all runs."""
    layers = _run_and_print(pool, months, run_config)
    click.echo("\n" + summary(layers) + "\n")
    zones = [] if is_materialized(ZONES) else _run_and_print(pool, [("reference", "")])
    loaded = [run for run in layers if run.succeeded]
    derived = {("marts", run.month) for run in loaded} | {(f"{run.job}_report", run.month) for run in loaded}
    # Sort by month, so that marts and reports alternate and fewer runs wait for the embedded warehouse, which has
    # one writer at a time: reports only read.
    after = _run_and_print(pool, [("quality", ""), *sorted(derived, key=lambda pair: pair[::-1])])
    views = _run_and_print(pool, [_VIEWS]) if loaded else []
    return [*layers, *zones, *after, *views]


def _print_outcome(ended: Sequence[JobRun], *, seconds: float) -> None:
    """Print how many runs succeeded and why the others failed, and exit with 1 if there are any."""
    failed = sorted((run for run in ended if not run.succeeded), key=lambda run: (run.job, run.month))
    click.echo(f"\n{len(ended) - len(failed)} of {len(ended)} runs succeeded, in {seconds:.0f} s.")
    for run in failed:
        click.echo("  " + (run.reason if run.reason.startswith(_name(run)) else f"{_name(run)}: {run.reason}"))
    if failed:
        raise SystemExit(1)


def _run_and_print(
    pool: WorkerPool, jobs: Sequence[tuple[str, str]], run_config: Mapping[str, Any] | None = None
) -> list[JobRun]:
    """Run the jobs, and print a line for each run that ends."""
    ended: list[JobRun] = []
    count = len(jobs)
    for run in pool.run(jobs, run_config=run_config):
        ended.append(run)
        outcome = "ok" if run.succeeded else "FAILED"
        click.echo(f"[{len(ended):>{len(str(count))}}/{count}] {_name(run)}  {outcome}  {run.seconds:.1f} s")
    return ended


def _name(run: JobRun) -> str:
    return f"{run.job} {run.month}".rstrip()


def summary(runs: Sequence[JobRun]) -> str:
    """Return the runs as a text table: service, month, and the number of rows in each layer."""
    rows = [
        [run.job, run.month, *(f"{run.rows[layer]:,}" if layer in run.rows else "-" for layer in _LAYERS)]
        for run in sorted(runs, key=lambda run: (run.job, run.month))
    ]
    headers = ["service", "month", *_LAYERS.values()]
    return tabulate(rows, headers, disable_numparse=True, colalign=("left", "left", *["right"] * len(_LAYERS)))


if __name__ == "__main__":
    cli()
