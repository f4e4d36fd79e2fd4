"""The parts of a published archive: which members of a zip file are files of trips, and in which order.

Does not belong here: reading the parts (`readers/`), and counting their rows (`sources/`).
"""

from __future__ import annotations

import shutil
import tempfile
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, cast
from zipfile import ZIP_STORED, ZipFile, ZipInfo

from taxi_assets.tlc.file_format import FileFormat

if TYPE_CHECKING:
    from collections.abc import Iterator


class ArchiveContentError(Exception):
    """An archive has no parts, or a member that is not a part. The message completes the sentence "The archive …"."""


class Part(NamedTuple):
    """A member of an archive that has trips."""

    info: ZipInfo
    format: FileFormat

    @property
    def name(self) -> str:
        """The path within the archive."""
        return self.info.filename


def list_parts(archive: ZipFile) -> list[Part]:
    """Return the parts of an archive, sorted by name. Their rows are numbered in this order.

    Members that tools add are left out: folders, empty files, and names that begin with `.` or `_`, such as `__MACOSX`
    and `_SUCCESS`.

    Raises:
        ArchiveContentError: A member is not CSV or Parquet, or is encrypted; or there are no parts.
    """
    members = [info for info in archive.infolist() if info.file_size and not _is_hidden(info.filename)]
    parts = [Part(info, _format_of(archive, info)) for info in sorted(members, key=lambda info: info.filename)]
    if not parts:
        raise ArchiveContentError("has no CSV or Parquet files")
    return parts


def _is_hidden(name: str) -> bool:
    return any(part.startswith((".", "_")) for part in PurePosixPath(name).parts)


def _format_of(archive: ZipFile, info: ZipInfo) -> FileFormat:
    name = PurePosixPath(info.filename).name
    if info.flag_bits & 1:
        raise ArchiveContentError(f"is encrypted: {info.filename} needs a password")
    for format_ in FileFormat:
        if format_ is not FileFormat.ZIP and name.lower().endswith(f".{format_}"):
            return format_
    if "." not in name:  # as Hadoop calls parts
        with archive.open(info) as part:
            head = part.read(len(b"PAR1"))
        if head == b"PAR1":
            return FileFormat.PARQUET
        return FileFormat.CSV_GZ if head.startswith(b"\x1f\x8b") else FileFormat.CSV
    raise ArchiveContentError(f"contains {info.filename}, which is not CSV or Parquet")


@contextmanager
def open_part(archive: ZipFile, part: Part) -> Iterator[BinaryIO]:
    """Open a part for reading and seeking its bytes.

    Seeking in a compressed CSV file is slow. A compressed Parquet file, which cannot be read without seeking, is copied
    to a temporary file first.
    """
    with archive.open(part.info) as member:
        if part.format is not FileFormat.PARQUET or part.info.compress_type == ZIP_STORED:
            yield cast("BinaryIO", member)
            return
        with tempfile.TemporaryFile() as copy:
            shutil.copyfileobj(member, copy, 1 << 20)
            copy.seek(0)
            yield cast("BinaryIO", copy)
