"""Is memory flat? A month of 1.4 million rows against one of 7.7 million, cleaned and loaded, each in its own process.

    make bench

Months are generated rows in the yellow layout of 2021, repeated up to size, as .csv.gz and as Parquet. Prints wall and
CPU seconds and peak memory, and the ratio of the larger month to the smaller one.
"""

from __future__ import annotations

import datetime as dt
import gzip
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow.csv
import pyarrow.parquet
from tabulate import tabulate

from taxi_assets.storage.duckdb import DuckDBWarehouse
from taxi_assets.storage.lake import LocalLake
from taxi_assets.storage.shelves import ParquetMonth, StagedParquet
from taxi_assets.tlc import sample
from taxi_assets.tlc.catalogue import SERVICES
from taxi_assets.tlc.clean import clean_month
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.source import FileFormat, SourceRecord

SERVICE = SERVICES["yellow"]
MONTH = Month(2021, 1)
SIZES = (1_400_000, 7_700_000)


def make_csv(path: Path, rows: int) -> None:
    """Write a month of so many rows as .csv.gz."""
    small = path.with_name("sample.csv.gz")
    if not small.exists():
        sample.write_month(SERVICE.name, MONTH, small)
    header, *lines = gzip.decompress(small.read_bytes()).splitlines(keepends=True)
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(header)
        for start in range(0, rows, len(lines)):
            file.writelines(lines[: rows - start])


def make_parquet(path: Path, source: Path) -> None:
    """Write the same month as Parquet, in one row group as TLC's older files have it."""
    table = pyarrow.csv.read_csv(source)
    pyarrow.parquet.write_table(table, path, row_group_size=table.num_rows, compression="snappy")


def record_of(path: Path, format_: FileFormat, rows: int) -> SourceRecord:
    """What a download would have recorded."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return SourceRecord(
        url=path.as_uri(),
        publisher="benchmark",
        format=format_,
        bytes=path.stat().st_size,
        sha256=digest,
        rows=rows,
        fetched_at=dt.datetime.now(dt.UTC),
    )


def work(stage: str, path: Path, rows: int, home: Path) -> None:
    """One stage, in this process; prints what it took."""
    format_ = FileFormat.PARQUET if path.suffix == ".parquet" else FileFormat.CSV_GZ
    lake = LocalLake(folder=str(home / "lake"))
    stem = f"clean/{SERVICE.table}/{MONTH}"
    started, cpu = time.monotonic(), time.process_time()
    if stage == "clean":
        with lake.staging() as folder:
            cleaned = clean_month(path, record_of(path, format_, rows), SERVICE, MONTH, SERVICE.rules, folder)
            ParquetMonth.publish(lake, stem, StagedParquet(cleaned.clean, cleaned.report))
    else:
        warehouse = DuckDBWarehouse(file=str(home / "warehouse.duckdb"))
        warehouse.replace_month(SERVICE, MONTH, ParquetMonth.get(lake, stem), run_id="benchmark")
    # Not ru_maxrss, which starts with the size of the process that forked this one.
    status = Path("/proc/self/status").read_text().split()
    peak = int(status[status.index("VmHWM:") + 1]) / 1024
    figures = {"wall": time.monotonic() - started, "cpu": time.process_time() - cpu, "peak": peak}
    sys.stdout.write(json.dumps(figures))


def measure(stage: str, path: Path, rows: int, home: Path) -> dict[str, float]:
    """The same in a fresh process."""
    command = [sys.executable, __file__, stage, str(path), str(rows), str(home)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    figures: dict[str, float] = json.loads(ended.stdout)
    return figures


def main() -> None:
    """Measure every stage for both sizes and both formats."""
    table = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for ending in ("csv.gz", "parquet"):
            stages: dict[str, list[dict[str, float]]] = {"clean": [], "load": []}
            for rows in SIZES:
                path = folder / f"{rows}.{ending}"
                if ending == "parquet":
                    make_parquet(path, folder / f"{rows}.csv.gz")
                else:
                    make_csv(path, rows)
                for stage, figures in stages.items():
                    figures.append(measure(stage, path, rows, folder / f"{ending}-{rows}"))
            for stage, (small, large) in stages.items():
                for rows, figures_ in zip(SIZES, (small, large), strict=True):
                    table.append([stage, ending, f"{rows:,}", *(f"{figures_[k]:.1f}" for k in ("wall", "cpu", "peak"))])
                table.append([stage, ending, "ratio", *(f"{large[k] / small[k]:.2f}" for k in ("wall", "cpu", "peak"))])
    sys.stdout.write(
        tabulate(table, ["stage", "from", "rows", "wall s", "cpu s", "peak MB"], disable_numparse=True) + "\n"
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        work(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
    else:
        main()
