"""Matching the columns of a published file to the canonical ones, by name and never by position."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from taxi_assets.errors import ColumnMismatchError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from taxi_assets.tlc.schema import Service


@dataclass(frozen=True)
class ColumnMatch:
    """Which published column holds which canonical one.

    `positions`: canonical name to its index in the file (or indices, see `Column.merge_aliases`). `unknown`: names as
    published that no canonical column claims, by index. `absent`: canonical columns that the file does not have; they
    are null.
    """

    positions: Mapping[str, Sequence[int]]
    unknown: Mapping[int, str]
    absent: Sequence[str]


def normalize(name: str) -> str:
    """A published column name without what varies from year to year: spaces, quotes, case, a byte order mark."""
    return name.strip(" \t\r\n\"'\ufeff").lower()


def match_columns(service: Service, published: Sequence[str], *, label: str) -> ColumnMatch:
    """Match the names of a file's columns; raises `ColumnMismatchError` where a required one is missing or one comes twice.

    An empty name (a field that rows have and the header does not) belongs to no canonical column.
    """
    names = [normalize(name) for name in published]
    claims = {alias: column.name for column in service.published_columns for alias in (column.name, *column.aliases)}
    claimed = [claims.get(name) for name in names]
    several = {column.name for column in service.published_columns if column.merge_aliases}
    twice = [name for name, count in Counter(claimed).items() if name is not None and count > 1 and name not in several]
    if twice:
        sources = [published[i] for i, name in enumerate(claimed) if name == twice[0]]
        raise ColumnMismatchError(
            f"{label}: the columns {', '.join(map(repr, sources))} all mean {twice[0]}.",
            remedy="Say in the service's schema which one holds the value.",
        )
    positions: dict[str, list[int]] = {}
    for index, name in enumerate(claimed):
        if name is not None:
            positions.setdefault(name, []).append(index)
    unknown = {i: published[i] for i, name in enumerate(claimed) if name is None}
    missing = [c.name for c in service.published_columns if c.required and c.name not in positions]
    if missing:
        strangers = [name for name in unknown.values() if name.strip()]
        raise ColumnMismatchError(
            f"{label}: the file has no column for {', '.join(missing)}"
            + (f"; unknown are {', '.join(map(repr, strangers))}." if strangers else "."),
            remedy=f"Is this a {service.title.lower()} file? A column that was renamed needs an alias in "
            f"tlc/services/: in {service.name}.py, or in what that imports.",
        )
    absent = [c.name for c in service.published_columns if c.name not in positions]
    return ColumnMatch(positions, unknown, absent)
