"""Store rows in a table of a warehouse, as the IO manager does for an asset."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from taxi_assets.storage.lake.staging import temporary_folder
from taxi_assets.storage.table_values import open_rows
from taxi_assets.storage.warehouse.base_warehouse import noop
from taxi_assets.storage.warehouse.table_output import stage_output

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from taxi_assets.storage.partition_rows import TablePartition
    from taxi_assets.storage.warehouse.base_warehouse import Warehouse

_PLATFORM_ASSETS = {"taxi_zones": "reference/taxi_zones", "month_quality": "quality/month_quality"}


def store_rows(
    warehouse: Warehouse,
    table: str,
    value: object,
    *,
    partitions: Sequence[TablePartition] | None = None,
    descriptions: Mapping[str, str] | None = None,
    asset: str | None = None,
    require_inputs_unchanged: Callable[[], None] = noop,
) -> None:
    """Replace a table, or partitions of it, with a value that an asset could return."""
    label = asset or _PLATFORM_ASSETS.get(table, f"mine/{table}")
    with temporary_folder() as folder:
        output = stage_output(
            open_rows(value, label),
            folder,
            label=label,
            table=table,
            asset=label,
            partitions=partitions,
            descriptions=descriptions or {},
            run_id=uuid.uuid4().hex,
            may_adopt=False,
            require_inputs_unchanged=require_inputs_unchanged,
        )
        warehouse.replace_rows(output)
