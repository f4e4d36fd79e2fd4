"""Handles to the objects of a month: the raw file with its source record, and Parquet with its cleaning report.

Belongs here: keys of objects, what makes an object valid, and the handles that assets pass to each other. A handle
contains no rows. Its methods read rows from the lake on demand. A "staged" file is finished but not in the lake yet.
Does not belong here: how an object is stored (`base_lake.py`).
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol

import pyarrow.parquet

from taxi_assets.errors import LakeConflictError, LakeObjectDamagedError, LakeObjectMissingError
from taxi_assets.storage.lake.base_lake import conflict_error, missing_error
from taxi_assets.storage.pandas_types import to_frame
from taxi_assets.tlc.cleaning.report import NO_ROWS, CleaningReport, ControlTotals, compute_parquet_totals
from taxi_assets.tlc.file_format import FileFormat
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.parquet_io import open_parquet_stream, read_footer
from taxi_assets.tlc.sources.source_record import SourceRecord

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import pandas as pd

    from taxi_assets.storage.lake.base_lake import Lake
    from taxi_assets.tlc.schema import Service
    from taxi_assets.tlc.sources.download import DownloadedFile

_RECORD_WAIT_SECONDS = 2.0
"""How long to wait for another run's source record after that run has replaced the raw file."""


def object_prefix(layer: str, service: Service, month: Month | str) -> str:
    """Return the key of a month's objects without the extension, such as "clean/green_trips/2020-10"."""
    return f"{layer}/{service.table}/{month}"


@dataclass(frozen=True)
class StagedRawFile:
    """A downloaded file that is not in the lake yet."""

    downloaded: DownloadedFile
    replaces: Mapping[str, str | None]
    """Versions of the objects that it may replace, by key: the result of `RawFile.current_versions` before the
    download."""


