"""The BigQuery double's translation of GoogleSQL into DuckDB's SQL, with sqlglot.

Names, types and parameters follow the GoogleSQL reference and the page "Run parameterized queries".
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from taxi_assets_tests.google.bigquery_values import GoogleError, Resource, canonical_type, from_text

if TYPE_CHECKING:
    from collections.abc import Collection

_DATE: Final = re.compile(r"\d{4}-\d{1,2}-\d{1,2}")


@dataclass
class Statement:
    """A translated statement, with the tables and parameters that it uses."""

    sql: str
    tree: exp.Expression
    tables: list[tuple[str, str]] = field(default_factory=list)
    """Pairs of dataset and table, one per mention."""
    local: set[str] = field(default_factory=set)
    """The names of the `tableDefinitions` that it uses."""
    parameters: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Translator:
    """Translates the statements of one job, which has a project, a default dataset and external tables."""

    project: str
    default_dataset: str | None = None
    local_tables: Collection[str] = ()

    def translate(self, text: str) -> Statement:
        """Translate a statement; raise `GoogleError` if it cannot be parsed or translated."""
        try:
            trees = [tree for tree in sqlglot.parse(text, read="bigquery") if tree is not None]
        except SqlglotError as error:
            raise GoogleError("invalidQuery", f"Syntax error: {str(error).splitlines()[0]}") from error
        if len(trees) != 1:
            raise GoogleError("invalidQuery", "This double runs one statement at a time.")
        statement = Statement("", trees[0])  # type: ignore[arg-type]  # sqlglot's own union of expressions
        self._map_tables(statement)
        _fix_types(statement.tree)
        _name_columns(statement.tree)
        statement.parameters = [parameter.name for parameter in statement.tree.find_all(exp.Parameter)]
        try:
            statement.sql = statement.tree.sql(dialect="duckdb")
        except SqlglotError as error:
            raise GoogleError("invalidQuery", f"This double can't run it: {error}") from error
        return statement

    def _map_tables(self, statement: Statement) -> None:
        common = {cte.alias.lower() for cte in statement.tree.find_all(exp.CTE)}
        for table in list(statement.tree.find_all(exp.Table)):
            if isinstance(statement.tree, exp.Create | exp.Drop) and statement.tree.args["kind"] == "SCHEMA":
                continue
            if not isinstance(table.this, exp.Identifier) or (not table.db and table.name.lower() in common):
                continue
            self._map_table(table, statement)

    def _map_table(self, table: exp.Table, statement: Statement) -> None:
        if not table.db and table.name in self.local_tables:
            statement.local.add(table.name)
            return
        dataset = table.db or self.default_dataset
        if dataset is None:
            raise GoogleError("invalid", f'Table "{table.name}" must be qualified with a dataset (e.g. dataset.table).')
        if table.catalog not in {"", self.project}:
            missing = f"{table.catalog}:{dataset}.{table.name}"
            raise GoogleError(
                "accessDenied",
                f"Access Denied: Table {missing}: User does not have permission to query "
                f"table {missing}, or perhaps it does not exist.",
            )
        if "$" in table.name:
            raise GoogleError("invalidQuery", f"Partition decorators can't be used in standard SQL: {table.name}")
        statement.tables.append((dataset, table.name))
        if not table.alias and not isinstance(table.parent, exp.Create | exp.Drop | exp.TruncateTable | exp.Insert):
            table.set("alias", exp.TableAlias(this=exp.to_identifier(table.name, quoted=True)))
        table.set("catalog", None)
        table.set("db", exp.to_identifier(dataset, quoted=True))
        table.set("this", exp.to_identifier(table.name, quoted=True))


def _fix_types(tree: exp.Expression) -> None:
    """Give NUMERIC 9 decimals, as in BigQuery; DuckDB's has 3."""
    for kind in tree.find_all(exp.DataType):
        if kind.this in {exp.DataType.Type.DECIMAL, exp.DataType.Type.BIGDECIMAL} and not kind.expressions:
            kind.replace(exp.DataType.build("DECIMAL(38, 9)", dialect="duckdb"))


def _name_columns(tree: exp.Expression) -> None:
    """Name columns without a name f0_, f1_, …, as BigQuery does."""
    select = tree
    while isinstance(select, exp.SetOperation):
        select = select.this
    if not isinstance(select, exp.Select):
        return
    unnamed = 0
    for column in list(select.expressions):
        if not isinstance(column, exp.Alias | exp.Column | exp.Star | exp.Dot):
            column.replace(exp.alias_(column.copy(), f"f{unnamed}_"))
            unnamed += 1


def check_date_literals(tree: exp.Expression, dates: Collection[str]) -> None:
    """Reject the comparison of a DATE column with text that has a time, as BigQuery does; DuckDB would truncate it."""
    for comparison in tree.find_all(exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE):
        for column, literal in (
            (comparison.this, comparison.expression),
            (comparison.expression, comparison.this),
        ):
            compares_text = isinstance(literal, exp.Literal) and literal.is_string
            is_date = isinstance(column, exp.Column) and column.name.lower() in dates
            if compares_text and is_date and not _DATE.fullmatch(literal.name):
                raise GoogleError("invalidQuery", f'Could not cast literal "{literal.name}" to type DATE')


def parameters_of(query: Resource, wanted: list[str]) -> dict[str, Any] | list[Any]:
    """Return the values of a query job's parameters as Python values."""
    given = query.get("queryParameters", [])
    if query.get("parameterMode", "NAMED").upper() == "POSITIONAL":
        return [_value(parameter) for parameter in given]
    values = {parameter["name"]: _value(parameter) for parameter in given}
    for name in wanted:
        if name not in values:
            raise GoogleError("invalidQuery", f"Query parameter '{name}' not found")
    return {name: values[name] for name in wanted}


def _value(parameter: Resource) -> Any:
    kind, value = parameter["parameterType"], parameter["parameterValue"]
    try:
        if kind["type"] == "ARRAY":
            inner = canonical_type(kind["arrayType"]["type"])
            return [from_text(one.get("value"), inner) for one in value.get("arrayValues", [])]
        return from_text(value.get("value"), canonical_type(kind["type"]))
    except ValueError as error:
        raise GoogleError("invalid", f"Invalid value for query parameter: {error}") from error
