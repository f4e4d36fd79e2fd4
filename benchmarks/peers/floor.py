"""The floor: what nobody who makes Parquet of a .csv.gz can save, each part by itself, to be added up.

Unpack the bytes; parse them as text; write the same values as Parquet, with zstd. Nothing is judged, cast or counted.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from benchmarks.measure import timed

_BLOCK = 1 << 20
_ROW_GROUP = 131_072


def unpack(source: Path, _target: Path) -> None:
    """Read the packed file to its end."""
    with pa.input_stream(source, compression="gzip", buffer_size=_BLOCK) as file:
        while file.read(_BLOCK):
            pass


def parse(source: Path, _target: Path) -> None:
    """Parse all fields as text, of a file that is not packed."""
    for _ in _reader(source):
        pass


def write(table: Any, target: Path) -> None:
    """Write text that is parsed already."""
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
    """One part."""
    if part == "write":
        table = _reader(source).read_all()
        timed(lambda: write(table, target), written=[target])
    else:
        work = {"unpack": unpack, "parse": parse}[part]
        timed(lambda: work(source, target))


if __name__ == "__main__":
    main(sys.argv[1], *map(Path, sys.argv[2:]))
