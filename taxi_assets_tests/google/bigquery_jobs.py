"""The BigQuery double's jobs: their life from insertion to their end, and load jobs.

It follows the REST reference of jobs.*, and the pages "Managing jobs" and "Loading Parquet data from Cloud Storage".
`bigquery_queries.py` implements query jobs, `bigquery_writes.py` the writes.
"""

from __future__ import annotations

import copy
import re
import tempfile
import threading
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import duckdb

from taxi_assets_tests.google.bigquery_files import (
    SourceFile,
    create_table_sql,
    download,
    json_rows,
    parquet_fields,
    parquet_query,
)
from taxi_assets_tests.google.bigquery_schemas import normalized_fields
from taxi_assets_tests.google.bigquery_tables import RESULTS, Catalog, Table, split_partition_decorator
from taxi_assets_tests.google.bigquery_values import GoogleError, Resource
from taxi_assets_tests.google.bigquery_writes import Write

if TYPE_CHECKING:
    from collections.abc import Callable

    from taxi_assets_tests.google.bigquery_permissions import Permissions


@dataclass(frozen=True)
class JobFault:
    """How one job fails or is delayed. `JobFault()` lets it run normally."""

    reason: str | None = None
    """The job fails with this reason, such as `backendError`; None lets it end normally."""
    message: str = "Error encountered during execution. Retrying may solve the problem."
    after_polls: int | None = None
    """The job is RUNNING until this poll, and then ends; None uses the default of the double."""
    writes_first: bool = False
    """The job fails at its end, after writing but before the commit; False: it fails before it reads anything."""
    before_run: Callable[[], None] | None = None
    """Called when the job starts to run, before it reads anything: to change tables or objects after the insertion."""


@dataclass
class Job:
    """A job, as the service keeps it."""

    id: str
    location: str
    configuration: Resource
    upload: bytes | None = None
    fault: JobFault = field(default_factory=JobFault)
    polls_until_done: int = 1
    state: str = "PENDING"
    error: Resource | None = None
    """`{"reason": …, "message": …}` of a job that failed."""
    polls: int = 0
    """How often clients have polled it before it was done."""
    statistics: Resource = field(default_factory=dict)
    result: Table | None = None
    """The rows of a query."""
    claimed: bool = False
    """Whether a thread has started to run it, or it was canceled."""

    @property
    def kind(self) -> str:
        """`load` or `query`."""
        return "load" if "load" in self.configuration else "query"

    @property
    def settings(self) -> Resource:
        """The load or query configuration."""
        found: Resource = self.configuration[self.kind]
        return found


class Runner(Protocol):
    """Runs one kind of job."""

    def location(self, settings: Resource, given: str | None) -> str:
        """Return where the job runs; raise `GoogleError` if the service rejects the job at its insertion."""

    def run(self, job: Job, before_commit: Callable[[], None] | None) -> None:
        """Run the job, and set its statistics and result."""


