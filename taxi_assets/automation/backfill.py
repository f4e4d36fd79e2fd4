"""`make backfill SERVICE=green FROM=2020-01 TO=2020-12`: a range of months, and the demo, from the command line."""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import click
import dagster as dg
from tabulate import tabulate

from taxi_assets.automation.months import MonthRun, run_months
from taxi_assets.partitions import monthly_partitions
from taxi_assets.settings import Settings
from taxi_assets.tlc.catalogue import SERVICES
from taxi_assets.tlc.month import Month

if TYPE_CHECKING:
    from collections.abc import Sequence

_SHELVES = {"raw": "raw", "clean": "clean", "quarantine": "quarantined", "warehouse": "in the warehouse"}

DEMO_MONTHS = [(service, "2021-01") for service in SERVICES]


@click.group()
def cli() -> None:
    """Run months of trips, several at a time."""
    if not os.environ.get("DAGSTER_HOME"):
        raise click.UsageError("DAGSTER_HOME is not set, so the runs would leave no history. Use make, or set it.")


@cli.command()
@click.option("--service", type=click.Choice(sorted(SERVICES)), required=True)
@click.option("--from", "first", metavar="YYYY-MM", required=True, help="The first month.")
@click.option("--to", "last", metavar="YYYY-MM", required=True, help="The last month.")
@click.option(
    "--workers", type=click.IntRange(1), default=os.cpu_count() or 1, help="Months at a time.", show_default=True
)
@click.option("--module", default="taxi_assets.definitions", help="The module that holds `defs`.", show_default=True)
def backfill(service: str, first: str, last: str, workers: int, module: str) -> None:
    """Materialize every shelf for a range of months."""
    _run([(service, month) for month in months_between(service, first, last)], workers=workers, module=module)


@cli.command()
def demo() -> None:
    """Materialize a generated month of every service and the taxi zones, and say where to look."""
    from taxi_assets.build import lake_at, warehouse_at  # noqa: PLC0415
    from taxi_assets.definitions import defs  # noqa: PLC0415  (a wrong setting is then one line, as for any command)

    click.echo("A month of generated trips of every service, through every shelf, into an embedded warehouse:\n")
    with dg.DagsterInstance.get() as instance:
        defs.resolve_job_def("reference").execute_in_process(
            instance=instance, run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
        )
    _run(DEMO_MONTHS, workers=os.cpu_count() or 1)
    settings = Settings.from_env()
    quarantine = lake_at(settings).uri("quarantine")
    click.echo(_NEXT.format(quarantine=_from_here(quarantine), warehouse=_from_here(warehouse_at(settings).uri())))


def _from_here(address: str) -> str:
    return address.replace(f"{Path.cwd()}/", "")


_NEXT = """
Where to look next:
  make demo-ui    the same in Dagster's UI: lineage, partitions, previews, checks
  make dev        your own months, from TLC's real files (TAXI_SOURCE says from where)

  {quarantine}
                  every row that was left out, with its reasons and its original text
  {warehouse}
                  the tables, for any DuckDB client: taxi.yellow_trips, taxi.fhv_trips, taxi.taxi_zones ..."""


def months_between(service: str, first: str, last: str) -> list[str]:
    """The months of a range; raises a usage error where it is none, or the service has no such months."""
    try:
        start, end = Month.parse(first), Month.parse(last)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    known = monthly_partitions(SERVICES[service]).get_partition_keys()
    for month in (start, end):
        if str(month) not in known:
            raise click.UsageError(f"{service} has no month {month}: it has {known[0]} to {known[-1]}.")
    if start > end:
        raise click.UsageError(f"The range is empty: it goes from {start} to {end}.")
    return [month for month in known if start <= Month.parse(month) <= end]


def _run(months: Sequence[tuple[str, str]], *, workers: int, module: str = "taxi_assets.definitions") -> None:
    started = time.monotonic()
    ended: list[MonthRun] = []
    for run in run_months(months, backfill=uuid.uuid4().hex[:8], workers=workers, module=module):
        ended.append(run)
        outcome = "ok" if run.succeeded else "FAILED"
        count = f"[{len(ended):>{len(str(len(months)))}}/{len(months)}]"
        click.echo(f"{count} {run.service} {run.month}  {outcome}  {run.seconds:.1f} s")
    click.echo("\n" + summary(ended))
    failed = [run for run in ended if not run.succeeded]
    click.echo(
        f"\n{len(ended) - len(failed)} of {len(ended)} months ended well, in {time.monotonic() - started:.0f} s."
    )
    for run in sorted(failed, key=lambda run: (run.service, run.month)):
        name = f"{run.service} {run.month}"
        click.echo("  " + (run.reason if run.reason.startswith(name) else f"{name}: {run.reason}"))
    if failed:
        raise SystemExit(1)


def summary(runs: Sequence[MonthRun]) -> str:
    """The runs as a table: service, month, rows on each shelf."""
    rows = [
        [run.service, run.month, *(f"{run.rows[s]:,}" if s in run.rows else "-" for s in _SHELVES)]
        for run in sorted(runs, key=lambda run: (run.service, run.month))
    ]
    headers = ["service", "month", *_SHELVES.values()]
    return tabulate(rows, headers, disable_numparse=True, colalign=("left", "left", *["right"] * len(_SHELVES)))


if __name__ == "__main__":
    cli()
