"""`make backfill SERVICE=green FROM=2020-01 TO=2020-12`: a range of months, and the demo, from the command line."""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import click
from tabulate import tabulate

from taxi_assets.assets.reference import ZONES
from taxi_assets.cli.worker_pool import MonthRun, Workers, is_materialized
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
    """Materialize every shelf for a range of months, then marts and reports of these months."""
    _run([(service, month) for month in months_between(service, first, last)], workers=workers, module=module)


@cli.command()
def demo() -> None:
    """Materialize a generated month of every service, with marts and reports, and say where to look."""
    from taxi_assets.build import build_lake, build_warehouse  # noqa: PLC0415
    from taxi_assets.tlc import synthetic  # noqa: PLC0415  (the generator is loaded only where it is asked for)

    click.echo("A month of generated trips of every service, through every shelf, into an embedded warehouse:\n")
    _run([(service, _DEMO_MONTH) for service in synthetic.services()], workers=os.cpu_count() or 1)
    settings = Settings.from_env()
    lake, warehouse = build_lake(settings), build_warehouse(settings)
    places = {
        "quarantine": lake.uri("quarantine"),
        "report": lake.uri(f"{object_prefix('reports', SERVICES['yellow'], _DEMO_MONTH)}/{PAGE}"),
        "warehouse": warehouse.uri(),
    }
    click.echo(_NEXT.format(**{name: _from_here(place) for name, place in places.items()}))


def _from_here(address: str) -> str:
    return address.replace(f"{Path.cwd()}/", "")


_NEXT = """
Where to look next:
  make demo-ui    the same in Dagster's UI: lineage, partitions, previews, checks
  make dev        your own months, from TLC's real files (TAXI_SOURCE says from where)

  {report}
                  a month on one page, for a browser
  {quarantine}
                  every row that was left out, with its reasons and its original text
  {warehouse}
                  the tables, for any DuckDB client: taxi.yellow_trips, taxi.zone_day, taxi.month_quality ..."""


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
    with Workers(workers, backfill=uuid.uuid4().hex[:8], module=module) as pool:
        layers = _show(pool, months)
        click.echo("\n" + summary(layers) + "\n")
        zones = [] if is_materialized(ZONES) else _show(pool, [("reference", "")])
        # By month: drawing a report beside making marts, the one writer of an embedded warehouse keeps fewer waiting.
        loaded = [run for run in layers if run.succeeded]
        after = {("marts", run.month) for run in loaded} | {(f"{run.job}_report", run.month) for run in loaded}
        made = _show(pool, [("quality", ""), *sorted(after, key=lambda pair: pair[::-1])])
        ended = [*layers, *zones, *made]
    failed = sorted((run for run in ended if not run.succeeded), key=lambda run: (run.job, run.month))
    click.echo(f"\n{len(ended) - len(failed)} of {len(ended)} runs ended well, in {time.monotonic() - started:.0f} s.")
    for run in failed:
        click.echo("  " + (run.reason if run.reason.startswith(_name(run)) else f"{_name(run)}: {run.reason}"))
    if failed:
        raise SystemExit(1)


def _show(pool: Workers, jobs: Sequence[tuple[str, str]]) -> list[MonthRun]:
    ended: list[MonthRun] = []
    count = len(jobs)
    for run in pool.run(jobs):
        ended.append(run)
        outcome = "ok" if run.succeeded else "FAILED"
        click.echo(f"[{len(ended):>{len(str(count))}}/{count}] {_name(run)}  {outcome}  {run.seconds:.1f} s")
    return ended


def _name(run: MonthRun) -> str:
    return f"{run.job} {run.month}".rstrip()


def summary(runs: Sequence[MonthRun]) -> str:
    """The runs as a table: service, month, rows on each shelf."""
    rows = [
        [run.job, run.month, *(f"{run.rows[s]:,}" if s in run.rows else "-" for s in _LAYERS)]
        for run in sorted(runs, key=lambda run: (run.job, run.month))
    ]
    headers = ["service", "month", *_LAYERS.values()]
    return tabulate(rows, headers, disable_numparse=True, colalign=("left", "left", *["right"] * len(_LAYERS)))


if __name__ == "__main__":
    cli()
