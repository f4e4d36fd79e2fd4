"""A test double of BigQuery: its REST API v2 on loopback. BIGQUERY_EMULATOR_HOST points the official client to it.

    with BigQuery(storage_endpoint=storage.endpoint, project="taxi-project") as bigquery:
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", bigquery.endpoint)
        bigquery.script(Fault(status=503), method="POST", path="/jobs")
        ...
        assert bigquery.rows("trips.yellow") == [...]

It follows Google's BigQuery documentation: the REST API v2 reference (datasets, tables, tabledata, jobs), and the pages
"Error messages", "Loading Parquet data from Cloud Storage", "Manage partitioned tables", "Modify table schemas" and
"Managing jobs". It is strict where the service rejects a request. It implements:

- Datasets with a location, in which their jobs must run. What exists already is answered with 409, what is missing
  with 404.
- Tables partitioned by a time column, and clustered. A patch of the schema may add nullable columns, relax modes and
  change descriptions, nothing else. Labels are patched one by one. `If-Match` is compared with the etag.
- `table$partition` as the destination of loads and queries, in tables.get, tables.delete and tabledata.list; but not
  in tables.insert or in SQL.
- Load jobs and external queries of gs:// objects, which need storage.buckets.get, and a bucket in a location that is
  compatible with that of the job.
- Load jobs from gs:// or uploaded (multipart, resumable), of Parquet and newline-delimited JSON. They read the file
  when they run, match columns by name, and cast nothing. Write and create dispositions, schema update options. A job
  writes everything at its end, or nothing.
- Query jobs: GoogleSQL with parameters, destination tables, external Parquet tables, maximumBytesBilled, dry runs,
  paged results; views; DELETE, TRUNCATE and similar statements; CREATE SCHEMA, CREATE VIEW, DROP TABLE.
- Default expirations of a dataset, and the deletion of expired partitions (not of expired tables). On demand, a rate
  limit for updates of a table.
- Job ids that can be used once. jobs.get without a location searches US and EU only. A failed query is also an error
  of getQueryResults. A job that no client polls still ends (`settle`).

Only the real service can show:

- its messages and codes in every case (those here come from the documentation and from public reports);
- which errors of a load jobs.insert already rejects;
- its SQL where DuckDB's differs: division and AVG of NUMERIC, string functions, casts, column names in another case;
- what partition pruning saves (here a query is billed for whole tables), quotas, inherited permissions, latency and
  eventual consistency;
- whether a load or a query into a partition changes descriptions;
- requirePartitionFilter, NUMERIC(p, s), REPEATED and RECORD columns, wildcards in URIs.

This module has the public class and its faults; the modules `bigquery_*` implement them.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self

from taxi_assets_tests.google.bigquery_api import Api
from taxi_assets_tests.google.bigquery_http import Answer, HttpServer, Request
from taxi_assets_tests.google.bigquery_jobs import Job, JobFault, Jobs, Loads
from taxi_assets_tests.google.bigquery_limits import UpdateLimit
from taxi_assets_tests.google.bigquery_permissions import Permissions
from taxi_assets_tests.google.bigquery_queries import Pages, Queries
from taxi_assets_tests.google.bigquery_schemas import quoted
from taxi_assets_tests.google.bigquery_sql import Translator
from taxi_assets_tests.google.bigquery_tables import Catalog
from taxi_assets_tests.google.bigquery_values import STATUS_OF_REASON, GoogleError, Resource

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["BigQuery", "Fault", "Job", "JobFault", "Request"]

_REASONS: Final = {
    404: "notFound",
    409: "duplicate",
    429: "rateLimitExceeded",
    500: "internalError",
    502: "badGateway",
    503: "backendError",
}


@dataclass(frozen=True)
class Fault:
    """How one request fails. `Fault()` lets it succeed; with only `before`, it succeeds after that has been called."""

    status: int | None = None
    """Answer with this status. The request has no effect."""
    reason: str | None = None
    """Google's reason, such as `quotaExceeded`. None selects the usual one for the status."""
    message: str = "The service is currently unavailable."
    headers: Mapping[str, str] = field(default_factory=dict)
    reset: bool = False
    """Close the connection by TCP reset instead of answering."""
    hang: bool = False
    """Never answer."""
    after: bool = False
    """Let the request take effect first, so that only its answer is lost."""
    before: Callable[[], None] | None = None
    """Called before the request is handled."""

    @property
    def answer(self) -> Answer | None:
        """The answer instead of the real one; None keeps the real one."""
        if self.reset or self.hang:
            return Answer(reset=self.reset, hang=self.hang)
        if self.status is None and self.reason is None:
            return None
        if self.status == 504 and self.reason is None:
            return Answer(504, headers=self.headers)  # from Google's front end, which gives no reason
        status = self.status or STATUS_OF_REASON.get(self.reason or "", 400)
        reason = self.reason or _REASONS.get(status, "backendError")
        return Answer(status, GoogleError(reason, self.message, status).body, self.headers)