@dataclass
class Jobs:
    """All jobs, in the order of their insertion."""

    project: str
    permissions: Permissions
    runners: dict[str, Runner]
    polls_until_done: int = 1
    all: list[Job] = field(default_factory=list)
    faults: list[tuple[str | None, str, JobFault]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def insert(self, body: Resource, upload: bytes | None = None) -> Job:
        """Handle jobs.insert: accept the job without running it."""
        self.permissions.demand("bigquery.jobs.create")
        configuration = copy.deepcopy(body.get("configuration", {}))
        kinds = {"load", "query"} & set(configuration)
        if len(kinds) != 1:
            raise GoogleError(
                "invalid", "Required parameter is missing: one of load and query (this double has no other)"
            )
        kind = kinds.pop()
        configuration["jobType"] = kind.upper()
        reference = body.get("jobReference", {})
        job_id = reference.get("jobId") or f"job_{uuid.uuid4().hex}"
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,1024}", job_id):
            raise GoogleError(
                "invalid",
                f'Invalid job ID "{job_id}". Job IDs must be alphanumeric (plus underscores and '
                "dashes) and must be at most 1024 characters long.",
            )
        location = self.runners[kind].location(configuration[kind], reference.get("location"))
        job = Job(job_id, location, configuration, upload, polls_until_done=self.polls_until_done)
        if configuration.get("dryRun"):
            self.runners[kind].run(job, None)
            job.state = "DONE"
            return job
        job.statistics["creationTime"] = _now()
        with self.lock:
            if any(other.id == job_id and other.location == location for other in self.all):
                raise GoogleError("duplicate", f"Already Exists: Job {self.project}:{location}.{job_id}")
            job.fault = self._next_fault(job)
            job.polls_until_done = job.fault.after_polls or self.polls_until_done
            self.all.append(job)
        return job

    def _next_fault(self, job: Job) -> JobFault:
        target = job.settings.get("destinationTable", {})
        name = f"{target.get('datasetId', '')}.{target.get('tableId', '')}"
        for number, (kind, destination, fault) in enumerate(self.faults):
            if kind in {None, job.kind} and destination in name:
                del self.faults[number]
                return fault
        return JobFault()

    def find(self, job_id: str, location: str | None) -> Job:
        """Return the job. Without a location only the multi-regions are searched, as by the real service."""
        locations = {location.lower()} if location else {"us", "eu"}
        with self.lock:
            for job in self.all:
                if job.id == job_id and job.location.lower() in locations:
                    return job
        raise GoogleError("notFound", f"Not found: Job {self.project}:{location + '.' if location else ''}{job_id}")

    def poll(self, job: Job) -> None:
        """Handle a poll of a job: count it, and run the job at its last poll."""
        with self.lock:
            if job.state == "DONE":
                return
            job.polls += 1
            job.state = "RUNNING"
            job.statistics.setdefault("startTime", _now())
            if job.claimed or job.polls < job.polls_until_done:
                return
            job.claimed = True
        self._run(job)

    def settle(self) -> None:
        """Run all jobs that no client polls any more. On the real service, jobs outlive their clients."""
        for job in list(self.all):
            with self.lock:
                if job.claimed or job.state == "DONE":
                    continue
                job.claimed = True
                job.statistics.setdefault("startTime", _now())
            self._run(job)

    def cancel(self, job: Job) -> None:
        """Handle jobs.cancel: a job that has not started never runs."""
        with self.lock:
            if job.state != "DONE" and not job.claimed:
                job.claimed = True
                self._end(job, GoogleError("stopped", "Job execution was cancelled: User requested cancellation"))

    def _run(self, job: Job) -> None:
        fault, error = job.fault, None
        failure = None if fault.reason is None else GoogleError(fault.reason, fault.message)

        def fail() -> None:
            if failure is not None:
                raise failure

        try:
            if fault.before_run is not None:
                fault.before_run()
            if not fault.writes_first:
                fail()
            self.runners[job.kind].run(job, fail)
            fail()
        except GoogleError as raised:
            error = raised
        except duckdb.Error as raised:
            error = GoogleError("invalid" if job.kind == "load" else "invalidQuery", str(raised))
        except Exception as raised:
            error = GoogleError("internalError", f"The double itself failed: {raised!r}")
            raise
        finally:
            with self.lock:
                self._end(job, error)

    @staticmethod
    def _end(job: Job, error: GoogleError | None) -> None:
        job.upload = None
        job.statistics["endTime"] = _now()
        job.error = None if error is None else error.proto
        job.state = "DONE"

    def describe(self, job: Job) -> Resource:
        """Return the answer of jobs.get."""
        status: Resource = {"state": job.state}
        if job.error is not None:
            status |= {"errorResult": job.error, "errors": [job.error]}
        reference = {"projectId": self.project, "jobId": job.id, "location": job.location}
        return {
            "kind": "bigquery#job",
            "id": f"{self.project}:{job.location}.{job.id}",
            "jobReference": reference,
            "configuration": copy.deepcopy(job.configuration),
            "status": status,
            "statistics": copy.deepcopy(job.statistics),
            "user_email": "anonymous@example.com",
        }


