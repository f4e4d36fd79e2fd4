"""One month on its way into its partition, and its note in the ledger beside it.

BigQuery has no transaction over a load job and a note, and another run may load the same month meanwhile. So the old
note is invalidated before anything is written, and the new one is written last: whatever breaks off in between, the
month counts as not loaded, and the next run loads it again. The invalidated note has the run's id and no data version,
so that a check of another run can report which run is replacing the month.

Belongs here: the order of the steps, and what follows when one fails. Does not belong here: jobs (`jobs.py`), tables
(`tables.py`).
"""

from __future__ import annotations

import datetime as dt
import os
import uuid
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from google.api_core import exceptions as api_errors
from google.auth import exceptions as auth_errors
from google.cloud import bigquery
from google.cloud.bigquery.retry import DEFAULT_RETRY

from taxi_assets.errors import LakeConflictError, ReconciliationError, TaxiAssetsError
from taxi_assets.google_auth import describe_google_error
from taxi_assets.storage.warehouse.base_warehouse import reconciliation_error
from taxi_assets.storage.warehouse.bigquery.job_runner import build_job_id, run_job_idempotently
from taxi_assets.storage.warehouse.bigquery.queries import compute_totals, read_rows
from taxi_assets.storage.warehouse.bigquery.tables import (
    LABELS,
    LEDGER_SCHEMA,
    monthly_partitioning,
    partition_name,
    table_layout,
)
from taxi_assets.tlc.cleaning.report import compute_parquet_totals

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from taxi_assets.storage.lake.objects import ParquetPartition
    from taxi_assets.tlc.cleaning.report import ControlTotals
    from taxi_assets.tlc.month import Month
    from taxi_assets.tlc.schema import Service

# Whoever waits for an error shall not wait for minutes more.
_SHORT_RETRY = DEFAULT_RETRY.with_timeout(30)


