"""The BigQuery double's writes: all rows of a job get into its destination at the end, or none.

Dispositions, partition decorators and schema updates follow the REST reference of `JobConfigurationLoad` and
`JobConfigurationQuery`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from taxi_assets_tests.google.bigquery_schemas import (
    check_change,
    check_layout,
    check_partition_id,
    check_same_layout,
    column_definitions,
    normalized_fields,
    partition_expression,
    quoted,
)
from taxi_assets_tests.google.bigquery_tables import Catalog, Table, split_partition_decorator
from taxi_assets_tests.google.bigquery_values import GoogleError, Resource

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Write:
    """A write of rows into the destination of a job."""

    catalog: Catalog
    relation: str
    """The DuckDB relation that has the rows."""
    fields: list[Resource]
    """The columns of the rows."""
    settings: Resource
    """The job's load or query configuration."""
    default_disposition: str
    modes_matter: bool = True
    """Whether the modes of `fields` must be those of the table: so for loads, not for queries."""
    before_commit: Callable[[], None] | None = None

    def run(self) -> int:
        """Write the rows and return their number. On an error nothing has changed."""
        destination = self.settings["destinationTable"]
        name, partition = split_partition_decorator(destination["tableId"])
        with self.catalog.lock:
            existing = self.catalog.find(destination["datasetId"], name)
            if existing is not None:
                self.catalog.limit.count_update(existing.dataset, name)
            table = existing or self._create(destination["datasetId"], name, partition)
            try:
                return self._write(table, partition)
            except BaseException:
                if existing is None:
                    self.catalog.delete_table(table.dataset, name)
                raise

    def _create(self, dataset: str, name: str, partition: str | None) -> Table:
        full_name = self.catalog.full_name(dataset, name)
        if self.settings.get("createDisposition") == "CREATE_NEVER":
            raise GoogleError("notFound", f"Not found: Table {full_name}")
        if partition is not None and "timePartitioning" not in self.settings:
            raise GoogleError(
                "invalid", "Partitioning specification must be provided in order to create partitioned table"
            )
        declared = {key: self.settings[key] for key in ("timePartitioning", "clustering") if key in self.settings}
        properties = self.settings.get("destinationTableProperties", {})
        body = {"schema": {"fields": self.fields}} | declared | properties
        body["tableReference"] = {"tableId": name}
        self.catalog.insert_table(dataset, body)
        return self.catalog.get(dataset, name)

    def _write(self, table: Table, partition: str | None) -> int:
        disposition = self.settings.get("writeDisposition") or self.default_disposition
        check_same_layout(table.resource, self.settings.get("timePartitioning"), self.settings.get("clustering"))
        if partition is not None:
            check_partition_id(table.resource, partition)
        replaces_schema = disposition == "WRITE_TRUNCATE" and partition is None
        fields = self.fields if replaces_schema else self._updated_fields(table)
        self._check_rows(table, partition, fields)
        if disposition == "WRITE_EMPTY" and self.catalog.measure(table, partition)[0]:
            full_name = self.catalog.full_name(table.dataset, self.settings["destinationTable"]["tableId"])
            raise GoogleError("duplicate", f"Already Exists: Table {full_name}")
        return self._replace(table, fields, replaces_schema, disposition, partition)

    def _updated_fields(self, table: Table) -> list[Resource]:
        """Return the schema that the table has afterwards."""
        old = {field["name"].lower(): field for field in table.fields}
        given = normalized_fields(self.fields)
        if not self.modes_matter:
            for field in given:
                field["mode"] = old.get(field["name"].lower(), field)["mode"]
        full_name = self.catalog.full_name(table.dataset, table.name)
        check_change(full_name, table.fields, given, self.settings.get("schemaUpdateOptions", ()))
        new = {field["name"].lower(): field for field in given}
        relaxed = [field | {"mode": new[name]["mode"]} for name, field in old.items()]
        return relaxed + [field for name, field in new.items() if name not in old]

    def _check_rows(self, table: Table, partition: str | None, fields: list[Resource]) -> None:
        present = {field["name"].lower() for field in self.fields}
        for field in fields:
            name = field["name"]
            if field["mode"] == "REQUIRED" and name.lower() in present and self._count(f"{quoted(name)} IS NULL"):
                raise GoogleError(
                    "invalid",
                    "Error while reading data, error message: Required column value for column "
                    f"index: {fields.index(field)} is missing: {name}",
                )
        if partition is not None and table.partitioning is not None:
            expression = partition_expression(table.partitioning)
            if self._count(f"{expression} <> '{partition}'"):
                raise GoogleError(
                    "invalid", f"Some rows belong to different partitions rather than destination partition {partition}"
                )

    def _count(self, condition: str) -> int:
        query = f"SELECT count(*) FROM {self.relation} WHERE {condition}"
        found = self.catalog.duckdb.execute(query).fetchone()
        return int(found[0]) if found else 0

    def _replace(
        self, table: Table, fields: list[Resource], replaces_schema: bool, disposition: str, partition: str | None
    ) -> int:
        connection, resource = self.catalog.duckdb, dict(table.resource)
        connection.execute("BEGIN")
        try:
            if replaces_schema:
                self._recreate(table, fields)
            else:
                self.catalog.set_fields(table, fields)
                if disposition == "WRITE_TRUNCATE":
                    connection.execute(f"DELETE FROM {table.sql} WHERE {table.where(partition)}")
            connection.execute(f"INSERT INTO {table.sql} BY NAME SELECT * FROM {self.relation}")
            if self.before_commit is not None:
                self.before_commit()
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            table.resource = resource
            raise
        self.catalog.touch(table)
        return self._count("true")

    def _recreate(self, table: Table, fields: list[Resource]) -> None:
        check_layout(fields, table.partitioning, table.resource.get("clustering"))
        self.catalog.duckdb.execute(f"CREATE OR REPLACE TABLE {table.sql} ({column_definitions(fields)})")
        table.resource = table.resource | {"schema": {"fields": fields}}
