"""Divide the clean trips of two revisions by pickup time, into parts that fit in memory.

Belongs here: reading the clean files, and the temporary files of the parts. Does not belong here: comparing the trips
of a part (`compare_revisions.py`).
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from taxi_assets.tlc.parquet_io import open_parquet_stream

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from taxi_assets.tlc.cleaning.report import CleaningReport
    from taxi_assets.tlc.month import Month

IS_NEW = "_is_new"
"""The column that says whether a trip of a part is from the newer revision."""

PART_ROWS = 300_000
"""Rows of both files in a part, if the trips are spread evenly over the month."""

_BATCH_ROWS = 65_536
_MICROSECONDS_PER_DAY = 86_400_000_000


@dataclass(frozen=True)
class CleanRevision:
    """The clean trips of one revision of a month."""

    path: Path
    report: CleaningReport


def divide_by_pickup(
    month: Month, old: CleanRevision, new: CleanRevision, columns: Sequence[str], folder: Path
) -> Iterator[Path]:
    """Divide the trips of both files into parts by pickup time, and yield the parts in the order of time.

    A trip with a pickup in another month is in the first or the last part. Trips without a pickup time are in a
    separate part, after the others.

    Args:
        month: The month.
        old: The older revision.
        new: The newer revision.
        columns: The columns to read, with `pickup_datetime`. The parts also have the column `IS_NEW`.
        folder: A folder for the parts. A part is deleted when the next one is requested.

    Returns:
        Files in the streaming format of Arrow.
    """
    parts = max(-(-(old.report.clean.rows + new.report.clean.rows) // PART_ROWS), 1)
    paths = [folder / f"part-{number}.arrow" for number in range(parts + 1)]
    written: dict[int, Any] = {}
    with ExitStack() as stack:
        for revision in (old, new):
            file = stack.enter_context(open_parquet_stream(revision.path))
            for batch in file.iter_batches(_BATCH_ROWS, columns=columns):
                numbers = _part_numbers(batch["pickup_datetime"], month, parts)
                batch = batch.append_column(IS_NEW, pa.repeat(revision is new, batch.num_rows))  # noqa: PLW2901
                by_part = batch.take(pa.array(np.argsort(numbers, kind="stable")))
                counts = np.bincount(numbers, minlength=parts + 1)
                for number in np.flatnonzero(counts).tolist():
                    if number not in written:
                        options = pa.ipc.IpcWriteOptions(compression="lz4")
                        writer = pa.ipc.new_stream(paths[number], by_part.schema, options=options)
                        written[number] = stack.enter_context(writer)
                    written[number].write_batch(by_part.slice(counts[:number].sum(), counts[number]))
    for number in sorted(written):
        yield paths[number]
        paths[number].unlink()


def _part_numbers(pickups: Any, month: Month, parts: int) -> Any:
    """Return the number of the part of each trip, from 0; the number of parts if the pickup time is null."""
    start = np.datetime64(month.start, "us").astype(np.int64)
    width = -(-month.days * _MICROSECONDS_PER_DAY // parts)
    times = pc.fill_null(pickups.cast(pa.int64()), start).to_numpy()
    numbers = np.clip((times - start) // width, 0, parts - 1)
    return np.where(pickups.is_null().to_numpy(zero_copy_only=False), parts, numbers)