@dataclass
class MonthLoad:
    """Replaces a month by the clean trips; table and ledger are ready for it."""

    client: bigquery.Client
    service: Service
    month: Month
    trips: ParquetPartition
    table: str
    ledger: str
    location: str
    run_id: str
    named_errors: Callable[[], AbstractContextManager[None]]
    """Turns the client's errors into ours."""
    log: logging.Logger
    _touched: bool = field(default=False, init=False)
    """Whether the partition may hold something else than before."""
    _old: list[dict[str, Any]] | None = field(default=None, init=False)
    """The month's ledger row before this load invalidated it; None if this load has not invalidated it."""

    def replace(self) -> None:
        """Count in the object, load it into the partition in one job, note what was loaded."""
        try:
            with self.named_errors():
                self._replace()
        except TaxiAssetsError as error:
            if not self._touched:
                self._restore_ledger()
                raise
            self._invalidate_after_failure()
            remedy = "Materialize it once more." if isinstance(error, LakeConflictError) else error.remedy
            raise type(error)(
                f"{error.problem} What `{self.table}` holds of {self.month} is suspect until the next load.",
                remedy=remedy,
            ) from error
        except BaseException:
            if self._touched:
                self._invalidate_after_failure()
            raise

    def _replace(self) -> None:
        # A load job names its object, but cannot name the generation: it must be the same before and after.
        self.trips.require_current()
        found = self._count_object()
        if found != self.trips.report.clean:
            raise self._reconciliation_error(found, "The month was left as it was.")
        if found.rows:
            self._load()
        else:
            self._drop()
        self.trips.require_current()
        self._record_in_ledger()
        # A newer run that published and began its load in between has lost its invalidation to this note.
        if all(row["run_id"] == self.run_id for row in self._ledger_rows()):
            self.trips.require_current()

    # --- the trips ---------------------------------------------------------------------------------------------------

    def _drop(self) -> None:
        self.trips.require_current()
        self._invalidate_ledger()
        self._touch()  # before, because the answer may be lost
        self.client.delete_table(partition_name(self.table, self.month), not_found_ok=True)

    def _load(self) -> None:
        destination = partition_name(self.table, self.month)
        config = bigquery.LoadJobConfig(
            source_format=bigquery.SourceFormat.PARQUET,
            schema=self.client.get_table(self.table).schema,
            write_disposition=bigquery.WriteDisposition.WRITE_TRUNCATE,
            create_disposition=bigquery.CreateDisposition.CREATE_NEVER,
            **table_layout(self.service),
            labels={**LABELS, "service": self.service.name, "month": str(self.month)},
        )
        where: dict[str, Any] = {"job_config": config, "location": self.location}

        def start(job_id: str) -> Any:
            self.trips.require_current()
            self._invalidate_ledger()
            if self.trips.uri.startswith("gs://"):
                return self.client.load_table_from_uri(self.trips.uri, destination, job_id=job_id, **where)
            with self.trips.as_local_file() as path, path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                return self.client.load_table_from_file(file, destination, job_id=job_id, size=size, **where)

        job = run_job_idempotently(
            self.client,
            start,
            build_job_id(self.run_id, destination, self.trips.report.data_version, self.trips.version),
            location=self.location,
            log=self.log,
            can_reuse_finished_job=lambda: self._count_partition() == self.trips.report.clean,
            on_job_left_running=self._touch,
        )
        self._touch()
        if job.output_rows != self.trips.report.clean.rows:
            found = self.trips.report.clean.model_copy(update={"rows": job.output_rows})
            raise self._reconciliation_error(found, f"The job {job.job_id} says so.")

    def _touch(self) -> None:
        self._touched = True

    # --- the ledger --------------------------------------------------------------------------------------------------

    def _record_in_ledger(self) -> None:
        report = self.trips.report
        note: dict[str, Any] = {
            "data_month": self.month.start.isoformat(),
            "data_version": report.data_version,
            "row_count": report.clean.rows,
            "cents": report.clean.cents,
            "source_rows": report.clean.source_rows,
            "loaded_at": _now(),
            "run_id": self.run_id,
        }
        self._write_and_wait(note)

    def _write_and_wait(self, note: dict[str, Any]) -> None:
        # Never the job of an earlier attempt: its note may have been invalidated since.
        job_id = build_job_id(self.run_id, partition_name(self.ledger, self.month), uuid.uuid4().hex)
        run_job_idempotently(
            self.client,
            lambda id_: self._write([note], id_),
            job_id,
            location=self.location,
            log=self.log,
        )

    def _write(self, notes: list[dict[str, Any]], job_id: str | None) -> Any:
        config = bigquery.LoadJobConfig(
            schema=LEDGER_SCHEMA,
            write_disposition=bigquery.WriteDisposition.WRITE_TRUNCATE,
            time_partitioning=monthly_partitioning(),
            labels=LABELS,
        )
        destination = partition_name(self.ledger, self.month)
        return self.client.load_table_from_json(
            notes, destination, job_id=job_id, job_config=config, location=self.location
        )

    def _invalidate_ledger(self) -> None:
        """Replace the month's ledger row by one that vouches for no data and names this run.

        Before each job, because a process that is killed writes nothing afterwards: with the old note beside the new
        trips, a month whose old version comes back with the same totals would be taken for loaded.
        """
        rows = self._ledger_rows()
        if self._old is None:
            self._old = [row for row in rows if not self._is_own_invalidation(row)]
        self._write_and_wait(self._invalidation())

    def _invalidate_after_failure(self) -> None:
        """Invalidate again: another run may have noted its own load meanwhile."""
        with self._only_warns("still notes"):
            self._write([self._invalidation()], None).result(timeout=_SHORT_RETRY.timeout)

    def _restore_ledger(self) -> None:
        """Restore the old ledger row, because the partition is as it was; unless another run has written since."""
        if self._old is None:
            return
        with self._only_warns("does not note any more"):
            if not any(map(self._is_own_invalidation, self._ledger_rows())):
                return
            notes = [{name: _as_json_value(value) for name, value in note.items()} for note in self._old]
            if notes:
                self._write(notes, None).result(timeout=_SHORT_RETRY.timeout)
            else:
                name = partition_name(self.ledger, self.month)
                self.client.delete_table(name, not_found_ok=True, retry=_SHORT_RETRY)

    def _ledger_rows(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = read_rows(
            self.client, partition_name(self.ledger, self.month), LEDGER_SCHEMA
        ).to_pylist()
        return rows

    def _invalidation(self) -> dict[str, Any]:
        return {"data_month": self.month.start.isoformat(), "loaded_at": _now(), "run_id": self.run_id}

    def _is_own_invalidation(self, row: dict[str, Any]) -> bool:
        return row["data_version"] is None and row["run_id"] == self.run_id

    @contextmanager
    def _only_warns(self, message: str) -> Iterator[None]:
        """An error of what follows a failure must not hide it."""
        try:
            yield
        except (api_errors.GoogleAPIError, auth_errors.GoogleAuthError, OSError, FutureTimeoutError) as error:
            self.log.warning(
                "%s %s %s %s: %s", self.ledger, message, self.service.name, self.month, describe_google_error(error)
            )

    # --- counting ----------------------------------------------------------------------------------------------------

    def _count_object(self) -> ControlTotals:
        """Control figures of the object: counted by BigQuery in Cloud Storage, or here where the lake is local."""
        if not self.trips.uri.startswith("gs://"):
            with self.trips.as_local_file() as path:
                return compute_parquet_totals(path, self.service, self.month)
        external = bigquery.ExternalConfig(bigquery.SourceFormat.PARQUET)
        external.source_uris = [self.trips.uri]
        money = self.service.money_columns
        return compute_totals(
            self.client, "trips", money, self.month, location=self.location, external={"trips": external}
        )

    def _count_partition(self) -> ControlTotals:
        return compute_totals(
            self.client, f"`{self.table}`", self.service.money_columns, self.month, location=self.location
        )

    def _reconciliation_error(self, found: ControlTotals, note: str) -> ReconciliationError:
        return reconciliation_error(self.service, self.month, self.trips, f"`{self.table}`", found, note)


def _as_json_value(value: Any) -> Any:
    return value.isoformat() if isinstance(value, dt.date) else value


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat()
