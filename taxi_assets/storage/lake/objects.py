"""What stands in the lake: published files with what is known of them, and Parquet months with their reports.

Belongs here: names of objects, what makes one valid, and the lazy handles that pass between assets. A handle holds no
rows.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import pyarrow.parquet

from taxi_assets.errors import LakeObjectDamagedError, LakeObjectMissingError, LakeObjectReplacedError
from taxi_assets.storage.lake.base_lake import missing, replaced
from taxi_assets.storage.pandas_types import to_frame
from taxi_assets.tlc.cleaning.report import MonthReport, Totals, totals_of_parquet
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.parquet_io import open_to_stream
from taxi_assets.tlc.sources.source_record import FileFormat, SourceRecord

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import pandas as pd

    from taxi_assets.storage.lake.base_lake import Lake
    from taxi_assets.tlc.schema import Service
    from taxi_assets.tlc.sources.download import Fetched

_RECORD_WAIT_SECONDS = 2.0


def stem_of(shelf: str, service: Service, month: Month | str) -> str:
    """Where a month of a service stands on a shelf, without the ending of what stands there."""
    return f"{shelf}/{service.table}/{month}"


@dataclass(frozen=True)
class StagedFile:
    """A fetched file on its way to the raw shelf, and the versions of the objects it may replace, by key."""

    fetched: Fetched
    replaces: Mapping[str, str | None]


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
            with lake.open(_record_key(stem)) as file:
                return cls(lake, stem, SourceRecord.model_validate_json(file.read()))
        except (LakeObjectMissingError, ValueError):
            return None

    @classmethod
    def get(cls, lake: Lake, stem: str) -> PublishedFile:
        """What is recorded; raises `LakeObjectMissingError` where nothing is."""
        found = cls.find(lake, stem)
        if found is None:
            raise LakeObjectMissingError(
                f"The lake does not hold {stem}: there is no {lake.uri(_record_key(stem))}.",
                remedy="Materialize it first.",
            )
        return found

    @classmethod
    def versions(cls, lake: Lake, stem: str) -> dict[str, str | None]:
        """What stands there now, of what a newer file would replace: to be read before it is fetched."""
        return {key: lake.version(key) for key in (_record_key(stem), *(f"{stem}.{format_}" for format_ in FileFormat))}

    @classmethod
    def publish(cls, lake: Lake, stem: str, staged: StagedFile, *, run_id: str) -> PublishedFile:
        """Put a fetched file on its shelf; the bytes are left alone where they are the same.

        Raises `LakeObjectReplacedError` where another run has put another file there since `versions` was asked.
        """
        new = cls(lake, stem, staged.fetched.record)
        if not new.is_intact():
            lake.publish(staged.fetched.path, new.key, replaces=staged.replaces[new.key], run_id=run_id)
        key = _record_key(stem)
        note = staged.fetched.path.with_name("source.json")
        note.write_text(new.record.model_dump_json(indent=2))
        try:
            lake.publish(note, key, replaces=staged.replaces[key], run_id=run_id)
        except LakeObjectReplacedError:
            by_another = cls.find(lake, stem)
            if by_another is None or by_another.record.sha256 != new.record.sha256:
                raise
            return by_another
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
        return self.lake.size(self.key) == self.record.bytes and self.lake.holds(self.key, sha256=self.record.sha256)

    def open(self) -> BinaryIO:
        """The file, for a look; raises `LakeObjectMissingError`."""
        return self.lake.open(self.key)

    @contextmanager
    def local(self) -> Iterator[Path]:
        """The file, verified.

        Raises:
            LakeObjectReplacedError: Another run has recorded another file since this one was looked up.
            LakeObjectDamagedError: It is not the file that was recorded.
        """
        version = self.lake.version(self.key)
        if not self.is_intact():
            if self._is_replaced():
                raise replaced(self.lake.uri(self.key))
            raise LakeObjectDamagedError(
                f"{self.lake.uri(self.key)} is not the file that was recorded (sha256 {self.record.sha256[:12]}…).",
                remedy="Materialize the raw asset of this month again: it fetches the file anew.",
            )
        with self.lake.local(self.key, version) as path:
            yield path

    def _is_replaced(self) -> bool:
        """Whether another file is recorded by now; another run writes the object first and the record right after."""
        ends = time.monotonic() + _RECORD_WAIT_SECONDS
        while True:
            recorded = self.find(self.lake, self.stem)
            if recorded is not None and recorded.record.sha256 != self.record.sha256:
                return True
            if time.monotonic() > ends:
                return False
            time.sleep(_RECORD_WAIT_SECONDS / 10)


@dataclass(frozen=True)
class StagedParquet:
    """A finished Parquet file on its way to a shelf, and the version of the object it may replace."""

    path: Path
    report: MonthReport
    replaces: str | None

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
    """One month of a Parquet shelf (clean or quarantine), in one version, and the report in its footer."""

    lake: Lake
    key: str
    version: str
    report: MonthReport
    rows: int

    @classmethod
    def find(cls, lake: Lake, stem: str) -> ParquetMonth | None:
        """The month, where it is there, readable, and of this package's making."""
        key = f"{stem}.parquet"
        version = lake.version(key)
        if version is None:
            return None
        with lake.open(key, version) as file:
            try:
                footer = pyarrow.parquet.read_metadata(file)
            except (pyarrow.ArrowException, OSError, ValueError):  # a damaged footer can be any of these to pyarrow
                return None
        report = MonthReport.from_footer(footer.metadata)
        return None if report is None else cls(lake, key, version, report, footer.num_rows)

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
    def publish(cls, lake: Lake, stem: str, staged: StagedParquet, *, run_id: str) -> ParquetMonth:
        """Put a finished file on its shelf.

        Raises `LakeObjectReplacedError` where another run has put other data there since this one began.
        """
        try:
            lake.publish(staged.path, f"{stem}.parquet", replaces=staged.replaces, run_id=run_id)
        except LakeObjectReplacedError:
            by_another = cls.find(lake, stem)
            if by_another is None or by_another.report.data_version != staged.report.data_version:
                raise
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
        with self.lake.local(self.key, self.version) as path:
            yield path

    def require_current(self) -> None:
        """Raises `LakeObjectMissingError`, or `LakeObjectReplacedError`, where the object is not this one any more."""
        version = self.lake.version(self.key)
        if version is None:
            raise missing(self.uri)
        if version != self.version:
            raise replaced(self.uri)

    def counted(self, service: Service) -> Totals:
        """Control figures, counted in its rows; where the lake checks its bytes itself, as they were when written."""
        if self.lake.checks_bytes:
            return self.report.clean
        with self.local() as path:
            return totals_of_parquet(path, service, Month.parse(self.report.month))

    def to_pandas(self, rows: int | None = None) -> pd.DataFrame:
        """The whole month as a frame, or its first rows."""
        if rows is not None:
            with self.lake.open(self.key, self.version) as file:
                return _frame(file, rows)
        with self.local() as path, path.open("rb") as file:
            return _frame(file, None)


def _record_key(stem: str) -> str:
    return f"{stem}.source.json"


def _frame(file: BinaryIO, rows: int | None) -> pd.DataFrame:
    with open_to_stream(file) as parquet:
        if rows is None:
            return to_frame(parquet.read())
        first = next(parquet.iter_batches(batch_size=rows), None)
        return to_frame(parquet.schema_arrow.empty_table() if first is None else pyarrow.Table.from_batches([first]))
