"""The services that this platform knows. A new one is a file in `schemas/` and a line here: docs/add-a-dataset.md.

Belongs here: what cleaning, warehouses and marts expect of every service, whatever else it records.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from taxi_assets.errors import ServiceDefinitionError
from taxi_assets.tlc.schema import ColumnType
from taxi_assets.tlc.services.fhv import FHV
from taxi_assets.tlc.services.fhvhv import FHVHV
from taxi_assets.tlc.services.green import GREEN
from taxi_assets.tlc.services.shared_columns import DERIVED_TIMES, ORIGIN
from taxi_assets.tlc.services.yellow import YELLOW

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from taxi_assets.tlc.schema import Service

# Asset keys, jobs, folders and tables are named after it.
_NAME = re.compile("[a-z][a-z0-9_]*")
_TYPES = {
    "pickup_datetime": ColumnType.DATETIME,
    "dropoff_datetime": ColumnType.DATETIME,
    **{column.name: column.type for column in (*DERIVED_TIMES, *ORIGIN)},
}
_COMPUTED = {column.name for column in (*DERIVED_TIMES, *ORIGIN)} | {"is_reversal"}


def validate_services(services: Iterable[Service]) -> Mapping[str, Service]:
    """The services by their names; raises `ServiceDefinitionError` for one that the platform could not carry."""
    found: dict[str, Service] = {}
    for service in services:
        _require_name(service, found)
        _require_columns(service)
        found[service.name] = service
    return found


def _require_name(service: Service, others: Mapping[str, Service]) -> None:
    if not _NAME.fullmatch(service.name):
        raise _definition_error(service, "its name is not made of lower-case letters, digits and underscores")
    if service.name in others:
        raise _definition_error(service, "there is another service of that name")


def _require_columns(service: Service) -> None:
    types = {column.name: column.type for column in service.columns}
    claims = Counter(name for column in service.published_columns for name in {column.name, *column.aliases})
    claims |= Counter(column.name for column in service.columns)
    if twice := [name for name, count in claims.items() if count > 1]:
        raise _definition_error(service, f"more than one of its columns is called {', '.join(twice)}")
    missing = [f"{name} ({type_})" for name, type_ in _TYPES.items() if types.get(name) is not type_]
    if missing:
        raise _definition_error(service, f"it has no column {', '.join(missing)}, as every service has")
    derived = {column.name for column in service.columns if column.derived}
    if strange := derived - _COMPUTED:
        raise _definition_error(service, f"nothing computes its derived column {', '.join(sorted(strange))}")
    if unread := _COMPUTED & {*types} - derived:
        raise _definition_error(
            service, f"its column {', '.join(sorted(unread))} is computed, and must say that it is derived"
        )
    if types.get("total_amount", ColumnType.MONEY) is not ColumnType.MONEY:
        raise _definition_error(service, "its total_amount is not money")
    if ("total_amount" in types) is not ("is_reversal" in types):
        raise _definition_error(
            service, "a service has both total_amount and is_reversal, or neither: marts count no reversals"
        )


def _definition_error(service: Service, label: str) -> ServiceDefinitionError:
    return ServiceDefinitionError(
        f"The service {service.name!r} cannot be carried: {label}.",
        remedy="Mend its file in tlc/services/; docs/add-a-dataset.md shows a whole one.",
    )


SERVICES = validate_services(
    (
        YELLOW,
        GREEN,
        FHV,
        FHVHV,
    )
)
