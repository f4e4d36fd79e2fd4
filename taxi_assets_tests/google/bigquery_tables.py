"""The BigQuery double's datasets and tables: their REST resources, and their rows in DuckDB.

It follows the REST reference of datasets.*, tables.* and tabledata.list, and the page "Manage partitioned tables".
`bigquery_writes.py` implements the writes of jobs.
"""

from __future__ import annotations

import copy
import itertools
import re
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import duckdb

from taxi_assets_tests.google.bigquery_limits import UpdateLimit, apply_default_expirations, expired_rows
from taxi_assets_tests.google.bigquery_schemas import (
    check_change,
    check_layout,
    check_partition_id,
    column_definitions,
    normalized_fields,
    partition_expression,
    quoted,
)
from taxi_assets_tests.google.bigquery_values import LOGICAL_BYTES, GoogleError, Resource, type_of_duckdb

if TYPE_CHECKING:
    from collections.abc import Callable

RESULTS = "_results"
"""The hidden dataset that keeps the results of queries."""


@dataclass
class Table:
    """A table or view: its declared properties and its size."""

    dataset: str
    name: str
    resource: Resource
    location: str
    rows: int = 0
    bytes: int = 0
    created: int = 0
    modified: int = 0
    version: int = 0

    @property
    def fields(self) -> list[Resource]:
        """The schema's columns."""
        return list(self.resource.get("schema", {}).get("fields", []))

    @property
    def sql(self) -> str:
        """The quoted name in DuckDB."""
        return f"{quoted(self.dataset)}.{quoted(self.name)}"

    @property
    def partitioning(self) -> Resource | None:
        """The `timePartitioning` of the resource."""
        found: Resource | None = self.resource.get("timePartitioning")
        return found

    def where(self, partition: str | None) -> str:
        """Return a SQL condition for the rows of a partition; None selects all rows."""
        if partition is None or self.partitioning is None:
            return "true"
        return f"{partition_expression(self.partitioning)} = '{partition}'"


