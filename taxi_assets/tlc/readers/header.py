"""Matching of a file's columns to the canonical columns of a service, by name and never by position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from taxi_assets.errors import ColumnMismatchError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from taxi_assets.tlc.schema import Service


_AROUND_NAMES = " \t\r\n\"'\ufeff"


@dataclass(frozen=True)
class ColumnMatch:
    """The positions of a service's columns in a file.

    Attributes:
        positions: Canonical column name to its positions in the file: one, or several with `Column.merge_aliases`.
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
    return name.strip(_AROUND_NAMES) or f"(field {position + 1})"


def normalize(name: str) -> str:
    """Return a published column name in lower case, without surrounding spaces, quotes and byte order mark."""
    return name.strip(_AROUND_NAMES).lower()


def match_columns(service: Service, published: Sequence[str], *, label: str) -> ColumnMatch:
    """Match a file's columns to the canonical columns of a service, by name and never by position.

    Args:
        service: Defines the canonical columns and their aliases.
        published: The column names in file order; "" for a field that the header does not name.
        label: Names the file in errors, such as "green 2020-10".

    Raises:
        ColumnMismatchError: A required column is missing, or two columns match the same canonical column.
    """
    names = [normalize(name) for name in published]
    by_alias = {alias: column.name for column in service.published_columns for alias in (column.name, *column.aliases)}
    canonical = [by_alias.get(name) for name in names]
    positions: dict[str, list[int]] = {}
    for index, column_name in enumerate(canonical):
        if column_name is not None:
            positions.setdefault(column_name, []).append(index)
    unknown = {index: published[index] for index, column_name in enumerate(canonical) if column_name is None}
    mergeable = {column.name for column in service.published_columns if column.merge_aliases}
    for column_name, indices in positions.items():
        if len(indices) > 1 and column_name not in mergeable:
            raise _duplicate_column_error(column_name, [published[index] for index in indices], label)
    missing = [column.name for column in service.published_columns if column.required and column.name not in positions]
    if missing:
        raise _missing_column_error(service, missing, unknown, label)
    absent = [column.name for column in service.published_columns if column.name not in positions]
    return ColumnMatch(positions, unknown, absent)


def _duplicate_column_error(name: str, published: Sequence[str], label: str) -> ColumnMismatchError:
    return ColumnMismatchError(
        f"{label}: the columns {', '.join(map(repr, published))} all match {name}.",
        remedy="Remove one of them from the file, or set merge_aliases on the column if each row fills in only one.",
    )


def _missing_column_error(
    service: Service, missing: Sequence[str], unknown: Mapping[int, str], label: str
) -> ColumnMismatchError:
    unknown_names = [repr(name) for name in unknown.values() if name.strip()]
    return ColumnMismatchError(
        f"{label}: the file has no column for {', '.join(missing)}"
        + (f"; unknown columns: {', '.join(unknown_names)}." if unknown_names else "."),
        remedy=f"Check that this is a {service.title.lower()} file. If a column was renamed, add an alias in "
        f"tlc/services/{service.name}.py or in a module that it imports.",
    )
