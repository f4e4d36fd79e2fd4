"""What BigQuery tables look like: types, partitions, clusters, descriptions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
from google.cloud import bigquery

from taxi_assets.errors import WarehouseSchemaError
from taxi_assets.storage.warehouse.base_warehouse import RECREATE_TABLE, column_type_error
from taxi_assets.tlc.schema import ColumnType

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from taxi_assets.tlc.month import Month
    from taxi_assets.tlc.schema import Service

# As the API names them.
TYPES: Mapping[ColumnType, str] = {
    ColumnType.INTEGER: "INTEGER",
    ColumnType.MONEY: "NUMERIC",
    ColumnType.MILES: "NUMERIC",
    ColumnType.DEGREES: "FLOAT",
    ColumnType.TEXT: "STRING",
    ColumnType.DATETIME: "DATETIME",
    ColumnType.DATE: "DATE",
    ColumnType.BOOLEAN: "BOOLEAN",
    ColumnType.MONEY_SUM: "NUMERIC",
    ColumnType.MILES_SUM: "NUMERIC",
}
_CLUSTERS = ("pickup_datetime", "pickup_location_id")

LABELS: Mapping[str, str] = {"managed-by": "taxi_assets"}

LEDGER_SCHEMA = [
    bigquery.SchemaField("data_month", "DATE", description="First day of the month that was loaded."),
    bigquery.SchemaField(
        "data_version", "STRING", description="Digest of what the month was made of; null while it is replaced."
    ),
    bigquery.SchemaField("row_count", "INTEGER", description="Its rows."),
    bigquery.SchemaField("cents", "INTEGER", description="Sum of all its money columns."),
    bigquery.SchemaField("source_rows", "INTEGER", description="Sum of its row numbers."),
    bigquery.SchemaField("loaded_at", "TIMESTAMP", description="When it was loaded, or its replacement began."),
    bigquery.SchemaField("run_id", "STRING", description="The Dagster run that loaded it, or is replacing it."),
]


def schema_from_service(service: Service) -> list[bigquery.SchemaField]:
    """The service's columns."""
    return [bigquery.SchemaField(c.name, TYPES[c.type], description=c.description_with_unit) for c in service.columns]


def schema_from_frame(frame: pd.DataFrame, descriptions: Mapping[str, str]) -> list[bigquery.SchemaField]:
    """A frame's columns."""
    return [
        bigquery.SchemaField(field.name, _type_of(field.type), description=descriptions.get(field.name, ""))
        for field in pa.Schema.from_pandas(frame, preserve_index=False)
    ]


def _type_of(type_: Any) -> str:
    known = {
        pa.types.is_integer: "INTEGER",
        pa.types.is_floating: "FLOAT",
        pa.types.is_boolean: "BOOLEAN",
        pa.types.is_decimal: "NUMERIC",
        pa.types.is_date: "DATE",
        pa.types.is_timestamp: "DATETIME" if getattr(type_, "tz", None) is None else "TIMESTAMP",
    }
    return next((name for is_it, name in known.items() if is_it(type_)), "STRING")


def table_layout(service: Service) -> dict[str, Any]:
    """By month of `data_month`, within it by time and place of pickup: the same for the table and for every load."""
    names = [column.name for column in service.columns]
    return {
        "time_partitioning": monthly_partitioning(),
        "clustering_fields": [name for name in _CLUSTERS if name in names],
    }


def monthly_partitioning() -> bigquery.TimePartitioning:
    """A partition for each month of `data_month`."""
    return bigquery.TimePartitioning(bigquery.TimePartitioningType.MONTH, field="data_month")


def trips_table(name: str, service: Service) -> bigquery.Table:
    """The table of a service's trips."""
    table = bigquery.Table(name, schema_from_service(service))
    table.time_partitioning = monthly_partitioning()
    table.clustering_fields = table_layout(service)["clustering_fields"]
    table.labels = {**LABELS, "service": service.name}
    table.description = f"{service.title}: {service.description}. One partition is one published month."
    return table


def ledger_table(name: str) -> bigquery.Table:
    """The table of a service's loads."""
    table = bigquery.Table(name, LEDGER_SCHEMA)
    table.time_partitioning = monthly_partitioning()
    table.labels = dict(LABELS)
    return table


def partition_name(table: str, month: Month) -> str:
    """The name of a month's partition, such as project.dataset.green_trips$202010."""
    return f"{table}${month.year:04d}{month.number:02d}"


def ledger_name(service: Service) -> str:
    """The table that says which data each partition holds."""
    return f"{service.table}_loads"


def require_compatible_table(found: bigquery.Table, wanted: bigquery.Table) -> None:
    """Raises `WarehouseSchemaError` where a table is made otherwise than it is wanted, in what cannot be changed."""
    name = f"`{found.project}.{found.dataset_id}.{found.table_id}`"
    if _layout(found) != _layout(wanted):
        raise WarehouseSchemaError(f"{name} is {_layout(found)}; it must be {_layout(wanted)}.", remedy=RECREATE_TABLE)
    types = {field.name: field.field_type for field in found.schema}
    for field in wanted.schema:
        if types.get(field.name, field.field_type) != field.field_type:
            raise column_type_error(name, field.name, types[field.name], field.field_type)


def _layout(table: bigquery.Table) -> str:
    time = table.time_partitioning
    partitioned = f"partitioned by {time.type_} of {time.field or 'ingestion'}" if time else "not partitioned by time"
    clustered = f"clustered by {', '.join(table.clustering_fields)}" if table.clustering_fields else "not clustered"
    return f"{partitioned} and {clustered}"


def merge_properties(table: bigquery.Table, wanted: bigquery.Table) -> list[str]:
    """Make a table as it is wanted; returns which of its properties changed. Columns the schema has lost stay."""
    new = {field.name: field for field in wanted.schema}
    held = [new.pop(field.name, field) for field in table.schema]
    changes = {
        "schema": [*held, *new.values()],  # new columns come last, where BigQuery puts them
        "description": wanted.description,
        "labels": {**table.labels, **wanted.labels},
    }
    changed = [name for name, value in changes.items() if getattr(table, name) != value]
    for name in changed:
        setattr(table, name, changes[name])
    return changed
