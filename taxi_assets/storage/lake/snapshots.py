"""Snapshots of a lake in a folder: the current version of each file, under a name that keeps its bytes.

DuckDB and Polars look up a file several times in one query: they list it with its size, open it to read its footer,
and open it again to read its rows. If the file is replaced in between, the query fails, or combines the footer of one
version with the rows of another. A file in a snapshot is never replaced.

A snapshot consists of hard links, which take no disk space while the lake has the same version.
"""

from __future__ import annotations

import datetime as dt
import os
from contextlib import suppress
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

FOLDER = "snapshots"
"""The folder of all snapshots in the lake."""

CURRENT = "current"
"""The symbolic link to the newest snapshot."""

KEPT_FOR = dt.timedelta(days=1)
"""How long a snapshot remains after a newer one has replaced it."""

_NAME = "%Y-%m-%dT%H-%M-%S.%fZ"


def create_snapshot(lake: Path, keys: Iterable[str], staging: Path) -> Path:
    """Link the current version of each file, make the snapshot the current one, and delete old snapshots.

    If no file differs from the current snapshot, nothing is created.

    Args:
        lake: The folder of the lake.
        keys: Keys of objects. Those that do not exist are left out.
        staging: A private folder on the lake's file system.

    Returns:
        The folder of the snapshot, in which each file has its key as path.
    """
    home, new = lake / FOLDER, staging / "snapshot"
    new.mkdir()
    for key in keys:
        link = new / key
        link.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            os.link(lake / key, link)
    home.mkdir(exist_ok=True)
    current, now = home / CURRENT, dt.datetime.now(dt.UTC)
    if not current.is_dir() or _files(current) != _files(new):
        snapshot = home / now.strftime(_NAME)
        new.rename(snapshot)
        link = staging / CURRENT
        link.symlink_to(snapshot.name)
        link.replace(current)
    _delete_old(home, now, staging)
    return home / current.readlink()


def _files(folder: Path) -> dict[str, int]:
    """Return the inode of each file, by its path in the folder."""
    return {str(path.relative_to(folder)): path.stat().st_ino for path in folder.rglob("*") if path.is_file()}


def _delete_old(home: Path, now: dt.datetime, staging: Path) -> None:
    """Delete the snapshots that were replaced more than `KEPT_FOR` ago.

    Each disappears as a whole. Otherwise, a query of it could find only some of its files, above all if this process is
    killed in between.
    """
    times = {path: time for path in home.iterdir() if (time := _time_of(path)) is not None}
    for snapshot, newer in pairwise(sorted(times, key=lambda path: path.name)):
        if now - times[newer] > KEPT_FOR:
            snapshot.rename(staging / snapshot.name)  # deleted with the folder


def _time_of(path: Path) -> dt.datetime | None:
    """Return when a snapshot was created; None if the path is not a snapshot."""
    try:
        return dt.datetime.strptime(path.name, _NAME).replace(tzinfo=dt.UTC)
    except ValueError:
        return None
