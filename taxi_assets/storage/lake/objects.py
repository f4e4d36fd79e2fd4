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

from taxi_assets.errors import LakeConflictError, LakeObjectDamagedError, LakeObjectMissingError
from taxi_assets.storage.lake.base_lake import conflict_error, missing_error
from taxi_assets.storage.pandas_types import to_frame
from taxi_assets.tlc.cleaning.report import CleaningReport, ControlTotals, compute_parquet_totals
from taxi_assets.tlc.file_format import FileFormat
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.parquet_io import open_parquet_stream
from taxi_assets.tlc.sources.source_record import SourceRecord

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import pandas as pd

    from taxi_assets.storage.lake.base_lake import Lake
    from taxi_assets.tlc.schema import Service
    from taxi_assets.tlc.sources.download import DownloadedFile

_RECORD_WAIT_SECONDS = 2.0


def object_prefix(layer: str, service: Service, month: Month | str) -> str:
    """Where a month of a service stands on a shelf, without the ending of what stands there."""
    return f"{layer}/{service.table}/{month}"


@dataclass(frozen=True)
class StagedRawFile:
    """A fetched file on its way to the raw shelf, and the versions of the objects it may replace, by key."""

    downloaded: DownloadedFile
    replaces: Mapping[str, str | None]


@dataclass(frozen=True)
class RawFile:
    """A file as its publisher sent it, byte for byte: `{stem}.csv.gz`, `.csv` or `.parquet`.

    Beside it `{stem}.source.json` says which of them it is, and where it came from. The object is written first, the
    record second: after a crash in between the record's digest does not fit, and the file is fetched anew.
    """

    lake: Lake
    prefix: str
    record: SourceRecord

    @property
    def key(self) -> str:
        """The object's key."""
        return f"{self.prefix}.{self.record.format}"

    @classmethod
    def find(cls, lake: Lake, prefix: str) -> RawFile | None:
        """What is recorded, whether or not the object is still what the record says."""
        try:
            with lake.open(_record_key(prefix)) as file:
                return cls(lake, prefix, SourceRecord.model_validate_json(file.read()))
        except (LakeObjectMissingError, ValueError):
            return None

    @classmethod
    def get(cls, lake: Lake, prefix: str) -> RawFile:
        """What is recorded; raises `LakeObjectMissingError` where nothing is."""
        found = cls.find(lake, prefix)
        if found is None:
            raise LakeObjectMissingError(
                f"The lake does not hold {prefix}: there is no {lake.uri(_record_key(prefix))}.",
                remedy="Materialize it first.",
            )
        return found

    @classmethod
    def current_versions(cls, lake: Lake, prefix: str) -> dict[str, str | None]:
        """What stands there now, of what a newer file would replace: to be read before it is fetched."""
        return {
            key: lake.version(key) for key in (_record_key(prefix), *(f"{prefix}.{format_}" for format_ in FileFormat))
        }

    @classmethod
    def publish(cls, lake: Lake, prefix: str, staged: StagedRawFile, *, run_id: str) -> RawFile:
        """Put a fetched file on its shelf; the bytes are left alone where they are the same.

        Raises `LakeConflictError` where another run has put another file there since `versions` was asked.
        """
        new = cls(lake, prefix, staged.downloaded.record)
        if not new.is_intact():
            lake.publish(staged.downloaded.path, new.key, replaces=staged.replaces[new.key], run_id=run_id)
        key = _record_key(prefix)
        note = staged.downloaded.path.with_name("source.json")
        note.write_text(new.record.model_dump_json(indent=2))
        try:
            lake.publish(note, key, replaces=staged.replaces[key], run_id=run_id)
        except LakeConflictError:
            by_another = cls.find(lake, prefix)
            if by_another is None or by_another.record.sha256 != new.record.sha256:
                raise
            return by_another
        new.delete_other_formats()
        return new

    def delete_other_formats(self) -> None:
        """Remove what stands there in another format, also what a killed run left; unless a newer file is recorded."""
        if self.find(self.lake, self.prefix) != self:
            return
        for other in FileFormat:
            if other != self.record.format:
                self.lake.delete(f"{self.prefix}.{other}")

    def is_intact(self) -> bool:
        """Whether the object is there and has the bytes that were recorded."""
        return self.lake.size(self.key) == self.record.bytes and self.lake.has_digest(
            self.key, sha256=self.record.sha256
        )

    def open(self) -> BinaryIO:
        """The file, for a look; raises `LakeObjectMissingError`."""
        return self.lake.open(self.key)

    @contextmanager
    def as_local_file(self) -> Iterator[Path]:
        """The file, verified.

        Raises:
            LakeConflictError: Another run has recorded another file since this one was looked up.
            LakeObjectDamagedError: It is not the file that was recorded.
        """
        version = self.lake.version(self.key)
        if not self.is_intact():
            if self._is_replaced():
                raise conflict_error(self.lake.uri(self.key))
            raise LakeObjectDamagedError(
                f"{self.lake.uri(self.key)} is not the file that was recorded (sha256 {self.record.sha256[:12]}…).",
                remedy="Materialize the raw asset of this month again: it fetches the file anew.",
            )
        with self.lake.as_local_file(self.key, version) as path:
            yield path

    def _is_replaced(self) -> bool:
        """Whether another file is recorded by now; another run writes the object first and the record right after."""
        ends = time.monotonic() + _RECORD_WAIT_SECONDS
        while True:
            recorded = self.find(self.lake, self.prefix)
            if recorded is not None and recorded.record.sha256 != self.record.sha256:
                return True
            if time.monotonic() > ends:
                return False
            time.sleep(_RECORD_WAIT_SECONDS / 10)


