"""The commands behind `make backfill`, `make outdated`, `make revisions`, `make demo` and `make views`.

Belongs here: their options. Does not belong here: which months are meant (`month_selection.py`), and running jobs
(`backfill_progress.py`, `worker_pool.py`).
"""

from __future__ import annotations

import datetime as dt
import os
import sys
import uuid
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import dagster as dg

from taxi_assets.automation.outdated_months import outdated_months
from taxi_assets.cli.backfill_progress import VIEWS, Backfill, print_places, relative_to_cwd
from taxi_assets.cli.month_selection import OUTDATED, PUBLISHED, outdated_months_of, published_months, select_months
from taxi_assets.cli.run_config_file import RunConfigFile
from taxi_assets.cli.worker_pool import WorkerPool
from taxi_assets.errors import RunConfigError, TaxiAssetsError
from taxi_assets.reports.artifact import PAGE
from taxi_assets.settings import Settings
from taxi_assets.storage.lake.objects import object_prefix
from taxi_assets.storage.lake.revisions import PRESENT, Revisions, pinned_months, raw_months
from taxi_assets.storage.lake_tables import VIEWS_KEY
from taxi_assets.tlc.services.registry import SERVICES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taxi_assets.tlc.sources.source_record import SourceRecord

_DEMO_MONTH = "2021-01"


class _MakeOption(click.Option):
    """An option that `make` sets by a variable, such as KEEP: errors name both."""

    def get_error_hint(self, ctx: click.Context | None) -> str:  # noqa: ARG002
        """Return the names of the variable and of the option."""
        option = max(self.opts, key=len)
        return f"{option.strip('-').upper()} ({option})"


class _AtLeast(click.IntRange):
    """A whole number that is not too small."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number.

        Raises:
            click.BadParameter: It is not accepted. The message says which numbers are.
        """
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            message = f"{str(value)!r} is not accepted. Write a whole number of at least {self.min}."
            raise click.BadParameter(message, ctx=ctx, param=param) from None


_option = partial(click.option, cls=_MakeOption)


@click.group()
def cli() -> None:
    """Load months of trips, several at a time."""
    if not os.environ.get("DAGSTER_HOME"):
        raise click.UsageError(
            "DAGSTER_HOME is not set, so the runs would leave no history. Use make, or set DAGSTER_HOME."
        )


@cli.command()
@_option("--service", type=click.Choice(sorted(SERVICES)), required=True)
@_option("--from", "first", metavar="YYYY-MM", help="The first month.")
@_option("--to", "last", metavar="YYYY-MM", help="The last month.")
@_option(
    "--months",
    help="A list such as 2013-08,2020-10; `published`: the months that the publisher has; `outdated`: those that were "
    "built by other rules, columns, marts or code. With the last two, --from and --to are optional.",
)
@_option(
    "--workers",
    type=_AtLeast(1),
    default=os.cpu_count() or 1,
    help="How many months to run at the same time.",
    show_default=True,
)
@_option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    help="A YAML file with the run config of every run of the service's job, such as rules and force.",
)
@click.option("--strict", is_flag=True, help="Exit with 1 if there is a warning, too.")
@click.option("--module", default="taxi_assets.definitions", help="The module that defines `defs`.", show_default=True)
def backfill(
    service: str,
    first: str | None,
    last: str | None,
    months: str | None,
    workers: int,
    config_file: Path | None,
    strict: bool,
    module: str,
) -> None:
    """Materialize all layers of some months, their marts and reports, the quality table and the file of views.

    Load the taxi zones if they are missing.
    """
    selected = select_months(service, months, first=first, last=last)
    file = _read_run_config(config_file) if config_file else None
    with WorkerPool(workers, backfill=uuid.uuid4().hex[:8], module=module) as pool:
        if file:
            _validate_run_config(file, pool.job(service))
        if months == OUTDATED:
            selected = outdated_months_of(service, selected)
        elif months == PUBLISHED:
            selected = published_months(service, selected, Settings.from_env())
        if not selected:
            return
        print_places(Settings.from_env(), [service])
        if file:
            click.echo(f"Every run of the job {service} has the run config in {file.path}.\n")
        started = Backfill(pool, [(service, month) for month in selected])
        try:
            started.run(file.config if file else None)
        except KeyboardInterrupt:
            raise click.ClickException(
                "The backfill was interrupted. Nothing is half-written. Run the same command again to finish it: "
                "months that are done are not loaded again."
            ) from None
    started.finish(strict=strict)


@cli.command()
@_option("--service", type=click.Choice(sorted(SERVICES)), help="Default: all services.")
def outdated(service: str | None) -> None:
    """List the months that were built by other rules, columns, marts or code than today's, with what has changed."""
    count = 0
    with dg.DagsterInstance.get() as instance:
        for name in [service] if service else SERVICES:
            for found in outdated_months(instance, SERVICES[name]):
                count += 1
                click.echo(f"{name} {found.month}  {' '.join(found.changes)}")
    click.echo(
        f"\n{count} {'month is' if count == 1 else 'months are'} outdated. "
        "To rebuild those of a service: make backfill SERVICE=… MONTHS=outdated"
        if count
        else "No month is outdated."
    )


