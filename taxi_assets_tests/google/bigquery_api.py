"""The BigQuery double's REST methods: routes, the permissions that they require, and the form of answers.

It follows the reference of BigQuery's REST API v2, and for permissions the page "BigQuery IAM roles and permissions".
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from taxi_assets_tests.google.bigquery_http import Answer, Request, Upload, split_multipart
from taxi_assets_tests.google.bigquery_tables import Catalog, split_partition_decorator
from taxi_assets_tests.google.bigquery_values import GoogleError, Resource

if TYPE_CHECKING:
    from collections.abc import Callable

    from taxi_assets_tests.google.bigquery_jobs import Job, Jobs
    from taxi_assets_tests.google.bigquery_permissions import Permissions
    from taxi_assets_tests.google.bigquery_queries import Pages

_UPLOADS: Final = "/upload/bigquery/v2/projects/{project}/jobs"


@dataclass
class Api:
    """The REST API of one project."""

    project: str
    catalog: Catalog
    jobs: Jobs
    pages: Pages
    permissions: Permissions
    _uploads: dict[str, Upload] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def dispatch(self, request: Request) -> Answer:
        """Handle a request."""
        if request.path == _UPLOADS.format(project=self.project):
            return self._upload(request)
        _, found, path = request.path.partition(f"/bigquery/v2/projects/{self.project}/")
        for method, pattern, handle in _ROUTES:
            match = re.fullmatch(pattern, path) if found and method == request.method else None
            if match is not None:
                body = handle(self, request, *match.groups())
                return Answer(204) if body is None else Answer(200, body)
        raise GoogleError("notFound", f"Not found: {request.method} {request.path} (this double has no such method)")

    def _upload(self, request: Request) -> Answer:
        if request.query.get("uploadType") == "multipart":
            media = split_multipart(request.body_bytes, request.headers.get("Content-Type", ""))[1]
            return Answer(200, self.jobs.describe(self.jobs.insert(request.body, media)))
        with self._lock:
            if request.method == "POST":
                token = str(self.catalog.number())
                self._uploads[token] = Upload.begin(request)
                where = f"http://{request.headers['Host']}{request.path}?uploadType=resumable&upload_id={token}"
                return Answer(200, None, {"Location": where})
            upload = self._uploads.get(request.query.get("upload_id", ""))
            if upload is None:
                raise GoogleError("notFound", "Upload session not found.", 404)
            if not upload.add(request):
                return upload.incomplete
        job = self.jobs.insert(upload.metadata, bytes(upload.content))
        return Answer(200, self.jobs.describe(job))

    # Datasets

    def insert_dataset(self, request: Request) -> Resource:
        self.permissions.demand("bigquery.datasets.create")
        return self.catalog.insert_dataset(request.body)

    def list_datasets(self, request: Request) -> Resource:  # noqa: ARG002  (a route)
        keys = ("kind", "id", "datasetReference", "labels", "location")
        found = [{key: one[key] for key in keys if key in one} for one in self.catalog.datasets.values()]
        return {"kind": "bigquery#datasetList", "datasets": found}

    def get_dataset(self, request: Request, dataset: str) -> Resource:  # noqa: ARG002  (a route)
        self.permissions.demand("bigquery.datasets.get", f"Dataset {self.project}:{dataset}")
        return self.catalog.dataset(dataset)

    def patch_dataset(self, request: Request, dataset: str) -> Resource:
        self.permissions.demand("bigquery.datasets.update", f"Dataset {self.project}:{dataset}")
        return self.catalog.patch_dataset(dataset, request.body)

    def delete_dataset(self, request: Request, dataset: str) -> None:
        self.permissions.demand("bigquery.datasets.delete", f"Dataset {self.project}:{dataset}")
        self.catalog.delete_dataset(dataset, with_contents=request.query.get("deleteContents", "").lower() == "true")

    # Tables

    def insert_table(self, request: Request, dataset: str) -> Resource:
        self.permissions.demand("bigquery.tables.create", f"Dataset {self.project}:{dataset}")
        return self.catalog.insert_table(dataset, request.body)

    def list_tables(self, request: Request, dataset: str) -> Resource:  # noqa: ARG002  (a route)
        self.permissions.demand("bigquery.tables.list", f"Dataset {self.project}:{dataset}")
        found = self.catalog.list_tables(dataset)
        return {"kind": "bigquery#tableList", "tables": found, "totalItems": len(found)}

    def get_table(self, request: Request, dataset: str, table: str) -> Resource:  # noqa: ARG002  (a route)
        self._demand_on_table("bigquery.tables.get", dataset, table)
        return self.catalog.describe(dataset, table)

    def patch_table(self, request: Request, dataset: str, table: str) -> Resource:
        self._demand_on_table("bigquery.tables.update", dataset, table)
        return self.catalog.patch_table(dataset, table, request.body, request.headers.get("If-Match"))

    def delete_table(self, request: Request, dataset: str, table: str) -> None:  # noqa: ARG002  (a route)
        self._demand_on_table("bigquery.tables.delete", dataset, table)
        self.catalog.delete_table(dataset, table)

    def list_rows(self, request: Request, dataset: str, table: str) -> Resource:
        self._demand_on_table("bigquery.tables.getData", dataset, table)
        name, partition = split_partition_decorator(table)
        page = self.pages.read(self.catalog.get(dataset, name), partition, request.query)
        return {"kind": "bigquery#tableDataList", "etag": "etag"} | page

    def _demand_on_table(self, permission: str, dataset: str, table: str) -> None:
        self.permissions.demand(permission, f"Table {self.catalog.full_name(dataset, table)}")

    # Jobs

    def insert_job(self, request: Request) -> Resource:
        return self.jobs.describe(self.jobs.insert(request.body))

    def list_jobs(self, request: Request) -> Resource:
        """List the jobs, newest first. All of them belong to the caller."""
        self.permissions.demand("bigquery.jobs.list")
        first = int(request.query.get("minCreationTime", 0))
        found = [self.jobs.describe(job) for job in reversed(self.jobs.all)]
        listed = [job | {"state": job["status"]["state"]} for job in found]
        return {
            "kind": "bigquery#jobList",
            "jobs": [job for job in listed if int(job["statistics"].get("creationTime", first)) >= first],
        }

    def get_job(self, request: Request, job_id: str) -> Resource:
        job = self.jobs.find(job_id, request.query.get("location"))
        self.jobs.poll(job)
        return self.jobs.describe(job)

    def cancel_job(self, request: Request, job_id: str) -> Resource:
        job = self.jobs.find(job_id, request.query.get("location"))
        self.jobs.cancel(job)
        return {"kind": "bigquery#jobCancelResponse", "job": self.jobs.describe(job)}

    def query(self, request: Request) -> Resource:
        settings = {key: value for key, value in request.body.items() if key not in _REQUEST_ONLY_KEYS}
        reference = {"location": request.body["location"]} if request.body.get("location") else {}
        configuration = {"query": settings} | ({"dryRun": True} if request.body.get("dryRun") else {})
        job = self.jobs.insert({"jobReference": reference, "configuration": configuration})
        if not request.body.get("dryRun"):
            self.jobs.poll(job)
        options = {f"formatOptions.{key}": str(value) for key, value in request.body.get("formatOptions", {}).items()}
        asked = {"maxResults": str(request.body["maxResults"])} if "maxResults" in request.body else {}
        return self._results(job, options | asked) | {"kind": "bigquery#queryResponse"}

    def query_results(self, request: Request, job_id: str) -> Resource:
        job = self.jobs.find(job_id, request.query.get("location"))
        self.jobs.poll(job)
        return self._results(job, request.query) | {"kind": "bigquery#getQueryResultsResponse"}

    def _results(self, job: Job, query: dict[str, str]) -> Resource:
        """Return the answer of getQueryResults. A failed job is an error of this request, too."""
        if job.error is not None:
            raise GoogleError(job.error["reason"], job.error["message"])
        described = self.jobs.describe(job)
        known = {"jobReference": described["jobReference"], "jobComplete": job.state == "DONE"}
        if job.state != "DONE":
            return known
        statistics = job.statistics.get("query", {})
        copied = ("totalBytesProcessed", "cacheHit", "numDmlAffectedRows")
        known |= {key: statistics[key] for key in copied if key in statistics}
        if job.result is None:
            return known | {"totalRows": "0", "schema": {"fields": []}}
        return known | {"schema": {"fields": job.result.fields}} | self.pages.read(job.result, None, query)


_REQUEST_ONLY_KEYS: Final = {
    "location",
    "dryRun",
    "formatOptions",
    "maxResults",
    "timeoutMs",
    "requestId",
    "jobCreationMode",
    "kind",
    "labels",
}
_DATASET: Final = "datasets/([^/]+)"
_TABLE: Final = "datasets/([^/]+)/tables/([^/]+)"
_ROUTES: Final[list[tuple[str, str, Callable[..., Resource | None]]]] = [
    ("POST", "datasets", Api.insert_dataset),
    ("GET", "datasets", Api.list_datasets),
    ("GET", _DATASET, Api.get_dataset),
    ("PATCH", _DATASET, Api.patch_dataset),
    ("DELETE", _DATASET, Api.delete_dataset),
    ("POST", f"{_DATASET}/tables", Api.insert_table),
    ("GET", f"{_DATASET}/tables", Api.list_tables),
    ("GET", _TABLE, Api.get_table),
    ("PATCH", _TABLE, Api.patch_table),
    ("PUT", _TABLE, Api.patch_table),
    ("DELETE", _TABLE, Api.delete_table),
    ("GET", f"{_TABLE}/data", Api.list_rows),
    ("POST", "jobs", Api.insert_job),
    ("GET", "jobs", Api.list_jobs),
    ("GET", "jobs/([^/]+)", Api.get_job),
    ("POST", "jobs/([^/]+)/cancel", Api.cancel_job),
    ("POST", "queries", Api.query),
    ("GET", "queries/([^/]+)", Api.query_results),
]
