"""The months that everybody works on: generated rows, repeated up to size, kept in a folder that git ignores.

Yellow in the layout of 2021, as `.csv.gz` and as Parquet, and fhvhv as Parquet: none of it is a TLC record. A file is
made once, by a stream where the format allows it; the Parquet of yellow is one row group, as TLC's older files have it,
and so its rows are in memory once (in a process of its own).
"""

from __future__ import annotations

import datetime as dt
import gzip
import hashlib
import shutil
import struct
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from benchmarks.measure import run
from taxi_assets.tlc import synthetic
from taxi_assets.tlc.file_format import FileFormat
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.sources.source_record import SourceRecord

MONTH = Month(2021, 1)
SIZES = (1_400_000, 7_700_000, 23_000_000)
FHVHV_SIZES = (5_000_000, 20_000_000)
SMALL_MONTHS = [str(Month(2019, 8).shift(number)) for number in range(24)]

_GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03"
_NEWER_ROW_GROUP = 1 << 20


@dataclass(frozen=True)
class Months:
    """The files of a folder; whoever asks for one has it made. `scale` below 1 makes all of them smaller."""

    folder: Path
    scale: float = 1.0

    def rows(self, rows: int) -> int:
        """How many rows a month of so many has at this scale."""
        return max(int(rows * self.scale), 1000)

    def file(self, service: str, rows: int, ending: str) -> Path:
        """A month of so many rows, in a folder that TAXI_SOURCE takes."""
        path = self.folder / "published" / f"{self.rows(rows)}.{ending}" / f"{service}_tripdata_{MONTH}.{ending}"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            sys.stderr.write(f"making {path.relative_to(self.folder)}\n")
            source = "-" if ending == "csv.gz" or service != "yellow" else str(self.file(service, rows, "csv.gz"))
            run(["-m", "benchmarks.months", service, str(self.rows(rows)), str(path), source])
        _add_zones(path.parent)
        return path

    def csv(self, rows: int) -> Path:
        """The same rows as text that is not packed."""
        packed = self.file("yellow", rows, "csv.gz")
        path = packed.with_suffix("")
        if not path.exists():
            with gzip.open(packed, "rb") as source, _whole(path).open("wb") as target:
                while block := source.read(1 << 24):
                    target.write(block)
            _whole(path).replace(path)
        return path

    @property
    def small_months(self) -> list[str]:
        """Which there are."""
        return SMALL_MONTHS if self.scale == 1 else SMALL_MONTHS[:3]

    def small(self) -> Path:
        """A folder of 24 small months of yellow, of 100,000 rows or so, each its own."""
        folder = self.folder / "published" / "small"
        folder.mkdir(parents=True, exist_ok=True)
        for month in self.small_months:
            path = folder / f"yellow_tripdata_{month}.csv.gz"
            if not path.exists():
                synthetic.write_month("yellow", Month.parse(month), _whole(path))
                _whole(path).replace(path)
        _add_zones(folder)
        return folder

    def tiny(self) -> Path:
        """A folder with a month of a hundred rows."""
        path = self.folder / "published" / "tiny" / f"yellow_tripdata_{MONTH}.csv.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            _write_csv(path, 100)
        return path.parent


def record_of(path: Path, rows: int) -> SourceRecord:
    """What a download would have recorded."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return SourceRecord(
        url=path.as_uri(),
        publisher="benchmark",
        format=FileFormat.PARQUET if path.suffix == ".parquet" else FileFormat.CSV_GZ,
        bytes=path.stat().st_size,
        sha256=digest,
        rows=rows,
        fetched_at=dt.datetime.now(dt.UTC),
    )


def rows_of(path: Path) -> int:
    """How many rows a file of these has: its folder says so."""
    return int(path.parent.name.partition(".")[0])


def _whole(path: Path) -> Path:
    """Where it is written; it gets its name when it is whole."""
    return path.with_name(f".{path.name}.new")


def _add_zones(folder: Path) -> None:
    """The table that marts and reports need is published in the same folder."""
    shutil.copy(synthetic.zones_path(), folder / "taxi_zone_lookup.csv")


def _sample(service: str, path: Path) -> Path:
    small = path.with_name(".sample")
    synthetic.write_month(service, MONTH, small)
    return small


def _write_csv(path: Path, rows: int) -> None:
    """One gzip stream, as published ones are; what repeats is packed once."""
    small = _sample("yellow", path)
    header, *lines = gzip.decompress(small.read_bytes()).splitlines(keepends=True)
    small.unlink()
    times, rest = divmod(rows, len(lines))
    parts = [header, *[b"".join(lines)] * times, b"".join(lines[:rest])]
    packed: dict[int, bytes] = {}
    crc = length = 0
    with _whole(path).open("wb") as file:
        file.write(_GZIP_HEADER)
        for part in parts:
            if id(part) not in packed:
                packer = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
                # It ends on a byte, and nothing after it refers to what is before: so it can stand there again.
                packed[id(part)] = packer.compress(part) + packer.flush(zlib.Z_FULL_FLUSH)
            file.write(packed[id(part)])
            crc, length = zlib.crc32(part, crc), length + len(part)
        file.write(zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS).flush())
        file.write(struct.pack("<II", crc, length % (1 << 32)))
    _whole(path).replace(path)


def _write_parquet(path: Path, source: Path) -> None:
    table = pyarrow.csv.read_csv(source)
    pyarrow.parquet.write_table(table, _whole(path), row_group_size=table.num_rows, compression="snappy")
    _whole(path).replace(path)


def _write_fhvhv(path: Path, rows: int) -> None:
    """In row groups of a million, as TLC's newer files have them."""
    small = _sample("fhvhv", path)
    table = pyarrow.parquet.read_table(small)
    small.unlink()
    several = pa.concat_tables([table] * -(-_NEWER_ROW_GROUP // len(table))).slice(0, _NEWER_ROW_GROUP)
    with pyarrow.parquet.ParquetWriter(_whole(path), table.schema, compression="snappy") as writer:
        for start in range(0, rows, len(several)):
            writer.write_table(several.slice(0, rows - start), row_group_size=_NEWER_ROW_GROUP)
    _whole(path).replace(path)


def main(service: str, rows: str, path: str, source: str) -> None:
    """Make one file."""
    if service == "fhvhv":
        _write_fhvhv(Path(path), int(rows))
    elif source == "-":
        _write_csv(Path(path), int(rows))
    else:
        _write_parquet(Path(path), Path(source))


if __name__ == "__main__":
    main(*sys.argv[1:])
