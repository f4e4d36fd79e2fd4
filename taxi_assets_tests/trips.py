"""Small generated months for tests. The same arguments always give the same file, in milliseconds.

Belongs here: data for tests of storage and runs, where the published layouts do not matter. The package cleans the
rows, so files, footers and reports are those of a real run.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from taxi_assets.storage.lake.objects import ParquetPartition, StagedParquet
from taxi_assets.tlc.cleaning.clean_month import CleanedMonth, clean_month
from taxi_assets.tlc.file_format import FileFormat
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.services.green import GREEN
from taxi_assets.tlc.sources.download import DownloadedFile
from taxi_assets.tlc.sources.source_record import SourceRecord

if TYPE_CHECKING:
    from collections.abc import Iterator

    from taxi_assets.storage.lake.base_lake import Lake
    from taxi_assets.tlc.cleaning.report import CleaningReport
    from taxi_assets.tlc.schema import Service

MONTH = Month(2020, 10)
CENT_STEPS = 7919  # a prime, so that no two rows of a small month have the same total

_HEADER = (
    "VendorID,lpep_pickup_datetime,lpep_dropoff_datetime,store_and_fwd_flag,RatecodeID,PULocationID,DOLocationID,"
    "passenger_count,trip_distance,fare_amount,extra,mta_tax,tip_amount,tolls_amount,ehail_fee,improvement_surcharge,"
    "total_amount,payment_type,trip_type,congestion_surcharge"
)


def csv_lines(month: Month, rows: int, *, dirty: int = 0, seed: int = 0, flag: str = "N") -> Iterator[str]:
    """Yield the lines of a green month, header first.

    Every fifth row is a reversal. Every third row lacks the values that real rows often lack.

    Args:
        month: The month of the pickups.
        rows: The number of clean rows.
        dirty: The number of rows with zero passengers, after the clean ones.
        seed: Changes the pickup times and amounts.
        flag: The value of the only text column, `store_and_fwd_flag`.
    """
    yield _HEADER
    start = dt.datetime.combine(month.start, dt.time())
    for i in range(rows + dirty):
        pickup = start + dt.timedelta(minutes=(i * 13 + seed) % (month.days * 1440))
        dropoff = pickup + dt.timedelta(seconds=61 + i % 3000)
        cents = (i + seed + 1) * CENT_STEPS % 100_000
        sign = "-" if i % 5 == 4 else ""
        total, fare = f"{sign}{cents / 100:.2f}", f"{sign}{cents / 200:.2f}"
        passengers = "0" if i >= rows else "" if i % 3 == 2 else str(1 + i % 6)
        rate, kind, surcharge = ("", "", "") if i % 3 == 2 else ("1", "2", "2.75")
        yield (
            f"{1 + i % 2},{pickup},{dropoff},{flag},{rate},{1 + i % 265},{1 + i * 7 % 265},{passengers},{i % 50}.123,"
            f"{fare},0.5,0.5,0,0,,0.3,{total},{1 + i % 5},{kind},{surcharge}"
        )


def write_download(
    content: bytes, folder: Path, *, extension: FileFormat = FileFormat.CSV, etag: str = '"1"'
) -> DownloadedFile:
    """Write a file to `folder`, and return it as a `DownloadedFile`. Its rows are the lines after the first."""
    path = folder / f"download.{extension}"
    path.write_bytes(content)
    record = SourceRecord(
        url=f"http://publisher/file.{extension}",
        publisher="http://publisher",
        format=extension,
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        rows=max(content.count(b"\n") - 1, 0),
        etag=etag,
        fetched_at=dt.datetime(2024, 1, 1, tzinfo=dt.UTC),
    )
    return DownloadedFile(path, record)


def clean_generated_month(
    folder: Path,
    month: Month = MONTH,
    rows: int = 100,
    *,
    dirty: int = 0,
    seed: int = 0,
    flag: str = "N",
    service: Service = GREEN,
) -> CleanedMonth:
    """Write a green month to `folder` as clean and quarantine Parquet files; see `csv_lines`."""
    text = "".join(f"{line}\n" for line in csv_lines(month, rows, dirty=dirty, seed=seed, flag=flag))
    file = write_download(text.encode(), folder)
    return clean_month(file.path, file.record, service, month, service.rules, folder)


def publish_generated_month(
    lake: Lake,
    month: Month = MONTH,
    rows: int = 100,
    *,
    dirty: int = 0,
    seed: int = 0,
    flag: str = "N",
    service: Service = GREEN,
    layer: str = "clean",
) -> ParquetPartition:
    """Publish a green month to a layer of a lake. Pass a different `layer` to store several versions of a month."""
    prefix = f"{layer}/{service.table}/{month}"
    with lake.staging() as folder:
        replaces = lake.version(f"{prefix}.parquet")
        if service is GREEN:
            content, report = _green_month(month, rows, dirty, seed, flag)
            clean = folder / "clean.parquet"
            clean.write_bytes(content)
        else:
            cleaned = clean_generated_month(folder, month, rows, dirty=dirty, seed=seed, flag=flag, service=service)
            clean, report = cleaned.clean, cleaned.report
        return ParquetPartition.publish(lake, prefix, StagedParquet(clean, report, replaces), run_id="a run")


@lru_cache(maxsize=64)
def _green_month(month: Month, rows: int, dirty: int, seed: int, flag: str) -> tuple[bytes, CleaningReport]:
    """Return the content of a clean Parquet file, and its report. Many tests publish the same months."""
    with tempfile.TemporaryDirectory() as folder:
        cleaned = clean_generated_month(Path(folder), month, rows, dirty=dirty, seed=seed, flag=flag)
        return cleaned.clean.read_bytes(), cleaned.report
