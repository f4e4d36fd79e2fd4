"""Load one month into BigQuery: its partition, and its row in the ledger.

The ledger is a table with one row per month (`green_trips_loads`), which says what data the month's partition holds.

BigQuery has no transaction that spans a load job and a ledger row, and another run may load the same month at the same
time. So a load invalidates the ledger row before it writes anything, and writes the new row last. If it stops in
between, the month counts as not loaded, and the next run loads it again.

`job_runner.py` runs the jobs, `tables.py` defines the tables.
"""

from __future__ import annotations

import datetime as dt
import enum
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
from taxi_assets.storage.warehouse.bigquery.job_runner import NO_RETRY, build_job_id, run_job_idempotently
from taxi_assets.storage.warehouse.bigquery.queries import compute_totals, list_rows
from taxi_assets.storage.warehouse.bigquery.tables import (
    LABELS,
    LEDGER_SCHEMA,
    monthly_partitioning,
    partition_name,
    table_layout,
)
from taxi_assets.tlc.cleaning.report import NO_ROWS, compute_parquet_totals

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from taxi_assets.storage.lake.objects import ParquetPartition
    from taxi_assets.tlc.cleaning.report import ControlTotals
    from taxi_assets.tlc.month import Month
    from taxi_assets.tlc.schema import Service

# For requests after a failure: the error should not wait minutes for them.
_SHORT_RETRY = DEFAULT_RETRY.with_timeout(30)

_Row = dict[str, Any]


class LoadState(enum.IntEnum):
    """How far a load has come, and so what the ledger and the partition hold."""

    UNCHANGED = 1
    """Ledger row and partition are as they were."""
    LEDGER_INVALIDATED = 2
    """The ledger row has this run's id and a null data version, or is being changed to that.

    No job has written the partition.
    """
    PARTITION_WRITTEN = 3
    """The partition holds, or may hold, the new trips: a job finished or still runs, or a deletion was requested."""
    LEDGER_WRITTEN = 4
    """The ledger row names the new data version."""
    CONFIRMED = 5
    """The object that was loaded was still the current one after the ledger row had been written."""


