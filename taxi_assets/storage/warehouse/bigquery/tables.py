"""The definitions of BigQuery tables: types, partitioning, clustering, descriptions, and their updates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.cloud import bigquery

from taxi_assets.errors import WarehouseSchemaError
from taxi_assets.storage.warehouse.base_warehouse import RECREATE_TABLE, column_type_error
from taxi_assets.tlc.schema import ColumnType

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taxi_assets.tlc.month import Month
    from taxi_assets.tlc.schema import Service

# Spelled as the REST API returns them, so that they can be compared with existing tables.
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
SQL_NAMES: Mapping[str, str] = {"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL"}
"""The SQL names of types that the REST API names otherwise."""
_CLUSTERS = ("pickup_datetime", "pickup_location_id")

LABELS: Mapping[str, str] = {"managed-by": "taxi_assets"}

LEDGER_SCHEMA = [
    bigquery.SchemaField("data_month", "DATE", description="First day of the month that was loaded."),
    bigquery.SchemaField(
        "data_version",
        "STRING",
        description="Digest of the inputs of the month's trips; null while a run is replacing the month.",
    ),
    bigquery.SchemaField("row_count", "INTEGER", description="Number of trips."),
    bigquery.SchemaField("cents", "INTEGER", description="Sum of all money columns, in cents."),
    bigquery.SchemaField("source_rows", "INTEGER", description="Sum of the trips' row numbers in the published file."),
    bigquery.SchemaField("loaded_at", "TIMESTAMP", description="Time of the load, or of the start of a replacement."),
    bigquery.SchemaField("run_id", "STRING", description="The Dagster run that loaded the month, or is replacing it."),
]
"""The ledger of a service: one row per month, which says what data the month's partition holds."""


def schema_from_service(service: Service) -> list[bigquery.SchemaField]:
    """Return the columns of a service's trips."""
    return [bigquery.SchemaField(c.name, TYPES[c.type], description=c.description_with_unit) for c in service.columns]


def table_layout(service: Service) -> dict[str, Any]:
    """Return partitioning and clustering of a service's table, as options of a load job.

    BigQuery rejects a load whose layout differs from the table's.
    """
    names = [column.name for column in service.columns]
    return {
        "time_partitioning": monthly_partitioning(),
        "clustering_fields": [name for name in _CLUSTERS if name in names],
    }


def monthly_partitioning() -> bigquery.TimePartitioning:
    """Return partitioning by the month of `data_month`."""
    return bigquery.TimePartitioning(bigquery.TimePartitioningType.MONTH, field="data_month")


def trips_table(name: str, service: Service) -> bigquery.Table:
    """Return the definition of a service's table of trips.

    Args:
        name: The table's name, as `project.dataset.table`.
        service: Defines the columns and the description.
    """
    table = bigquery.Table(name, schema_from_service(service))
    table.time_partitioning = monthly_partitioning()
    table.clustering_fields = table_layout(service)["clustering_fields"]
    table.labels = {**LABELS, "service": service.name}
    table.description = f"{service.title}: {service.description}. One partition is one published month."
    return table


def ledger_table(name: str) -> bigquery.Table:
    """Return the definition of a ledger; the name is `project.dataset.table`."""
    table = bigquery.Table(name, LEDGER_SCHEMA)
    table.time_partitioning = monthly_partitioning()
    table.labels = dict(LABELS)
    return table


def partition_name(table: str, month: Month) -> str:
    """Return the name of a month's partition, such as `project.dataset.green_trips$202010`."""
    return f"{table}${month.year:04d}{month.number:02d}"


def ledger_name(service: Service) -> str:
    """Return the table name of a service's ledger, without the dataset."""
    return f"{service.table}_loads"


def require_compatible_table(found: bigquery.Table, wanted: bigquery.Table) -> None:
    """Raise `WarehouseSchemaError` if an existing table differs from its definition in what BigQuery cannot change.

    These are partitioning, clustering and the types of columns.
    """
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
    """Set the schema, description and labels of a local table object to those wanted. Sends no request.

    Columns and labels that only the existing table has are kept.

    Args:
        table: The table as BigQuery returned it; it is changed in place.
        wanted: The definition to follow.

    Returns:
        The names of the properties that changed, as `Client.update_table` takes them.
    """
    new = {field.name: field for field in wanted.schema}
    existing = [new.pop(field.name, field) for field in table.schema]
    changes = {
        "schema": [*existing, *new.values()],  # BigQuery requires new columns at the end
        "description": wanted.description,
        "labels": {**table.labels, **wanted.labels},
    }
    changed = [name for name, value in changes.items() if getattr(table, name) != value]
    for name in changed:
        setattr(table, name, changes[name])
    return changed
