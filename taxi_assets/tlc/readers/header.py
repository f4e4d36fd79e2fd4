"""Matching of a file's columns to the canonical columns of a service, by name and never by position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from taxi_assets.errors import ColumnMismatchError
from taxi_assets.tlc.schema import AROUND_NAMES, normalize

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence

    from taxi_assets.tlc.month import Month
    from taxi_assets.tlc.schema import Column, Service


@dataclass(frozen=True)
class ColumnMatch:
    """The positions of a service's columns in a file.

    Attributes:
        positions: Canonical column name to its positions in the file: one, or several that are merged
            row by row.
        unknown: Position to published name, for columns that match no canonical column.
        absent: Names of canonical columns that the file does not have. Their values are null.
    """

    positions: Mapping[str, Sequence[int]]
    unknown: Mapping[int, str]
    absent: Sequence[str]


def readable_name(name: str, position: int) -> str:
    """Return a published column name without surrounding spaces, quotes and byte order mark.

    Args:
        name: The name as published; "" for a field that the header does not name.
        position: The position of the column, by which a field without a name is known.
    """
    return name.strip(AROUND_NAMES) or f"(field {position + 1})"


def column_names(service: Service) -> dict[str, str]:
    """Return the canonical name of each published column by its normalized names."""
    return {
        normalize(alias): column.name
        for column in service.published_columns
        for alias in (column.name, *column.aliases)
    }


def match_columns(service: Service, published: Sequence[str], *, label: str, month: Month) -> ColumnMatch:
    """Match a file's columns to the canonical columns of a service, by name and never by position.

    Args:
        service: Defines the canonical columns and their aliases.
        published: The column names in file order; "" for a field that the header does not name.
        label: Names the file in errors, such as "green 2020-10".
        month: The month of the file, which decides which columns it must have.

    Raises:
        ColumnMismatchError: A required column is missing, or columns with different names match the same canonical
            column.
    """
    names = [normalize(name) for name in published]
    canonical_names = column_names(service)
    canonical = [canonical_names.get(name) for name in names]
    positions: dict[str, list[int]] = {}
    for index, column_name in enumerate(canonical):
        if column_name is not None:
            positions.setdefault(column_name, []).append(index)
    unknown = {index: published[index] for index, column_name in enumerate(canonical) if column_name is None}
    mergeable = {column.name for column in service.published_columns if column.merge_aliases}
    for column_name, indices in positions.items():
        if len({names[index] for index in indices}) > 1 and column_name not in mergeable:
            raise _duplicate_column_error(column_name, [published[index] for index in indices], label)
    missing = [column.name for column in service.published_columns if _is_missing(column, positions, month)]
    if missing:
        raise _missing_column_error(service, missing, unknown, label)
    absent = [column.name for column in service.published_columns if column.name not in positions]
    return ColumnMatch(positions, unknown, absent)


def _is_missing(column: Column, found: Container[str], month: Month) -> bool:
    return column.is_required_in(month) and column.name not in found and column.alternative not in found


def _duplicate_column_error(name: str, published: Sequence[str], label: str) -> ColumnMismatchError:
    return ColumnMismatchError(
        f"{label}: the columns {', '.join(map(repr, published))} all match {name}.",
        remedy="Remove one of them from the file, or set merge_aliases on the column if each row fills in only one.",
    )


def _missing_column_error(
    service: Service, missing: Sequence[str], unknown: Mapping[int, str], label: str
) -> ColumnMismatchError:
    unknown_names = [repr(name.strip(AROUND_NAMES)) for name in unknown.values() if name.strip(AROUND_NAMES)]
    return ColumnMismatchError(
        f"{label}: the file has no column for {', '.join(missing)}"
        + (f"; unknown columns: {', '.join(unknown_names)}." if unknown_names else "."),
        remedy=f"Check that this is a {service.title.lower()} file. If a column was renamed, add an alias in "
        f"tlc/services/{service.name}.py or in a module that it imports.",
    )
