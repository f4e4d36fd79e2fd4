"""A folder of part files, as Spark writes it under the name of one file, and the archive of its parts.

The lake stores a month as one object, so the parts are put into a zip archive without compression. The same parts
always give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import zipfile
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Self

from taxi_assets.tlc.sources.transports.base_transport import CHUNK_BYTES, request_error

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from taxi_assets.tlc.sources.transports.base_transport import FileRequest

_TABLES = {"_delta_log": "Delta Lake", ".hoodie": "Hudi"}
"""Folders that mark a table, whose files include deleted and replaced rows."""

_UNFINISHED = "_temporary"
"""Spark writes parts into this folder, and deletes it when all of them are complete."""

_EARLIEST_TIME = (1980, 1, 1, 0, 0, 0)
_READABLE_FILE = (stat.S_IFREG | 0o644) << 16
_UNIX = 3


@dataclass(frozen=True)
class FilePart:
    """One file in a folder of parts, and the attributes that change when it is written or replaced."""

    name: str
    size: int
    modified_ns: int
    changed_ns: int
    inode: int

    @classmethod
    def from_status(cls, name: str, status: os.stat_result) -> Self:
        """Return the part with the attributes that the file system reports."""
        return cls(name, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


def list_parts(request: FileRequest, folder: Path) -> list[FilePart]:
    """Return the parts in a folder, in the order of their names.

    Files whose names begin with a dot or an underscore, such as `_SUCCESS` and checksums, are not parts.

    Raises:
        FileNotFoundError, NotADirectoryError: There is no such folder.
        PublisherRequestError: The folder has no parts, or is not a plain folder of parts.
    """
    parts = []
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        if entry.name in _TABLES:
            table = _TABLES[entry.name]
            raise request_error(request, f"it is a {table} table, not a folder of parts; export the month from it")
        if entry.name == _UNFINISHED:
            raise request_error(request, f"it is not complete, because it contains {_UNFINISHED}")
        if not entry.name.startswith((".", "_")):
            parts.append(_part(request, entry))
    if not parts:
        raise request_error(request, "the folder has no part files")
    return parts


def _part(request: FileRequest, entry: os.DirEntry[str]) -> FilePart:
    try:
        status = entry.stat()
    except FileNotFoundError:
        raise request_error(request, f"its part {entry.name} is a link to a file that does not exist") from None
    if stat.S_ISDIR(status.st_mode):
        # The name of a partition folder, such as vendor=1, is a value that the files in it lack.
        raise request_error(request, f"it contains the folder {entry.name}; put all parts directly into it")
    if not stat.S_ISREG(status.st_mode):
        raise request_error(request, f"its part {entry.name} is not a regular file")
    return FilePart.from_status(entry.name, status)


def parts_etag(parts: Sequence[FilePart]) -> str:
    """Return an ETag that changes when a part is added, removed, renamed, written or replaced."""
    return f'"{hashlib.sha256(json.dumps([astuple(part) for part in parts]).encode()).hexdigest()[:32]}"'


def archive_parts(folder: Path, parts: Sequence[FilePart], path: Path) -> None:
    """Write the parts to a zip archive at `path`: in the given order, uncompressed, without times and owners."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for part in parts:
            member = zipfile.ZipInfo(part.name, _EARLIEST_TIME)
            member.create_system, member.external_attr, member.file_size = _UNIX, _READABLE_FILE, part.size
            with (folder / part.name).open("rb") as file, archive.open(member, "w") as copy:
                # No more than the listed size: the caller detects a part that grows meanwhile.
                left = part.size
                while chunk := file.read(min(CHUNK_BYTES, left)):
                    copy.write(chunk)
                    left -= len(chunk)
