"""Commit one month of a table to Iceberg: a copy of the lake's object replaces the month's data file.

Each commit is one snapshot. It replaces the month as a whole, so that readers and time travel see the old rows or the
new ones. The rows do not pass through this process: only the footer of the file is read.

Belongs here: commits of data. Does not belong here: creating tables (`iceberg_catalog.py`).
"""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from taxi_assets.errors import CatalogUnreachableError, ConcurrentUpdateError
from taxi_assets.storage.iceberg.iceberg_catalog import translate_catalog_errors
from taxi_assets.storage.iceberg.iceberg_names import key_in_lake, lake_root, table_name
from taxi_assets.storage.lake.base_lake import conflict_error, missing_error

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyiceberg.manifest import ManifestEntry
    from pyiceberg.table import Table

    from taxi_assets.storage.iceberg.iceberg_catalog import IcebergCatalog
    from taxi_assets.storage.lake.base_lake import Lake
    from taxi_assets.storage.lake_tables import LakeTable
    from taxi_assets.tlc.month import Month

RUN, DIGEST = "taxi.run-id", "taxi.sha256"
DATA_VERSION, RAW_DIGEST = "taxi.data-version", "taxi.raw-sha256"
"""Properties of each snapshot, which pyiceberg calls its summary."""

_EPOCH = dt.date(1970, 1, 1)


@dataclass(frozen=True)
class CommittedMonth:
    """The month in the Iceberg table."""

    is_new: bool
    """Whether this call has committed a snapshot; False if the table had these rows already."""
    snapshot_id: int
    """The snapshot that has added the month's rows."""
    rows: int
    sha256: str
    """The digest of the data file."""
    location: str
    metadata_location: str
    """The table's current metadata file, which readers without a catalog open."""


def commit_month(
    catalog: IcebergCatalog,
    source: LakeTable,
    month: Month,
    *,
    version: str,
    run_id: str,
    properties: Mapping[str, str],
) -> CommittedMonth:
    """Replace a month of an Iceberg table by an object of the lake, unless the table has the same file already.

    Args:
        catalog: The catalog.
        source: The table in the lake.
        month: The month.
        version: The version of the lake's object. It must be the current one.
        run_id: The Dagster run.
        properties: Further properties of the snapshot.

    Raises:
        ConcurrentUpdateError: Another run has committed other rows of the month meanwhile. The table has its rows.
        LakeConflictError: Another run has replaced the object in the lake.
        CatalogConfigurationError: The catalog or the table cannot be used.
        CatalogUnreachableError: The catalog does not answer, or other runs kept committing.
    """
    lake, key = catalog.lake, source.key(month)
    sha256 = lake.digest(key, version)
    table = catalog.open_table(source)
    with translate_catalog_errors(f"The month {month} of {table_name(source)} cannot be committed"):
        before = month_entries(table, month)
        if _is_only(before, sha256):
            return _committed(table, before[0], sha256, is_new=False)
        _require_current(lake, key, version)
        # A new name for each commit: while a run prepares one, no cleanup takes its file for an old one.
        folder = key_in_lake(lake_root(lake), table.location())
        target = f"{folder}/data/data_month={month.start}/{sha256[:16]}-{uuid.uuid4().hex[:8]}.parquet"
        lake.copy_object(key, target, version=version, run_id=run_id)
        summary = {RUN: run_id, DIGEST: sha256, **properties}
        error = _replace(table, month, before, f"{lake_root(lake)}/{target}", summary)
        table.refresh()
        after = month_entries(table, month)
        if _is_only(after, sha256):  # ours, or that of a run with the same rows
            return _committed(table, after[0], sha256, is_new=after[0].data_file.file_path.endswith(target))
    known = {entry.data_file.file_path for entry in before} | {f"{lake_root(lake)}/{target}"}
    others = sorted({_run_of(table, entry) for entry in after if entry.data_file.file_path not in known})
    if not others:
        raise CatalogUnreachableError(
            f"The month {month} of {table_name(source)} has not been committed ({error}).", remedy="Try again later."
        ) from error
    raise ConcurrentUpdateError(
        f"{source.name} {month}: the run {', '.join(others)} has committed other rows to the Iceberg table meanwhile.",
        remedy="Materialize it again, unless a retry of this run has done so: the newest rows of the lake win.",
    ) from error


