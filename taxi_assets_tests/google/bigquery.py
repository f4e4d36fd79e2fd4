"""A double of BigQuery: its REST API on loopback, for the official client by BIGQUERY_EMULATOR_HOST.

    with BigQuery(storage_endpoint=storage.endpoint, project="taxi-project") as bigquery:
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", bigquery.endpoint)
        bigquery.script(Fault(status=503), method="POST", path="/jobs")
        ...
        assert bigquery.rows("trips.yellow") == [...]

It is not BigQuery. It has these documented semantics, and is strict where the service refuses:

- datasets with a location; jobs run only there; what exists already answers 409, what is missing 404;
- tables partitioned by time on a column, clustered; schema patches add nullable columns, relax modes, change
  descriptions, and nothing else; labels are patched one by one; `If-Match` against the etag;
- `table$partition` as destination of loads and queries, in tables.get, tables.delete, tabledata.list; never in
  tables.insert, never in SQL;
- load jobs from gs:// or uploaded (multipart, resumable), Parquet and newline-delimited JSON, read when the job runs,
  columns matched by name, no casts; write and create dispositions, schema update options; all at the end, or nothing;
- query jobs: standard SQL with parameters, destination tables, external Parquet tables, maximumBytesBilled, dry run,
  results page by page; views; DELETE, TRUNCATE and the like; CREATE SCHEMA, CREATE VIEW, DROP TABLE;
- job ids are burnt once used; jobs.get without a location looks in US and EU only; a failed query is an error of
  getQueryResults, too; a job goes on when nobody polls it (`settle`).

Only the real service shows: its words and codes in every corner (those here are from its documentation and from public
reports); which mistakes of a load it already refuses at jobs.insert; its SQL where DuckDB's differs (NUMERIC division
and AVG, string functions, casts, names of columns in another case); what pruning saves (here a query pays for whole
tables); quotas; inherited permissions; time, eventual consistency; whether a load or a query into a partition
changes descriptions; requirePartitionFilter; NUMERIC(p, s) and REPEATED or RECORD columns; wildcards in URIs.

Belongs here: the public class and its faults. Does not belong here: how any of it is done (`bigquery_*`).
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self

from taxi_assets_tests.google.bigquery_api import Api
from taxi_assets_tests.google.bigquery_http import Answer, HttpServer, Request
from taxi_assets_tests.google.bigquery_jobs import Job, JobFault, Jobs, Loads
from taxi_assets_tests.google.bigquery_permissions import Permissions
from taxi_assets_tests.google.bigquery_queries import Pages, Queries
from taxi_assets_tests.google.bigquery_schemas import quoted
from taxi_assets_tests.google.bigquery_sql import Translator
from taxi_assets_tests.google.bigquery_tables import Catalog
from taxi_assets_tests.google.bigquery_values import STATUS_OF_REASON, GoogleError, Resource

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["BigQuery", "Fault", "Job", "JobFault", "Request"]

_REASONS: Final = {429: "rateLimitExceeded", 500: "internalError", 502: "badGateway", 503: "backendError"}


@dataclass(frozen=True)
class Fault:
    """How one request goes wrong; with `before` alone it goes well, after that was called."""

    status: int | None = None
    """Answer with this status, and no effect."""
    reason: str | None = None
    """Google's reason, such as `quotaExceeded`; None: the one that goes with the status."""
    message: str = "The service is currently unavailable."
    headers: Mapping[str, str] = field(default_factory=dict)
    reset: bool = False
    """Close by TCP reset instead of answering."""
    after: bool = False
    """Let the request take effect first: only its answer is lost."""
    before: Callable[[], None] | None = None
    """Called before anything else."""

    @property
    def answer(self) -> Answer | None:
        """What is answered instead; None: nothing else."""
        if self.reset:
            return Answer(reset=True)
        if self.status is None and self.reason is None:
            return None
        status = self.status or STATUS_OF_REASON.get(self.reason or "", 400)
        reason = self.reason or _REASONS.get(status, "backendError")
        return Answer(status, GoogleError(reason, self.message, status).body, self.headers)


class BigQuery:
    """Serves one project on 127.0.0.1 while its `with` block lasts.

    `storage_endpoint`: where gs:// objects are read from, by Cloud Storage's JSON API.
    `polls_until_done`: at which poll jobs end. `rows_per_page`: the longest page of rows.
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
        self._faults: list[tuple[str | None, str, Fault]] = []
        self._catalog = Catalog(project, lambda text: Translator(project).translate(text).sql)
        self._permissions = Permissions(project)
        loads = Loads(self._catalog, storage_endpoint.rstrip("/"), self._permissions)
        queries = Queries(self._catalog, storage_endpoint.rstrip("/"), self._permissions)
        self._jobs = Jobs(project, self._permissions, {"load": loads, "query": queries}, polls_until_done)
        pages = Pages(self._catalog, rows_per_page)
        self._api = Api(project, self._catalog, self._jobs, pages, self._permissions)

    def __enter__(self) -> Self:
        self._server = HttpServer(self._answer)
        self.endpoint = self._server.endpoint
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()
        self._catalog.close()

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs in its environment to talk to this one."""
        return {"BIGQUERY_EMULATOR_HOST": self.endpoint}

    # What a test says to it

    def script(self, *faults: Fault, method: str | None = None, path: str = "") -> None:
        """Let the next requests of the method (None: any) whose path contains `path` go wrong, one fault each."""
        with self._lock:
            self._faults += [(method, path, fault) for fault in faults]

    def script_job(self, *faults: JobFault, kind: str | None = None, destination: str = "") -> None:
        """Let the next jobs of the kind (`load`, `query`; None: any) go wrong, one fault each.

        `destination`: only those that write to a table whose `dataset.table$partition` contains this.
        """
        with self._jobs.lock:
            self._jobs.faults += [(kind, destination, fault) for fault in faults]

    def forbid(self, *permissions: str) -> None:
        """Take permissions away, such as `bigquery.datasets.create`."""
        self._permissions.forbidden.update(permissions)

    def allow(self, *permissions: str) -> None:
        """Give them back."""
        self._permissions.forbidden.difference_update(permissions)

    def settle(self) -> None:
        """Let all jobs end that nobody polls any more."""
        self._jobs.settle()

    # What a test sees from outside

    @property
    def jobs(self) -> list[Job]:
        """Every job, in the order they came."""
        return list(self._jobs.all)

    def sql(self, query: str, parameters: Any = None) -> list[tuple[Any, ...]]:
        """Rows of a query in DuckDB's SQL over `dataset.table`."""
        with self._catalog.lock:
            return self._catalog.duckdb.execute(query, parameters).fetchall()

    def rows(self, name: str) -> list[tuple[Any, ...]]:
        """All rows of `dataset.table`."""
        dataset, _, table = name.partition(".")
        return self.sql(f"SELECT * FROM {quoted(dataset)}.{quoted(table)}")

    def table(self, dataset: str, table: str) -> Resource:
        """The REST resource of a table, or of `table$partition`."""
        return self._catalog.describe(dataset, table)

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
        for number, (method, path, fault) in enumerate(self._faults):
            if method in {None, request.method} and path in request.path:
                del self._faults[number]
                return fault
        return Fault()
