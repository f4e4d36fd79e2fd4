"""Read from the Dagster instance which months are loaded, and from which version of the published file.

Belongs here: reading the latest materializations. Only they show which months are loaded;
cursors and runs do not.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg

from taxi_assets.tlc.month import Month
from taxi_assets.tlc.sources.source_record import FileVersion

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from taxi_assets.tlc.schema import Service

_BATCH_SIZE = 200
_CODE_VERSION_TAG = "dagster/code_version"
_PINNED = "pinned_revision"  # as `metadata.report_metadata` names it


def parse_month(partition: str | None) -> Month | None:
    """Return the month of a partition key; None if the key is not a month.

    An instance shared with other projects may hold other keys.
    """
    try:
        return None if partition is None else Month.parse(partition)
    except ValueError:
        return None


@dataclass(frozen=True)
class RawMaterialization:
    """The latest materialization of a month's raw file."""

    event_id: int
    """ID of the materialization in the event log."""
    timestamp: dt.datetime
    run_id: str
    version: FileVersion | None
    """The version of the published file. None if the materialization was reported by hand, without a URL."""
    sha256: str | None
    """Digest of the raw file, in hex."""


def latest_raw_materializations(
    instance: dg.DagsterInstance, service: Service, only: Iterable[Month] | None = None
) -> dict[Month, RawMaterialization]:
    """Return the latest materialization of each month whose raw file is loaded.

    If `only` is given, return only those months.
    """
    return {
        month: RawMaterialization(
            record.storage_id,
            dt.datetime.fromtimestamp(record.timestamp, dt.UTC),
            record.run_id,
            _version(metadata),
            metadata.get("sha256"),
        )
        for month, record, metadata in _latest(instance, dg.AssetKey(["raw", service.table]), only)
    }


def warehouse_digests(
    instance: dg.DagsterInstance, service: Service, only: Iterable[Month] | None = None
) -> dict[Month, str | None]:
    """Return the months in the warehouse. If `only` is given, return only those months.

    Returns:
        For each month, the sha256 digest of the raw file that its rows come from. None if it is not recorded.
    """
    warehouse = dg.AssetKey(["warehouse", service.table])
    return {month: metadata.get("raw_sha256") for month, _, metadata in _latest(instance, warehouse, only)}


def pinned_months(instance: dg.DagsterInstance, service: Service, only: Iterable[Month]) -> set[Month]:
    """Return those of the months whose clean layer is pinned to a revision."""
    clean = dg.AssetKey(["clean", service.table])
    return {month for month, _, metadata in _latest(instance, clean, only) if _PINNED in metadata}


@dataclass(frozen=True)
class Build:
    """The code that built a month of an asset."""

    code_version: str | None
    """It is a run ID if the definition had no code version then, and None if the materialization was reported by hand.
    """
    code_parts: Mapping[str, Any] | None
    """The parts of the code version, see `Service.code_parts`. None if they were not recorded."""
    pinned: bool = False
    """Whether the month is pinned to a revision of its file."""


def latest_builds(instance: dg.DagsterInstance, asset: dg.AssetKey) -> dict[Month, Build]:
    """Return the code that built each month of an asset."""
    return {
        month: Build(
            materialization.tags.get(_CODE_VERSION_TAG) if materialization.tags else None,
            metadata.get("code_parts"),
            _PINNED in metadata,
        )
        for month, record, metadata in _latest(instance, asset, None)
        if (materialization := record.asset_materialization) is not None
    }


def _latest(
    instance: dg.DagsterInstance, key: dg.AssetKey, only: Iterable[Month] | None
) -> Iterator[tuple[Month, dg.EventLogRecord, dict[str, Any]]]:
    """Yield each month's latest materialization with its metadata, in the order of the event log."""
    wanted = None if only is None else {str(month) for month in only}
    if wanted == set():
        return
    materialized = dg.DagsterEventType.ASSET_MATERIALIZATION
    events = sorted(instance.get_latest_storage_id_by_partition(key, materialized, wanted).values())
    for start in range(0, len(events), _BATCH_SIZE):
        batch = events[start : start + _BATCH_SIZE]
        for record in instance.fetch_materializations(
            dg.AssetRecordsFilter(key, storage_ids=batch), limit=len(batch)
        ).records:
            month, materialization = parse_month(record.partition_key), record.asset_materialization
            if month is not None and materialization is not None:
                yield month, record, {name: entry.value for name, entry in materialization.metadata.items()}


def _version(metadata: Mapping[str, Any]) -> FileVersion | None:
    if "url" not in metadata:
        return None
    return FileVersion(
        metadata["url"],
        metadata.get("publisher", ""),
        metadata.get("etag"),
        metadata.get("last_modified"),
        metadata.get("file_bytes"),
    )
