"""Find months that were built from the same published file: a publisher has served one file under several names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taxi_assets.storage.lake.objects import ParquetPartition, object_prefix

if TYPE_CHECKING:
    from taxi_assets.storage.lake.base_lake import Lake
    from taxi_assets.storage.lake.objects import RawFile
    from taxi_assets.tlc.month import Month
    from taxi_assets.tlc.schema import Service


def months_with_same_file(raw: RawFile, lake: Lake, service: Service, month: Month) -> list[str]:
    """Return the other months of a service whose clean trips come from a file with the same bytes.

    Months whose file was refused do not count.

    Args:
        raw: The file of the month.
        lake: The lake.
        service: The service.
        month: The month.

    Returns:
        The keys of the months, in order.
    """
    found = []
    # Files of equal length are rare, so hardly any report is read.
    for key, size in lake.sizes_in(f"raw/{service.table}").items():
        other = key.rsplit("/", 1)[1].split(".", 1)[0]
        if size != raw.record.bytes or other == str(month):
            continue
        clean = ParquetPartition.find(lake, object_prefix("clean", service, other))
        if clean is not None and clean.report.raw_sha256 == raw.record.sha256:
            found.append(other)
    return found
