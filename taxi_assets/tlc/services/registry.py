"""The registry of services. To add one, write a module in this package and add a line here; see docs/add-a-dataset.md.

Belongs here: what cleaning, warehouses and marts require of every service, in addition to its own columns.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from taxi_assets.errors import ServiceDefinitionError
from taxi_assets.tlc.revision_report import reserved_names
from taxi_assets.tlc.schema import ColumnType, normalize
from taxi_assets.tlc.services.fhv import FHV
from taxi_assets.tlc.services.fhvhv import FHVHV
from taxi_assets.tlc.services.green import GREEN
from taxi_assets.tlc.services.shared_columns import DERIVED_TIMES, ORIGIN
from taxi_assets.tlc.services.yellow import YELLOW

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from taxi_assets.tlc.schema import Service

# Asset keys, job names, lake folders and tables contain it.
_NAME = re.compile("[a-z][a-z0-9_]*")
_TYPES = {
    "pickup_datetime": ColumnType.DATETIME,
    "dropoff_datetime": ColumnType.DATETIME,
    **{column.name: column.type for column in (*DERIVED_TIMES, *ORIGIN)},
}
_COMPUTED_COLUMNS = {column.name for column in (*DERIVED_TIMES, *ORIGIN)} | {"is_reversal"}


def validate_services(services: Iterable[Service]) -> Mapping[str, Service]:
    """Validate service definitions and return them by name.

    Args:
        services: Definitions, in the order in which assets and pages list them.

    Raises:
        ServiceDefinitionError: A name is malformed or taken, or a column is missing, repeated, reserved or of the wrong
            type.
    """
    by_name: dict[str, Service] = {}
    for service in services:
        _require_valid_name(service, by_name)
        _require_valid_columns(service)
        by_name[service.name] = service
    return by_name


def _require_valid_name(service: Service, others: Mapping[str, Service]) -> None:
    if not _NAME.fullmatch(service.name):
        raise _definition_error(
            service, "the name must be lower-case letters, digits and underscores, and start with a letter"
        )
    if service.name == "file" or service.name.endswith("_file"):
        raise _definition_error(
            service, "the name must not be file or end in _file, because TAXI_..._FILE is a file with a secret"
        )
    if service.name in others:
        raise _definition_error(service, "another service has the same name")


def _require_valid_columns(service: Service) -> None:
    types = {column.name: column.type for column in service.columns}
    columns = [[column.name] for column in service.columns]
    published = [[column.name, *column.aliases] for column in service.published_columns]
    for names in (columns, published):
        owners = Counter(normalized for aliases in names for normalized in {*map(normalize, aliases)})
        if duplicates := {name: None for aliases in names for name in aliases if owners[normalize(name)] > 1}:
            raise _definition_error(service, f"more than one column is called {', '.join(duplicates)}")
    if reserved := reserved_names(service):
        raise _definition_error(
            service,
            f"the comparison of revisions needs the column {', '.join(reserved)} for itself, and all names that begin "
            "with old_, new_ or _. Choose another name, and list the published one as an alias",
        )
    missing = [f"{name} ({type_})" for name, type_ in _TYPES.items() if types.get(name) is not type_]
    if missing:
        raise _definition_error(service, f"every service needs the columns {', '.join(missing)}")
    _require_valid_derived_columns(service)
    if types.get("total_amount", ColumnType.MONEY) is not ColumnType.MONEY:
        raise _definition_error(service, "total_amount must have the type ColumnType.MONEY")
    if ("total_amount" in types) is not ("is_reversal" in types):
        raise _definition_error(
            service, "it needs both total_amount and is_reversal, or neither, because marts do not count reversals"
        )


def _require_valid_derived_columns(service: Service) -> None:
    derived = {column.name for column in service.columns if column.derived}
    if not_computed := derived - _COMPUTED_COLUMNS:
        raise _definition_error(service, f"no code computes the derived column {', '.join(sorted(not_computed))}")
    if not_derived := _COMPUTED_COLUMNS & {column.name for column in service.columns} - derived:
        raise _definition_error(
            service, f"{', '.join(sorted(not_derived))} is a computed column, and needs derived=True"
        )


def _definition_error(service: Service, problem: str) -> ServiceDefinitionError:
    return ServiceDefinitionError(
        f"Invalid service definition {service.name!r}: {problem}.",
        remedy="Fix it in tlc/services/. See docs/add-a-dataset.md for a complete example.",
    )


SERVICES = validate_services(
    (
        YELLOW,
        GREEN,
        FHV,
        FHVHV,
    )
)


def require_service_name(name: str) -> str:
    """Return the name of a service; raise a `ValueError` if there is none of this name."""
    if name not in SERVICES:
        raise ValueError(f"There is no service {name!r}. Use one of {', '.join(SERVICES)}.")
    return name
