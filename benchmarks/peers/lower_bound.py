"""The work that every conversion of csv.gz to Parquet includes, in three separate parts whose costs are added.

The parts decompress the bytes, parse them as text, and write the text as Parquet with zstd. No value is checked, cast
or counted.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from benchmarks.measure import measure_here

_BLOCK = 1 << 20
_ROW_GROUP = 131_072


def decompress(source: Path, _target: Path) -> None:
    """Decompress the whole file."""
    with pa.input_stream(source, compression="gzip", buffer_size=_BLOCK) as file:
        while file.read(_BLOCK):
            pass


def parse(source: Path, _target: Path) -> None:
    """Parse all fields of an uncompressed file as text."""
    for _ in _reader(source):
        pass


def write(table: Any, target: Path) -> None:
    """Write parsed text as Parquet."""
    with pyarrow.parquet.ParquetWriter(target, table.schema, compression="zstd", compression_level=1) as writer:
        writer.write_table(table, row_group_size=_ROW_GROUP)


def _reader(source: Path) -> Any:
    with source.open("rb") as file:
        names = file.readline().decode().strip().split(",")
    return pyarrow.csv.open_csv(
        source,
        read_options=pyarrow.csv.ReadOptions(block_size=_BLOCK, use_threads=False),
        parse_options=pyarrow.csv.ParseOptions(quote_char=False),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, null_values=[""]
        ),
    )


def main(part: str, source: Path, target: Path) -> None:
    """Measure one part."""
    if part == "write":
        table = _reader(source).read_all()
        measure_here(lambda: write(table, target), written=[target])
    else:
        work = {"decompress": decompress, "parse": parse}[part]
        measure_here(lambda: work(source, target))


if __name__ == "__main__":
    main(sys.argv[1], *map(Path, sys.argv[2:]))
