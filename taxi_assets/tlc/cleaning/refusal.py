"""Refuse a month with too many quarantined rows, with an error that names the columns that cannot be read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from taxi_assets.errors import TooManyQuarantinedError
from taxi_assets.tlc.cleaning.report import UnreadableColumn
from taxi_assets.tlc.cleaning.time_marks import published_as
from taxi_assets.tlc.readers.json_text import to_json_value
from taxi_assets.tlc.rules import NOT_UTF8

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taxi_assets.tlc.readers.base_reader import RawBatch
    from taxi_assets.tlc.values.time_forms import Mask

MAXIMUM_SHARE_QUARANTINED = 0.5
"""The largest accepted share of quarantined rows, 0 to 1. Real months have 0.005 to 0.014.

With a larger share, nothing is written to the lake: the file's format has probably changed.
"""

# A file is refused before its end if hardly any row can be read.
_HOPELESS_SHARE, _HOPELESS_BATCHES, _HOPELESS_ROWS = 0.99, 3, 100_000
# Examples of unreadable values: distinct values, their maximum length in characters, and the rows read per batch.
_EXAMPLES, _EXAMPLE_LENGTH, _EXAMPLE_ROWS = 3, 80, 1000
_NAMED_COLUMNS = 3


class UnreadableValues:
    """Collects the columns of a month that have unreadable values, batch by batch."""

    def __init__(self) -> None:
        self._published_as: dict[str, str] = {}
        self._rows: dict[str, int] = {}
        self._examples: dict[str, dict[str, None]] = {}

    def add(self, raw: RawBatch, unreadable: Mapping[str, Mask]) -> None:
        """Count the unreadable values of a batch.

        Args:
            raw: The rows as published.
            unreadable: Column name to one boolean per row, true where the value cannot be read.
        """
        for name, mask in unreadable.items():
            self._published_as.setdefault(name, published_as(raw, name))
            self._rows[name] = self._rows.get(name, 0) + int(np.count_nonzero(mask))
            examples = self._examples.setdefault(name, {})
            for position in raw.layout.match.positions[name]:
                if len(examples) < _EXAMPLES:
                    values = _published_values(raw, position).filter(pa.array(mask)).drop_null()[:_EXAMPLE_ROWS]
                    examples.update(dict.fromkeys(str(to_json_value(value))[:_EXAMPLE_LENGTH] for value in values))

    def columns(self) -> Mapping[str, UnreadableColumn]:
        """Return the columns by name, those with the most unreadable values first."""
        by_rows = sorted(self._rows, key=lambda name: (-self._rows[name], name))
        return {
            name: UnreadableColumn(
                published_as=self._published_as[name],
                rows=self._rows[name],
                examples=list(self._examples[name])[:_EXAMPLES],
            )
            for name in by_rows
        }


def _published_values(raw: RawBatch, position: int) -> Any:
    values = raw.arrays[position]
    # A CSV parser has read the text as numbers, such as inf.
    return raw.texts.column(position) if raw.texts and not pa.types.is_string(values.type) else values


def is_hopeless(*, batches: int, rows: int, reading_errors: int) -> bool:
    """Return whether hardly any of the first rows of a file can be read, so that reading on is of no use.

    Args:
        batches: The number of batches so far.
        rows: The number of their rows.
        reading_errors: The number of rows that cannot be read, whatever the rules are.
    """
    enough = batches >= _HOPELESS_BATCHES or rows >= _HOPELESS_ROWS
    return enough and reading_errors >= _HOPELESS_SHARE * rows


def too_many_quarantined_error(
    label: str,
    *,
    rows: int,
    quarantined: int,
    reading_errors: int,
    reasons: Mapping[str, int],
    unreadable: Mapping[str, UnreadableColumn],
    before_end: bool = False,
    limit: str | None = None,
) -> TooManyQuarantinedError:
    """Return the error for a month with too many quarantined rows.

    Args:
        label: Names the file, such as "green 2020-10".
        rows: The number of rows that were read.
        quarantined: How many of them would be quarantined.
        reading_errors: How many of them cannot be read, whatever the rules are.
        reasons: The number of rows per reason.
        unreadable: The columns with unreadable values.
        before_end: Whether the file has more rows.
        limit: The place in the run config of the limit of unreadable rows, if it is exceeded.
    """
    counts = ", ".join(f"{name} {count:,}" for name, count in reasons.items())
    columns = {name: _describe(name, column, rows) for name, column in list(unreadable.items())[:_NAMED_COLUMNS]}
    facts = {f"unreadable {name}": text for name, text in columns.items()}
    remedy = f"Check {'these values in ' if columns else ''}the file: its format may have changed."
    if 2 * reasons.get(NOT_UTF8, 0) > quarantined:
        remedy = "Save the file in UTF-8, or set the encoding in the dialect of the service."
    if limit is not None and quarantined <= MAXIMUM_SHARE_QUARANTINED * rows:
        remedy += f" To quarantine the rows that cannot be read, raise {limit} in the run config."
    elif limit is None and reading_errors <= MAXIMUM_SHARE_QUARANTINED * rows:
        remedy += " To skip rules, choose them in the run config."
    return TooManyQuarantinedError(
        f"{label}: {quarantined:,} of {'the first ' if before_end else ''}{rows:,} rows would be quarantined "
        f"({counts}). {''.join(f'{text}. ' for text in columns.values())}Nothing was written.",
        remedy=remedy,
        facts={"rows": rows, "rows_quarantined": quarantined, "quarantined_by_reason": counts, **facts},
    )


def _describe(name: str, column: UnreadableColumn, rows: int) -> str:
    examples = ", ".join(map(repr, column.examples))
    share = f"{column.rows / rows:.0%}" if 100 * column.rows >= rows else "less than 1%"
    such_as = f", such as {examples}" if examples else ""
    return f"{name} ({column.published_as}) cannot be read in {share} of the rows{such_as}"