@dataclass
class Loads:
    """Runs load jobs."""

    catalog: Catalog
    storage_endpoint: str
    permissions: Permissions

    def location(self, settings: Resource, given: str | None) -> str:
        dataset = settings["destinationTable"]["datasetId"]
        location = self.catalog.location_of(dataset)
        if given is not None and given.lower() != location.lower():
            raise GoogleError(
                "notFound", f"Not found: Dataset {self.catalog.project}:{dataset} was not found in location {given}"
            )
        if settings.get("sourceFormat", "CSV") not in {"PARQUET", "NEWLINE_DELIMITED_JSON"}:
            raise GoogleError("notImplemented", f"This double loads no {settings.get('sourceFormat', 'CSV')}.")
        return location

    def run(self, job: Job, before_commit: Callable[[], None] | None) -> None:
        settings = job.settings
        destination = settings["destinationTable"]
        name = split_partition_decorator(destination["tableId"])[0]
        table = self.catalog.full_name(destination["datasetId"], name)
        self.permissions.demand("bigquery.tables.updateData", f"Table {table}")
        if self.catalog.find(destination["datasetId"], name) is None:
            self.permissions.demand("bigquery.tables.create", f"Dataset {table.rpartition('.')[0]}")
        with tempfile.TemporaryDirectory() as folder:
            if job.upload is None:
                files = download(self.storage_endpoint, settings.get("sourceUris", []), Path(folder), job.location)
            else:
                files = [SourceFile(Path(folder, "upload"), "uploaded file")]
                files[0].path.write_bytes(job.upload)
            with self.catalog.lock:
                self._load(job, files, before_commit)

    def _load(self, job: Job, files: list[SourceFile], before_commit: Callable[[], None] | None) -> None:
        settings, connection = job.settings, self.catalog.duckdb
        fields = self._fields(settings, files)
        relation = f"{RESULTS}.load_{self.catalog.number()}"
        ignore_unknown = bool(settings.get("ignoreUnknownValues"))
        try:
            if settings["sourceFormat"] == "PARQUET":
                query = parquet_query(files, fields, ignore_unknown=ignore_unknown)
                connection.execute(f"CREATE TABLE {relation} AS {query}")
            else:
                connection.execute(create_table_sql(relation, fields))
                rows = json_rows(files, fields, ignore_unknown=ignore_unknown)
                if rows:
                    connection.executemany(f"INSERT INTO {relation} VALUES ({', '.join('?' * len(fields))})", rows)
            write = Write(self.catalog, relation, fields, settings, "WRITE_APPEND", before_commit=before_commit)
            written = write.run()
        finally:
            connection.execute(f"DROP TABLE IF EXISTS {relation}")
        size = sum(file.size for file in files)
        job.statistics["load"] = {
            "inputFiles": str(len(files)),
            "inputFileBytes": str(size),
            "badRecords": "0",
            "outputRows": str(written),
            "outputBytes": str(size),
        }

    def _fields(self, settings: Resource, files: list[SourceFile]) -> list[Resource]:
        """Return the schema of the load: that of the job, or else of the table, or else of the file."""
        if settings.get("schema", {}).get("fields"):
            return normalized_fields(settings["schema"]["fields"])
        destination = settings["destinationTable"]
        name, partition = split_partition_decorator(destination["tableId"])
        table = self.catalog.find(destination["datasetId"], name)
        replaces = settings.get("writeDisposition") == "WRITE_TRUNCATE" and partition is None
        known = [] if table is None or replaces else table.fields
        if settings["sourceFormat"] != "PARQUET":
            if not known:
                raise GoogleError("invalid", "No schema specified on job or table.")
            return known
        names = {field["name"].lower() for field in known}
        return known + [field for field in parquet_fields(files[0]) if field["name"].lower() not in names]


def _now() -> str:
    return str(time.time_ns() // 1_000_000)
