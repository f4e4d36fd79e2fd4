"""Run the jobs of a backfill, and print what it uses, how far it is, and how it ended."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
from tabulate import tabulate

from taxi_assets.addresses import without_secrets
from taxi_assets.assets.reference import ZONES
from taxi_assets.cli.worker_pool import JobRun, WorkerPool, is_materialized
from taxi_assets.storage.lake.local_lake import LocalLake
from taxi_assets.tlc.services.registry import SERVICES
from taxi_assets.tlc.sources.publishers import source_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from taxi_assets.settings import Settings
    from taxi_assets.storage.lake.base_lake import Lake

_LAYERS = {"raw": "raw", "clean": "clean", "quarantine": "quarantined", "warehouse": "in the warehouse"}

VIEWS = ("views", "")


def print_places(settings: Settings, services: Sequence[str]) -> None:
    """Print which source, lake, warehouse and run history the runs will use, and whether the lake is new."""
    from taxi_assets.build import build_lake, build_warehouse  # noqa: PLC0415  (the worker pool loads it meanwhile)

    lake = build_lake(settings)
    sources = dict.fromkeys(source_of(SERVICES[name], settings.source, settings.service_sources) for name in services)
    rows = [
        ("source", ", ".join(map(without_secrets, sources))),
        ("lake", f"creating a new lake at {_address(lake)}" if _is_new(lake) else _address(lake)),
        ("warehouse", relative_to_cwd(build_warehouse(settings).uri())),
        ("run history", relative_to_cwd(os.environ.get("DAGSTER_HOME", ""))),
    ]
    click.echo(tabulate(rows, tablefmt="plain", disable_numparse=True) + "\n")


def _address(lake: Lake) -> str:
    return relative_to_cwd(lake.uri("raw").removesuffix("/raw"))


def _is_new(lake: Lake) -> bool:
    return isinstance(lake, LocalLake) and not Path(lake.folder).exists()


def relative_to_cwd(address: str) -> str:
    """Return an address without the working directory."""
    return address.replace(f"{Path.cwd()}/", "")


class Backfill:
    """Runs the jobs of some months, and prints one line for each that ends, with one counter for all of them.

    Args:
        pool: Runs the jobs.
        months: Pairs of service and month.
    """

    def __init__(self, pool: WorkerPool, months: Sequence[tuple[str, str]]) -> None:
        self._pool, self._months = pool, months
        self._started = time.monotonic()
        self._ended: list[JobRun] = []
        self._skipped = 0
        self._zones = [] if is_materialized(ZONES) else [("reference", "")]
        self._total = len(months) + len(self._zones) + len(self._derived(months)) + 2  # the quality table and the views

    def run(self, run_config: Mapping[str, Any] | None = None) -> None:
        """Run the services' jobs with the run config, then the jobs that depend on them."""
        layers = self._run(self._months, run_config)
        loaded = [(run.job, run.month) for run in layers if run.succeeded]
        click.echo("\n" + summary(layers))
        _print_warnings(layers)
        click.echo("")
        self._run(self._zones)
        derived = self._derived(loaded)
        self._skip([pair for pair in self._derived(self._months) if pair not in derived])
        if loaded:
            self._run([("quality", ""), *derived])
            self._run([VIEWS])
        else:
            self._skip([("quality", ""), VIEWS])
        _print_warnings([run for run in self._ended if run not in layers])

    def _derived(self, months: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        pairs = {("marts", month) for _, month in months} | {(f"{service}_report", month) for service, month in months}
        # Sort by month, so that marts and reports alternate and fewer runs wait for the embedded warehouse, which has
        # one writer at a time: reports only read.
        return sorted(pairs, key=lambda pair: pair[::-1])

    def _run(self, jobs: Sequence[tuple[str, str]], run_config: Mapping[str, Any] | None = None) -> list[JobRun]:
        ended = []
        for run in self._pool.run(jobs, run_config=run_config):
            ended.append(run)
            self._ended.append(run)
            outcome = "ok" if run.succeeded and not run.warnings else "warning" if run.succeeded else "FAILED"
            self._print(f"{_name(run)}  {outcome}  {run.seconds:.1f} s")
        return ended

    def _skip(self, jobs: Sequence[tuple[str, str]]) -> None:
        for job, month in jobs:
            self._skipped += 1
            reason = f"{month} was not loaded" if month else "no month was loaded"
            self._print(f"{f'{job} {month}'.rstrip()}  skipped: {reason}")

    def _print(self, line: str) -> None:
        count = len(self._ended) + self._skipped
        click.echo(f"[{count:>{len(str(self._total))}}/{self._total}] {line}")

    def finish(self, *, strict: bool = False) -> None:
        """Print how many runs succeeded and why the others failed; exit with 1 if one failed.

        Args:
            strict: Exit with 1 if there is a warning, too.
        """
        failed = sorted((run for run in self._ended if not run.succeeded), key=lambda run: (run.job, run.month))
        warnings = sum(len(run.warnings) for run in self._ended)
        skipped = f", {self._skipped} skipped" if self._skipped else ""
        click.echo(
            f"\n{len(self._ended) - len(failed)} of {len(self._ended)} runs succeeded{skipped}, "
            f"{warnings} warning{'' if warnings == 1 else 's'}, in {time.monotonic() - self._started:.0f} s."
        )
        for run in failed:
            click.echo("  " + (run.reason if run.reason.startswith(_name(run)) else f"{_name(run)}: {run.reason}"))
        if warnings and strict:
            click.echo("STRICT is set, so warnings count as failures.")
        if failed or (warnings and strict):
            raise SystemExit(1)


def _print_warnings(runs: Sequence[JobRun]) -> None:
    for run in sorted(runs, key=lambda run: (run.job, run.month)):
        for warning in run.warnings:
            click.echo(f"  warning, {_name(run)}: {warning}")


def _name(run: JobRun) -> str:
    return f"{run.job} {run.month}".rstrip()


def _percent_quarantined(rows: Mapping[str, int]) -> str:
    return f"{100 * rows['quarantine'] / rows['raw']:.1f}" if rows.get("raw") and "quarantine" in rows else "-"


def summary(runs: Sequence[JobRun]) -> str:
    """Return the runs as a text table: service, month, the number of rows in each layer, and of warnings."""
    rows = [
        [
            run.job,
            run.month,
            *(f"{run.rows[layer]:,}" if layer in run.rows else "-" for layer in _LAYERS),
            _percent_quarantined(run.rows),
            f"{len(run.warnings)}" if run.succeeded else "-",
        ]
        for run in sorted(runs, key=lambda run: (run.job, run.month))
    ]
    headers = ["service", "month", *_LAYERS.values(), "quarantined %", "warnings"]
    return tabulate(rows, headers, disable_numparse=True, colalign=("left", "left", *["right"] * (len(headers) - 2)))
