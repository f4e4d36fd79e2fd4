"""Render portable SQL for one warehouse.

Belongs here: parsing portable SQL, replacing `all_trips` with the trips of services, and the types and lineage of a
query's columns. Does not belong here: what portable SQL allows (`portable_sql.py`), and running a query.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.lineage import lineage
from sqlglot.optimizer.annotate_types import annotate_types
from sqlglot.optimizer.qualify import qualify
from sqlglot.optimizer.scope import build_scope, traverse_scope

from taxi_assets.marts import all_trips
from taxi_assets.marts.mart import marts
from taxi_assets.marts.portable_sql import (
    SOURCE_DIALECT,
    definition_error,
    require_additive,
    require_portable,
    sql_text,
)
from taxi_assets.tlc.schema import ColumnType
from taxi_assets.tlc.services.registry import SERVICES
from taxi_assets.tlc.zones import ZONE_COLUMNS, ZONES_TABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from taxi_assets.marts.mart import Mart
    from taxi_assets.tlc.month import Month
    from taxi_assets.tlc.schema import Column, Service

    _Columns = Sequence[Column] | Sequence[all_trips.CommonColumn]

_TERMINAL_COLORS = re.compile(r"\x1b\[\d*m")

_TYPES = {
    ColumnType.INTEGER: "BIGINT",
    ColumnType.MONEY: "DECIMAL(12, 2)",
    ColumnType.MILES: "DECIMAL(12, 3)",
    ColumnType.DEGREES: "DOUBLE",
    ColumnType.TEXT: "TEXT",
    ColumnType.DATETIME: "TIMESTAMP",
    ColumnType.DATE: "DATE",
    ColumnType.BOOLEAN: "BOOLEAN",
    ColumnType.MONEY_SUM: "DECIMAL(18, 2)",
    ColumnType.MILES_SUM: "DECIMAL(18, 3)",
}


@cache
def mart_queries(mart: Mart) -> tuple[exp.Query, dict[str, exp.Query]]:
    """Return a mart's query of a month, and its views on the table by name.

    Raises:
        MartDefinitionError: The SQL does not parse, is not portable, or does not fit the header.
    """
    first, views = _parse_mart(mart)
    for query in (first, *views.values()):
        _require_known_columns(query, mart)
    return first, views


def _parse_mart(mart: Mart) -> tuple[exp.Query, dict[str, exp.Query]]:
    first, *others = _parse_statements(mart.sql, mart.name)
    if not isinstance(first, exp.Query) or [c.name for c in mart.columns] != first.named_selects:
        columns = ", ".join(column.name for column in mart.columns)
        raise definition_error(mart.name, f"the query of a month must select, in this order: {columns}")
    if "data_month" not in mart.key or all_trips.NAME not in tables_of(first):
        raise definition_error(mart.name, "it must read all_trips, and data_month must be part of its key")
    require_additive(first, mart.name, mart.measures)
    views = {}
    for view in others:
        if not (
            isinstance(view, exp.Create)
            and view.kind == "VIEW"
            and isinstance(view.this, exp.Table)
            and isinstance(view.expression, exp.Query)
        ):
            raise definition_error(mart.name, "only CREATE VIEW … AS SELECT … may follow the query of a month")
        require_portable(view.this, mart.name)
        views[view.this.name] = view.expression
    if [*views] != mart.views or len(views) != len(others):
        raise definition_error(
            mart.name, "each view must begin with CREATE VIEW and a unique name, and no comment may contain CREATE VIEW"
        )
    for query in (first, *views.values()):
        require_portable(query, mart.name)
    return first, views


def parse(sql: str, label: str) -> exp.Query:
    """Parse one query in portable SQL.

    Args:
        sql: The query.
        label: Names the query in errors.

    Raises:
        MartDefinitionError: It is not exactly one query, or not portable.
    """
    queries = _parse_statements(sql, label)
    if len(queries) != 1 or not isinstance(queries[0], exp.Query):
        raise definition_error(label, "it is not exactly one query")
    require_portable(queries[0], label)
    return queries[0]


def tables_of(query: exp.Query) -> set[str]:
    """Return the names of the tables that a query reads."""
    return {table.name for table in _tables(query)}


def _tables(query: exp.Query) -> list[exp.Table]:
    """Return each place where a query reads a table; `exp.find_tables` returns equal places once."""
    return [table for scope in traverse_scope(query) for table in scope.tables if table.name not in scope.cte_sources]


def month_query(mart: Mart, month: Month, services: Sequence[Service]) -> exp.Query:
    """Return the query of one month of a mart, over the trips of these services."""
    return expand_all_trips(mart_queries(mart)[0], services, [month])


def expand_all_trips(query: exp.Query, services: Sequence[Service], months: Iterable[Month]) -> exp.Query:
    """Replace `all_trips` in a query with the trips of some months of some services.

    Raises:
        MartDefinitionError: The query reads `all_trips`, but no services or no months are given.
    """
    days = [str(month.start) for month in months]
    expanded = query.copy()
    for table in _tables(expanded):
        if table.name != all_trips.NAME:
            continue
        if not (services and days):
            raise definition_error("query", "it reads all_trips, but no services and months are given")
        table.replace(_all_trips(services, days).subquery(table.alias or all_trips.NAME))
    return expanded


def render(query: exp.Query, dialect: str, relation: Callable[[str], str]) -> str:
    """Render a query in the SQL of an engine.

    Args:
        query: The query, with names of tables without a schema.
        dialect: sqlglot's name of the engine's dialect.
        relation: Returns the engine's full name of a table.
    """
    rendered = query.copy()
    for table in _tables(rendered):
        full_name = exp.to_table(relation(table.name), dialect=dialect)
        table.replace(exp.alias_(full_name, table.alias or table.name, table=True))
    # Names are quoted, because each engine reserves other words.
    return rendered.sql(dialect=dialect, identify=True)


# --- what a query's columns are ---------------------------------------------------------------------------------------


def _require_known_columns(query: exp.Query, mart: Mart) -> None:
    """Require that every column exists, if all tables of the query are known; else the engine reports it."""
    known = _known_tables() | {mart.name: mart.columns}
    if not tables_of(query) <= {*known}:
        return
    schema = {table: _types(table, known[table]) for table in tables_of(query)}
    try:
        _qualified(query, schema, validate=True)
    except SqlglotError as error:
        raise definition_error(mart.name, f"it names something that does not exist: {_error_text(error)}") from None


def column_types(query: exp.Query) -> dict[str, str]:
    """Return DuckDB's types of a query's columns by name; columns whose type is unknown are left out."""
    try:
        schema = _schema(tables_of(query))
        typed = annotate_types(_qualified(query, schema), schema=schema, dialect=SOURCE_DIALECT)
    except SqlglotError:  # the engine will report the error
        return {}
    return {
        column.alias_or_name: column.type.sql(SOURCE_DIALECT) for column in typed.selects if column.type is not None
    }


def column_lineage(mart: Mart, services: Sequence[Service]) -> dict[str, set[tuple[str, str]]]:
    """Return the lineage of a mart's columns.

    Returns:
        For each column of the mart, the (table, column) pairs in the warehouse that its values come from.
    """
    query = expand_all_trips(mart_queries(mart)[0], services, [services[0].first_month])
    schema = _schema(tables_of(query))
    # By default, sqlglot copies each query once for each of its columns, which takes five times as long.
    nodes = lineage(None, query, schema, dialect=SOURCE_DIALECT, trim_selects=False)
    leaves = {name: [n for n in node.walk() if isinstance(n.expression, exp.Table)] for name, node in nodes.items()}
    return {name: {(leaf.expression.name, exp.to_column(leaf.name).name) for leaf in leaves[name]} for name in leaves}


def is_never_null(mart: Mart, column: str) -> bool:
    """Return whether the mart's query proves that the column is never null."""
    query = mart_queries(mart)[0]
    scope = build_scope(_qualified(query, _schema(tables_of(query))))
    return scope is not None and _is_never_null(scope, query.named_selects.index(column))


