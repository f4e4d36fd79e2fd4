"""The revisions of a month: every file that was published for it and kept.

The present revision is the raw file itself, `raw/green_trips/2021-03.csv.gz`. Before other bytes replace it, its file
and its source record are kept as `raw/green_trips/revisions/2021-03/<sha256[:12]>.csv.gz` and `….source.json`. A
revision is a `RawFile` with another prefix, so it is read, verified and cleaned in the same way.

A run writes in this order, so that a kill at any point loses no revision and doubles none:

1. The file that will be replaced, and then its record, in the folder of revisions.
2. The record of the new file, in the same folder: if the run is killed after the next step, the next run recognizes the
   new file, even if the publisher has replaced it by then.
3. The new file. From here on, readers see it.
4. If the new file was published before, its copy in the folder of revisions is deleted: its record stays.
5. The record of the new file. A run that is killed before this step is repeated by the next one.

Belongs here: keeping, listing, finding and deleting revisions. Does not belong here: how an object is copied
(`base_lake.py`), and the raw file itself (`objects.py`).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from taxi_assets.errors import LakeConflictError, RevisionError
from taxi_assets.storage.lake.objects import ParquetPartition, RawFile, object_prefix
from taxi_assets.tlc.parquet_io import read_footer
from taxi_assets.tlc.revision_report import RevisionReport

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from taxi_assets.storage.lake.base_lake import Lake
    from taxi_assets.tlc.cleaning.report import CleaningReport
    from taxi_assets.tlc.month import Month
    from taxi_assets.tlc.schema import Service
    from taxi_assets.tlc.sources.source_record import SourceRecord

PRESENT = "present"
"""The value of the run config `revision` that releases a pinned month."""

_RECORD = ".source.json"
_NAME_DIGITS = 12
_READ_THREADS = 8


@dataclass(frozen=True)
class Revisions:
    """The revisions of one month of a service."""

    lake: Lake
    prefix: str
    """The prefix of the present revision, such as "raw/green_trips/2021-03"."""

    @classmethod
    def of(cls, lake: Lake, service: Service, month: Month | str) -> Revisions:
        """Return the revisions of a month."""
        return cls(lake, object_prefix("raw", service, month))

    @property
    def folder(self) -> str:
        """The folder of the older revisions in the lake, such as "raw/green_trips/revisions/2021-03"."""
        layer, _, month = self.prefix.rpartition("/")
        return f"{layer}/revisions/{month}"

    @property
    def present(self) -> RawFile | None:
        """The present revision; None if the month is not loaded."""
        return RawFile.find(self.lake, self.prefix)

    def list_all(self) -> list[RawFile]:
        """Return all revisions, newest first: the present one, then the older ones by the time of their download.

        A file that was published several times is one revision, with the record of its latest download. Only records
        are read. To read a revision, use `RawFile.open` or `RawFile.as_local_file`.
        """
        present = self.present
        return [*([present] if present else []), *self._older(present)]

    def find(self, digits: str) -> RawFile:
        """Return the revision whose SHA-256 digest begins with these hexadecimal digits.

        Raises:
            RevisionError: There is none, or more than one. The message lists the revisions that exist.
        """
        known = self.list_all()
        found = [revision for revision in known if revision.record.sha256.startswith(digits.strip().lower())]
        if len(found) == 1 and digits.strip():
            return found[0]
        table, month = self.prefix.split("/")[1:]
        listed = ", ".join(f"{r.record.sha256[:_NAME_DIGITS]} ({r.record.fetched_at:%Y-%m-%d})" for r in known)
        raise RevisionError(
            f"{table.removesuffix('_trips')} {month}: {len(found) or 'no'} revisions begin with {digits!r}. "
            f"The lake has, newest first: {listed or 'none'}.",
            remedy='Set revision in the run config to more digits of one of them, in quotes; or to "present", to use '
            "the newest file.",
        )

    def file_of(self, report: CleaningReport) -> RawFile | None:
        """Return the file that a clean month was built from: the present one, unless the month is pinned.

        Returns:
            None if a month is not pinned and has no raw file.

        Raises:
            RevisionError: The revision that the month is pinned to is not in the lake.
        """
        return self.find(report.raw_sha256) if report.pinned else self.present

    def is_uncompared(self, sha256: str) -> bool:
        """Return whether the lake has an older revision of the month, and has not compared a file with it.

        Args:
            sha256: The digest of the newest file: the present revision, or one that is about to replace it.
        """
        if all(revision.record.sha256 == sha256 for revision in self.list_all()):
            return False
        key = f"{self.prefix.replace('raw/', 'revisions/', 1)}.parquet"
        version = self.lake.version(key)
        if version is None:
            return True
        with self.lake.open(key, version) as file:
            footer = read_footer(file)
        report = None if footer is None else RevisionReport.from_footer(footer.metadata)
        return report is None or report.new_sha256 != sha256

    def prune(self, keep: int) -> list[RawFile]:
        """Delete the oldest revisions; never the present one, nor the one that the month is pinned to.

        Args:
            keep: How many older revisions are kept, at least. The present revision does not count.

        Returns:
            The deleted revisions, newest first.
        """
        deleted = self.prunable(keep)
        for revision in deleted:
            self.lake.delete(revision.key)
            self.lake.delete(f"{revision.prefix}{_RECORD}")
        return deleted

    def prunable(self, keep: int) -> list[RawFile]:
        """Return the revisions that `prune` would delete."""
        pinned = self._pinned_sha256()
        return [revision for revision in self._older(self.present)[keep:] if revision.record.sha256 != pinned]

    # --- used by `RawFile.publish` ------------------------------------------------------------------------------------

    def keep_replaced(self, new: SourceRecord, folder: Path, *, run_id: str) -> None:
        """Keep the file that a new file is about to replace. Nothing is downloaded or uploaded, except the records.

        Args:
            new: The record of the new file.
            folder: A folder from `Lake.staging`.
            run_id: The Dagster run that replaces the file.

        Raises:
            LakeConflictError: Another run has replaced the file meanwhile.
        """
        if self.lake.keep_revisions == 0 and self._pinned_sha256() is None:
            return
        for old, version in self._stored_files():
            if old.record.sha256 == new.sha256:
                continue
            kept = self._revision(old.record)
            if not kept.is_intact():
                self.lake.copy_object(old.key, kept.key, version=version, run_id=run_id)
            self._write_record(kept, folder, run_id)
        self._write_record(self._revision(new), folder, run_id)

    def delete_copy_of(self, new: RawFile) -> None:
        """Delete the kept file with the bytes of the present file, if there is one."""
        copy = self._revision(new.record).key
        if self.lake.version(copy) is not None and new.is_intact():
            self.lake.delete(copy)

    def _stored_files(self) -> Iterator[tuple[RawFile, str]]:
        """Yield the month's intact files, each with its version: usually one.

        It may lack its record, if a run was killed before it could write it. Then a record in the folder describes it.
        """
        present, stored = self.present, self.lake.sizes_in(self.folder)
        announced = [
            replace(revision, prefix=self.prefix) for revision in self._records(stored) if revision.key not in stored
        ]
        for file in [*([present] if present else []), *announced]:
            version = self.lake.version(file.key)
            if version is not None and file.is_intact():
                yield file, version

    def _write_record(self, revision: RawFile, folder: Path, run_id: str) -> None:
        replaces = self.lake.version(f"{revision.prefix}{_RECORD}")
        if replaces is not None and RawFile.find(self.lake, revision.prefix) == revision:
            return
        try:
            revision.publish_record(folder, replaces=replaces, run_id=run_id)
        except LakeConflictError:  # another run has written a record of the same bytes
            if RawFile.find(self.lake, revision.prefix) is None:
                raise

    def _revision(self, record: SourceRecord) -> RawFile:
        return RawFile(self.lake, f"{self.folder}/{record.sha256[:_NAME_DIGITS]}", record)

    # --- reading ------------------------------------------------------------------------------------------------------

    def _older(self, present: RawFile | None) -> list[RawFile]:
        stored = self.lake.sizes_in(self.folder)
        older = [
            revision
            for revision in self._records(stored)
            if revision.key in stored and (present is None or revision.record.sha256 != present.record.sha256)
        ]
        return sorted(older, key=lambda revision: (revision.record.fetched_at, revision.record.sha256), reverse=True)

    def _records(self, stored: Iterable[str]) -> Iterator[RawFile]:
        for key in stored:
            if key.endswith(_RECORD):
                revision = RawFile.find(self.lake, key.removesuffix(_RECORD))
                if revision is not None:
                    yield revision

    def _pinned_sha256(self) -> str | None:
        """Return the digest of the revision that the clean month is pinned to; None if it is not pinned."""
        clean = ParquetPartition.find(self.lake, self.prefix.replace("raw/", "clean/", 1))
        return clean.report.raw_sha256 if clean is not None and clean.report.pinned else None


def pinned_months(lake: Lake, service: Service) -> dict[str, str]:
    """Return the pinned months of a service, each with the SHA-256 digest of its file. Only footers are read."""
    prefixes = [key.removesuffix(".parquet") for key in lake.sizes_in(f"clean/{service.table}")]
    with ThreadPoolExecutor(_READ_THREADS) as pool:
        found = pool.map(lambda prefix: ParquetPartition.find(lake, prefix), prefixes)
        return {clean.report.month: clean.report.raw_sha256 for clean in found if clean and clean.report.pinned}


def months_with_one_revision(lake: Lake, service: Service, months: Iterable[str]) -> list[str]:
    """Return the months that cannot be compared, because the lake has only the present revision of them."""
    return [month for month in months if len(Revisions.of(lake, service, month).list_all()) == 1]


def raw_months(lake: Lake, service: Service) -> list[str]:
    """Return the months of a service that have a raw file, oldest first. Older revisions do not count."""
    keys = lake.sizes_in(f"raw/{service.table}")
    return [key.rpartition("/")[2].removesuffix(_RECORD) for key in keys if key.endswith(_RECORD)]
