"""Check that SQL of marts and reports is portable: every engine must return the same result.

Portable SQL is a subset of DuckDB's SQL. `ALLOWED_NODES` lists its constructs; all others are rejected before a query
runs. Some constructs that every engine parses have different results, and are rejected too: integer division, division
by zero, differences of dates, casts that round, and names whose case an engine changes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from sqlglot import exp

from taxi_assets.errors import MartDefinitionError
from taxi_assets.marts import all_trips
from taxi_assets.tlc.schema import ColumnType

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

SOURCE_DIALECT = "duckdb"

ALLOWED_NODES: frozenset[type[exp.Expr]] = frozenset({
    exp.Add, exp.Alias, exp.And, exp.Between, exp.Boolean, exp.Case, exp.Cast, exp.Coalesce, exp.Column, exp.Count,
    exp.CTE, exp.DataType, exp.Distinct, exp.Div, exp.EQ, exp.Extract, exp.From, exp.Group, exp.GT, exp.GTE, exp.Having,
    exp.Identifier, exp.If, exp.In, exp.Is, exp.Join, exp.Limit, exp.Literal, exp.LT, exp.LTE, exp.Max, exp.Min,
    exp.Mul, exp.Neg, exp.NEQ, exp.Not, exp.Null, exp.Nullif, exp.Or, exp.Order, exp.Ordered, exp.Paren, exp.Select,
    exp.Star, exp.Sub, exp.Subquery, exp.Sum, exp.Table, exp.TableAlias, exp.Union, exp.Var, exp.Where, exp.Window,
    exp.With,
})  # fmt: skip
# Plain values that sqlglot keeps in a node, such as the side of a join, and which of them are allowed. None: any.
_ALLOWED_WORDS: Mapping[tuple[type[exp.Expr], str], frozenset[object] | None] = {
    (exp.Boolean, "this"): None,
    (exp.Count, "big_int"): None,
    (exp.DataType, "this"): None,
    (exp.Div, "safe"): None,
    (exp.Div, "typed"): None,
    (exp.Identifier, "quoted"): None,
    (exp.Identifier, "this"): None,
    (exp.Join, "kind"): frozenset({"CROSS", "INNER", "OUTER"}),
    (exp.Join, "side"): frozenset({"FULL", "LEFT", "RIGHT"}),
    (exp.Literal, "is_string"): None,
    (exp.Literal, "this"): None,
    (exp.Ordered, "desc"): None,
    (exp.Ordered, "nulls_first"): None,
    (exp.Union, "distinct"): None,
    (exp.Var, "this"): frozenset({"YEAR", "MONTH", "DAY"}),
    (exp.Window, "over"): None,
}
_NAME = re.compile("[a-z_][a-z0-9_]*")
# Casts to other types have different results on each engine, except casts of null.
_CAST_TYPES = frozenset({exp.DType.DATE, exp.DType.DOUBLE, exp.DType.TIMESTAMP})
_NULL_CAST_TYPES = _CAST_TYPES | {exp.DType.BIGINT, exp.DType.TEXT, exp.DType.DECIMAL}
_TIME_COLUMNS = frozenset(c.name for c in all_trips.COLUMNS if c.type in {ColumnType.DATE, ColumnType.DATETIME})


def require_portable(query: exp.Expr, label: str) -> None:
    """Require that a query is portable.

    Args:
        query: The parsed query.
        label: Names the query in errors.

    Raises:
        MartDefinitionError: The query uses a construct that is not portable.
    """
    for node in query.walk():
        if type(node) not in ALLOWED_NODES:
            raise definition_error(label, f"{sql_text(node)} ({type(node).__name__}) is not portable SQL")
        _require_words(node, label)
        check = _CHECKS.get(type(node))
        problem = check(node) if check is not None else None
        if problem is not None:
            raise definition_error(label, f"{sql_text(node)} {problem}")


def require_additive(query: exp.Query, mart: str, measures: Collection[str]) -> None:
    """Require that the measures of a mart can be added up: no averages, and no divisions of sums.

    Args:
        query: The mart's query of a month.
        mart: The mart's name.
        measures: The names of its measures.

    Raises:
        MartDefinitionError: A measure is a ratio. The error states that ratios belong in a view.
    """
    for item in query.selects:
        ratio = next((node for node in _outside_sums(item) if _is_ratio(node)), None)
        if item.alias_or_name in measures and ratio is not None:
            raise MartDefinitionError(
                f"{mart}: the measure {item.alias_or_name} is a ratio, {sql_text(ratio)}. Ratios cannot be added up.",
                remedy="Select both sums as measures, and divide them in a view below the query, as CREATE VIEW "
                "payment_mix_ratios in marts/sql/payment_mix.sql does.",
            )


def _is_ratio(node: exp.Expr) -> bool:
    return isinstance(node, exp.Avg) or (isinstance(node, exp.Div) and not isinstance(node.expression, exp.Literal))


def definition_error(label: str, reason: str) -> MartDefinitionError:
    """Return the error for SQL that is not portable; `label` names the SQL."""
    return MartDefinitionError(
        f"{label}: {reason}.", remedy="Rewrite it in portable SQL; marts/portable_sql.py lists what is allowed."
    )


def sql_text(node: exp.Expr) -> str:
    """Return the SQL of a node, in quotes, for error messages."""
    return repr(node.sql(dialect=SOURCE_DIALECT))


def _require_words(node: exp.Expr, label: str) -> None:
    for key, value in node.args.items():
        for word in value if isinstance(value, list) else [value]:
            if not word or isinstance(word, exp.Expr):
                continue
            if (type(node), key) not in _ALLOWED_WORDS:
                raise definition_error(label, f"{sql_text(node)} ({key}) is not portable SQL")
            words = _ALLOWED_WORDS[type(node), key]
            if words is not None and str(word).upper() not in words:
                raise definition_error(label, f"{word} in {sql_text(node)} is not portable SQL")


# --- constructs that engines parse, but evaluate differently; each function returns the problem, or None --------------


def _name_problem(node: exp.Expr) -> str | None:
    return (
        None
        if _NAME.fullmatch(node.name)
        else "is not a name in lower case, and engines change the case of other names"
    )


def _table_problem(node: exp.Expr) -> str | None:
    if not isinstance(node.this, exp.Identifier):
        return "is not a table"
    if node.args.get("joins"):
        return "is joined within parentheses; write the join without them, or as a subquery"
    return "must be the name of a table, without a schema" if node.args.get("db") else None


def _table_alias_problem(node: exp.Expr) -> str | None:
    return "must not name columns" if node.args.get("columns") else None


def _star_problem(node: exp.Expr) -> str | None:
    return "must not leave out or replace columns" if any(node.args.values()) else None


def _distinct_problem(node: exp.Expr) -> str | None:
    if node.args.get("on"):
        return "is not portable SQL"
    counts_several = isinstance(node.parent, exp.Count) and len(node.expressions) > 1
    return "can only count one column" if counts_several else None


def _cast_problem(node: exp.Expr) -> str | None:
    type_ = node.args["to"]
    known = _NULL_CAST_TYPES if isinstance(node.this, exp.Null) else _CAST_TYPES
    return "has a different result on each engine" if type_.this not in known or type_.expressions else None


def _division_problem(node: exp.Expr) -> str | None:
    divisor = node.expression
    if not _is_double(node.this):
        return "must divide a DOUBLE: some engines divide integers as integers"
    is_number = isinstance(divisor, exp.Literal) and not divisor.is_string and float(divisor.name) != 0
    return None if is_number or isinstance(divisor, exp.Nullif) else "must divide by a number or by NULLIF(…, 0)"


def _arithmetic_problem(node: exp.Expr) -> str | None:
    operands = (node.this, node.args.get("expression"))
    if any(_is_time(operand) for operand in operands):
        return "calculates with dates, which each engine does differently"
    fraction = any(isinstance(operand, exp.Literal) and not operand.is_int for operand in operands)
    if fraction and not any(_is_double(operand) for operand in operands):
        return "is exact on some engines only; cast the other operand to DOUBLE"
    return _division_problem(node) if isinstance(node, exp.Div) else None


def _grouping_problem(node: Any) -> str | None:
    """Find a selected column that is neither grouped nor aggregated, or an alias that is also a column."""
    group = node.args.get("group")
    if group is None:
        return None
    columns = {one.name for one in group.expressions if isinstance(one, exp.Column)}
    for place, item in enumerate(node.selects, start=1):
        value = item.this if isinstance(item, exp.Alias) else item
        used = {one.name for one in _outside_sums(value) if isinstance(one, exp.Column)}
        is_column = isinstance(value, exp.Column)
        if item.alias in columns & used and not is_column:
            return f"groups by {item.alias}, which may be the column or the alias; repeat the expression instead"
        grouped = value in group.expressions or item.alias in columns or exp.Literal.number(place) in group.expressions
        if not grouped and used - columns:
            return f"selects {sql_text(value)}, but does not group by exactly that expression"
    return None


def _outside_sums(node: exp.Expr) -> Iterator[exp.Expr]:
    """Yield the parts of an expression that no aggregate function contains, and these functions."""
    return node.walk(prune=lambda n: isinstance(n, exp.AggFunc))


def _is_double(node: object) -> bool:
    while isinstance(node, exp.Paren | exp.Neg):
        node = node.this
    if isinstance(node, exp.Add | exp.Sub | exp.Mul | exp.Div):
        return _is_double(node.this) or _is_double(node.expression)
    return isinstance(node, exp.Cast) and node.to.this == exp.DType.DOUBLE


def _is_time(node: object) -> bool:
    while isinstance(node, exp.Paren | exp.Max | exp.Min | exp.Coalesce):
        node = node.this
    if isinstance(node, exp.Cast):
        return node.to.this in {exp.DType.DATE, exp.DType.TIMESTAMP}
    return isinstance(node, exp.Column) and node.name in _TIME_COLUMNS


_CHECKS: Mapping[type[exp.Expr], Callable[[exp.Expr], str | None]] = {
    exp.Add: _arithmetic_problem,
    exp.Cast: _cast_problem,
    exp.Distinct: _distinct_problem,
    exp.Div: _arithmetic_problem,
    exp.Identifier: _name_problem,
    exp.Mul: _arithmetic_problem,
    exp.Select: _grouping_problem,
    exp.Star: _star_problem,
    exp.Sub: _arithmetic_problem,
    exp.Table: _table_problem,
    exp.TableAlias: _table_alias_problem,
}