def _qualified(query: exp.Query, schema: Mapping[str, object], *, validate: bool = False) -> exp.Query:
    return qualify(
        query.copy(),
        schema=dict(schema),
        dialect=SOURCE_DIALECT,
        quote_identifiers=False,
        validate_qualify_columns=validate,
    )


def _schema(tables: Iterable[str]) -> dict[str, object]:
    """Return the types of the columns of the tables that are known."""
    return {table: dict(columns) for table in tables if (columns := _columns_of(table))}


@cache
def _columns_of(table: str) -> Mapping[str, str]:
    known = _known_tables()
    if table in known:
        return _types(table, known[table])
    views = (_parse_mart(mart)[1][table] for mart in marts().values() if table in mart.views)
    return next((column_types(view) for view in views), {})


def _known_tables() -> dict[str, _Columns]:
    """Return the columns of all tables that this project writes, and of `all_trips`."""
    return {
        ZONES_TABLE: ZONE_COLUMNS,
        all_trips.NAME: all_trips.COLUMNS,
        **{service.table: service.columns for service in SERVICES.values()},
        **{name: mart.columns for name, mart in marts().items()},
    }


def _types(table: str, columns: _Columns) -> dict[str, str]:
    own = {"service": "TEXT"} if table == all_trips.NAME else {}
    return own | {column.name: _TYPES[column.type] for column in columns}


