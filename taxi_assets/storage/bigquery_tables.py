"""What BigQuery tables look like: types, partitions, clusters, descriptions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
from google.cloud import bigquery

from taxi_assets.tlc.schema import ColumnType

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from taxi_assets.tlc.month import Month
    from taxi_assets.tlc.schema import Service

# As the API names them.
_TYPES: Mapping[ColumnType, str] = {
    ColumnType.INTEGER: "INTEGER",
    ColumnType.MONEY: "NUMERIC",
    ColumnType.MILES: "NUMERIC",
    ColumnType.DEGREES: "FLOAT",
    ColumnType.TEXT: "STRING",
    ColumnType.DATETIME: "DATETIME",
    ColumnType.DATE: "DATE",
    ColumnType.BOOLEAN: "BOOLEAN",
}
_CLUSTERS = ("pickup_datetime", "pickup_location_id")

LEDGER_SCHEMA = [
    bigquery.SchemaField("data_month", "DATE", description="First day of the month that was loaded."),
    bigquery.SchemaField("data_version", "STRING", description="Digest of what the month was made of."),
    bigquery.SchemaField("row_count", "INTEGER", description="Its rows."),
    bigquery.SchemaField("cents", "INTEGER", description="Sum of all its money columns."),
    bigquery.SchemaField("source_rows", "INTEGER", description="Sum of its row numbers."),
    bigquery.SchemaField("loaded_at", "TIMESTAMP", description="When it was loaded."),
    bigquery.SchemaField("run_id", "STRING", description="The Dagster run that loaded it."),
]


def schema_of(service: Service) -> list[bigquery.SchemaField]:
    """The service's columns."""
    return [bigquery.SchemaField(c.name, _TYPES[c.type], description=c.described) for c in service.columns]


def described(frame: pd.DataFrame, descriptions: Mapping[str, str]) -> list[bigquery.SchemaField]:
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


def partitioning(service: Service) -> dict[str, Any]:
    """By month of `data_month`, within it by time and place of pickup: the same for the table and for every load."""
    names = [column.name for column in service.columns]
    return {
        "time_partitioning": bigquery.TimePartitioning(bigquery.TimePartitioningType.MONTH, field="data_month"),
        "clustering_fields": [name for name in _CLUSTERS if name in names],
    }


def partitioned_table(name: str, service: Service, labels: Mapping[str, str]) -> bigquery.Table:
    """The table of a service's trips."""
    table = months_of(name, schema_of(service), {**labels, "service": service.name})
    table.clustering_fields = partitioning(service)["clustering_fields"]
    table.description = f"{service.title}: {service.description}. One partition is one published month."
    return table


def months_of(name: str, schema: Sequence[bigquery.SchemaField], labels: Mapping[str, str]) -> bigquery.Table:
    """A table with a partition for each month of `data_month`."""
    table = bigquery.Table(name, schema)
    table.time_partitioning = bigquery.TimePartitioning(bigquery.TimePartitioningType.MONTH, field="data_month")
    table.labels = dict(labels)
    return table


def partition(table: str, month: Month) -> str:
    """The name of a month's partition, such as project.dataset.green_trips$202010."""
    return f"{table}${month.year:04d}{month.number:02d}"


def ledger_of(service: Service) -> str:
    """The table that says which data each partition holds."""
    return f"{service.table}_loads"


def missing_columns(
    wanted: Sequence[bigquery.SchemaField], held: Sequence[bigquery.SchemaField]
) -> list[bigquery.SchemaField]:
    """What the table holds besides: columns that the schema has lost stay."""
    names = {field.name for field in wanted}
    return [field for field in held if field.name not in names]
