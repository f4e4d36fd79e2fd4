"""What Dagster knows of the months: which are loaded, and from which version of the published file.

Belongs here: reading the latest materializations. It is they that say what is loaded; neither a cursor nor a run does.
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

_RECORDS_AT_ONCE = 200


def parse_month(partition: str | None) -> Month | None:
    """The month of a partition key; None where it is none, as an instance that others share may hold."""
    try:
        return None if partition is None else Month.parse(partition)
    except ValueError:
        return None


@dataclass(frozen=True)
class RawMaterialization:
    """The latest materialization of a month's raw file."""

    event_id: int
    """Its number in the event log."""
    timestamp: dt.datetime
    run_id: str
    version: FileVersion | None
    """None where it does not say: somebody reported it by hand."""
    sha256: str | None


def latest_raw_materializations(
    instance: dg.DagsterInstance, service: Service, only: Iterable[Month] | None = None
) -> dict[Month, RawMaterialization]:
    """The months whose raw file is loaded."""
    return {
        month: RawMaterialization(
            record.storage_id,
            dt.datetime.fromtimestamp(record.timestamp, dt.UTC),
            record.run_id,
            _version(message),
            message.get("sha256"),
        )
        for month, record, message in _latest(instance, dg.AssetKey(["raw", service.table]), only)
    }


def warehouse_digests(
    instance: dg.DagsterInstance, service: Service, only: Iterable[Month] | None = None
) -> dict[Month, str | None]:
    """The months in the warehouse, each with the digest of the raw file that it was made from."""
    warehouse = dg.AssetKey(["warehouse", service.table])
    return {month: message.get("raw_sha256") for month, _, message in _latest(instance, warehouse, only)}


def _latest(
    instance: dg.DagsterInstance, key: dg.AssetKey, only: Iterable[Month] | None
) -> Iterator[tuple[Month, dg.EventLogRecord, dict[str, Any]]]:
    wanted = None if only is None else {str(month) for month in only}
    if wanted == set():
        return
    materialized = dg.DagsterEventType.ASSET_MATERIALIZATION
    events = sorted(instance.get_latest_storage_id_by_partition(key, materialized, wanted).values())
    for start in range(0, len(events), _RECORDS_AT_ONCE):
        numbers = events[start : start + _RECORDS_AT_ONCE]
        chosen = dg.AssetRecordsFilter(key, storage_ids=numbers)
        for record in instance.fetch_materializations(chosen, limit=len(numbers)).records:
            month, materialization = parse_month(record.partition_key), record.asset_materialization
            if month is not None and materialization is not None:
                yield month, record, {n: v.value for n, v in materialization.metadata.items()}


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