@dataclass(frozen=True)
class StagedParquet:
    """A finished Parquet file on its way to a shelf, and the version of the object it may replace."""

    path: Path
    report: CleaningReport
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
class ParquetPartition:
    """One month of a Parquet shelf (clean or quarantine), in one version, and the report in its footer."""

    lake: Lake
    key: str
    version: str
    report: CleaningReport
    rows: int

    @classmethod
    def find(cls, lake: Lake, prefix: str) -> ParquetPartition | None:
        """The month, where it is there, readable, and of this package's making."""
        key = f"{prefix}.parquet"
        version = lake.version(key)
        if version is None:
            return None
        with lake.open(key, version) as file:
            try:
                footer = pyarrow.parquet.read_metadata(file)
            except (pyarrow.ArrowException, OSError, ValueError):  # a damaged footer can be any of these to pyarrow
                return None
        report = CleaningReport.from_footer(footer.metadata)
        return None if report is None else cls(lake, key, version, report, footer.num_rows)

    @classmethod
    def get(cls, lake: Lake, prefix: str) -> ParquetPartition:
        """The month; raises `LakeObjectMissingError` or `LakeObjectDamagedError`."""
        found = cls.find(lake, prefix)
        if found is not None:
            return found
        uri = lake.uri(f"{prefix}.parquet")
        if lake.size(f"{prefix}.parquet") is None:
            raise LakeObjectMissingError(
                f"There is no {uri}.", remedy="Materialize the clean asset of this month first."
            )
        raise LakeObjectDamagedError(
            f"{uri} is no Parquet file of this package.", remedy="Materialize the clean asset of this month again."
        )

    @classmethod
    def publish(cls, lake: Lake, prefix: str, staged: StagedParquet, *, run_id: str) -> ParquetPartition:
        """Put a finished file on its shelf.

        Raises `LakeConflictError` where another run has put other data there since this one began.
        """
        try:
            lake.publish(staged.path, f"{prefix}.parquet", replaces=staged.replaces, run_id=run_id)
        except LakeConflictError:
            by_another = cls.find(lake, prefix)
            if by_another is None or by_another.report.data_version != staged.report.data_version:
                raise
        return cls.get(lake, prefix)

    @property
    def uri(self) -> str:
        """The object's address."""
        return self.lake.uri(self.key)

    @property
    def bytes(self) -> int:
        """The object's length."""
        return self.lake.size(self.key) or 0

    @contextmanager
    def as_local_file(self) -> Iterator[Path]:
        """The month as a local file."""
        with self.lake.as_local_file(self.key, self.version) as path:
            yield path

    def require_current(self) -> None:
        """Raises `LakeObjectMissingError`, or `LakeConflictError`, where the object is not this one any more."""
        version = self.lake.version(self.key)
        if version is None:
            raise missing_error(self.uri)
        if version != self.version:
            raise conflict_error(self.uri)

    def control_totals(self, service: Service) -> ControlTotals:
        """Control figures, counted in its rows; where the lake checks its bytes itself, as they were when written."""
        if self.lake.verifies_checksums:
            return self.report.clean
        with self.as_local_file() as path:
            return compute_parquet_totals(path, service, Month.parse(self.report.month))

    def to_pandas(self, rows: int | None = None) -> pd.DataFrame:
        """The whole month as a frame, or its first rows."""
        if rows is not None:
            with self.lake.open(self.key, self.version) as file:
                return _frame(file, rows)
        with self.as_local_file() as path, path.open("rb") as file:
            return _frame(file, None)


def _record_key(prefix: str) -> str:
    return f"{prefix}.source.json"


def _frame(file: BinaryIO, rows: int | None) -> pd.DataFrame:
    with open_parquet_stream(file) as parquet:
        if rows is None:
            return to_frame(parquet.read())
        first = next(parquet.iter_batches(batch_size=rows), None)
        return to_frame(parquet.schema_arrow.empty_table() if first is None else pyarrow.Table.from_batches([first]))
