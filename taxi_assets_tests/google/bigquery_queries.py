"""The BigQuery double's query jobs, and the pages of their results.

It implements SELECT, some DML and DDL, external tables and billed bytes. It follows the REST reference of
`JobConfigurationQuery` and jobs.getQueryResults, and the page "Estimate and control costs". `bigquery_sql.py`
translates the SQL dialect.
"""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import duckdb
import sqlglot
from sqlglot import exp

from taxi_assets_tests.google.bigquery_files import SourceFile, download, parquet_fields, parquet_query
from taxi_assets_tests.google.bigquery_schemas import normalized_fields, quoted
from taxi_assets_tests.google.bigquery_sql import Statement, Translator, check_date_literals, parameters_of
from taxi_assets_tests.google.bigquery_tables import RESULTS, Catalog, Table
from taxi_assets_tests.google.bigquery_values import GoogleError, Resource, to_json_value
from taxi_assets_tests.google.bigquery_writes import Write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from taxi_assets_tests.google.bigquery_jobs import Job
    from taxi_assets_tests.google.bigquery_permissions import Permissions

_MEBIBYTE: Final = 1 << 20
_CHANGES: Final = (exp.Insert, exp.Update, exp.Delete, exp.Merge, exp.TruncateTable)


@dataclass
class Queries:
    """Runs query jobs."""

    catalog: Catalog
    storage_endpoint: str
    permissions: Permissions

    def location(self, settings: Resource, given: str | None) -> str:
        """Return the requested location, or else that of the data. An invalid query is accepted and fails later."""
        if given:
            return given
        datasets = [settings.get("destinationTable", {}).get("datasetId")]
        with contextlib.suppress(GoogleError):
            datasets += [dataset for dataset, _ in self._translate(settings).tables]
        found = [self.catalog.datasets[name]["location"] for name in datasets if name in self.catalog.datasets]
        return str(found[0]) if found else "US"

    def run(self, job: Job, before_commit: Callable[[], None] | None) -> None:
        settings = job.settings
        if settings.get("useLegacySql"):
            raise GoogleError("notImplemented", "This double has no legacy SQL.")
        statement = self._translate(settings)
        self._check_tables(statement, job.location)
        external = settings.get("tableDefinitions", {})
        with tempfile.TemporaryDirectory() as folder:
            files = {
                name: self._download(external[name], Path(folder, name), job.location)
                for name in sorted(statement.local)
            }
            with self.catalog.lock:
                self._account(job, statement, files)
                if not job.configuration.get("dryRun"):
                    self._execute(job, statement, files, before_commit)

    def _translate(self, settings: Resource) -> Statement:
        default = settings.get("defaultDataset", {}).get("datasetId")
        names = set(settings.get("tableDefinitions", {}))
        return Translator(self.catalog.project, default, names).translate(settings["query"])

    def _check_tables(self, statement: Statement, location: str) -> None:
        is_ddl = isinstance(statement.tree, exp.Create | exp.Drop)
        dates: set[str] = set()
        for dataset, table in statement.tables:
            actual = self.catalog.datasets.get(dataset, {}).get("location", "")
            if actual.lower() != location.lower():
                name = f"{self.catalog.project}:{dataset}"
                raise GoogleError("notFound", f"Not found: Dataset {name} was not found in location {location}")
            full_name = self.catalog.full_name(dataset, table)
            found = self.catalog.find(dataset, table)
            if found is None and not is_ddl:
                raise GoogleError("notFound", f"Not found: Table {full_name} was not found in location {location}")
            self.permissions.demand("bigquery.tables.getData", f"Table {full_name}")
            dates |= {field["name"].lower() for field in (found.fields if found else ()) if field["type"] == "DATE"}
        check_date_literals(statement.tree, dates)

    def _download(self, definition: Resource, folder: Path, location: str) -> list[SourceFile]:
        if definition.get("sourceFormat") != "PARQUET":
            raise GoogleError("notImplemented", f"This double reads no external {definition.get('sourceFormat')}.")
        folder.mkdir()
        return download(self.storage_endpoint, definition["sourceUris"], folder, location)

    def _account(self, job: Job, statement: Statement, files: dict[str, list[SourceFile]]) -> None:
        """Compute processed and billed bytes, of all columns of every table, rounded up as BigQuery bills them."""
        tables = {name: self.catalog.find(*name) for name in statement.tables}
        sizes = [table.bytes for table in tables.values() if table is not None]
        sizes += [sum(file.size for file in found) for found in files.values()]
        billed = sum(max(10 * _MEBIBYTE, -(-size // _MEBIBYTE) * _MEBIBYTE) for size in sizes)
        limit = job.settings.get("maximumBytesBilled")
        if limit is not None and billed > int(limit):
            raise GoogleError(
                "bytesBilledLimitExceeded",
                f"Query exceeded limit for bytes billed: {limit}. {billed} or higher required.",
            )
        kind = "SELECT" if isinstance(statement.tree, exp.Query) else type(statement.tree).__name__.upper()
        job.statistics["totalBytesProcessed"] = str(sum(sizes))
        job.statistics["query"] = {
            "totalBytesProcessed": str(sum(sizes)),
            "totalBytesBilled": "0" if job.configuration.get("dryRun") else str(billed),
            "cacheHit": False,
            "statementType": kind,
        }

    def _execute(
        self,
        job: Job,
        statement: Statement,
        files: dict[str, list[SourceFile]],
        before_commit: Callable[[], None] | None,
    ) -> None:
        tree = statement.tree
        if isinstance(tree, exp.Query):
            self._select(job, statement, files, before_commit)
        elif isinstance(tree, _CHANGES):
            self._change(job, statement, before_commit)
        elif isinstance(tree, exp.Create | exp.Drop):
            self._define(job, statement)
        else:
            raise GoogleError("notImplemented", f"This double runs no {type(tree).__name__} statements.")

    def _select(
        self,
        job: Job,
        statement: Statement,
        files: dict[str, list[SourceFile]],
        before_commit: Callable[[], None] | None,
    ) -> None:
        connection = self.catalog.duckdb
        parameters = parameters_of(job.settings, statement.parameters)
        result = Table(RESULTS, f"anon{self.catalog.number()}", {}, job.location)
        try:
            for name, found in files.items():
                declared = normalized_fields(job.settings["tableDefinitions"][name].get("schema", {}).get("fields", []))
                query = parquet_query(found, declared or parquet_fields(found[0]), ignore_unknown=True)
                connection.execute(f"CREATE TEMP VIEW {quoted(name)} AS {query}")
            connection.execute(f"CREATE TABLE {result.sql} AS {statement.sql}", parameters)
        except duckdb.Error as error:
            raise GoogleError("invalidQuery", _readable(error)) from error
        finally:
            for name in files:
                connection.execute(f"DROP VIEW IF EXISTS {quoted(name)}")
        fields = self.catalog.columns_of(result.sql)
        result.resource = {"schema": {"fields": fields}}
        self.catalog.touch(result)
        if "destinationTable" in job.settings:
            write = Write(self.catalog, result.sql, fields, job.settings, "WRITE_EMPTY", False, before_commit)
            write.run()
        else:
            self.catalog.tables[RESULTS, result.name] = result
            reference = {"projectId": self.catalog.project, "datasetId": RESULTS, "tableId": result.name}
            job.settings["destinationTable"] = reference
        job.result = result

    def _change(self, job: Job, statement: Statement, before_commit: Callable[[], None] | None) -> None:
        dataset, name = statement.tables[0]
        self.permissions.demand("bigquery.tables.updateData", f"Table {self.catalog.full_name(dataset, name)}")
        connection = self.catalog.duckdb
        connection.execute("BEGIN")
        try:
            changed = connection.execute(statement.sql, parameters_of(job.settings, statement.parameters)).fetchone()
            if before_commit is not None:
                before_commit()
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        self.catalog.touch(self.catalog.get(dataset, name))
        if changed is not None and not isinstance(statement.tree, exp.TruncateTable):
            job.statistics["query"]["numDmlAffectedRows"] = str(changed[0])

    def _define(self, job: Job, statement: Statement) -> None:
        tree = statement.tree
        kind = tree.args["kind"]
        if isinstance(tree, exp.Create) and kind == "SCHEMA":
            self._create_schema(tree, job.location)
        elif isinstance(tree, exp.Create) and kind == "VIEW":
            self._create_view(tree, job.settings["query"])
        elif isinstance(tree, exp.Drop) and kind in {"TABLE", "VIEW"}:
            dataset, name = statement.tables[0]
            if self.catalog.find(dataset, name) is not None or not tree.args.get("exists"):
                self.catalog.delete_table(dataset, name)
        else:
            raise GoogleError("notImplemented", f"This double runs no {type(tree).__name__} {kind}.")

    def _create_schema(self, tree: exp.Create, location: str) -> None:
        name = tree.this.db or tree.this.name
        if name not in self.catalog.datasets or not tree.args.get("exists"):
            self.permissions.demand("bigquery.datasets.create")
            self.catalog.insert_dataset({"datasetReference": {"datasetId": name}, "location": location})

    def _create_view(self, tree: exp.Create, text: str) -> None:
        source: Any = sqlglot.parse_one(text, read="bigquery")
        query = source.expression.sql(dialect="bigquery")
        dataset, name = tree.this.db, tree.this.name
        body = {"tableReference": {"tableId": name}, "view": {"query": query, "useLegacySql": False}}
        exists = self.catalog.find(dataset, name) is not None
        if exists and tree.args.get("exists"):
            return
        if exists and tree.args.get("replace"):
            self.catalog.patch_table(dataset, name, {"view": body["view"]}, None)
        else:
            self.catalog.insert_table(dataset, body)


def _readable(error: duckdb.Error) -> str:
    """Return DuckDB's message for an invalid query; the most common one as BigQuery words it."""
    text = str(error).splitlines()[0]
    _, found, rest = text.partition('Referenced column "')
    return f"Unrecognized name: {rest.partition(chr(34))[0]}" if found else text


def rows_in_json(
    rows: Iterable[Sequence[Any]], fields: Sequence[Resource], *, int64_timestamps: bool
) -> list[Resource]:
    """Return rows in the form `{"f": [{"v": …}, …]}`."""
    kinds = [field["type"] for field in fields]
    return [
        {
            "f": [
                {"v": to_json_value(value, kind, int64_timestamps=int64_timestamps)}
                for value, kind in zip(row, kinds, strict=True)
            ]
        }
        for row in rows
    ]


@dataclass(frozen=True)
class Pages:
    """Reads pages of rows for tabledata.list and getQueryResults."""

    catalog: Catalog
    rows_per_page: int

    def read(self, table: Table, partition: str | None, query: dict[str, str]) -> Resource:
        """Return `rows`, `totalRows` and `pageToken` of the requested page."""
        with self.catalog.lock:
            total = table.rows if partition is None else self.catalog.measure(table, partition)[0]
            start = int(query.get("pageToken") or query.get("startIndex") or 0)
            count = min(int(query.get("maxResults", self.rows_per_page)), self.rows_per_page)
            fields = selected(table.fields, query.get("selectedFields"))
            rows = self.catalog.page(table, partition, fields, start, count)
        int64 = query.get("formatOptions.useInt64Timestamp", "").lower() == "true"
        page: Resource = {"totalRows": str(total)}
        if rows:
            page["rows"] = rows_in_json(rows, fields, int64_timestamps=int64)
        if start + len(rows) < total and count:
            page["pageToken"] = str(start + len(rows))
        return page


def selected(fields: list[Resource], names: str | None) -> list[Resource]:
    """Return the fields named in `selectedFields`, in the order of the schema."""
    wanted = {name.lower() for name in names.split(",")} if names else {field["name"].lower() for field in fields}
    return [field for field in fields if field["name"].lower() in wanted]