def month_entries(table: Table, month: Month) -> list[ManifestEntry]:
    """Return the entries of a month's data files in the current snapshot. There is at most one, also without rows."""
    from pyiceberg.expressions.visitors import inclusive_projection, manifest_evaluator  # noqa: PLC0415

    snapshot = table.current_snapshot()
    if snapshot is None:
        return []
    projected = inclusive_projection(table.schema(), table.spec())(_is_in(month))
    may_contain = manifest_evaluator(table.spec(), table.schema(), projected)
    days = (month.start - _EPOCH).days
    return [
        entry
        for manifest in snapshot.manifests(table.io)
        if may_contain(manifest)
        for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True)
        if entry.data_file.partition[0] == days
    ]


def _replace(
    table: Table, month: Month, before: list[ManifestEntry], uri: str, summary: Mapping[str, str]
) -> Exception | None:
    """Commit the file in place of the month's files; return the error if the outcome is not certain or a conflict."""
    from pyiceberg.exceptions import (  # noqa: PLC0415
        CommitFailedException,
        CommitStateUnknownException,
        ValidationException,
    )
    from pyiceberg.io.pyarrow import parquet_file_to_data_file  # noqa: PLC0415
    from pyiceberg.typedef import Record  # noqa: PLC0415

    transaction = table.transaction()
    file: Any = parquet_file_to_data_file(table.io, transaction.table_metadata, uri)
    file[3] = Record((month.start - _EPOCH).days)  # the partition, which a file without rows does not show
    try:
        # Not delete() and add_files(): these are two snapshots, and the month is missing from the first.
        with transaction.update_snapshot(snapshot_properties=dict(summary)).overwrite() as overwrite:
            # The commit fails if another run has added rows of the month since the table was read.
            overwrite.delete_by_predicate(_is_in(month))
            for entry in before:
                overwrite.delete_data_file(entry.data_file)
            overwrite.append_data_file(file)
        transaction.commit_transaction()
    except (CommitFailedException, CommitStateUnknownException, ValidationException) as error:
        return error
    return None


def _is_in(month: Month) -> Any:
    from pyiceberg import expressions  # noqa: PLC0415  (only deployments with a catalog need it)

    equal_to: Any = expressions.EqualTo  # its declared arguments are not those that it accepts
    return equal_to("data_month", month.start.isoformat())


def _is_only(entries: list[ManifestEntry], sha256: str) -> bool:
    return len(entries) == 1 and entries[0].data_file.file_path.rpartition("/")[2].startswith(f"{sha256[:16]}-")


def _committed(table: Table, entry: ManifestEntry, sha256: str, *, is_new: bool) -> CommittedMonth:
    return CommittedMonth(
        is_new=is_new,
        snapshot_id=int(entry.snapshot_id or 0),
        rows=entry.data_file.record_count,
        sha256=sha256,
        location=table.location(),
        metadata_location=table.metadata_location,
    )


def _run_of(table: Table, entry: ManifestEntry) -> str:
    """Return the run that has committed a file; "unknown" for a commit of another tool."""
    snapshot = table.metadata.snapshot_by_id(entry.snapshot_id or 0)
    summary: Any = snapshot.summary if snapshot else None
    return (summary.additional_properties.get(RUN) if summary else None) or "unknown"


def _require_current(lake: Lake, key: str, version: str) -> None:
    found = lake.version(key)
    if found is None:
        raise missing_error(lake.uri(key))
    if found != version:
        raise conflict_error(lake.uri(key))
