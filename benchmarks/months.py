"""The input files: generated rows, repeated up to a size, stored in a folder that git ignores.

There are yellow months in the layout of 2021 (csv.gz and Parquet) and fhvhv months (Parquet). None of it is a TLC
record. A file is generated once, as a stream if the format allows it. The Parquet of yellow has one row group, like
TLC's older files, so a separate process holds all its rows in memory.
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

from benchmarks.measure import measure
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
    """The input files in a folder, each generated on first use. A `scale` below 1 makes all of them smaller."""

    folder: Path
    scale: float = 1.0

    def rows(self, rows: int) -> int:
        """Return the number of rows at this scale."""
        return max(int(rows * self.scale), 1000)

    def file(self, service: str, rows: int, ending: str) -> Path:
        """Return the file of a month, in a folder for TAXI_SOURCE."""
        path = self.folder / "published" / f"{self.rows(rows)}.{ending}" / f"{service}_tripdata_{MONTH}.{ending}"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            sys.stderr.write(f"generating {path.relative_to(self.folder)}\n")
            source = "-" if ending == "csv.gz" or service != "yellow" else str(self.file(service, rows, "csv.gz"))
            measure(["-m", "benchmarks.months", service, str(self.rows(rows)), str(path), source])
        _add_zones(path.parent)
        return path

    def csv(self, rows: int) -> Path:
        """Return the yellow month as an uncompressed CSV file."""
        packed = self.file("yellow", rows, "csv.gz")
        path = packed.with_suffix("")
        if not path.exists():
            with gzip.open(packed, "rb") as source, _unfinished(path).open("wb") as target:
                while block := source.read(1 << 24):
                    target.write(block)
            _unfinished(path).replace(path)
        return path

    @property
    def small_months(self) -> list[str]:
        """The months in the folder of `small`."""
        return SMALL_MONTHS if self.scale == 1 else SMALL_MONTHS[:3]

    def small(self) -> Path:
        """Return a folder with 24 different yellow months of about 100,000 rows."""
        folder = self.folder / "published" / "small"
        folder.mkdir(parents=True, exist_ok=True)
        for month in self.small_months:
            path = folder / f"yellow_tripdata_{month}.csv.gz"
            if not path.exists():
                synthetic.write_month("yellow", Month.parse(month), _unfinished(path))
                _unfinished(path).replace(path)
        _add_zones(folder)
        return folder

    def tiny(self) -> Path:
        """Return a folder with a month of 100 rows."""
        path = self.folder / "published" / "tiny" / f"yellow_tripdata_{MONTH}.csv.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            _write_csv(path, 100)
        return path.parent


def source_record(path: Path, rows: int) -> SourceRecord:
    """Return the record that a download would have written."""
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


def row_count(path: Path) -> int:
    """Return the number of rows of an input file, which is part of the name of its folder."""
    return int(path.parent.name.partition(".")[0])


def _unfinished(path: Path) -> Path:
    """Return the temporary path of a file, which is renamed when it is complete."""
    return path.with_name(f".{path.name}.new")


def _add_zones(folder: Path) -> None:
    """Publish the taxi zones, which marts and reports need, in the same folder."""
    shutil.copy(synthetic.zones_path(), folder / "taxi_zone_lookup.csv")


def _sample(service: str, path: Path) -> Path:
    small = path.with_name(".sample")
    synthetic.write_month(service, MONTH, small)
    return small


def _write_csv(path: Path, rows: int) -> None:
    """Write one gzip stream, as in published files. Repeated parts are compressed once."""
    small = _sample("yellow", path)
    header, *lines = gzip.decompress(small.read_bytes()).splitlines(keepends=True)
    small.unlink()
    times, rest = divmod(rows, len(lines))
    parts = [header, *[b"".join(lines)] * times, b"".join(lines[:rest])]
    packed: dict[int, bytes] = {}
    crc = length = 0
    with _unfinished(path).open("wb") as file:
        file.write(_GZIP_HEADER)
        for part in parts:
            if id(part) not in packed:
                packer = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
                # A full flush ends on a byte boundary and resets the dictionary, so the bytes can be repeated.
                packed[id(part)] = packer.compress(part) + packer.flush(zlib.Z_FULL_FLUSH)
            file.write(packed[id(part)])
            crc, length = zlib.crc32(part, crc), length + len(part)
        file.write(zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS).flush())
        file.write(struct.pack("<II", crc, length % (1 << 32)))
    _unfinished(path).replace(path)


def _write_parquet(path: Path, source: Path) -> None:
    table = pyarrow.csv.read_csv(source)
    pyarrow.parquet.write_table(table, _unfinished(path), row_group_size=table.num_rows, compression="snappy")
    _unfinished(path).replace(path)


def _write_fhvhv(path: Path, rows: int) -> None:
    """Write row groups of 1,048,576 rows, like those of TLC's newer files."""
    small = _sample("fhvhv", path)
    table = pyarrow.parquet.read_table(small)
    small.unlink()
    several = pa.concat_tables([table] * -(-_NEWER_ROW_GROUP // len(table))).slice(0, _NEWER_ROW_GROUP)
    with pyarrow.parquet.ParquetWriter(_unfinished(path), table.schema, compression="snappy") as writer:
        for start in range(0, rows, len(several)):
            writer.write_table(several.slice(0, rows - start), row_group_size=_NEWER_ROW_GROUP)
    _unfinished(path).replace(path)


def main(service: str, rows: str, path: str, source: str) -> None:
    """Generate one file."""
    if service == "fhvhv":
        _write_fhvhv(Path(path), int(rows))
    elif source == "-":
        _write_csv(Path(path), int(rows))
    else:
        _write_parquet(Path(path), Path(source))


if __name__ == "__main__":
    main(*sys.argv[1:])
