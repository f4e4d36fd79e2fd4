"""What a mart is: one `.sql` file, a header in YAML above the query of one month.

    /*
    description: Trips by …; what the UI says of the table.
    key: [data_month, service, pickup_date]
    columns:
      pickup_date: {type: date, description: Day of the pickup.}
    measures: [trips, revenue]
    */
    SELECT data_month, service, pickup_date, SUM(trips) AS trips, SUM(revenue) AS revenue
    FROM all_trips GROUP BY data_month, service, pickup_date;

    CREATE VIEW … AS SELECT …

The file's name is the table's; neither it nor a view's is one that the warehouse already has. `columns` are those that
this project's other marts do not have under the same name and meaning. Ratios are for the view, because nobody can add
them up. `needs` names columns of `all_trips`: services that do not record them are left out.

Measures that are columns of `all_trips` are checked to add up to those of all trips. A mart that leaves trips out, such
as one of the airports alone, says `counts: some` and is not; measures of its own, described in `columns`, never are.
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
# What the warehouse has besides marts: a mart of that name would be written over it.
_RESERVED_NAMES = {all_trips.NAME, ZONES_TABLE, "month_quality", "loaded_months"}

_KEYS = (
    Column("data_month", ColumnType.DATE, "First day of the published month; the partition."),
    Column("service", ColumnType.TEXT, "The service by name, such as yellow."),
    Column("pickup_date", ColumnType.DATE, "Day of the pickup; a few lie outside the published month.", "local date"),
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
    Column("trips", ColumnType.INTEGER, "Trips; a reversal is none.", "trips"),
    Column("passengers", ColumnType.INTEGER, "Passengers, where they are recorded.", "persons"),
    Column("miles", ColumnType.MILES_SUM, "Distance of the trips.", "miles"),
    Column("seconds", ColumnType.INTEGER, "Duration of the timed trips.", "seconds"),
    Column("timed_trips", ColumnType.INTEGER, "Trips whose duration is recorded, and is from 0 to 24 hours.", "trips"),
    Column("fare", ColumnType.MONEY_SUM, "Fares, net of reversals.", "US dollars"),
    Column(
        "tips", ColumnType.MONEY_SUM, "Tips, as far as they are recorded: cash tips of taxis are not.", "US dollars"
    ),
    Column("revenue", ColumnType.MONEY_SUM, "All that passengers were charged, net of reversals.", "US dollars"),
)
GLOSSARY: Mapping[str, Column] = {column.name: column for column in (*_KEYS, *_MEASURES)}
"""Columns that mean the same wherever a mart has them. Measures are null where no trip records them."""


@dataclass(frozen=True)
class Mart:
    """A table of the warehouse with one partition a month: its columns in order, its unique key, its SQL."""

    name: str
    description: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    measures: tuple[str, ...]
    """Its columns that add up."""
    reconciled_measures: tuple[str, ...]
    """Those measures that must be what all trips of a month add up to."""
    required_columns: frozenset[str]
    sql: str
    """The query of a month; after it, views upon the table."""

    @property
    def file(self) -> Path:
        """Where it is written."""
        return _FOLDER / f"{self.name}.sql"

    @property
    def has_service(self) -> bool:
        """Whether it tells services apart."""
        return any(column.name == "service" for column in self.columns)

    @property
    def views(self) -> list[str]:
        """The names of the views upon it. Without the parser, which takes its time to load and checks them again."""
        return _VIEW.findall(self.sql)

    @property
    def services(self) -> list[Service]:
        """Those whose trips it counts."""
        return [
            service for service in SERVICES.values() if all_trips.query_of_service(service, set(self.required_columns))
        ]

    @property
    def version(self) -> str:
        """Digest of its definition: another one makes other months."""
        return hashlib.sha256(repr((self.sql, self.columns, self.key)).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class MartMonth:
    """A month of a mart, to be made of the trips of these services, which are loaded in these versions by name."""

    mart: Mart
    month: Month
    services: Sequence[Service]
    versions: Mapping[str, str]


@cache
def marts() -> Mapping[str, Mart]:
    """All marts by name, in the order of their names. Raises `MartDefinitionError` for a file that is none."""
    return read_marts({file.stem: file.read_text() for file in sorted(_FOLDER.glob("*.sql"))})


def read_marts(texts: Mapping[str, str]) -> Mapping[str, Mart]:
    """Marts from the texts of their files, by name; raises `MartDefinitionError` where two would be one relation."""
    found = {name: read_mart(name, text) for name, text in texts.items()}
    owners = {name: name for name in found}
    for mart in found.values():
        for view in mart.views:
            if view in owners:
                raise _definition_error(
                    mart.name, f"its view {view} has a name that marts/sql/{owners[view]}.sql makes as well"
                )
            owners[view] = mart.name
    return found


def read_mart(name: str, text: str) -> Mart:
    """A mart from the text of its file; raises `MartDefinitionError` where its header is none, or a name is taken."""
    opening, closing = _HEADER
    head, found, sql = text.strip().removeprefix(opening).partition(closing)
    if not text.lstrip().startswith(opening) or not found:
        raise _definition_error(name, "it does not begin with a header between /* and */")
    try:
        header = _Header.model_validate(yaml.safe_load(head))
    except yaml.YAMLError as error:
        raise _definition_error(name, f"its header is no YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        message = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise _definition_error(name, f"its header is not right: {message}") from None
    own = {column: about.as_column(column) for column, about in header.columns.items() if about is not None}
    names = dict.fromkeys([*header.key, *header.columns, *header.measures])
    strange = [column for column in names if column not in own and column not in GLOSSARY]
    if strange:
        raise _definition_error(name, f"its header does not describe {', '.join(strange)}")
    unknown = sorted({*header.needs} - _standard())
    if unknown:
        raise _definition_error(name, f"it needs {', '.join(unknown)}, which all_trips does not have")
    mart = Mart(
        name=name,
        description=header.description.strip(),
        columns=tuple(own.get(column) or GLOSSARY[column] for column in names),
        key=tuple(header.key),
        measures=tuple(header.measures),
        reconciled_measures=tuple(m for m in header.measures if header.counts == "all" and m in _standard() - {*own}),
        required_columns=frozenset(header.needs),
        sql=sql.strip(),
    )
    for relation in (name, *mart.views):
        _require_free(relation, mart)
    return mart


def _standard() -> set[str]:
    return {column.name for column in all_trips.COLUMNS}


def _require_free(relation: str, mart: Mart) -> None:
    if not _NAME.fullmatch(relation):
        raise _definition_error(mart.name, f"{relation} is no name of lower-case letters, digits and underscores")
    of_trips = any(relation.startswith(service.table) for service in SERVICES.values())  # and what stands beside them
    if of_trips or relation in _RESERVED_NAMES or relation.endswith("_loads"):
        raise _definition_error(mart.name, f"{relation} is the name of another table of the warehouse")


class _MartColumn(BaseModel, extra="forbid"):
    type: str
    description: str
    unit: str | None = None

    @field_validator("type")
    @classmethod
    def _known(cls, value: str) -> str:
        known = [type_.name.lower() for type_ in ColumnType]
        if value not in known:
            raise ValueError(f"{value} is none of {', '.join(known)}")
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


def _definition_error(name: str, label: str) -> MartDefinitionError:
    return MartDefinitionError(
        f"marts/sql/{name}.sql: {label}.", remedy="See marts/mart.py for what a mart looks like."
    )
