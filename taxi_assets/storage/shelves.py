"""What stands in the lake: published files with what is known of them, and Parquet months with their reports.

Belongs here: names of objects, what makes one valid, and the lazy handles that pass between assets. A handle holds no
rows.
"""

from __future__ import annotations

import hashlib
import io
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, cast

import pyarrow.parquet

from taxi_assets.errors import LakeObjectDamagedError, LakeObjectMissingError
from taxi_assets.storage.frames import to_frame
from taxi_assets.tlc.report import MonthReport
from taxi_assets.tlc.source import FileFormat, SourceRecord

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pandas as pd

    from taxi_assets.storage.lake import Lake
    from taxi_assets.tlc.download import Fetched


@dataclass(frozen=True)
class PublishedFile:
    """A file as its publisher sent it, byte for byte: `{stem}.csv.gz`, `.csv` or `.parquet`.

    Beside it `{stem}.source.json` says which of them it is, and where it came from. The object is written first, the
    record second: after a crash in between the record's digest does not fit, and the file is fetched anew.
    """

    lake: Lake
    stem: str
    record: SourceRecord

    @property
    def key(self) -> str:
        """The object's key."""
        return f"{self.stem}.{self.record.format}"

    @classmethod
    def find(cls, lake: Lake, stem: str) -> PublishedFile | None:
        """What is recorded, whether or not the object is still what the record says."""
        try:
            with lake.open(f"{stem}.source.json") as file:
                return cls(lake, stem, SourceRecord.model_validate_json(file.read()))
        except (LakeObjectMissingError, ValueError):
            return None

    @classmethod
    def get(cls, lake: Lake, stem: str) -> PublishedFile:
        """What is recorded; raises `LakeObjectMissingError` where nothing is."""
        found = cls.find(lake, stem)
        if found is None:
            raise LakeObjectMissingError(
                f"The lake does not hold {stem}: there is no {lake.uri(stem + '.source.json')}.",
                remedy="Materialize it first.",
            )
        return found

    @classmethod
    def publish(cls, lake: Lake, stem: str, fetched: Fetched) -> PublishedFile:
        """Put a fetched file on its shelf; the bytes are left alone where they are the same."""
        new = cls(lake, stem, fetched.record)
        old = cls.find(lake, stem)
        if old is None or old.key != new.key or old.record.sha256 != new.record.sha256 or not old.is_intact():
            lake.publish(fetched.path, new.key)
        note = fetched.path.with_name("source.json")
        note.write_text(new.record.model_dump_json(indent=2))
        lake.publish(note, f"{stem}.source.json")
        new.tidy()
        return new

    def tidy(self) -> None:
        """Remove what stands there in another format, also what a killed run left; unless a newer file is recorded."""
        if self.find(self.lake, self.stem) != self:
            return
        for other in FileFormat:
            if other != self.record.format:
                self.lake.delete(f"{self.stem}.{other}")

    def is_intact(self) -> bool:
        """Whether the object is there and has the bytes that were recorded."""
        if self.lake.size(self.key) != self.record.bytes:
            return False
        with self.lake.open(self.key) as file:
            return hashlib.file_digest(cast(io.BufferedReader, file), "sha256").hexdigest() == self.record.sha256

    @contextmanager
    def local(self) -> Iterator[Path]:
        """The file, verified; raises `LakeObjectDamagedError` where it is not what was recorded."""
        if not self.is_intact():
            raise LakeObjectDamagedError(
                f"{self.lake.uri(self.key)} is not the file that was recorded (sha256 {self.record.sha256[:12]}…).",
                remedy="Materialize the raw asset of this month again: it fetches the file anew.",
            )
        with self.lake.local(self.key) as path:
            yield path


@dataclass(frozen=True)
class StagedParquet:
    """A finished Parquet file on its way to a shelf."""

    path: Path
    report: MonthReport

    @property
    def rows(self) -> int:
        """From the file's own footer."""
        return int(pyarrow.parquet.read_metadata(self.path).num_rows)

    @property
    def bytes(self) -> int:
        """The file's length."""
        return self.path.stat().st_size

    def to_pandas(self, rows: int) -> pd.DataFrame:
        """Its first rows."""
        with self.path.open("rb") as file:
            return _frame(file, rows)


@dataclass(frozen=True)
class ParquetMonth:
    """One month of a Parquet shelf (clean or quarantine), and the report in its footer."""

    lake: Lake
    key: str
    report: MonthReport
    rows: int

    @classmethod
    def find(cls, lake: Lake, stem: str) -> ParquetMonth | None:
        """The month, where it is there, readable, and of this package's making."""
        key = f"{stem}.parquet"
        try:
            file = lake.open(key)
        except LakeObjectMissingError:
            return None
        with file:
            try:
                footer = pyarrow.parquet.read_metadata(file)
            except (pyarrow.ArrowException, OSError, ValueError):  # a damaged footer can be any of these to pyarrow
                return None
        report = MonthReport.from_footer(footer.metadata)
        return None if report is None else cls(lake, key, report, footer.num_rows)

    @classmethod
    def get(cls, lake: Lake, stem: str) -> ParquetMonth:
        """The month; raises `LakeObjectMissingError` or `LakeObjectDamagedError`."""
        found = cls.find(lake, stem)
        if found is not None:
            return found
        uri = lake.uri(f"{stem}.parquet")
        if lake.size(f"{stem}.parquet") is None:
            raise LakeObjectMissingError(
                f"There is no {uri}.", remedy="Materialize the clean asset of this month first."
            )
        raise LakeObjectDamagedError(
            f"{uri} is no Parquet file of this package.", remedy="Materialize the clean asset of this month again."
        )

    @classmethod
    def publish(cls, lake: Lake, stem: str, staged: StagedParquet) -> ParquetMonth:
        """Put a finished file on its shelf."""
        lake.publish(staged.path, f"{stem}.parquet")
        return cls.get(lake, stem)

    @property
    def uri(self) -> str:
        """The object's address."""
        return self.lake.uri(self.key)

    @property
    def bytes(self) -> int:
        """The object's length."""
        return self.lake.size(self.key) or 0

    @contextmanager
    def local(self) -> Iterator[Path]:
        """The month as a local file."""
        with self.lake.local(self.key) as path:
            yield path

    def to_pandas(self, rows: int | None = None) -> pd.DataFrame:
        """The whole month as a frame, or its first rows."""
        with self.lake.open(self.key) as file:
            return _frame(file, rows)


def _frame(file: BinaryIO, rows: int | None) -> pd.DataFrame:
    with pyarrow.parquet.ParquetFile(file) as parquet:
        if rows is None:
            return to_frame(parquet.read())
        first = next(parquet.iter_batches(batch_size=rows), None)
        return to_frame(parquet.schema_arrow.empty_table() if first is None else pyarrow.Table.from_batches([first]))
