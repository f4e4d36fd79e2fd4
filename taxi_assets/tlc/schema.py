"""What a service's trips look like once they are clean: columns, types, units, and the names they were published under.

Belongs here: the vocabulary (`Column`, `ColumnType`, `Service`). The columns themselves stand in `schemas/`, the rules
in `rules.py`, how text becomes a value in `values.py`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from taxi_assets.errors import RunConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from taxi_assets.tlc.month import Month
    from taxi_assets.tlc.rules import Rule

# Bump when reading, parsing or deriving gives other values for the same file: every month is then cleaned anew.
CLEANING_VERSION = 1


class ColumnType(StrEnum):
    """The types of canonical columns. Exact: money and miles are decimals, times are wall-clock times without zone."""

    INTEGER = "integer"
    MONEY = "decimal(12,2)"
    MILES = "decimal(12,3)"
    DEGREES = "double"
    TEXT = "text"
    TEXTS = "list of text"
    DATETIME = "datetime"
    DATE = "date"
    BOOLEAN = "boolean"
    # Sums, in marts.
    MONEY_SUM = "decimal(18,2)"
    MILES_SUM = "decimal(18,3)"

    @property
    def arrow(self) -> Any:
        """The pyarrow type that batches and Parquet files hold."""
        return _ARROW_TYPES[self]

    @property
    def working(self) -> Any:
        """The pyarrow type of the same values while a month is cleaned: smaller than `arrow`, so cleaning is faster."""
        return _WORKING_TYPES.get(self, self.arrow)


_ARROW_TYPES: Mapping[ColumnType, Any] = {
    ColumnType.INTEGER: pa.int64(),
    ColumnType.MONEY: pa.decimal128(12, 2),
    ColumnType.MILES: pa.decimal128(12, 3),
    ColumnType.DEGREES: pa.float64(),
    ColumnType.TEXT: pa.string(),
    ColumnType.TEXTS: pa.list_(pa.string()),
    ColumnType.DATETIME: pa.timestamp("us"),
    ColumnType.DATE: pa.date32(),
    ColumnType.BOOLEAN: pa.bool_(),
    ColumnType.MONEY_SUM: pa.decimal128(18, 2),
    ColumnType.MILES_SUM: pa.decimal128(18, 3),
}


# Parquet stores the same bytes for these as for the canonical types.
_WORKING_TYPES: Mapping[ColumnType, Any] = {
    ColumnType.MONEY: pa.decimal64(12, 2),
    ColumnType.MILES: pa.decimal64(12, 3),
    ColumnType.TEXT: pa.dictionary(pa.int32(), pa.string()),
}


@dataclass(frozen=True)
class Column:
    """One canonical column.

    `aliases` are the names it was published under, besides its own, lower case. A `required` column must be in every
    file; any other one that a file lacks is null. `codes` maps published text (lower case) to today's value; where it
    is set, other values must already be of the column's type. `since` and `until` say in which months it was published,
    where that is not all of the service's. `merge_aliases`: a file may have it under several names, of which a row fills
    in one. `derived` columns are computed, not read.
    """

    name: str
    type: ColumnType
    description: str
    unit: str | None = None
    aliases: Sequence[str] = ()
    required: bool = False
    codes: Mapping[str, int | str] = field(default_factory=dict, hash=False)
    since: Month | None = None
    until: Month | None = None
    merge_aliases: bool = False
    derived: bool = False

    @property
    def description_with_unit(self) -> str:
        """Description with unit, as shown in the UI and in column comments."""
        return f"{self.description} [{self.unit}]" if self.unit else self.description


def arrow_schema(columns: Sequence[Column]) -> Any:
    """Columns as a pyarrow schema."""
    return pa.schema([pa.field(column.name, column.type.arrow) for column in columns])


@dataclass(frozen=True)
class Service:
    """One TLC service: its name in file names and asset keys, its columns in table order, and its rules.

    `measures` says in SQL what marts count as its fare, revenue and so on, where that is not the column of the usual
    name; see `marts/all_trips.py`. `file_name` is what its files are called, less the ending, where somebody else than
    TLC publishes them: a pattern such as `{month.start:%Y%m}-citibike-tripdata`.
    """

    name: str
    title: str
    description: str
    first_month: Month
    columns: Sequence[Column]
    rules: Sequence[Rule]
    measures: Mapping[str, str] = field(default_factory=dict)
    file_name: str | None = None

    @property
    def table(self) -> str:
        """The name of its trips: last part of the asset keys, folder in the lake, table in the warehouse."""
        return f"{self.name}_trips"

    @property
    def published_columns(self) -> list[Column]:
        """The columns that are read from files."""
        return [column for column in self.columns if not column.derived]

    @property
    def money_columns(self) -> list[str]:
        """The columns whose cents add up to the control sum."""
        return [column.name for column in self.columns if column.type is ColumnType.MONEY]

    @property
    def arrow_schema(self) -> Any:
        """The schema of clean Parquet files."""
        return arrow_schema(self.columns)

    @property
    def working_schema(self) -> Any:
        """The same columns in their working types; a Parquet file written with it has the types of `arrow_schema`."""
        return pa.schema([pa.field(column.name, column.type.working) for column in self.columns])

    def select_rules(self, names: Sequence[str] | None) -> list[Rule]:
        """The rules of these names, in the service's order; all of them for None, none for an empty list."""
        if names is None:
            return list(self.rules)
        known = [rule.name for rule in self.rules]
        unknown = [name for name in names if name not in known]
        if unknown:
            raise RunConfigError(
                f"{self.name} has no rule {', '.join(map(repr, unknown))}.", remedy=f"Choose from: {', '.join(known)}."
            )
        return [rule for rule in self.rules if rule.name in names]

    def version(self, rules: Sequence[Rule]) -> str:
        """Digest of all that decides what a clean month looks like, given its file: columns, parsing and rules."""
        content = {
            "cleaning": CLEANING_VERSION,
            "columns": [
                [c.name, c.type, [*c.aliases], c.required, c.merge_aliases, sorted(map(str, c.codes.items()))]
                for c in self.columns
            ],
            "rules": [[rule.name, rule.description] for rule in rules],
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