def _is_never_null(scope: Any, place: int) -> bool:
    if scope.set_operation_scopes:
        return all(_is_never_null(side, place) for side in scope.set_operation_scopes)
    joins = scope.expression.args.get("joins") or []
    outer = {join.alias_or_name for join in joins if join.side}
    whole = any(join.side in {"RIGHT", "FULL"} for join in joins)

    def holds(node: Any) -> bool:
        node = node.this if isinstance(node, exp.Neg) else node
        if isinstance(node, exp.Coalesce):
            return any(holds(one) for one in (node.this, *node.expressions))
        source: Any = scope.sources.get(node.table) if isinstance(node, exp.Column) else None
        if source is None or whole or node.table in outer:
            return isinstance(node, exp.Literal | exp.Count)
        if isinstance(source, exp.Table):
            return source.name == all_trips.NAME and node.name in _NEVER_NULL
        return _is_never_null(source, source.expression.named_selects.index(node.name))

    return holds(scope.expression.selects[place].unalias())


_NEVER_NULL = {"service", "data_month"} | {c.name for c in all_trips.COLUMNS if c.value_if_null is not None}


# --- trips ------------------------------------------------------------------------------------------------------------


def _all_trips(services: Sequence[Service], days: Sequence[str]) -> exp.Query:
    selects = [_service_trips(service, days) for service in services]
    if len(selects) == 1:
        return selects[0]
    return exp.union(*selects, distinct=False)


def _service_trips(service: Service, days: Sequence[str]) -> exp.Select:
    recorded = {column.name for column in service.columns}
    columns = [exp.alias_(exp.Literal.string(service.name), "service")]
    for column in all_trips.COLUMNS:
        source = all_trips.column_sql(column, service)
        # A null without a type would turn the column into text in a union of services.
        value = exp.cast(exp.null(), _TYPES[column.type].partition("(")[0]) if source is None else _parse(source)
        if source is not None and column.null_for_reversals and "is_reversal" in recorded:
            value = exp.Case(
                ifs=[
                    exp.If(this=exp.Not(this=exp.func("COALESCE", exp.column("is_reversal"), exp.false())), true=value)
                ]
            )
        if column.value_if_null is not None:
            value = exp.func("COALESCE", value, _parse(column.value_if_null))
        columns.append(exp.alias_(value, column.name))
    months = exp.column("data_month").isin(*(exp.cast(exp.Literal.string(day), "DATE") for day in days))
    return exp.select(*columns).from_(service.table).where(months)


def _parse(sql: str) -> exp.Expr:
    parsed: exp.Expr = sqlglot.parse_one(sql, read=SOURCE_DIALECT)
    return parsed


def _parse_statements(sql: str, label: str) -> list[exp.Expr]:
    try:
        statements = [statement for statement in sqlglot.parse(sql, read=SOURCE_DIALECT) if statement is not None]
    except (SqlglotError, ValueError) as error:
        raise definition_error(label, f"it cannot be parsed: {_error_text(error)}") from None
    if not statements:
        raise definition_error(label, "there is no query")
    for statement in statements:
        if isinstance(statement, exp.Alias | exp.Condition):  # such as SELEC data_month, a value by a name
            raise definition_error(label, f"it cannot be parsed: {sql_text(statement)} is not a statement")
    return statements


def _error_text(error: Exception) -> str:
    """Return the text of a parser's error on one line, without terminal colors."""
    return " ".join(_TERMINAL_COLORS.sub("", str(error)).split()).rstrip(".")
