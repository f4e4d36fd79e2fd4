"""Divide the clean trips of two revisions by pickup time, into parts that fit in memory.

Belongs here: reading the clean files, and the temporary files of the parts. Does not belong here: comparing the trips
of a part (`row_matching.py`, `large_parts.py`).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from taxi_assets.storage.revision_comparison.row_values import narrow, to_integers
from taxi_assets.tlc.parquet_io import open_parquet_stream

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from taxi_assets.tlc.cleaning.report import CleaningReport
    from taxi_assets.tlc.month import Month

PART_ROWS = 300_000
"""Rows of both files in a part, if the trips are spread evenly over the month."""

LARGEST_PART_ROWS = 3 * PART_ROWS
"""The most rows of a part that is compared in memory. A part has more if very many trips start at the same time."""

_LARGEST_PART_BYTES = 64 << 20
_BATCH_ROWS = 65_536
_MICROSECONDS_PER_DAY = 86_400_000_000


@dataclass(frozen=True)
class CleanRevision:
    """The clean trips of one revision of a month."""

    path: Path
    report: CleaningReport


@dataclass(frozen=True)
class Part:
    """The trips of both revisions in one part of the month. The values are those of `row_values.to_integers`.

    Attributes:
        old: The file with the trips of the older revision, in the order of its clean file.
        new: The same for the newer revision.
        rows: The number of trips in both files.
    """

    old: Path
    new: Path
    rows: int

    @property
    def fits_in_memory(self) -> bool:
        """Whether the part can be compared in memory, which takes a few times as many bytes as its files have."""
        size = sum(path.stat().st_size for path in (self.old, self.new) if path.exists())
        return self.rows <= LARGEST_PART_ROWS and size <= _LARGEST_PART_BYTES

    def batches(self, path: Path) -> Iterator[pa.RecordBatch]:
        """Read one of the two files. Batches differ in the width of their integers."""
        if path.exists():
            with pa.OSFile(str(path)) as file:
                while file.tell() < file.size():
                    yield from pa.ipc.open_stream(file)


def divide_by_pickup(
    month: Month, old: CleanRevision, new: CleanRevision, columns: Sequence[str], folder: Path
) -> Iterator[Part]:
    """Divide the trips of both files into parts by pickup time, and yield the parts in the order of time.

    A trip with a pickup in another month is in the first or the last part. Trips without a pickup time are in a
    separate part, after the others.

    Args:
        month: The month.
        old: The older revision.
        new: The newer revision.
        columns: The columns to read, with `pickup_datetime`.
        folder: A folder for the parts. The files of a part are deleted when the next one is requested.
    """
    parts = max(-(-(old.report.clean.rows + new.report.clean.rows) // PART_ROWS), 1)
    paths = [(folder / f"part-{number}-old", folder / f"part-{number}-new") for number in range(parts + 1)]
    divide = partial(_divide_revision, month=month, columns=columns)
    with ThreadPoolExecutor(2, "divide") as executor:
        rows = sum(executor.map(divide, (old, new), zip(*paths, strict=True)))
    for number in np.flatnonzero(rows).tolist():
        yield Part(*paths[number], int(rows[number]))
        for path in paths[number]:
            path.unlink(missing_ok=True)


def _divide_revision(revision: CleanRevision, paths: Sequence[Path], *, month: Month, columns: Sequence[str]) -> Any:
    """Write the trips of a revision to the files of its parts, and return the number of trips in each part."""
    rows = np.zeros(len(paths), np.int64)
    schema = pa.schema([])
    files: dict[int, Any] = {}
    writers: dict[int, Any] = {}
    with ExitStack() as stack:
        for batch in stack.enter_context(open_parquet_stream(revision.path)).iter_batches(_BATCH_ROWS, columns=columns):
            numbers = _part_numbers(batch["pickup_datetime"], month, len(paths) - 1)
            widths = schema.types or [pa.int8()] * batch.num_columns
            integers = [narrow(to_integers(each), width) for each, width in zip(batch.columns, widths, strict=True)]
            order = pa.array(np.argsort(numbers, kind="stable"))
            by_part = pa.RecordBatch.from_arrays(integers, batch.schema.names).take(order)
            if by_part.schema != schema:
                # Wider integers begin another stream in each file.
                schema = by_part.schema
                _close(writers)
            counts = np.bincount(numbers, minlength=len(paths))
            for number in np.flatnonzero(counts).tolist():
                if number not in files:
                    files[number] = stack.enter_context(paths[number].open("wb"))
                if number not in writers:
                    writers[number] = pa.ipc.new_stream(files[number], schema)
                writers[number].write_batch(by_part.slice(counts[:number].sum(), counts[number]))
            rows += counts
        _close(writers)
    return rows


def _close(writers: dict[int, Any]) -> None:
    while writers:
        writers.popitem()[1].close()


def _part_numbers(pickups: Any, month: Month, parts: int) -> Any:
    """Return the number of the part of each trip, from 0; the number of parts if the pickup time is null."""
    start = np.datetime64(month.start, "us").astype(np.int64)
    width = -(-month.days * _MICROSECONDS_PER_DAY // parts)
    times = pc.fill_null(pickups.cast(pa.int64()), start).to_numpy()
    numbers = np.clip((times - start) // width, 0, parts - 1)
    # numpy sorts 16-bit integers in linear time.
    return np.where(pickups.is_null().to_numpy(zero_copy_only=False), parts, numbers).astype(np.uint16)
