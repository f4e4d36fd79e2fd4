"""`python -m taxi_assets.cli.sql`: run queries on the warehouse of the settings. They can only read.

`make sql` calls it. The warehouse is open only while a query runs, so no run waits for a person.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

import click
import dagster as dg
import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError
from tabulate import tabulate

from taxi_assets.build import build_warehouse
from taxi_assets.cli.worker_pool import PrintedWaits
from taxi_assets.errors import SettingsError, TaxiAssetsError, WarehouseSchemaError, WarehouseTableMissingError
from taxi_assets.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

    from taxi_assets.storage.warehouse.base_warehouse import Warehouse

_SHOWN_ROWS = 40
_READS = (exp.Query, exp.Describe, exp.Show, exp.Summarize, exp.Values, exp.Pivot)
_WRITES = (exp.Insert, exp.Update, exp.Delete, exp.Merge, exp.Into)


@click.command()
@click.argument("query", required=False)
def sql(query: str | None) -> None:
    """Run QUERY on the warehouse, and print its rows. Without it, ask for queries; each ends with a semicolon.

    The exit code is 1 if a query fails, unless a person has typed it.
    """
    try:
        settings = Settings.from_env()
    except SettingsError as error:
        raise click.ClickException(str(error)) from None
    logging.getLogger("sqlglot").setLevel(logging.ERROR)  # it logs syntax that it does not know
    dg.get_dagster_logger().setLevel(logging.INFO)
    dg.get_dagster_logger().addHandler(PrintedWaits())
    with dg.build_resources({"warehouse": build_warehouse(settings)}) as resources:
        warehouse: Warehouse = resources.warehouse
        if query:
            try:
                _print(_read(warehouse, query))
            except TaxiAssetsError as error:
                raise click.ClickException(str(error)) from None
            return
        click.echo(f"{warehouse.uri()}, read-only. A query ends with a semicolon; Ctrl-D ends the session.", err=True)
        failed = False
        for text in _queries():
            try:
                _print(_read(warehouse, text))
            except (TaxiAssetsError, click.ClickException) as error:
                click.echo(f"Error: {error}", err=True)
                failed = True
        if failed and not sys.stdin.isatty():
            sys.exit(1)


def _read(warehouse: Warehouse, query: str) -> pd.DataFrame:
    try:
        parsed = sqlglot.parse(query, read=warehouse.dialect)
    except sqlglot.ParseError as error:
        found = error.errors[0]
        raise click.ClickException(
            f"The query is not valid SQL, in line {found['line']}: {found['description'].rstrip('.')}."
        ) from None
    except SqlglotError:  # of the tokenizer, which names no place
        raise click.ClickException("The query is not valid SQL: a quote or a comment does not end.") from None
    statements = [found for found in parsed if found is not None and not isinstance(found, exp.Semicolon)]
    if len(statements) != 1:
        raise click.ClickException("Write one query at a time.")
    if not isinstance(statements[0], _READS) or statements[0].find(*_WRITES):
        raise click.ClickException("Only queries that read are allowed: SELECT, DESCRIBE, SHOW and SUMMARIZE.")
    text = _without_end(query)
    if isinstance(statements[0], exp.Query) and not statements[0].args.get("limit"):
        text = f"{text}\nLIMIT {_SHOWN_ROWS + 1}"
    try:
        return warehouse.read_native_frame(text)
    except WarehouseTableMissingError as error:
        names = "SHOW TABLES" if warehouse.dialect == "duckdb" else "SELECT table_name FROM information_schema.tables"
        raise click.ClickException(f"{error.problem} {names} lists the tables.") from None
    except WarehouseSchemaError as error:
        raise click.ClickException(error.problem.replace("!.", "!")) from None


def _without_end(query: str) -> str:
    """Return a query without its semicolon, and without a comment after it."""
    try:
        tokens = sqlglot.tokenize(query)
    except SqlglotError:  # a quote is still open
        return query
    return query[: tokens[-1].start] if tokens and tokens[-1].text == ";" else query


def _print(frame: pd.DataFrame) -> None:
    rows = frame.head(_SHOWN_ROWS).astype(object).to_numpy().tolist()
    click.echo(tabulate(rows, headers=list(frame.columns), disable_numparse=True))
    if len(frame) > _SHOWN_ROWS:
        click.echo(f"({_SHOWN_ROWS} of more rows: sort, filter or count them to find others)")
    else:
        click.echo(f"({len(frame)} row{'' if len(frame) == 1 else 's'})")


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
        if text.rstrip().endswith(";") or _without_end(text) != text:
            yield text
            text = ""
        elif not text.strip():
            text = ""
    if text.strip():
        yield text


if __name__ == "__main__":
    sql()
