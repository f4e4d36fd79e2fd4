"""Read marts from their files: a header in YAML above the query of one month.

    /*
    description: Trips by …; the description of the table in the UI.
    key: [data_month, service, pickup_date]
    columns:
      pickup_date: {type: date, description: Day of the pickup.}
    measures: [trips, revenue]
    */
    SELECT data_month, service, pickup_date, SUM(trips) AS trips, SUM(revenue) AS revenue
    FROM all_trips GROUP BY data_month, service, pickup_date;

    CREATE VIEW … AS SELECT …

The file's name is the table's name. Neither it nor the name of a view may be in use in the warehouse.

- `columns` describes the columns that are not in `GLOSSARY`. A column of `GLOSSARY` is listed without a description.
- `measures` are sums. Ratios belong in the view, because ratios cannot be added up.
- `needs` names columns of `all_trips`. The mart leaves out services that do not record them.
- `counts: some` is for a mart that leaves trips out on purpose, such as a mart of the airports only. By default a check
  compares every measure that is a column of `all_trips` with the sum over all trips. It never compares a mart's own
  measures, that is those described in `columns`.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator

from taxi_assets.errors import MartDefinitionError
from taxi_assets.marts import all_trips
from taxi_assets.tlc.schema import Column, ColumnType
from taxi_assets.tlc.services.registry import SERVICES
from taxi_assets.tlc.services.shared_columns import SPECIAL_ZONES
from taxi_assets.tlc.zones import ZONES_TABLE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from taxi_assets.tlc.month import Month
    from taxi_assets.tlc.schema import Service

_FOLDER = Path(__file__).parent / "sql"
_HEADER = "/*", "*/"
_NAME = re.compile("[a-z_][a-z0-9_]*")
_VIEW = re.compile(r"\bCREATE\s+VIEW\s+(\w+)", re.IGNORECASE)
# Other tables of the warehouse: a mart of the same name would overwrite them.
_RESERVED_NAMES = {all_trips.NAME, ZONES_TABLE, "month_quality", "loaded_months", "stored_partitions"}

_KEYS = (
    Column("data_month", ColumnType.DATE, "First day of the published month; the partition."),
    Column("service", ColumnType.TEXT, "The service by name, such as yellow."),
    Column(
        "pickup_date", ColumnType.DATE, "Day of the pickup; a few days are outside the published month.", "local date"
    ),
    Column("pickup_hour", ColumnType.INTEGER, "Hour of the pickup, 0 to 23.", "hour of the day"),
    Column("pickup_isodow", ColumnType.INTEGER, "Day of the week, 1 Monday to 7 Sunday.", "weekday"),
    Column("pickup_location_id", ColumnType.INTEGER, f"TLC taxi zone of the pickup. {SPECIAL_ZONES}"),
    Column("pickup_borough", ColumnType.TEXT, "Borough of the pickup: Unknown for 264, Outside of NYC for 265."),
    Column(
        "pickup_zone",
        ColumnType.TEXT,
        "Taxi zone name of the pickup: Unknown for 264, Outside of NYC for 265.",
    ),
    Column("dropoff_borough", ColumnType.TEXT, "Borough of the dropoff: Unknown for 264, Outside of NYC for 265."),
)
_MEASURES = (
    Column("trips", ColumnType.INTEGER, "Number of trips, without reversals.", "trips"),
    Column(
        "passengers",
        ColumnType.INTEGER,
        "Passengers, as recorded by the driver; null for services that do not record them.",
        "persons",
    ),
    Column("miles", ColumnType.MILES_SUM, "Distance of the trips.", "miles"),
    Column("seconds", ColumnType.INTEGER, "Duration of the timed trips.", "seconds"),
    Column("timed_trips", ColumnType.INTEGER, "Trips with a recorded duration from 0 to 24 hours.", "trips"),
    Column("fare", ColumnType.MONEY_SUM, "Fares, net of reversals.", "US dollars"),
    Column("tips", ColumnType.MONEY_SUM, "Recorded tips; taxis do not record tips in cash.", "US dollars"),
    Column("revenue", ColumnType.MONEY_SUM, "Total charged to passengers, net of reversals.", "US dollars"),
)
GLOSSARY: Mapping[str, Column] = {column.name: column for column in (*_KEYS, *_MEASURES)}
"""Columns that mean the same in every mart. A measure is null if no trip records it."""


@dataclass(frozen=True)
class Mart:
    """A table of the warehouse with one partition per month.

    Attributes:
        name: Name of the table, and of its file.
        description: Description in the UI.
        columns: All columns, in the order of the query.
        key: Names of the columns that identify a row.
        measures: Names of the columns that can be added up.
        reconciled_measures: The measures whose sum must equal the sum over all trips of the month.
        required_columns: Columns of `all_trips` that a service must record to be counted.
        sql: The query of a month, followed by views on the table.
    """

    name: str
    description: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    measures: tuple[str, ...]
    reconciled_measures: tuple[str, ...]
    required_columns: frozenset[str]
    sql: str

    @property
    def file(self) -> Path:
        """The file that defines the mart."""
        return _FOLDER / f"{self.name}.sql"

    @property
    def has_service(self) -> bool:
        """Whether the mart has a column for the service."""
        return any(column.name == "service" for column in self.columns)

    @property
    def views(self) -> list[str]:
        """The names of its views, found without the SQL parser, which is slow to import and checks them later."""
        return _VIEW.findall(self.sql)

    @property
    def services(self) -> list[Service]:
        """The services whose trips the mart counts."""
        return [service for service in SERVICES.values() if all_trips.records_all(service, set(self.required_columns))]

    @property
    def version(self) -> str:
        """Digest of its definition, part of the data version of its months."""
        return hashlib.sha256(repr((self.sql, self.columns, self.key)).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class MartMonth:
    """A month of a mart that is to be computed.

    Attributes:
        mart: The mart.
        month: The partition.
        services: The services whose trips of the month are loaded.
        versions: The data version of the loaded trips, by service name.
    """

    mart: Mart
    month: Month
    services: Sequence[Service]
    versions: Mapping[str, str]


@cache
def marts() -> Mapping[str, Mart]:
    """Return all marts by name, sorted by name.

    Raises:
        MartDefinitionError: A file in `sql/` does not define a mart.
    """
    return read_marts({file.stem: file.read_text() for file in sorted(_FOLDER.glob("*.sql"))})


def read_marts(texts: Mapping[str, str]) -> Mapping[str, Mart]:
    """Return the marts that are defined by texts.

    Args:
        texts: The content of each mart's file, by the mart's name.

    Returns:
        The marts by name, in the order of `texts`.

    Raises:
        MartDefinitionError: A text does not define a mart, or two marts or views have the same name.
    """
    found = {name: read_mart(name, text) for name, text in texts.items()}
    owners = {name: name for name in found}
    for mart in found.values():
        for view in mart.views:
            if view in owners:
                raise _definition_error(
                    mart.name, f"its view {view} has the name of a table or view of marts/sql/{owners[view]}.sql"
                )
            owners[view] = mart.name
    return found


def read_mart(name: str, text: str) -> Mart:
    """Return the mart that the text of a file defines.

    Args:
        name: The mart's name.
        text: The header and the SQL.

    Raises:
        MartDefinitionError: The header is missing or wrong, or the name is in use.
    """
    opening, closing = _HEADER
    head, found, sql = text.strip().removeprefix(opening).partition(closing)
    if not text.lstrip().startswith(opening) or not found:
        raise _definition_error(name, "it does not begin with a header between /* and */")
    try:
        header = _Header.model_validate(yaml.safe_load(head))
    except yaml.YAMLError as error:
        raise _definition_error(name, f"its header is not valid YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        message = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise _definition_error(name, f"its header is not valid: {message}") from None
    own = {column: about.as_column(column) for column, about in header.columns.items() if about is not None}
    names = dict.fromkeys([*header.key, *header.columns, *header.measures])
    undescribed = [column for column in names if column not in own and column not in GLOSSARY]
    if undescribed:
        raise _definition_error(name, f"its header does not describe {', '.join(undescribed)}")
    unknown = sorted({*header.needs} - _all_trips_columns())
    if unknown:
        raise _definition_error(name, f"it needs {', '.join(unknown)}, which all_trips does not have")
    mart = Mart(
        name=name,
        description=header.description.strip(),
        columns=tuple(own.get(column) or GLOSSARY[column] for column in names),
        key=tuple(header.key),
        measures=tuple(header.measures),
        reconciled_measures=tuple(
            m for m in header.measures if header.counts == "all" and m in _all_trips_columns() - {*own}
        ),
        required_columns=frozenset(header.needs),
        sql=sql.strip(),
    )
    for relation in (name, *mart.views):
        _require_free_name(relation, mart)
    return mart


def _all_trips_columns() -> set[str]:
    return {column.name for column in all_trips.COLUMNS}


def _require_free_name(relation: str, mart: Mart) -> None:
    if not _NAME.fullmatch(relation):
        raise _definition_error(
            mart.name, f"the name {relation} is not made of lower-case letters, digits and underscores"
        )
    # A service has tables whose names begin with that of its trips.
    belongs_to_service = any(relation.startswith(service.table) for service in SERVICES.values())
    if belongs_to_service or relation in _RESERVED_NAMES or relation.endswith("_loads"):
        raise _definition_error(mart.name, f"{relation} is the name of another table of the warehouse")


class _MartColumn(BaseModel, extra="forbid"):
    type: str
    description: str
    unit: str | None = None

    @field_validator("type")
    @classmethod
    def _check_type(cls, value: str) -> str:
        known = [type_.name.lower() for type_ in ColumnType]
        if value not in known:
            raise ValueError(f"{value} is not one of {', '.join(known)}")
        return value

    def as_column(self, name: str) -> Column:
        return Column(name, ColumnType[self.type.upper()], self.description, self.unit)


class _Header(BaseModel, extra="forbid"):
    description: str
    key: list[str] = Field(min_length=1)
    columns: dict[str, _MartColumn | None] = {}
    measures: list[str]
    needs: list[str] = []
    counts: Literal["all", "some"] = "all"


def _definition_error(name: str, problem: str) -> MartDefinitionError:
    return MartDefinitionError(
        f"marts/sql/{name}.sql: {problem}.", remedy="Correct the file; marts/mart.py describes its format."
    )