@dataclass(frozen=True)
class RawFile:
    """A handle to a file as published, byte for byte: `{prefix}.csv.gz`, `.csv` or `.parquet`.

    The source record `{prefix}.source.json` names the format and the origin of the file. A run writes the file first,
    the record second. After a crash in between, the digest in the record does not match, and the next run downloads
    the file again.
    """

    lake: Lake
    prefix: str
    record: SourceRecord

    @property
    def key(self) -> str:
        """The key of the file."""
        return f"{self.prefix}.{self.record.format}"

    @classmethod
    def find(cls, lake: Lake, prefix: str) -> RawFile | None:
        """Return a handle to the recorded file; None if there is no readable record.

        The file itself is not checked: see `is_intact`.
        """
        try:
            with lake.open(_record_key(prefix)) as file:
                return cls(lake, prefix, SourceRecord.model_validate_json(file.read()))
        except (LakeObjectMissingError, ValueError):
            return None

    @classmethod
    def get(cls, lake: Lake, prefix: str) -> RawFile:
        """Return a handle to the recorded file.

        Raises:
            LakeObjectMissingError: There is no readable record.
        """
        found = cls.find(lake, prefix)
        if found is None:
            raise LakeObjectMissingError(
                f"{prefix} is not in the lake: {lake.uri(_record_key(prefix))} is missing or cannot be parsed.",
                remedy="Materialize the raw asset of this month.",
            )
        return found

    @classmethod
    def current_versions(cls, lake: Lake, prefix: str) -> dict[str, str | None]:
        """Return the versions of all objects that a new file could replace, by key; None for an object that is missing.

        Call it before the download: `publish` uses it to detect whether another run has replaced one of them.
        """
        return {
            key: lake.version(key) for key in (_record_key(prefix), *(f"{prefix}.{format_}" for format_ in FileFormat))
        }

    @classmethod
    def publish(
        cls, lake: Lake, prefix: str, staged: StagedRawFile, *, run_id: str, revisions: _Revisions | None = None
    ) -> RawFile:
        """Write a downloaded file and its record to the lake, and delete the month's files of other formats.

        A file whose bytes are in the lake already is not written again.

        Args:
            lake: The lake.
            prefix: The key without the extension.
            staged: The downloaded file.
            run_id: The Dagster run that writes the file.
            revisions: Keeps the file that is replaced. By default, it is not kept.

        Raises:
            LakeConflictError: Another run has written a different file since `staged.replaces` was read.
        """
        new, folder = cls(lake, prefix, staged.downloaded.record), staged.downloaded.path.parent
        older = revisions if any(staged.replaces.values()) else None  # the first file of a month replaces nothing
        if not new.is_intact():
            if older is not None:
                older.keep_replaced(new.record, folder, run_id=run_id)
            lake.publish(staged.downloaded.path, new.key, replaces=staged.replaces[new.key], run_id=run_id)
        if older is not None:
            older.delete_copy_of(new)
        try:
            new.publish_record(folder, replaces=staged.replaces[_record_key(prefix)], run_id=run_id)
        except LakeConflictError:
            current = cls.find(lake, prefix)
            if current is None or current.record.sha256 != new.record.sha256:
                raise
            return current  # another run has written the same file
        new.delete_other_formats()
        if older is not None and lake.keep_revisions is not None:
            older.prune(lake.keep_revisions)
        return new

    def publish_record(self, folder: Path, *, replaces: str | None, run_id: str) -> None:
        """Write the record to the lake.

        Args:
            folder: A folder from `Lake.staging`, for the unfinished file.
            replaces: The version of the record that it replaces; None if there is none.
            run_id: The Dagster run that writes the record.

        Raises:
            LakeConflictError: Another run has written a different record since.
        """
        record = folder / "source.json"
        record.write_text(self.record.model_dump_json(indent=2))
        self.lake.publish(record, _record_key(self.prefix), replaces=replaces, run_id=run_id)

    def delete_other_formats(self) -> None:
        """Delete the month's files of other formats, unless the record names a different file by now.

        They remain when a publisher changes the format and the run is killed after it has written the new file.
        """
        if self.find(self.lake, self.prefix) != self:
            return
        for other in FileFormat:
            if other != self.record.format:
                self.lake.delete(f"{self.prefix}.{other}")

    def is_intact(self) -> bool:
        """Return whether the file exists and has the recorded size and digest."""
        return self.lake.size(self.key) == self.record.bytes and self.lake.has_digest(
            self.key, sha256=self.record.sha256
        )

    def open(self) -> BinaryIO:
        """Open the file without verifying its digest, for example, for a preview.

        Raises:
            LakeObjectMissingError: There is no such file.
        """
        return self.lake.open(self.key)

    @contextmanager
    def as_local_file(self) -> Iterator[Path]:
        """Yield the path of a local file with the verified bytes.

        Raises:
            LakeConflictError: Another run has written a different file since this handle was created.
            LakeObjectDamagedError: The file does not have the recorded digest.
        """
        version = self.lake.version(self.key)
        if not self.is_intact():
            if self._wait_until_replaced():
                raise conflict_error(self.lake.uri(self.key))
            raise LakeObjectDamagedError(
                f"{self.lake.uri(self.key)} does not have the recorded digest (sha256 {self.record.sha256[:12]}…).",
                remedy="Restore it from a backup, or choose another revision."
                if "/revisions/" in self.prefix
                else "Materialize the raw asset of this month again: it downloads the file again.",
            )
        with self.lake.as_local_file(self.key, version) as path:
            yield path

    def _wait_until_replaced(self) -> bool:
        """Wait for the record to name a different file, and return whether it does: a run writes the file first."""
        deadline = time.monotonic() + _RECORD_WAIT_SECONDS
        while True:
            recorded = self.find(self.lake, self.prefix)
            if recorded is not None and recorded.record.sha256 != self.record.sha256:
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(_RECORD_WAIT_SECONDS / 10)


@dataclass(frozen=True)
class StagedParquet:
    """A finished Parquet file of the clean or quarantine layer that is not in the lake yet."""

    path: Path
    report: CleaningReport
    replaces: str | None
    """The version of the object when the run began; None if there was no object. See `Lake.publish`."""

    @property
    def rows(self) -> int:
        """Number of rows, from the file's footer."""
        return int(pyarrow.parquet.read_metadata(self.path).num_rows)

    @property
    def bytes(self) -> int:
        """Size of the file in bytes."""
        return self.path.stat().st_size

    def to_pandas(self, rows: int) -> pd.DataFrame:
        """Return the first `rows` rows, in file order."""
        with self.path.open("rb") as file:
            return _frame(file, rows)


