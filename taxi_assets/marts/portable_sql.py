"""The small language that marts and reports are written in: what engines understand alike.

It is a part of DuckDB's SQL. `ALLOWED` lists its constructs, and anything else is refused before it is run. Some of
what every engine parses comes out different from one to the next all the same, and is refused as well: integer
division, division by zero, differences of dates, casts that round, names that are folded.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from sqlglot import exp

from taxi_assets.errors import MartDefinitionError
from taxi_assets.marts import all_trips
from taxi_assets.tlc.schema import ColumnType

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SOURCE_DIALECT = "duckdb"

ALLOWED_NODES: frozenset[type[exp.Expr]] = frozenset({
    exp.Add, exp.Alias, exp.And, exp.Between, exp.Boolean, exp.Case, exp.Cast, exp.Coalesce, exp.Column, exp.Count,
    exp.CTE, exp.DataType, exp.Distinct, exp.Div, exp.EQ, exp.Extract, exp.From, exp.Group, exp.GT, exp.GTE, exp.Having,
    exp.Identifier, exp.If, exp.In, exp.Is, exp.Join, exp.Limit, exp.Literal, exp.LT, exp.LTE, exp.Max, exp.Min,
    exp.Mul, exp.Neg, exp.NEQ, exp.Not, exp.Null, exp.Nullif, exp.Or, exp.Order, exp.Ordered, exp.Paren, exp.Select,
    exp.Star, exp.Sub, exp.Subquery, exp.Sum, exp.Table, exp.TableAlias, exp.Union, exp.Var, exp.Where, exp.Window,
    exp.With,
})  # fmt: skip
# What sqlglot keeps of a construct as plain values, such as the side of a join: these and no others.
_WORDS: Mapping[tuple[type[exp.Expr], str], frozenset[object] | None] = {
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
# A cast to another type comes out different, but of a null.
_TYPES = frozenset({exp.DType.DATE, exp.DType.DOUBLE, exp.DType.TIMESTAMP})
_TYPES_OF_NULLS = _TYPES | {exp.DType.BIGINT, exp.DType.TEXT, exp.DType.DECIMAL}
_TIMES = frozenset(c.name for c in all_trips.COLUMNS if c.type in {ColumnType.DATE, ColumnType.DATETIME})


def require_portable(query: exp.Expr, label: str) -> None:
    """Raise `MartDefinitionError`, which names `what`, where a query says what engines don't all understand alike."""
    for node in query.walk():
        if type(node) not in ALLOWED_NODES:
            raise definition_error(
                label, f"{sql_text(node)} ({type(node).__name__}) is not among what engines understand alike"
            )
        _require_words(node, label)
        check = _CHECKS.get(type(node))
        why = check(node) if check is not None else None
        if why is not None:
            raise definition_error(label, f"{sql_text(node)} {why}")


def definition_error(label: str, reason: str) -> MartDefinitionError:
    """`what` cannot be understood."""
    return MartDefinitionError(f"{label}: {reason}.", remedy="See marts/portable_sql.py for what can be written.")


def sql_text(node: exp.Expr) -> str:
    """A construct as it was written."""
    return repr(node.sql(dialect=SOURCE_DIALECT))


def _require_words(node: exp.Expr, label: str) -> None:
    for key, value in node.args.items():
        for word in value if isinstance(value, list) else [value]:
            if not word or isinstance(word, exp.Expr):
                continue
            if (type(node), key) not in _WORDS:
                raise definition_error(label, f"{sql_text(node)} ({key}) is not among what engines understand alike")
            words = _WORDS[type(node), key]
            if words is not None and str(word).upper() not in words:
                raise definition_error(label, f"{word} in {sql_text(node)} is not among what engines understand alike")


# --- what every engine parses, but not alike; each says why, or None --------------------------------------------------


def _name(node: exp.Expr) -> str | None:
    return None if _NAME.fullmatch(node.name) else "is no name of lower-case letters, as engines fold others"


def _table(node: exp.Expr) -> str | None:
    if not isinstance(node.this, exp.Identifier):
        return "is no table"
    return "must be the name of a table alone" if node.args.get("db") else None


def _table_alias(node: exp.Expr) -> str | None:
    return "cannot name columns" if node.args.get("columns") else None


def _star(node: exp.Expr) -> str | None:
    return "cannot leave out or replace columns" if any(node.args.values()) else None


def _distinct(node: exp.Expr) -> str | None:
    if node.args.get("on"):
        return "is not among what engines understand alike"
    counts_several = isinstance(node.parent, exp.Count) and len(node.expressions) > 1
    return "can only be counted for one column" if counts_several else None


def _cast(node: exp.Expr) -> str | None:
    type_ = node.args["to"]
    known = _TYPES_OF_NULLS if isinstance(node.this, exp.Null) else _TYPES
    return "comes out different from one engine to the next" if type_.this not in known or type_.expressions else None


def _division(node: exp.Expr) -> str | None:
    divisor = node.expression
    if not _is_double(node.this):
        return "must divide a DOUBLE: some engines divide integers as integers"
    is_number = isinstance(divisor, exp.Literal) and not divisor.is_string and float(divisor.name) != 0
    return None if is_number or isinstance(divisor, exp.Nullif) else "must divide by a number or by NULLIF(…, 0)"


def _arithmetic(node: exp.Expr) -> str | None:
    operands = (node.this, node.args.get("expression"))
    if any(_is_time(operand) for operand in operands):
        return "reckons with dates, which engines do each in a way of their own"
    fraction = any(isinstance(operand, exp.Literal) and not operand.is_int for operand in operands)
    if fraction and not any(_is_double(operand) for operand in operands):
        return "is exact in some engines only; make a DOUBLE of the other operand"
    return _division(node) if isinstance(node, exp.Div) else None


def _select(node: Any) -> str | None:
    """In a grouped query: what is neither grouped by nor summed up, and names of two meanings."""
    group = node.args.get("group")
    if group is None:
        return None
    columns = {one.name for one in group.expressions if isinstance(one, exp.Column)}
    for place, item in enumerate(node.selects, start=1):
        value = item.this if isinstance(item, exp.Alias) else item
        used = _outside_sums(value)
        is_column = isinstance(value, exp.Column)
        if item.alias in columns & used and not is_column:
            return f"groups by {item.alias}, which may mean the column or what is called so; write it out"
        grouped = value in group.expressions or item.alias in columns or exp.Literal.number(place) in group.expressions
        if not grouped and used - columns:
            return f"selects {sql_text(value)}, which it does not group by as it stands"
    return None


def _outside_sums(node: exp.Expr) -> set[str]:
    """The columns that a value is made of without adding them up."""
    summed = exp.Sum | exp.Count | exp.Max | exp.Min
    return {c.name for c in node.walk(prune=lambda n: isinstance(n, summed)) if isinstance(c, exp.Column)}


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
    return isinstance(node, exp.Column) and node.name in _TIMES


_CHECKS: Mapping[type[exp.Expr], Callable[[exp.Expr], str | None]] = {
    exp.Add: _arithmetic,
    exp.Cast: _cast,
    exp.Distinct: _distinct,
    exp.Div: _arithmetic,
    exp.Identifier: _name,
    exp.Mul: _arithmetic,
    exp.Select: _select,
    exp.Star: _star,
    exp.Sub: _arithmetic,
    exp.Table: _table,
    exp.TableAlias: _table_alias,
}
