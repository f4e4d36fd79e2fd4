"""Describe a service: its canonical columns, and the names under which they were published.

Belongs here: `Column`, `ColumnType` and `Service`. Does not belong here: the columns of a service (`services/`), rules
(`rules.py`), and the conversion of published values (`values/`).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import astuple, dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from taxi_assets.errors import RunConfigError
from taxi_assets.tlc.file_format import TLC_DIALECT, CsvDialect

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from taxi_assets.tlc.month import Month
    from taxi_assets.tlc.rules import Rule

CLEANING_VERSION = 2
"""Part of every data version. Increment it when reading, parsing or deriving would yield different values.

Months are then rebuilt when they are next materialized.
"""


AROUND_NAMES = " \t\r\n\"'\ufeff"
"""Characters around published column names that are not part of them."""


def normalize(name: str) -> str:
    """Return a column name in lower case, without spaces, underscores, quotes and byte order mark.

    Tools rename columns in these ways: `PULocationID`, `pulocationid` and `pu_location_id` are the same column.
    """
    return "".join(name.strip(AROUND_NAMES).lower().replace("_", "").split())


class ColumnType(StrEnum):
    """A type of canonical columns.

    Money and miles are exact decimals. Times are New York wall-clock times, without a time zone.
    """

    INTEGER = "integer"
    MONEY = "decimal(12,2)"
    MILES = "decimal(12,3)"
    DEGREES = "double"
    TEXT = "text"
    TEXTS = "list of text"
    DATETIME = "datetime"
    DATE = "date"
    BOOLEAN = "boolean"
    # For totals in marts: six more integer digits than MONEY and MILES.
    MONEY_SUM = "decimal(18,2)"
    MILES_SUM = "decimal(18,3)"

    @property
    def arrow_type(self) -> Any:
        """The pyarrow type of the column in clean and quarantine Parquet files."""
        return _ARROW_TYPES[self]

    @property
    def working_type(self) -> Any:
        """The pyarrow type of the column during cleaning. It is smaller than `arrow_type`, so cleaning is faster."""
        return _WORKING_TYPES.get(self, self.arrow_type)


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


# Parquet files store these with the same bytes as the canonical types.
_WORKING_TYPES: Mapping[ColumnType, Any] = {
    ColumnType.MONEY: pa.decimal64(12, 2),
    ColumnType.MILES: pa.decimal64(12, 3),
    ColumnType.TEXT: pa.dictionary(pa.int32(), pa.string()),
}


@dataclass(frozen=True)
class Column:
    """One canonical column of a service, a mart or another table.

    Attributes:
        name: The column's name in Parquet files and in the warehouse, in snake_case.
        type: The canonical type.
        description: What the values mean. Dagster's UI, the warehouse and the data dictionary show it.
        unit: The unit of the values, such as "US dollars"; None where there is none.
        aliases: Other names under which the column was published, in lower case.
        required: Whether every published file must have the column, from `since` to `until`. Where an optional column
            is absent, it is null.
        required_since: The first month whose file must have a required column, if files of earlier months may lack it.
        alternative: The name of a column that a file may have instead of this required one.
        codes: Maps published text (lower-cased) to the canonical value. Text that is not a key must parse as `type`.
        since: The first month that has the column; None for the first month of the service.
        until: The last month that has the column; None where it is still published.
        merge_aliases: Whether a file may contain several aliases as separate columns, coalesced row by row. Columns
            whose names differ only by case, spaces and underscores always are.
        derived: Whether cleaning computes the column, so that it is not read from files.
    """

    name: str
    type: ColumnType
    description: str
    unit: str | None = None
    aliases: Sequence[str] = ()
    required: bool = False
    required_since: Month | None = None
    alternative: str | None = None
    codes: Mapping[str, int | str] = field(default_factory=dict, hash=False)
    since: Month | None = None
    until: Month | None = None
    merge_aliases: bool = False
    derived: bool = False

    def is_published_in(self, month: Month) -> bool:
        """Return whether the files of this month have the column, required or not."""
        return (self.since is None or self.since <= month) and (self.until is None or month <= self.until)

    def is_required_in(self, month: Month) -> bool:
        """Return whether the file of this month must have the column or its alternative."""
        first = self.required_since or self.since
        return self.required and (first is None or first <= month) and (self.until is None or month <= self.until)

    @property
    def description_with_unit(self) -> str:
        """The description, with the unit in brackets, as Dagster's UI and column comments show it."""
        return f"{self.description} [{self.unit}]" if self.unit else self.description