def _read_run_config(path: Path) -> RunConfigFile:
    try:
        return RunConfigFile.read(path)
    except RunConfigError as error:
        raise click.ClickException(f"{error}\nNo run was started.") from None


def _validate_run_config(file: RunConfigFile, job: dg.JobDefinition) -> None:
    if errors := file.validate(job):
        raise click.ClickException("\n".join([*map(str, errors), "No run was started."]))


@cli.command()
@_option("--service", type=click.Choice(sorted(SERVICES)), required=True)
@_option("--month", metavar="YYYY-MM", help="Default: all months with older revisions.")
@_option("--keep", type=_AtLeast(0), help="List the revisions beyond this number of older ones per month.")
@click.option("--delete", is_flag=True, help="With --keep: delete them.")
def revisions(service: str, month: str | None, keep: int | None, delete: bool) -> None:
    """List the revisions of published files, newest first; or delete the oldest ones.

    The present revision of a month, and the one that it is pinned to, are never deleted.
    """
    from taxi_assets.build import build_lake  # noqa: PLC0415

    if delete and keep is None:
        raise click.UsageError("Set how many older revisions of each month remain, such as KEEP=2 (--keep 2).")
    with dg.build_resources({"lake": build_lake(Settings.from_env())}) as resources:
        lake, count = resources.lake, 0
        pinned = pinned_months(lake, SERVICES[service])
        months = select_months(service, month, first=None, last=None) if month else raw_months(lake, SERVICES[service])
        for name in months:
            of_month = Revisions.of(lake, SERVICES[service], name)
            if keep is not None:
                shown = of_month.prune(keep) if delete else of_month.prunable(keep)
            else:
                shown = of_month.list_all()
                if not month and len(shown) < 2 and name not in pinned:
                    continue
            for file in shown:
                count += 1
                marks = [PRESENT] if file.prefix == of_month.prefix else []
                marks += ["pinned"] if pinned.get(name) == file.record.sha256 else []
                click.echo(_revision_line(service, name, file.record, marks))
    if keep is not None:
        click.echo(f"{'Deleted' if delete else 'To delete with DELETE=1'}: {count}.")
        if spared := sorted(pinned.keys() & set(months)):
            click.echo(f"Not deleted are the files to which these months are pinned: {', '.join(spared)}.")
    elif not count and month:
        raise click.ClickException(f"The lake has no file of {service} {month}. Download it with make backfill first.")
    elif not count:
        click.echo(f"{service} has no month with older revisions in the lake.")


def _revision_line(service: str, month: str, record: SourceRecord, marks: Sequence[str]) -> str:
    size = f"{record.bytes:,} bytes, {record.rows:,} rows"
    fetched = f"{record.fetched_at.astimezone(dt.UTC):%Y-%m-%d %H:%M} UTC"
    line = f"{service} {month}  {record.sha256[:12]}  {fetched}  {size}  {record.publisher}  {' '.join(marks)}"
    return line.rstrip()


@cli.command()
def demo() -> None:
    """Materialize one generated month of every service, with marts and reports, and print where the results are."""
    from taxi_assets.build import build_lake, build_warehouse  # noqa: PLC0415
    from taxi_assets.tlc import synthetic  # noqa: PLC0415  (only the demo needs the generator)

    click.echo(
        "Loading one month of generated trips of every service, through all layers, into an embedded warehouse:\n"
    )
    with WorkerPool(os.cpu_count() or 1, backfill=uuid.uuid4().hex[:8]) as pool:
        started = Backfill(pool, [(service, _DEMO_MONTH) for service in synthetic.services()])
        started.run()
    started.finish()
    settings = Settings.from_env()
    lake, warehouse = build_lake(settings), build_warehouse(settings)
    addresses = {
        "quarantine": lake.uri("quarantine"),
        "report": lake.uri(f"{object_prefix('reports', SERVICES['yellow'], _DEMO_MONTH)}/{PAGE}"),
        "warehouse": warehouse.uri(),
        "views": lake.uri(VIEWS_KEY),
    }
    click.echo(_NEXT_STEPS.format(**{name: relative_to_cwd(address) for name, address in addresses.items()}))


@cli.command()
@click.option("--module", default="taxi_assets.definitions", help="The module that defines `defs`.", show_default=True)
def views(module: str) -> None:
    """Write views.duckdb to the lake: a DuckDB file with a view for each table in the lake."""
    from taxi_assets.build import build_lake  # noqa: PLC0415

    with WorkerPool(1, backfill=uuid.uuid4().hex[:8], module=module) as pool:
        (ended,) = pool.run([VIEWS])
    if not ended.succeeded:
        raise click.ClickException(ended.reason)
    click.echo(f"Open it read-only, at any time: {relative_to_cwd(build_lake(Settings.from_env()).uri(VIEWS_KEY))}")


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


if __name__ == "__main__":
    try:
        cli()
    except TaxiAssetsError as error:  # such as a mistake in a mart, found when the definitions are loaded
        sys.exit(f"Error: {error}")
