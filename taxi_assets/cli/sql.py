"""`python -m taxi_assets.cli.sql`: run queries on the warehouse of the settings. They can only read.

`make sql` calls it. The warehouse is open only while a query runs, so no run waits for a person.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click
import dagster as dg
import sqlglot
from sqlglot import exp
from tabulate import tabulate

from taxi_assets.build import build_warehouse
from taxi_assets.errors import SettingsError, TaxiAssetsError
from taxi_assets.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

    from taxi_assets.storage.warehouse.base_warehouse import Warehouse

_SHOWN_ROWS = 40
_READS = (exp.Query, exp.Describe, exp.Show, exp.Summarize, exp.Values)
_WRITES = (exp.Insert, exp.Update, exp.Delete, exp.Merge, exp.Into)


@click.command()
@click.argument("query", required=False)
def sql(query: str | None) -> None:
    """Run QUERY on the warehouse, and print its rows. Without it, ask for queries; each ends with a semicolon."""
    try:
        settings = Settings.from_env()
    except SettingsError as error:
        raise click.ClickException(str(error)) from None
    with dg.build_resources({"warehouse": build_warehouse(settings)}) as resources:
        warehouse: Warehouse = resources.warehouse
        if query:
            try:
                _print(_read(warehouse, query))
            except TaxiAssetsError as error:
                raise click.ClickException(str(error)) from None
            return
        click.echo(f"{warehouse.uri()}, read-only. A query ends with a semicolon; Ctrl-D ends the session.", err=True)
        for text in _queries():
            try:
                _print(_read(warehouse, text))
            except (TaxiAssetsError, click.ClickException) as error:
                click.echo(f"Error: {error}", err=True)


def _read(warehouse: Warehouse, query: str) -> pd.DataFrame:
    try:
        statements = [found for found in sqlglot.parse(query, read=warehouse.dialect) if found is not None]
    except sqlglot.ParseError as error:
        found = error.errors[0]
        raise click.ClickException(
            f"The query is not valid SQL, in line {found['line']}: {found['description'].rstrip('.')}."
        ) from None
    if len(statements) != 1:
        raise click.ClickException("Write one query at a time.")
    if not isinstance(statements[0], _READS) or statements[0].find(*_WRITES):
        raise click.ClickException("Only queries that read are allowed: SELECT, DESCRIBE, SHOW and SUMMARIZE.")
    return warehouse.read_native_frame(query.strip().rstrip(";"))


def _print(frame: pd.DataFrame) -> None:
    rows = frame.head(_SHOWN_ROWS).astype(object).to_numpy().tolist()
    click.echo(tabulate(rows, headers=list(frame.columns), disable_numparse=True))
    more = f", of which the first {_SHOWN_ROWS} are shown" if len(frame) > _SHOWN_ROWS else ""
    click.echo(f"({len(frame):,} row{'' if len(frame) == 1 else 's'}{more})")


def _queries() -> Iterator[str]:
    """Yield the queries that are typed, or that come from a pipe."""
    if sys.stdin.isatty():
        import readline  # noqa: F401, PLC0415  (importing it makes `input` edit lines)
    text = ""
    while True:
        try:
            text += input(("sql> " if not text else "...> ") if sys.stdin.isatty() else "") + "\n"
        except (EOFError, KeyboardInterrupt):
            break
        if text.rstrip().endswith(";"):
            yield text
            text = ""
        elif not text.strip():
            text = ""
    if text.strip():
        yield text


if __name__ == "__main__":
    sql()
