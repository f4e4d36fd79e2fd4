"""The quarantine: rejected rows with all their reasons and their original text.

Belongs here: the columns of quarantine, and the construction of its rows. Does not belong here: the decision which rows
are rejected (`split_batch.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from taxi_assets.tlc.schema import Column, ColumnType, build_arrow_schema
from taxi_assets.tlc.values.working_types import to_canonical

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from taxi_assets.tlc.month import Month
    from taxi_assets.tlc.readers.base_reader import MalformedRow, RawBatch

    Mask = np.ndarray[Any, np.dtype[np.bool_]]
    Indices = np.ndarray[Any, np.dtype[np.intp]]

QUARANTINE_COLUMNS = (
    Column(
        "source_row",
        ColumnType.INTEGER,
        "Number of the row in the published file. The first data row is 1; blank lines are not counted.",
        "row number",
    ),
    Column("reasons", ColumnType.TEXTS, "Why the row is in quarantine: the rules it violates, and reading errors."),
    Column("unreadable_columns", ColumnType.TEXTS, "The columns whose values could not be read."),
    Column("pickup_datetime", ColumnType.DATETIME, "Time when the trip started, if it could be read.", "local time"),
    Column("total_amount", ColumnType.MONEY, "Total charged to the passenger, if it could be read.", "US dollars"),
    Column(
        "original", ColumnType.TEXT, "The row as published: the line of a CSV file, or a JSON object of a Parquet row."
    ),
    Column(
        "data_month",
        ColumnType.DATE,
        "First day of the month in whose file the row was published: the partition.",
    ),
)
QUARANTINE_SCHEMA = build_arrow_schema(QUARANTINE_COLUMNS)


def build_quarantine(
    raw: RawBatch,
    batch: Any,
    month: Month,
    reasons: Mapping[str, Mask],
    unreadable: Mapping[str, Mask],
    *,
    rejected: Mask,
) -> Any:
    """Build the quarantined rows of a batch, including its malformed rows.

    Args:
        raw: Rows as published.
        batch: The same rows in the service's columns.
        month: The partition.
        reasons: Reason to one boolean per row, true where the reason applies.
        unreadable: Column name to one boolean per row, true where the value cannot be read.
        rejected: One boolean per row, true where any reason applies.

    Returns:
        A record batch in `QUARANTINE_SCHEMA`, in file order.
    """
    rows = _rejected_rows(raw, batch, reasons, unreadable, np.flatnonzero(rejected))
    if not raw.malformed_rows:
        return rows
    malformed = _malformed_rows(raw.malformed_rows, month)
    in_file_order = pa.Table.from_batches([rows, malformed]).sort_by("source_row")
    return in_file_order.combine_chunks().to_batches()[0]


def _rejected_rows(
    raw: RawBatch,
    batch: Any,
    reasons: Mapping[str, Mask],
    unreadable: Mapping[str, Mask],
    indices: Indices,
) -> Any:
    values = {
        "reasons": _names_of_true_masks(reasons, indices),
        "unreadable_columns": _names_of_true_masks(unreadable, indices),
        "original": raw.original_texts(pa.array(indices)),
    }
    for field in QUARANTINE_SCHEMA:
        if field.name in values:
            continue
        if field.name in batch.schema.names:
            values[field.name] = to_canonical(batch.column(field.name).take(pa.array(indices)))
        else:  # the service has no such column
            values[field.name] = pa.nulls(len(indices), field.type)
    return pa.record_batch([values[name] for name in QUARANTINE_SCHEMA.names], schema=QUARANTINE_SCHEMA)


def _names_of_true_masks(masks: Mapping[str, Mask], indices: Indices) -> Any:
    """Return one list of text per index: the names of the masks that are true there, in the order of the masks."""
    is_true = (
        np.stack([mask[indices] for mask in masks.values()], axis=1) if masks else np.empty((len(indices), 0), bool)
    )
    ends = np.cumsum(is_true.sum(axis=1), dtype=np.int32)
    names = pa.array(masks, pa.string()).take(pa.array(np.nonzero(is_true)[1]))
    return pa.ListArray.from_arrays(pa.array(np.concatenate([[0], ends]), pa.int32()), names)


def _malformed_rows(malformed_rows: Sequence[MalformedRow], month: Month) -> Any:
    rows = [
        {
            "source_row": row.source_row,
            "reasons": row.reasons,
            "unreadable_columns": [],
            "original": row.text,
            "data_month": month.start,
        }
        for row in malformed_rows
    ]
    return pa.RecordBatch.from_pylist(rows, QUARANTINE_SCHEMA)
