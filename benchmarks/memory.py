"""Is memory flat? A month of 1.4 million rows against one of 7.7 million, cleaned and loaded, each in its own process.

    make bench

Months are generated rows in the yellow layout of 2021, repeated up to size, as .csv.gz and as Parquet; and a month of
fhvhv as Parquet, of 1 and 5 million rows, through `dagster asset materialize` with all that comes with it. Prints
wall and CPU seconds and peak memory, and the ratio of the larger month to the smaller one.
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
from taxi_assets.storage.local_lake import LocalLake
from taxi_assets.storage.shelves import ParquetMonth, StagedParquet
from taxi_assets.tlc import sample
from taxi_assets.tlc.catalogue import SERVICES
from taxi_assets.tlc.clean import clean_month
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.source import FileFormat, SourceRecord

SERVICE = SERVICES["yellow"]
MONTH = Month(2021, 1)
SIZES = (1_400_000, 7_700_000)
CHAIN_SIZES = (1_000_000, 5_000_000)


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
            staged = StagedParquet(cleaned.clean, cleaned.report, replaces=None)
            ParquetMonth.publish(lake, stem, staged, run_id="benchmark")
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


def make_fhvhv(path: Path, rows: int) -> None:
    """Write a month of fhvhv of so many rows, in row groups of a million as TLC's newer files have them."""
    small = path.with_name("sample.parquet")
    sample.write_month("fhvhv", MONTH, small)
    table = pyarrow.parquet.read_table(small)
    small.unlink()
    with pyarrow.parquet.ParquetWriter(path, table.schema, compression="snappy") as writer:
        for start in range(0, rows, len(table)):
            writer.write_table(table.slice(0, rows - start))


def peak_of(process: subprocess.Popen[bytes]) -> float:
    """The largest resident size of a process, in MB, watched until it ends."""
    status, peak = Path(f"/proc/{process.pid}/status"), 0.0
    while process.poll() is None:
        words = status.read_text().split()
        if "VmHWM:" in words:
            peak = int(words[words.index("VmHWM:") + 1]) / 1024
        time.sleep(0.05)
    return peak


def measure_chain(folder: Path, rows: int) -> dict[str, float]:
    """A month of fhvhv through the command line: fetch, clean, load, all checks."""
    home = folder / f"fhvhv-{rows}"
    (home / "published").mkdir(parents=True)
    make_fhvhv(home / "published" / f"fhvhv_tripdata_{MONTH}.parquet", rows)
    environment = os.environ | {
        "TAXI_SOURCE": str(home / "published"),
        "TAXI_LAKE": str(home / "lake"),
        "TAXI_WAREHOUSE": f"duckdb:///{home / 'warehouse.duckdb'}",
    }
    command = ["-m", "dagster", "asset", "materialize", "-m", "taxi_assets.definitions", "--select", "group:fhvhv"]
    started, before = time.monotonic(), os.times()
    with (home / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, *command, "--partition", str(MONTH)], env=environment, stdout=log, stderr=log
        )
        peak = peak_of(process)
    if process.returncode:
        raise SystemExit((home / "log").read_text()[-2000:])
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return {"wall": time.monotonic() - started, "cpu": cpu, "peak": peak}


def rows_of(stage: str, ending: str, sizes: tuple[int, int], figures: list[dict[str, float]]) -> list[list[str]]:
    """Lines of the table: both sizes, and their ratio."""
    small, large = figures
    keys = ("wall", "cpu", "peak")
    return [
        *([stage, ending, f"{n:,}", *(f"{f[k]:.1f}" for k in keys)] for n, f in zip(sizes, figures, strict=True)),
        [stage, ending, "ratio", *(f"{large[k] / small[k]:.2f}" for k in keys)],
    ]


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
            for stage, figures in stages.items():
                table += rows_of(stage, ending, SIZES, figures)
        chain = [measure_chain(folder, rows) for rows in CHAIN_SIZES]
        table += rows_of("chain, fhvhv", "parquet", CHAIN_SIZES, chain)
    sys.stdout.write(
        tabulate(table, ["stage", "from", "rows", "wall s", "cpu s", "peak MB"], disable_numparse=True) + "\n"
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        work(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
    else:
        main()
