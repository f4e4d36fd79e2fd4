"""Expire old snapshots of Iceberg tables, and delete the files that no snapshot needs."""

from __future__ import annotations

import datetime as dt
import os
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taxi_assets.errors import CatalogConfigurationError
from taxi_assets.storage.iceberg.iceberg_catalog import translate_catalog_errors
from taxi_assets.storage.iceberg.iceberg_names import FOLDER, key_in_lake, lake_root, table_name
from taxi_assets.storage.lake.local_lake import LocalLake

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyiceberg.table import Table

    from taxi_assets.storage.iceberg.iceberg_catalog import IcebergCatalog
    from taxi_assets.storage.lake.base_lake import Lake
    from taxi_assets.storage.lake_tables import LakeTable

ORPHAN_AGE = dt.timedelta(days=3)
"""How old a file must be to be deleted: a run may be about to commit a newer one."""


def clean_up(catalog: IcebergCatalog, source: LakeTable, keep_days: int | None) -> tuple[int, int]:
    """Expire snapshots, and delete the files that no snapshot needs.

    Args:
        catalog: The catalog.
        source: A table in the lake. Nothing happens if the catalog does not have it.
        keep_days: Snapshots stay that were current within this number of days; None keeps all of them.

    Returns:
        The numbers of expired snapshots and of deleted files.

    Raises:
        CatalogConfigurationError: The catalog or the table cannot be used.
        CatalogUnreachableError: The catalog does not answer, or runs kept committing.
    """
    name, opened, lake = table_name(source), catalog.open(), catalog.lake
    with translate_catalog_errors(f"The table {name} cannot be cleaned up"):
        if not opened.table_exists(name):
            return 0, 0
        table = opened.load_table(name)
        folder = _folder(lake, table)
        expired = 0 if keep_days is None else _expire(table, dt.timedelta(days=keep_days))
        found = _changed_times(lake, folder)
        # Read after the listing: a file that a run commits in between is needed.
        needed = _needed_files(opened.load_table(name))
        oldest = dt.datetime.now(dt.UTC) - ORPHAN_AGE
        orphans = [key for key, time in found.items() if time < oldest and f"{lake_root(lake)}/{key}" not in needed]
        for key in orphans:
            lake.delete(key)
    return expired, len(orphans)


def _folder(lake: Lake, table: Table) -> str:
    """Return the folder of a table in the lake, which no other table has.

    Raises:
        CatalogConfigurationError: The folder is not one for the files of a single table.
    """
    folder = key_in_lake(lake_root(lake), table.location())
    if not folder.startswith(f"{FOLDER}/"):
        raise CatalogConfigurationError(
            f"The folder {table.location()} of an Iceberg table may contain other files of the lake, so none is "
            "deleted.",
            remedy=f"Drop the table from the catalog. The next run creates it in the folder {FOLDER} of the lake.",
        )
    return folder


def _expire(table: Table, age: dt.timedelta) -> int:
    """Expire the snapshots that a newer one had replaced before that time; return how many."""
    from pyiceberg.exceptions import CommitFailedException  # noqa: PLC0415  (only deployments with a catalog need it)

    oldest = (dt.datetime.now(dt.UTC) - age).timestamp() * 1000
    while True:
        history = sorted(table.snapshots(), key=lambda snapshot: snapshot.sequence_number or 0)
        named = {reference.snapshot_id for reference in table.metadata.refs.values()}
        old = [
            snapshot.snapshot_id
            for snapshot, newer in pairwise(history)
            if newer.timestamp_ms < oldest and snapshot.snapshot_id not in named
        ]
        if not old:
            return 0
        try:
            table.maintenance.expire_snapshots().by_ids(old).commit()
        except CommitFailedException:  # a run has committed meanwhile
            table.refresh()
        else:
            return len(old)


def _needed_files(table: Table) -> set[str]:
    """Return the URIs of all files of all snapshots, and of the table's metadata."""
    metadata: Any = table.metadata
    needed = {table.metadata_location, *(entry.metadata_file for entry in metadata.metadata_log)}
    needed |= {statistics.statistics_path for statistics in metadata.statistics}
    for snapshot in table.snapshots():
        needed.add(snapshot.manifest_list)
        for manifest in snapshot.manifests(table.io):
            if manifest.manifest_path not in needed:
                needed.add(manifest.manifest_path)
                entries = manifest.fetch_manifest_entry(table.io, discard_deleted=True)
                needed |= {entry.data_file.file_path for entry in entries}
    return needed


def _changed_times(lake: Lake, folder: str) -> Mapping[str, dt.datetime]:
    """Return when each object in a folder and its subfolders was created, by key."""
    if isinstance(lake, LocalLake):
        root = Path(lake.folder)
        files = [Path(path, name) for path, _, names in os.walk(root / folder) for name in names]
        # Not the modification time: a hard link shares that of the older file.
        times = {file: file.stat().st_ctime for file in files}
        return {str(file.relative_to(root)): dt.datetime.fromtimestamp(time, dt.UTC) for file, time in times.items()}
    bucket: Any = lake
    start = f"{bucket.prefix}/" if bucket.prefix else ""
    blobs = bucket.storage.get_client().list_blobs(bucket.bucket, prefix=f"{start}{folder}/")
    return {blob.name.removeprefix(start): blob.time_created for blob in blobs}