def build_arrow_schema(columns: Sequence[Column]) -> Any:
    """Return a pyarrow schema of these columns, in their canonical types and in this order."""
    return pa.schema([pa.field(column.name, column.type.arrow_type) for column in columns])


@dataclass(frozen=True)
class Service:
    """One service that publishes a file of trips per month.

    Attributes:
        name: The name in asset keys, file names and run config, such as "yellow".
        title: The name in prose, such as "Yellow taxi".
        description: What the service is, as a noun phrase that follows the title. Dagster's UI shows it.
        first_month: The first month that was published. It is the first partition.
        columns: The canonical columns, in the order of the table.
        rules: The rules that a clean trip passes, in the order in which quarantine lists them.
        measures: SQL expressions by measure, overriding `CommonColumn.default_sql` (`marts/all_trips.py`).
        file_name: The name of a month's file, without its extension, if the publisher does not use TLC's pattern. It is
            a format string with `month`, such as "{month.start:%Y%m}-citibike-tripdata".
        dialect: How the service's CSV files are written.
        publisher: Where the files are published, in a form that `TAXI_SOURCE` accepts, if not at one of TLC's
            publishers. `TAXI_SOURCE_<SERVICE>`, and a `TAXI_SOURCE` that applies to all services, take precedence.
    """

    name: str
    title: str
    description: str
    first_month: Month
    columns: Sequence[Column]
    rules: Sequence[Rule]
    measures: Mapping[str, str] = field(default_factory=dict)
    file_name: str | None = None
    dialect: CsvDialect = TLC_DIALECT
    publisher: str | None = None

    @property
    def table(self) -> str:
        """Table name, also the last part of asset keys and of lake folders, such as "green_trips"."""
        return f"{self.name}_trips"

    @property
    def published_columns(self) -> list[Column]:
        """The columns that are read from published files."""
        return [column for column in self.columns if not column.derived]

    @property
    def money_columns(self) -> list[str]:
        """The names of the money columns. Control totals add up their cents."""
        return [column.name for column in self.columns if column.type is ColumnType.MONEY]

    @property
    def arrow_schema(self) -> Any:
        """The pyarrow schema of clean Parquet files."""
        return build_arrow_schema(self.columns)

    @property
    def working_schema(self) -> Any:
        """The pyarrow schema of clean batches, in working types.

        A Parquet file written with it has the types of `arrow_schema`.
        """
        return pa.schema([pa.field(column.name, column.type.working_type) for column in self.columns])

    def select_rules(self, names: Sequence[str] | None) -> list[Rule]:
        """Return the rules of these names, in the service's order.

        Args:
            names: Names of rules. None selects all rules; an empty list selects none.

        Raises:
            RunConfigError: The service has no rule of one of these names.
        """
        if names is None:
            return list(self.rules)
        known = [rule.name for rule in self.rules]
        unknown = [name for name in names if name not in known]
        if unknown:
            raise RunConfigError(
                f"{self.name} has no rule {', '.join(map(repr, unknown))}.", remedy=f"Choose from: {', '.join(known)}."
            )
        return [rule for rule in self.rules if rule.name in names]

    @property
    def code_version(self) -> str:
        """The digest of everything in the code that decides the clean rows of a file: `version` with all rules."""
        return self.version(self.rules)

    def version(self, rules: Sequence[Rule]) -> str:
        """Return a digest of the service's part of the data version.

        It covers whatever changes the clean rows of a file: `CLEANING_VERSION`, the columns (name, type, aliases,
        whether they are required or merged, codes) and the rules (name, and description with its limits). The
        descriptions of columns can be reworded without cleaning months again.

        Args:
            rules: The rules that a run applies, in order.

        Returns:
            16 hexadecimal digits.
        """
        content = {
            "cleaning": CLEANING_VERSION,
            "columns": self._columns_content(),
            "dialect": astuple(self.dialect),
            "rules": [[rule.name, rule.description] for rule in rules],
        }
        return _digest(content)

    @property
    def code_parts(self) -> dict[str, Any]:
        """The parts of `code_version`, which a materialization records, to tell later what has changed.

        `columns` and `code` are digests. `rules` has the name and the description, with the limits, of each rule.
        """
        return {
            "columns": _digest(self._columns_content()),
            "code": _digest([CLEANING_VERSION, astuple(self.dialect)]),
            "rules": [[rule.name, rule.description] for rule in self.rules],  # a JSON object would lose their order
        }

    def _columns_content(self) -> list[Any]:
        return [
            [
                c.name,
                c.type,
                [*c.aliases],
                c.required,
                str(c.required_since),
                c.alternative,
                c.merge_aliases,
                sorted(map(str, c.codes.items())),
            ]
            for c in self.columns
        ]


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
