"""Spark reads the tables, in a JVM on loopback.

It needs an environment of its own: pyspark is large, and there is an Iceberg runtime on PyPI only for its version 3.5.

    pip install pyspark==3.5.9 snowpark-connect-deps-iceberg==1.0.3
    TAXI_TEST_SPARK=<that environment>/bin/python
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import zipfile
from decimal import Decimal
from pathlib import Path

import pytest

from taxi_assets.storage.lake.local_lake import LocalLake
from taxi_assets.tlc.month import Month
from taxi_assets_tests.iceberg_tables import Content, independent_table, lake_content, open_catalog, publish_and_commit

SPARK_PYTHON = os.environ.get("TAXI_TEST_SPARK", "")

JACKSON, SHADED = b"com/fasterxml/jackson", b"org/apache/iceberg/shaded/com/fasterxml/jackson"
_CONSTANT_BYTES = {
    **dict.fromkeys((3, 4, 9, 10, 11, 12, 17, 18), 5),
    **dict.fromkeys((5, 6), 9),
    **dict.fromkeys((7, 8, 16, 19, 20), 3),
    15: 4,
}
_QUERY = """
import json, sys
from pyspark.sql import SparkSession
jars, metadata, *snapshots = sys.argv[1:]
spark = (
    SparkSession.builder.master("local[1]").config("spark.jars", jars).config("spark.ui.enabled", "false")
    .config("spark.driver.host", "127.0.0.1").config("spark.driver.bindAddress", "127.0.0.1").getOrCreate()
)
found = {}
for snapshot in snapshots:
    trips = spark.read.format("iceberg").option("snapshot-id", snapshot).load(metadata)
    rows = trips.groupBy("data_month").agg({"source_row": "count", "total_amount": "sum"}).collect()
    found[snapshot] = {f"{row[0]:%Y-%m}": [row[1], str(row[2])] for row in rows}
print("found: " + json.dumps(found))
spark.stop()
"""


@pytest.mark.skipif(
    not SPARK_PYTHON, reason="needs pyspark 3.5 and an Iceberg runtime in the environment of TAXI_TEST_SPARK"
)
def test_spark_travels_to_each_snapshot(tmp_path: Path) -> None:
    catalog = open_catalog(LocalLake(folder=str(tmp_path / "lake")), tmp_path)
    january, february = Month(2021, 1), Month(2021, 2)
    expected = {}
    for number, (month, rows) in enumerate([(january, 50), (february, 20), (january, 0), (january, 40)]):
        committed = publish_and_commit(catalog, month, rows, seed=number)
        months = [month for month in (january, february) if catalog.lake.version(f"clean/green_trips/{month}.parquet")]
        expected[str(committed.snapshot_id)] = lake_content(catalog.lake, *months)
    found = query(Path(SPARK_PYTHON), tmp_path, independent_table(tmp_path).metadata_location, *expected)
    assert found == expected


def query(python: Path, folder: Path, metadata_location: str, *snapshots: str) -> dict[str, Content]:
    """Return the content of each snapshot, as Spark reads it."""
    [packages] = python.parents[1].glob("lib/python3.*/site-packages")
    [runtime] = packages.glob("snowpark_connect_deps_iceberg/jars/iceberg-spark-runtime-3.5_2.12-*.jar")
    jackson = folder / "jackson.jar"
    shade([*packages.glob("pyspark/jars/jackson-[cda][!2]*-2.*.jar")], jackson)
    ended = subprocess.run(
        [python, "-c", _QUERY, f"{runtime},{jackson}", metadata_location, *snapshots],
        capture_output=True, text=True, check=False, timeout=250, env={"PATH": os.environ["PATH"], "HOME": str(folder)},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-4000:]
    [line] = [line for line in ended.stdout.splitlines() if line.startswith("found: ")]
    return {
        snapshot: {month: (rows, Decimal(total)) for month, (rows, total) in content.items()}
        for snapshot, content in json.loads(line.removeprefix("found: ")).items()
    }


def shade(jars: list[Path], target: Path) -> None:
    """Copy Jackson's classes to the package in which the runtime expects them: it is published without them."""
    with zipfile.ZipFile(target, "w") as shaded:
        for jar in jars:
            with zipfile.ZipFile(jar) as source:
                for name in source.namelist():
                    if name.startswith(JACKSON.decode()) and name.endswith(".class"):
                        renamed = name.replace(JACKSON.decode(), SHADED.decode())
                        shaded.writestr(renamed, rename_package(source.read(name)))
    assert target.stat().st_size > 1_000_000, jars


def rename_package(content: bytes) -> bytes:
    """Return a class file with the package renamed in its constants (Java Virtual Machine Specification, 4.4)."""
    [count] = struct.unpack(">H", content[8:10])
    renamed, position, number = bytearray(content[:10]), 10, 1
    while number < count:
        tag = content[position]
        if tag == 1:  # a text
            [length] = struct.unpack(">H", content[position + 1 : position + 3])
            text = content[position + 3 : position + 3 + length]
            for separator in (b"/", b"."):
                text = text.replace(JACKSON.replace(b"/", separator), SHADED.replace(b"/", separator))
            renamed += bytes([1]) + struct.pack(">H", len(text)) + text
            position += 3 + length
        else:
            renamed += content[position : position + _CONSTANT_BYTES[tag]]
            position += _CONSTANT_BYTES[tag]
        number += 2 if tag in {5, 6} else 1
    return bytes(renamed) + content[position:]