@dataclass
class MonthLoad:
    """Replaces a month's partition with the clean trips, and keeps the ledger consistent with it.

    `replace` takes these steps, in this order:

    | state before       | method             | step                                                                 |
    |--------------------|--------------------|----------------------------------------------------------------------|
    | UNCHANGED          | `_verify_object`   | 1. Compare the footer of the Parquet object with its report; in a    |
    |                    |                    |    local lake, its rows.                                             |
    |                    | `_write_partition` | 2. Invalidate the ledger row: null data version, id of this run.     |
    | LEDGER_INVALIDATED |                    | 3. Replace the partition in one load job; delete it if the month has |
    |                    |                    |    no rows.                                                          |
    | PARTITION_WRITTEN  |                    | 4. Count the partition by a query, and compare it with the report.   |
    |                    | `_write_ledger`    | 5. Check that the object is still current, then write the ledger row.|
    | LEDGER_WRITTEN     | `_confirm`         | 6. Check the object once more, unless a newer run has written the    |
    |                    |                    |    ledger row since.                                                 |
    | CONFIRMED          |                    |                                                                      |

    If the process is killed, nothing is cleaned up (tested in `contract/test_bigquery_crashes.py`):

    | crash point                                   | ledger row  | partition     | next run                        |
    |-----------------------------------------------|-------------|---------------|---------------------------------|
    | before step 2                                 | old         | old           | loads the month                 |
    | after step 2, before BigQuery accepts the job | invalidated | old           | loads the month                 |
    | after BigQuery accepted the job, which keeps  | invalidated | old, then new | loads the month                 |
    | running                                       |             |               |                                 |
    | after step 3, before step 5 ends              | invalidated | new           | loads the month                 |
    | after step 5                                  | new         | new           | skips the month: it is unchanged|

    A retry of the same run is special, because it uses the same job id: it waits for the job of the first attempt if
    that still runs, and reuses it if it has finished and the partition still has the expected totals. An invalidated
    row makes the month count as not loaded, and `Warehouse.replacing_run_id` names the run that was killed.

    If a step fails, `replace` cleans up by the state it has reached, then raises the error:

    | state              | clean-up                                                                                  |
    |--------------------|-------------------------------------------------------------------------------------------|
    | UNCHANGED          | none                                                                                      |
    | LEDGER_INVALIDATED | Restore the old ledger row, unless another run has written one since. If the run is       |
    |                    | interrupted, the row stays invalidated.                                                   |
    | PARTITION_WRITTEN, | Invalidate the ledger row again, because another run may have marked the month as loaded  |
    | LEDGER_WRITTEN     | although this load changed the partition. The error says that the partition is suspect.   |
    |                    | The next run loads the month.                                                             |

    If it is not known whether BigQuery has accepted the job, the state is PARTITION_WRITTEN: the job may be running. A
    state never falls back: a second job may be refused after the first one has written the partition.

    Two gaps remain, because BigQuery might not start a job of a killed or failed run until the next run has finished:

    - A late job of trips replaces the partition. The check `matches_clean` finds that if the totals differ.
    - A late job of step 5 writes the older run's ledger row over the newer one. Its data version is not that of the
      clean layer, so the next run loads the month again.
    """

    client: bigquery.Client
    service: Service
    month: Month
    trips: ParquetPartition
    table: str
    """The table of trips, as `project.dataset.table`. It exists and has the schema of the service."""
    ledger: str
    """The ledger of the service, in the same form. It exists as well."""
    location: str
    """The location of the dataset, where all jobs run."""
    run_id: str
    """The Dagster run, for job ids and the ledger."""
    translate_errors: Callable[[], AbstractContextManager[None]]
    """Builds a context that turns errors of Google's clients into errors of this package."""
    log: logging.Logger
    _state: LoadState = field(default=LoadState.UNCHANGED, init=False)
    _previous_rows: list[_Row] | None = field(default=None, init=False)
    """The ledger row before this load invalidated it: at most one. None until then."""

    def replace(self) -> None:
        """Load the month; if that fails, make the ledger consistent with the partition.

        Raises:
            ReconciliationError: The rows of the object, or those that the job wrote, differ from the report.
            LakeConflictError: Another run has replaced the object.
            WarehouseUnreachableError: BigQuery kept failing, or cannot be reached.
            WarehouseConfigurationError: BigQuery rejected a request or a job.
        """
        try:
            with self.translate_errors():
                self._verify_object()
                self._write_partition()
                self._write_ledger()
                self._confirm()
        except TaxiAssetsError as error:
            if self._state < LoadState.PARTITION_WRITTEN:
                self._restore_ledger()
                raise
            self._invalidate_ledger_again()
            raise self._suspect_error(error) from error
        except BaseException:  # such as an interrupted run
            if self._state >= LoadState.PARTITION_WRITTEN:
                self._invalidate_ledger_again()
            raise

    # --- steps -------------------------------------------------------------------------------------------------------

    def _verify_object(self) -> None:
        # A load job names its object, but not the object's generation. So the object must be the current one before
        # and after the job.
        self.trips.require_current()
        found = self._count_object()
        if found != self.trips.report.clean:
            raise self._reconciliation_error(found, "The month is unchanged.")

    def _write_partition(self) -> None:
        if self.trips.report.clean.rows:
            self._load_partition()
        else:
            self._delete_partition()

    def _load_partition(self) -> None:
        destination = partition_name(self.table, self.month)
        config = bigquery.LoadJobConfig(
            source_format=bigquery.SourceFormat.PARQUET,
            schema=self.client.get_table(self.table).schema,
            write_disposition=bigquery.WriteDisposition.WRITE_TRUNCATE,
            create_disposition=bigquery.CreateDisposition.CREATE_NEVER,
            **table_layout(self.service),
            labels={**LABELS, "service": self.service.name, "month": str(self.month)},
        )
        options: dict[str, Any] = {"job_config": config, "location": self.location}

        def prepare() -> None:
            self.trips.require_current()
            self._invalidate_ledger()

        def insert_job(job_id: str) -> Any:
            if self.trips.uri.startswith("gs://"):
                return self.client.load_table_from_uri(
                    self.trips.uri, destination, job_id=job_id, retry=NO_RETRY, **options
                )
            with self.trips.as_local_file() as path, path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                return self.client.load_table_from_file(
                    file, destination, job_id=job_id, size=size, num_retries=0, **options
                )

        def can_reuse_finished_job() -> bool:
            self._enter(LoadState.PARTITION_WRITTEN)
            return self._count_partition() == self.trips.report.clean

        run_job_idempotently(
            self.client,
            insert_job,
            build_job_id(self.run_id, destination, self.trips.report.data_version, self.trips.version),
            location=self.location,
            prepare=prepare,
            can_reuse_finished_job=can_reuse_finished_job,
            on_job_left_running=lambda _: self._enter(LoadState.PARTITION_WRITTEN),
        )
        self._enter(LoadState.PARTITION_WRITTEN)
        self.trips.require_current()  # the reason, if the job has loaded other rows
        found = self._count_partition()
        if found != self.trips.report.clean:
            raise self._reconciliation_error(found, "The partition was counted after the load job.")

    def _delete_partition(self) -> None:
        self.trips.require_current()
        self._invalidate_ledger()
        self._enter(LoadState.PARTITION_WRITTEN)  # before the request, because its answer may be lost
        name = partition_name(self.table, self.month)
        self.client.delete_table(name, not_found_ok=True)
        found = list_rows(self.client, name, [LEDGER_SCHEMA[0]], 1).num_rows
        if found:
            raise self._reconciliation_error(NO_ROWS.model_copy(update={"rows": found}), "The deletion had no effect.")

    def _write_ledger(self) -> None:
        self.trips.require_current()
        report = self.trips.report
        row: _Row = {
            "data_month": self.month.start.isoformat(),
            "data_version": report.data_version,
            "row_count": report.clean.rows,
            "cents": report.clean.cents,
            "source_rows": report.clean.source_rows,
            "loaded_at": _now(),
            "run_id": self.run_id,
        }
        self._replace_ledger_row(row)
        self._enter(LoadState.LEDGER_WRITTEN)

    def _confirm(self) -> None:
        # A newer run may have invalidated the row just before this load overwrote it, and may now be loading newer
        # trips.
        if all(row["run_id"] == self.run_id for row in self._read_ledger()):
            self.trips.require_current()
        self._enter(LoadState.CONFIRMED)

    def _enter(self, state: LoadState) -> None:
        # A second job invalidates the ledger row again. That does not undo a job that has written the partition.
        self._state = max(self._state, state)

    # --- the ledger --------------------------------------------------------------------------------------------------

    def _invalidate_ledger(self) -> None:
        """Replace the month's ledger row with one that has this run's id and a null data version.

        This happens before each job, because a killed process cannot do it afterwards. If the old row stayed and the
        load were killed, the ledger would name the old data version, although the partition may hold other trips. If
        the publisher then returned to the old file, its month would count as loaded.
        """
        rows = self._read_ledger()
        if self._previous_rows is None:
            self._previous_rows = [row for row in rows if not self._is_own_invalidation(row)]
        self._enter(LoadState.LEDGER_INVALIDATED)
        self._replace_ledger_row(self._invalid_row())

    def _invalidate_ledger_again(self) -> None:
        with self._failures_logged("invalidate"):
            self._clean_up_ledger([self._invalid_row()])

    def _restore_ledger(self) -> None:
        """Restore the row that this load has invalidated, unless another run has written one since."""
        if self._state is LoadState.UNCHANGED:
            return
        with self._failures_logged("restore"):
            if not any(map(self._is_own_invalidation, self._read_ledger())):
                return
            rows = [{name: _to_json_value(value) for name, value in row.items()} for row in self._previous_rows or []]
            if rows:
                self._clean_up_ledger(rows)
            else:
                name = partition_name(self.ledger, self.month)
                self.client.delete_table(name, not_found_ok=True, retry=_SHORT_RETRY)

    def _clean_up_ledger(self, rows: list[_Row]) -> None:
        timeout = _SHORT_RETRY.timeout
        job = _SHORT_RETRY(self._load_ledger_rows)(rows, None, timeout=timeout)
        job.result(retry=_SHORT_RETRY, timeout=timeout)

    def _read_ledger(self) -> list[_Row]:
        rows: list[_Row] = list_rows(self.client, partition_name(self.ledger, self.month), LEDGER_SCHEMA).to_pylist()
        return rows

    def _replace_ledger_row(self, row: _Row) -> None:
        # A new id each time: the job of an earlier attempt must not be reused, because its row may have been replaced
        # since.
        job_id = build_job_id(self.run_id, partition_name(self.ledger, self.month), uuid.uuid4().hex)
        run_job_idempotently(
            self.client, lambda id_: self._load_ledger_rows([row], id_), job_id, location=self.location
        )

    def _load_ledger_rows(self, rows: list[_Row], job_id: str | None, **options: Any) -> Any:
        """Start a job that replaces the month's partition of the ledger with these rows; send one request."""
        config = bigquery.LoadJobConfig(
            schema=LEDGER_SCHEMA,
            write_disposition=bigquery.WriteDisposition.WRITE_TRUNCATE,
            time_partitioning=monthly_partitioning(),
            labels=LABELS,
        )
        destination = partition_name(self.ledger, self.month)
        return self.client.load_table_from_json(
            rows, destination, job_id=job_id, job_config=config, location=self.location, num_retries=0, **options
        )

    def _invalid_row(self) -> _Row:
        return {"data_month": self.month.start.isoformat(), "loaded_at": _now(), "run_id": self.run_id}

    def _is_own_invalidation(self, row: _Row) -> bool:
        return row["data_version"] is None and row["run_id"] == self.run_id

    # --- counting ----------------------------------------------------------------------------------------------------

    def _count_object(self) -> ControlTotals:
        """Return the control totals of the object: in Cloud Storage from its footer, in a local lake from its rows.

        The footer proves the number of rows, and that the report is that of this object. So an object that is wrong in
        these does not replace the old month. The sums are proved after the load, by `_count_partition`.
        """
        if self.trips.report.month != str(self.month):
            return NO_ROWS
        if self.trips.lake.verifies_checksums:
            return self.trips.read_footer_totals()
        with self.trips.as_local_file() as path:
            return compute_parquet_totals(path, self.service, self.month)

    def _count_partition(self) -> ControlTotals:
        return compute_totals(
            self.client, f"`{self.table}`", self.service.money_columns, self.month, location=self.location
        )

    # --- errors ------------------------------------------------------------------------------------------------------

    def _reconciliation_error(self, found: ControlTotals, note: str) -> ReconciliationError:
        return reconciliation_error(self.service, self.month, self.trips, f"`{self.table}`", found, note)

    def _suspect_error(self, error: TaxiAssetsError) -> TaxiAssetsError:
        """Return the same error, which also says that the partition is suspect."""
        remedy = "Materialize the asset again." if isinstance(error, LakeConflictError) else error.remedy
        return type(error)(
            f"{error.problem} The rows of {self.month} in `{self.table}` are suspect until the next load.",
            remedy=remedy,
        )

    @contextmanager
    def _failures_logged(self, action: str) -> Iterator[None]:
        """Log an error of cleaning up instead of raising it: it must not hide the error that led to it."""
        try:
            yield
        except (api_errors.GoogleAPIError, auth_errors.GoogleAuthError, OSError, FutureTimeoutError) as error:
            self.log.warning(
                "could not %s the row of %s %s in %s: %s",
                action,
                self.service.name,
                self.month,
                self.ledger,
                describe_google_error(error),
            )


def _to_json_value(value: Any) -> Any:
    return value.isoformat() if isinstance(value, dt.date) else value


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat()
