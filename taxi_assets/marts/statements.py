"""SQL for a warehouse, from SQL that is written once.

Marts, reports and the questions in `docs/` are written in one dialect, DuckDB's, in a small language: what engines
understand alike. `ALLOWED` is that language, and anything else is refused before it is run: day of week, medians,
differences of times and casts to decimals of a scale come out different, or wrong, from one engine to the next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import sqlglot
from sqlglot import exp

from taxi_assets.errors import MartDefinitionError
from taxi_assets.marts import all_trips
from taxi_assets.tlc.schema import ColumnType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from taxi_assets.marts.mart import Mart
    from taxi_assets.tlc.month import Month
    from taxi_assets.tlc.schema import Service

WRITTEN_IN = "duckdb"

ALLOWED: frozenset[type[exp.Expr]] = frozenset({
    exp.Add, exp.Alias, exp.And, exp.Between, exp.Boolean, exp.Case, exp.Cast, exp.Coalesce, exp.Column, exp.Count,
    exp.CTE, exp.DataType, exp.Distinct, exp.Div, exp.EQ, exp.Extract, exp.From, exp.Group, exp.GT, exp.GTE,
    exp.Identifier, exp.If, exp.In, exp.Is, exp.Join, exp.Limit, exp.Literal, exp.LT, exp.LTE, exp.Max, exp.Min,
    exp.Mul, exp.Neg, exp.NEQ, exp.Not, exp.Null, exp.Nullif, exp.Or, exp.Order, exp.Ordered, exp.Paren, exp.Select,
    exp.Star, exp.Sub, exp.Subquery, exp.Sum, exp.Table, exp.TableAlias, exp.Union, exp.Var, exp.Where, exp.Window,
    exp.With,
})  # fmt: skip
_TYPES = {exp.DType.BIGINT, exp.DType.DATE, exp.DType.DOUBLE, exp.DType.TEXT, exp.DType.DECIMAL, exp.DType.TIMESTAMP}
# What is not recorded has a type all the same, or a union of three services would make text of it.
_NULLS = {
    ColumnType.INTEGER: "BIGINT",
    ColumnType.DATE: "DATE",
    ColumnType.DATETIME: "TIMESTAMP",
    ColumnType.MONEY: "DECIMAL",
    ColumnType.MILES: "DECIMAL",
}
_PARTS_OF_DATES = {"YEAR", "MONTH", "DAY"}


def queries_of(mart: Mart) -> tuple[exp.Query, dict[str, exp.Query]]:
    """The query of a month, and the views upon the table by name; raises `MartDefinitionError`."""
    try:
        first, *others = (statement for statement in sqlglot.parse(mart.sql, read=WRITTEN_IN) if statement is not None)
    except (sqlglot.ParseError, ValueError) as error:
        raise _wrong(mart.name, f"it cannot be parsed: {' '.join(str(error).split())}") from None
    if not isinstance(first, exp.Query) or [c.name for c in mart.columns] != first.named_selects:
        columns = ", ".join(column.name for column in mart.columns)
        raise _wrong(mart.name, f"the query of a month must select, in this order, {columns}")
    views = {}
    for view in others:
        if not isinstance(view, exp.Create) or view.kind != "VIEW" or not isinstance(view.expression, exp.Query):
            raise _wrong(mart.name, "after the query of a month there can only be CREATE VIEW … AS SELECT …")
        views[view.this.name] = view.expression
    for query in (first, *views.values()):
        require_allowed(query, mart.name)
    return first, views


def parse(sql: str, what: str) -> exp.Query:
    """A query in the language of marts; `what` names it in errors."""
    try:
        query = sqlglot.parse_one(sql, read=WRITTEN_IN)
    except sqlglot.ParseError as error:
        raise _wrong(what, f"it cannot be parsed: {' '.join(str(error).split())}") from None
    if not isinstance(query, exp.Query):
        raise _wrong(what, "it is no query")
    require_allowed(query, what)
    return query


def require_allowed(query: exp.Expr, what: str) -> None:
    """Raise `MartDefinitionError` where a query says what engines do not all understand alike."""
    for node in query.walk():
        type_ = type(node)
        if type_ not in ALLOWED:
            raise _wrong(
                what, f"{node.sql(dialect=WRITTEN_IN)!r} ({type_.__name__}) is not among what engines understand alike"
            )
        if isinstance(node, exp.DataType) and (node.this not in _TYPES or node.expressions):
            raise _wrong(
                what, f"a cast to {node.sql(dialect=WRITTEN_IN)} comes out different from one engine to the next"
            )
        if isinstance(node, exp.Extract) and node.name.upper() not in _PARTS_OF_DATES:
            raise _wrong(what, f"EXTRACT of {node.name} comes out different from one engine to the next")


def month_of(mart: Mart, month: Month, services: Sequence[Service]) -> exp.Query:
    """The query of a mart's month, over these services."""
    return over_trips(queries_of(mart)[0], services, [month])


def over_trips(query: exp.Query, services: Sequence[Service], months: Iterable[Month]) -> exp.Query:
    """A query in which `all_trips` is the trips of these months of these services."""
    days = [str(month.start) for month in months]

    def put(node: exp.Expr) -> exp.Expr:
        if isinstance(node, exp.Table) and node.name == all_trips.NAME:
            alias = node.alias or all_trips.NAME
            return _all_trips(services, days).subquery(alias)
        return node

    return cast("exp.Query", query.transform(put))


def render(query: exp.Query, dialect: str, relation: Callable[[str], str]) -> str:
    """The query in an engine's SQL; `relation` says how the engine names a table."""

    def name(node: exp.Expr) -> exp.Expr:
        if isinstance(node, exp.Table) and not node.db and node.name not in ctes:
            table = exp.to_table(relation(node.name), dialect=dialect)
            return exp.alias_(table, node.alias or node.name, table=True)
        return node

    ctes = {cte.alias for cte in query.find_all(exp.CTE)}
    return query.transform(name).sql(dialect=dialect)


def _all_trips(services: Sequence[Service], days: Sequence[str]) -> exp.Query:
    selects = [_trips_of(service, days) for service in services]
    if len(selects) == 1:
        return selects[0]
    return exp.union(*selects, distinct=False)


def _trips_of(service: Service, days: Sequence[str]) -> exp.Select:
    recorded = {column.name for column in service.columns}
    columns = [exp.alias_(exp.Literal.string(service.name), "service")]
    for column in all_trips.COLUMNS:
        source = all_trips.source_of(column, service)
        value = exp.cast(exp.null(), _NULLS[column.type]) if source is None else _parse(source)
        if source is not None and column.of_trips_only and "is_reversal" in recorded:
            value = exp.Case(
                ifs=[
                    exp.If(this=exp.Not(this=exp.func("COALESCE", exp.column("is_reversal"), exp.false())), true=value)
                ]
            )
        if column.otherwise is not None:
            value = exp.func("COALESCE", value, _parse(column.otherwise))
        columns.append(exp.alias_(value, column.name))
    months = exp.column("data_month").isin(*(exp.cast(exp.Literal.string(day), "DATE") for day in days))
    return exp.select(*columns).from_(service.table).where(months)


def _parse(sql: str) -> exp.Expr:
    parsed: exp.Expr = sqlglot.parse_one(sql, read=WRITTEN_IN)
    return parsed


def _wrong(what: str, why: str) -> MartDefinitionError:
    return MartDefinitionError(f"{what}: {why}.", remedy="See marts/statements.py for what can be written.")