class BigQuery:
    """The test double: serves one project on 127.0.0.1 during its `with` block.

    Args:
        storage_endpoint: The endpoint of Cloud Storage's JSON API from which gs:// objects are read.
        project: The id of the project.
        polls_until_done: The number of the poll at which a job ends.
        rows_per_page: The maximum number of rows in a page.
    """

    def __init__(
        self,
        *,
        storage_endpoint: str = "",
        project: str = "taxi-project",
        polls_until_done: int = 1,
        rows_per_page: int = 10_000,
    ) -> None:
        self.project = project
        self.requests: list[Request] = []
        self._lock = threading.Lock()
        self._faults: list[tuple[str | None, str, str, Fault]] = []
        self.catalog = Catalog(project, lambda text: Translator(project).translate(text).sql)
        self.permissions = Permissions(project)
        loads = Loads(self.catalog, storage_endpoint.rstrip("/"), self.permissions)
        queries = Queries(self.catalog, storage_endpoint.rstrip("/"), self.permissions)
        self._jobs = Jobs(project, self.permissions, {"load": loads, "query": queries}, polls_until_done)
        pages = Pages(self.catalog, rows_per_page)
        self._api = Api(project, self.catalog, self._jobs, pages, self.permissions)

    def __enter__(self) -> Self:
        self._server = HttpServer(self._answer)
        self.endpoint = self._server.endpoint
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()
        self.catalog.close()

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables with which a process uses this double."""
        return {"BIGQUERY_EMULATOR_HOST": self.endpoint}

    # Control

    def script(self, *faults: Fault, method: str | None = None, path: str = "", body: str = "") -> None:
        """Apply the faults to the next requests, one each.

        Args:
            faults: In order of the requests.
            method: Only requests of this method count.
            path: Only requests whose decoded path contains this text count.
            body: Only requests whose body contains this text count.
        """
        with self._lock:
            self._faults += [(method, path, body, fault) for fault in faults]

    def unscript(self) -> None:
        """Discard the faults that are left."""
        with self._lock:
            self._faults.clear()

    def script_job(self, *faults: JobFault, kind: str | None = None, destination: str = "") -> None:
        """Apply the faults to the next jobs, one each.

        Args:
            faults: In order of the jobs.
            kind: Only jobs of this kind count: `load` or `query`.
            destination: Only jobs whose destination `dataset.table$partition` contains this text count.
        """
        with self._jobs.lock:
            self._jobs.faults += [(kind, destination, fault) for fault in faults]

    def limit_updates(self, count: int, clock: Callable[[], float]) -> None:
        """Allow this number of updates of a table in 10 seconds of the clock; jobs that write a table are updates."""
        self.catalog.limit = UpdateLimit(count, clock=clock)

    def forbid(self, *permissions: str) -> None:
        """Revoke permissions, such as `bigquery.datasets.create`."""
        self.permissions.forbidden.update(permissions)

    def allow(self, *permissions: str) -> None:
        """Grant permissions again."""
        self.permissions.forbidden.difference_update(permissions)

    @property
    def demanded(self) -> set[str]:
        """The permissions of BigQuery that requests and jobs have needed so far."""
        return self.permissions.demanded

    def settle(self) -> None:
        """Run all jobs that no client polls any more."""
        self._jobs.settle()

    # Inspection

    @property
    def jobs(self) -> list[Job]:
        """All jobs, in the order of their insertion."""
        return list(self._jobs.all)

    def sql(self, query: str, parameters: Any = None) -> list[tuple[Any, ...]]:
        """Return the rows of a query in DuckDB's SQL, in which tables are named `dataset.table`."""
        with self.catalog.lock:
            return self.catalog.duckdb.execute(query, parameters).fetchall()

    def rows(self, name: str) -> list[tuple[Any, ...]]:
        """Return all rows of `dataset.table`."""
        dataset, _, table = name.partition(".")
        return self.sql(f"SELECT * FROM {quoted(dataset)}.{quoted(table)}")

    def table(self, dataset: str, table: str) -> Resource:
        """Return the REST resource of a table, or of `table$partition`."""
        return self.catalog.describe(dataset, table)

    # Requests

    def _answer(self, request: Request) -> Answer:
        with self._lock:
            self.requests.append(request)
            fault = self._next_fault(request)
        if fault.before is not None:
            fault.before()
        instead = fault.answer
        if instead is not None and not fault.after:
            return instead
        try:
            answer = self._api.dispatch(request)
        except GoogleError as error:
            answer = Answer(error.status, error.body)
        return instead or answer

    def _next_fault(self, request: Request) -> Fault:
        for number, (method, path, body, fault) in enumerate(self._faults):
            if method in {None, request.method} and path in request.path and body.encode() in request.body_bytes:
                del self._faults[number]
                return fault
        return Fault()