@dataclass(frozen=True)
class ParquetPartition:
    """A handle to one version of a month's Parquet object in the clean or quarantine layer.

    Its methods read the rows of this version, never of a newer one.
    """

    lake: Lake
    key: str
    version: str
    report: CleaningReport
    """The cleaning report in the footer."""
    rows: int

    @classmethod
    def find(cls, lake: Lake, prefix: str) -> ParquetPartition | None:
        """Return a handle to the current version; None if it is missing, damaged, or has no cleaning report.

        Only the footer is read.
        """
        key = f"{prefix}.parquet"
        version = lake.version(key)
        if version is None:
            return None
        with lake.open(key, version) as file:
            footer = read_footer(file)
        report = None if footer is None else CleaningReport.from_footer(footer.metadata)
        return None if footer is None or report is None else cls(lake, key, version, report, footer.num_rows)

    @classmethod
    def get(cls, lake: Lake, prefix: str) -> ParquetPartition:
        """Return a handle to the current version.

        Raises:
            LakeObjectMissingError: There is no such object.
            LakeObjectDamagedError: The object is not a Parquet file with a cleaning report of this schema version.
        """
        found = cls.find(lake, prefix)
        if found is not None:
            return found
        uri = lake.uri(f"{prefix}.parquet")
        if lake.size(f"{prefix}.parquet") is None:
            raise LakeObjectMissingError(
                f"{uri} does not exist.", remedy="Materialize the clean asset of this month first."
            )
        raise LakeObjectDamagedError(
            f"{uri} is not a Parquet file with a cleaning report.",
            remedy="Materialize the clean asset of this month again.",
        )

    @classmethod
    def publish(cls, lake: Lake, prefix: str, staged: StagedParquet, *, run_id: str) -> ParquetPartition:
        """Write a finished file to the lake.

        If another run has written the same data version in the meantime, its object is kept and returned.

        Raises:
            LakeConflictError: Another run has written different data since this run began.
        """
        try:
            lake.publish(staged.path, f"{prefix}.parquet", replaces=staged.replaces, run_id=run_id)
        except LakeConflictError:
            current = cls.find(lake, prefix)
            if current is None or current.report.data_version != staged.report.data_version:
                raise
        return cls.get(lake, prefix)

    @property
    def uri(self) -> str:
        """Full URI or path of the object."""
        return self.lake.uri(self.key)

    @property
    def bytes(self) -> int:
        """Size in bytes of the current object, which may be newer than this version; 0 if it has been deleted."""
        return self.lake.size(self.key) or 0

    @contextmanager
    def as_local_file(self) -> Iterator[Path]:
        """Yield the path of a local file with this version. Raises the same errors as `Lake.as_local_file`."""
        with self.lake.as_local_file(self.key, self.version) as path:
            yield path

    def require_current(self) -> None:
        """Raise an error if this version is no longer current.

        Raises:
            LakeObjectMissingError: The object has been deleted.
            LakeConflictError: Another run has replaced the object.
        """
        version = self.lake.version(self.key)
        if version is None:
            raise missing_error(self.uri)
        if version != self.version:
            raise conflict_error(self.uri)

    def read_footer_totals(self) -> ControlTotals:
        """Return the control totals in the object's footer, which is read from the lake; no other bytes are read.

        The number of rows is that of the Parquet metadata. The sums were computed when the file was written. All are
        zero if the footer has no cleaning report.
        """
        with self.lake.open(self.key, self.version) as file:
            footer = pyarrow.parquet.read_metadata(file)
        report = CleaningReport.from_footer(footer.metadata)
        return NO_ROWS if report is None else report.clean.model_copy(update={"rows": footer.num_rows})

    def control_totals(self, service: Service) -> ControlTotals:
        """Return the control totals of the clean rows.

        They are recomputed from the rows, unless the lake verifies checksums. In that case, the report's totals are
        returned.
        """
        if self.lake.verifies_checksums:
            return self.report.clean
        with self.as_local_file() as path:
            return compute_parquet_totals(path, service, Month.parse(self.report.month))

    def to_pandas(self, rows: int | None = None) -> pd.DataFrame:
        """Return the whole month, or its first `rows` rows, in file order."""
        if rows is not None:
            with self.lake.open(self.key, self.version) as file:
                return _frame(file, rows)
        with self.as_local_file() as path, path.open("rb") as file:
            return _frame(file, None)


class _Revisions(Protocol):
    """The methods of `Revisions`, which builds on this module."""

    def keep_replaced(self, new: SourceRecord, folder: Path, *, run_id: str) -> None: ...
    def delete_copy_of(self, new: RawFile) -> None: ...
    def prune(self, keep: int) -> object: ...


def _record_key(prefix: str) -> str:
    return f"{prefix}.source.json"


def _frame(file: BinaryIO, rows: int | None) -> pd.DataFrame:
    with open_parquet_stream(file) as parquet:
        if rows is None:
            return to_frame(parquet.read())
        first = next(parquet.iter_batches(batch_size=rows), None)
        return to_frame(parquet.schema_arrow.empty_table() if first is None else pyarrow.Table.from_batches([first]))
