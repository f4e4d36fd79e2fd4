"""The commands `backfill`, for a range of months, and `demo`.

`make backfill SERVICE=green FROM=2020-01 TO=2020-12` and `make demo` call them.
"""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import click
from tabulate import tabulate

from taxi_assets.assets.reference import ZONES
from taxi_assets.cli.worker_pool import JobRun, WorkerPool, is_materialized
from taxi_assets.partitions import monthly_partitions
from taxi_assets.reports.artifact import PAGE
from taxi_assets.settings import Settings
from taxi_assets.storage.lake.objects import object_prefix
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.services.registry import SERVICES

if TYPE_CHECKING:
    from collections.abc import Sequence

_LAYERS = {"raw": "raw", "clean": "clean", "quarantine": "quarantined", "warehouse": "in the warehouse"}

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
@click.option("--from", "first", metavar="YYYY-MM", required=True, help="The first month.")
@click.option("--to", "last", metavar="YYYY-MM", required=True, help="The last month.")
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=os.cpu_count() or 1,
    help="How many months to run at the same time.",
    show_default=True,
)
@click.option("--module", default="taxi_assets.definitions", help="The module that defines `defs`.", show_default=True)
def backfill(service: str, first: str, last: str, workers: int, module: str) -> None:
    """Materialize all layers for a range of months, then the marts and reports of these months, and the quality table.

    Load the taxi zones if they are missing.
    """
    _run([(service, month) for month in months_between(service, first, last)], workers=workers, module=module)


@cli.command()
def demo() -> None:
    """Materialize one generated month of every service, with marts and reports, and print where the results are."""
    from taxi_assets.build import build_lake, build_warehouse  # noqa: PLC0415
    from taxi_assets.tlc import synthetic  # noqa: PLC0415  (only the demo needs the generator)

    click.echo(
        "Loading one month of generated trips of every service, through all layers, into an embedded warehouse:\n"
    )
    _run([(service, _DEMO_MONTH) for service in synthetic.services()], workers=os.cpu_count() or 1)
    settings = Settings.from_env()
    lake, warehouse = build_lake(settings), build_warehouse(settings)
    addresses = {
        "quarantine": lake.uri("quarantine"),
        "report": lake.uri(f"{object_prefix('reports', SERVICES['yellow'], _DEMO_MONTH)}/{PAGE}"),
        "warehouse": warehouse.uri(),
    }
    click.echo(_NEXT_STEPS.format(**{name: _relative_to_cwd(address) for name, address in addresses.items()}))


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
  {warehouse}
                  the tables, for any DuckDB client: taxi.yellow_trips, taxi.zone_day, taxi.month_quality ..."""


def months_between(service: str, first: str, last: str) -> list[str]:
    """Return the months of a range, oldest first.

    Args:
        service: Name of the service.
        first: The first month, such as "2020-01".
        last: The last month, included.

    Raises:
        click.UsageError: A month is malformed, the service does not have it, or the range is empty.
    """
    try:
        start, end = Month.parse(first), Month.parse(last)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    known = monthly_partitions(SERVICES[service]).get_partition_keys()
    for month in (start, end):
        if str(month) not in known:
            raise click.UsageError(f"{service} has no month {month}: it has {known[0]} to {known[-1]}.")
    if start > end:
        raise click.UsageError(f"The range is empty: {start} is later than {end}.")
    return [month for month in known if start <= Month.parse(month) <= end]


def _run(months: Sequence[tuple[str, str]], *, workers: int, module: str = "taxi_assets.definitions") -> None:
    started = time.monotonic()
    with WorkerPool(workers, backfill=uuid.uuid4().hex[:8], module=module) as pool:
        layers = _run_and_print(pool, months)
        click.echo("\n" + summary(layers) + "\n")
        zones = [] if is_materialized(ZONES) else _run_and_print(pool, [("reference", "")])
        loaded = [run for run in layers if run.succeeded]
        derived = {("marts", run.month) for run in loaded} | {(f"{run.job}_report", run.month) for run in loaded}
        # Sort by month, so that marts and reports alternate and fewer runs wait for the embedded warehouse, which has
        # one writer at a time: reports only read.
        after = _run_and_print(pool, [("quality", ""), *sorted(derived, key=lambda pair: pair[::-1])])
        ended = [*layers, *zones, *after]
    failed = sorted((run for run in ended if not run.succeeded), key=lambda run: (run.job, run.month))
    click.echo(f"\n{len(ended) - len(failed)} of {len(ended)} runs succeeded, in {time.monotonic() - started:.0f} s.")
    for run in failed:
        click.echo("  " + (run.reason if run.reason.startswith(_name(run)) else f"{_name(run)}: {run.reason}"))
    if failed:
        raise SystemExit(1)


def _run_and_print(pool: WorkerPool, jobs: Sequence[tuple[str, str]]) -> list[JobRun]:
    """Run the jobs, and print a line for each run that ends."""
    ended: list[JobRun] = []
    count = len(jobs)
    for run in pool.run(jobs):
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