@dataclass
class Catalog:
    """All datasets and tables of a project. Every method may be called from any thread."""

    project: str
    translate_view: Callable[[str], str]
    lock: threading.RLock = field(default_factory=threading.RLock)
    datasets: dict[str, Resource] = field(default_factory=dict)
    tables: dict[tuple[str, str], Table] = field(default_factory=dict)
    limit: UpdateLimit = field(default_factory=UpdateLimit)

    def __post_init__(self) -> None:
        self.duckdb = duckdb.connect(":memory:")
        # Results must not depend on the machine's time zone, and DuckDB must not use the network.
        self.duckdb.execute("SET TimeZone = 'UTC'; SET autoinstall_known_extensions = false")
        self.duckdb.execute(f"CREATE SCHEMA {RESULTS}")
        self._numbers = itertools.count(1)

    def close(self) -> None:
        """Discard all data."""
        with self.lock:
            self.duckdb.close()

    def number(self) -> int:
        """Return a number that was not returned before."""
        return next(self._numbers)

    # Datasets

    def insert_dataset(self, body: Resource) -> Resource:
        name = body.get("datasetReference", {}).get("datasetId", "")
        if not re.fullmatch(r"[A-Za-z0-9_]{1,1024}", name):
            raise GoogleError(
                "invalid",
                f'Invalid dataset ID "{name}". Dataset IDs must be alphanumeric (plus underscores)'
                " and must be at most 1024 characters long.",
            )
        with self.lock:
            if name in self.datasets:
                raise GoogleError("duplicate", f"Already Exists: Dataset {self.project}:{name}")
            self.duckdb.execute(f"CREATE SCHEMA {quoted(name)}")
            location = body.get("location") or "US"
            location = location.upper() if location.upper() in {"US", "EU"} else location.lower()
            reference = {"projectId": self.project, "datasetId": name}
            now = str(_now())
            about = {
                "kind": "bigquery#dataset",
                "id": f"{self.project}:{name}",
                "datasetReference": reference,
                "location": location,
                "creationTime": now,
                "lastModifiedTime": now,
            }
            self.datasets[name] = _kept(body) | about | {"etag": self._etag()}
            return copy.deepcopy(self.datasets[name])

    def dataset(self, name: str) -> Resource:
        with self.lock:
            if name not in self.datasets:
                raise GoogleError("notFound", f"Not found: Dataset {self.project}:{name}")
            return copy.deepcopy(self.datasets[name])

    def patch_dataset(self, name: str, body: Resource) -> Resource:
        with self.lock:
            kept = self.dataset(name)
            if body.get("location") not in {None, kept["location"]}:
                raise GoogleError("invalid", "Dataset location cannot be changed.")
            patched = merged(kept, {key: value for key, value in body.items() if key != "datasetReference"})
            self.datasets[name] = patched | {"etag": self._etag(), "lastModifiedTime": str(_now())}
            return copy.deepcopy(self.datasets[name])

    def delete_dataset(self, name: str, *, with_contents: bool) -> None:
        with self.lock:
            self.dataset(name)
            inside = [table for table in self.tables.values() if table.dataset == name]
            if inside and not with_contents:
                raise GoogleError("resourceInUse", f"Dataset {self.project}:{name} is still in use")
            for table in inside:
                del self.tables[name, table.name]
            self.duckdb.execute(f"DROP SCHEMA {quoted(name)} CASCADE")
            del self.datasets[name]

    def location_of(self, dataset: str) -> str:
        """Return the location of a dataset."""
        return str(self.dataset(dataset)["location"])

    # Tables

    def full_name(self, dataset: str, table: str) -> str:
        """Return the name of a table as the service's messages spell it."""
        return f"{self.project}:{dataset}.{table}"

    def find(self, dataset: str, table: str) -> Table | None:
        """Return the table, or None."""
        with self.lock:
            return self.tables.get((dataset, table))

    def get(self, dataset: str, table: str) -> Table:
        """Return the table; raise the service's 404 if there is none."""
        found = self.find(dataset, table)
        if found is None:
            if dataset != RESULTS:
                self.dataset(dataset)
            raise GoogleError("notFound", f"Not found: Table {self.full_name(dataset, table)}")
        return found

    def insert_table(self, dataset: str, body: Resource) -> Resource:
        name = body.get("tableReference", {}).get("tableId", "")
        if not re.fullmatch(r"[\w \-]{1,1024}", name):
            raise GoogleError(
                "invalid",
                f'Invalid table ID "{name}". Table IDs must be alphanumeric (plus underscores) and '
                "must be at most 1024 characters long. Also, Table decorators cannot be used.",
            )
        with self.lock:
            location = self.location_of(dataset)
            self.limit.count_update(dataset, name)
            if (dataset, name) in self.tables:
                raise GoogleError("duplicate", f"Already Exists: Table {self.full_name(dataset, name)}")
            self.add(dataset, name, body, location)
            return self.describe(dataset, name)

    def add(self, dataset: str, name: str, body: Resource, location: str) -> Table:
        """Create a table or view that does not exist yet."""
        resource = _kept(body)
        table = Table(dataset, name, resource, location, created=_now())
        apply_default_expirations(self.datasets[dataset], resource, table.created)
        if "view" in resource:
            self.duckdb.execute(f"CREATE VIEW {table.sql} AS {self.translate_view(resource['view']['query'])}")
            resource["schema"] = {"fields": self.columns_of(table.sql)}
        else:
            fields = normalized_fields(resource.get("schema", {}).get("fields", []))
            check_layout(fields, resource.get("timePartitioning"), resource.get("clustering"))
            if "timePartitioning" in resource:
                resource["timePartitioning"]["type"] = resource["timePartitioning"]["type"].upper()
            if fields:
                resource["schema"] = {"fields": fields}
            # DuckDB does not allow a table without columns.
            self.duckdb.execute(f"CREATE TABLE {table.sql} ({column_definitions(fields) or '_none BOOLEAN'})")
        self.tables[dataset, name] = table
        self.touch(table)
        return table

    def columns_of(self, relation: str) -> list[Resource]:
        """Return the columns of a DuckDB relation as the fields of a schema."""
        found = self.duckdb.execute(f"DESCRIBE {relation}").fetchall()
        return [{"name": row[0], "type": type_of_duckdb(row[1]), "mode": "NULLABLE"} for row in found]

    def describe(self, dataset: str, table_id: str) -> Resource:
        """Return the answer of tables.get for a table or `table$partition`."""
        name, partition = split_partition_decorator(table_id)
        with self.lock:
            table = self.get(dataset, name)
            rows, size = table.rows, table.bytes
            if partition is not None:
                check_partition_id(table.resource, partition)
                rows, size = self.measure(table, partition)
            reference = {"projectId": self.project, "datasetId": dataset, "tableId": table_id}
            about = {
                "kind": "bigquery#table",
                "id": self.full_name(dataset, table_id),
                "tableReference": reference,
                "etag": f"etag-{table.version}",
                "location": table.location,
                "creationTime": str(table.created),
                "lastModifiedTime": str(table.modified),
            }
            kind = (
                {"type": "VIEW"}
                if "view" in table.resource
                else {"type": "TABLE", "numRows": str(rows), "numBytes": str(size), "numLongTermBytes": "0"}
            )
            return copy.deepcopy(table.resource) | about | kind

    def patch_table(self, dataset: str, table_id: str, body: Resource, if_match: str | None) -> Resource:
        with self.lock:
            table = self.get(dataset, table_id)
            if if_match not in {None, "*", f"etag-{table.version}"}:
                raise GoogleError("conditionNotMet", "Precondition check failed.")
            self.limit.count_update(dataset, table_id)
            self._patch_schema(table, body)
            self._patch_layout(table, body)
            rest = {key: value for key, value in body.items() if key not in {"schema", "timePartitioning"}}
            table.resource = _kept(merged(table.resource, rest))
            if "view" in body:
                self.duckdb.execute(
                    f"CREATE OR REPLACE VIEW {table.sql} AS {self.translate_view(table.resource['view']['query'])}"
                )
            self.touch(table)
            return self.describe(dataset, table_id)

    def _patch_schema(self, table: Table, body: Resource) -> None:
        if "schema" not in body or "view" in table.resource:
            return
        fields = normalized_fields(body["schema"].get("fields", []))
        allowed = {"ALLOW_FIELD_ADDITION", "ALLOW_FIELD_RELAXATION"}
        check_change(self.full_name(table.dataset, table.name), table.fields, fields, allowed)
        self.set_fields(table, fields)

    def _patch_layout(self, table: Table, body: Resource) -> None:
        if "timePartitioning" in body:
            old, new = table.partitioning or {}, body["timePartitioning"] or {}
            if any(old.get(key) != new.get(key) for key in ("type", "field")):
                raise GoogleError(
                    "invalid", "Cannot change partitioning/clustering spec for a partitioned/clustered table."
                )
            table.resource["timePartitioning"] = merged(old, new)
        check_layout(table.fields, None, body.get("clustering"))

    def set_fields(self, table: Table, fields: list[Resource]) -> None:
        """Set the schema of a table; `check_change` has made sure that it only adds columns."""
        known = {old["name"].lower() for old in table.fields}
        added = [new for new in fields if new["name"].lower() not in known]
        for new in added:
            self.duckdb.execute(f"ALTER TABLE {table.sql} ADD COLUMN {column_definitions([new])}")
        if not known and added:
            self.duckdb.execute(f"ALTER TABLE {table.sql} DROP COLUMN _none")
        table.resource["schema"] = {"fields": fields}

    def delete_table(self, dataset: str, table_id: str) -> None:
        """Delete a table; for `table$partition`, delete the rows of the partition and keep the table."""
        name, partition = split_partition_decorator(table_id)
        with self.lock:
            table = self.get(dataset, name)
            if partition is not None:
                check_partition_id(table.resource, partition)
                self.limit.count_update(dataset, name)
                self.duckdb.execute(f"DELETE FROM {table.sql} WHERE {table.where(partition)}")
                self.touch(table)
                return
            self.duckdb.execute(f"DROP {'VIEW' if 'view' in table.resource else 'TABLE'} {table.sql}")
            del self.tables[dataset, name]

    def list_tables(self, dataset: str) -> list[Resource]:
        """Return the entries of tables.list, which have fewer keys than tables.get."""
        with self.lock:
            self.dataset(dataset)
            names = sorted(name for owner, name in self.tables if owner == dataset)
            keys = ("id", "tableReference", "type", "timePartitioning", "clustering", "labels", "creationTime")
            found = [self.describe(dataset, name) for name in names]
            return [{"kind": "bigquery#table"} | {key: one[key] for key in keys if key in one} for one in found]

    # Rows

    def measure(self, table: Table, partition: str | None = None) -> tuple[int, int]:
        """Return the number of rows and of logical bytes of a table or a partition."""
        if "view" in table.resource:
            return 0, 0
        sizes = ["0"]
        for column in table.fields:
            name = quoted(column["name"])
            fixed = LOGICAL_BYTES.get(column["type"], 8)
            text = column["type"] in {"STRING", "BYTES"}
            sizes.append(
                f"coalesce(sum(2 + octet_length(encode({name}::VARCHAR))), 0)" if text else f"{fixed} * count({name})"
            )
        where = table.where(partition)
        found = self.duckdb.execute(f"SELECT count(*), {' + '.join(sizes)} FROM {table.sql} WHERE {where}").fetchone()
        return (int(found[0]), int(found[1])) if found else (0, 0)

    def touch(self, table: Table) -> None:
        """Update the etag, the modification time and the size after a change; delete expired partitions."""
        expired = expired_rows(table.partitioning)
        if expired is not None:
            self.duckdb.execute(f"DELETE FROM {table.sql} WHERE {expired}")
        table.rows, table.bytes = self.measure(table)
        table.modified = _now()
        table.version = self.number()

    def page(self, table: Table, partition: str | None, fields: list[Resource], start: int, count: int) -> list[Any]:
        """Return rows of a table as tuples, in the order of their insertion."""
        columns = ", ".join(quoted(one["name"]) for one in fields)
        where = table.where(partition)
        return self.duckdb.execute(
            f"SELECT {columns} FROM {table.sql} WHERE {where} LIMIT {count} OFFSET {start}"
        ).fetchall()

    def _etag(self) -> str:
        return f"etag-{self.number()}"


def split_partition_decorator(table_id: str) -> tuple[str, str | None]:
    """Split `table$partition` into its two parts; the second is None without a decorator."""
    name, dollar, partition = table_id.partition("$")
    return name, (partition if dollar else None)


def merged(resource: Resource, patch: Resource) -> Resource:
    """Return a resource with a patch applied: null removes a key, labels are patched one by one, others replaced."""
    result = dict(resource)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif key == "labels":
            result[key] = merged(resource.get("labels", {}), value)
        else:
            result[key] = copy.deepcopy(value)
    return result


def _kept(body: Resource) -> Resource:
    """Return the part of a request's body that a resource keeps: no nulls, and no keys that the service sets."""
    set_by_service = {
        "kind",
        "id",
        "etag",
        "selfLink",
        "numRows",
        "numBytes",
        "type",
        "creationTime",
        "lastModifiedTime",
        "location",
        "numLongTermBytes",
    }
    return {key: copy.deepcopy(value) for key, value in body.items() if key not in set_by_service and value is not None}


def _now() -> int:
    return time.time_ns() // 1_000_000
