"""One month on its way into its partition, and its note in the ledger beside it.

BigQuery has no transaction over a load job and a note, and another run may load the same month meanwhile. So what can
no longer be vouched for is not left standing as loaded: the month's note is removed, and the next run loads it anew.

Belongs here: the order of the steps, and what follows when one fails. Does not belong here: jobs (`jobs.py`), tables
(`tables.py`).
"""

from __future__ import annotations

import datetime as dt
import os
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from google.api_core import exceptions as api_errors
from google.auth import exceptions as auth_errors
from google.cloud import bigquery
from google.cloud.bigquery.retry import DEFAULT_RETRY

from taxi_assets.errors import ConservationError, LakeObjectReplacedError, TaxiAssetsError
from taxi_assets.google_cloud import reason
from taxi_assets.storage.bigquery.jobs import finished, job_id_of
from taxi_assets.storage.bigquery.queries import count
from taxi_assets.storage.bigquery.tables import LABELS, LEDGER_SCHEMA, by_month, partition, partitioning
from taxi_assets.tlc.report import totals_of_parquet

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from taxi_assets.storage.shelves import ParquetMonth
    from taxi_assets.tlc.month import Month
    from taxi_assets.tlc.report import Totals
    from taxi_assets.tlc.schema import Service

# Whoever waits for an error shall not wait for minutes more.
_BRIEFLY = DEFAULT_RETRY.with_timeout(30)


@dataclass
class MonthLoad:
    """Replaces a month by the clean trips; table and ledger are ready for it."""

    client: bigquery.Client
    service: Service
    month: Month
    trips: ParquetMonth
    table: str
    ledger: str
    location: str
    run_id: str
    named: Callable[[], AbstractContextManager[None]]
    """Turns the client's errors into ours."""
    log: logging.Logger
    _touched: bool = field(default=False, init=False)
    """Whether the partition may hold something else than before."""

    def replace(self) -> None:
        """Count in the object, load it into the partition in one job, note what was loaded."""
        try:
            with self.named():
                self._replace()
        except TaxiAssetsError as error:
            if not self._touched:
                raise
            self._void()
            remedy = "Materialize it once more." if isinstance(error, LakeObjectReplacedError) else error.remedy
            raise type(error)(
                f"{error.what} What `{self.table}` holds of {self.month} is suspect until the next load.", remedy=remedy
            ) from error
        except BaseException:
            if self._touched:
                self._void()
            raise

    def _replace(self) -> None:
        # A load job names its object, but cannot name the generation: it must be the same before and after.
        self.trips.require_current()
        found = self._count_object()
        if found != self.trips.report.clean:
            raise self._not_conserved(found, "The month was left as it was.")
        if found.rows:
            self._load()
        else:
            self._drop()
        self.trips.require_current()
        self._note()

    # --- the trips ---------------------------------------------------------------------------------------------------

    def _drop(self) -> None:
        self.trips.require_current()
        self._touch()  # before, because the answer may be lost
        self.client.delete_table(partition(self.table, self.month), not_found_ok=True)

    def _load(self) -> None:
        destination = partition(self.table, self.month)
        config = bigquery.LoadJobConfig(
            source_format=bigquery.SourceFormat.PARQUET,
            schema=self.client.get_table(self.table).schema,
            write_disposition=bigquery.WriteDisposition.WRITE_TRUNCATE,
            create_disposition=bigquery.CreateDisposition.CREATE_NEVER,
            **partitioning(self.service),
            labels={**LABELS, "service": self.service.name, "month": str(self.month)},
        )
        where: dict[str, Any] = {"job_config": config, "location": self.location}

        def start(job_id: str) -> Any:
            self.trips.require_current()
            if self.trips.uri.startswith("gs://"):
                return self.client.load_table_from_uri(self.trips.uri, destination, job_id=job_id, **where)
            with self.trips.local() as path, path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                return self.client.load_table_from_file(file, destination, job_id=job_id, size=size, **where)

        job = finished(
            self.client,
            start,
            job_id_of(self.run_id, destination, self.trips.report.data_version, self.trips.version),
            location=self.location,
            log=self.log,
            stands=lambda: self._count_partition() == self.trips.report.clean,
            left=self._touch,
        )
        self._touch()
        if job.output_rows != self.trips.report.clean.rows:
            found = self.trips.report.clean.model_copy(update={"rows": job.output_rows})
            raise self._not_conserved(found, f"The job {job.job_id} says so.")

    def _touch(self) -> None:
        self._touched = True

    # --- the ledger --------------------------------------------------------------------------------------------------

    def _note(self) -> None:
        report = self.trips.report
        note = {
            "data_month": self.month.start.isoformat(),
            "data_version": report.data_version,
            "row_count": report.clean.rows,
            "cents": report.clean.cents,
            "source_rows": report.clean.source_rows,
            "loaded_at": dt.datetime.now(dt.UTC).isoformat(),
            "run_id": self.run_id,
        }
        config = bigquery.LoadJobConfig(
            schema=LEDGER_SCHEMA,
            write_disposition=bigquery.WriteDisposition.WRITE_TRUNCATE,
            time_partitioning=by_month(),
            labels=LABELS,
        )
        destination = partition(self.ledger, self.month)

        def start(job_id: str) -> Any:
            return self.client.load_table_from_json(
                [note], destination, job_id=job_id, job_config=config, location=self.location
            )

        # Never the job of an earlier attempt: its note may have been removed since.
        job_id = job_id_of(self.run_id, destination, uuid.uuid4().hex)
        finished(self.client, start, job_id, location=self.location, log=self.log)

    def _void(self) -> None:
        """From now on nothing is known of the month."""
        try:
            self.client.delete_table(partition(self.ledger, self.month), not_found_ok=True, retry=_BRIEFLY)
        except (api_errors.GoogleAPIError, auth_errors.GoogleAuthError, OSError) as error:
            self.log.warning("%s still notes %s %s: %s", self.ledger, self.service.name, self.month, reason(error))

    # --- counting ----------------------------------------------------------------------------------------------------

    def _count_object(self) -> Totals:
        """Control figures of the object: counted by BigQuery in Cloud Storage, or here where the lake is local."""
        if not self.trips.uri.startswith("gs://"):
            with self.trips.local() as path:
                return totals_of_parquet(path, self.service, self.month)
        external = bigquery.ExternalConfig(bigquery.SourceFormat.PARQUET)
        external.source_uris = [self.trips.uri]
        money = self.service.money_columns
        return count(self.client, "trips", money, self.month, location=self.location, external={"trips": external})

    def _count_partition(self) -> Totals:
        return count(self.client, f"`{self.table}`", self.service.money_columns, self.month, location=self.location)

    def _not_conserved(self, found: Totals, note: str) -> ConservationError:
        return ConservationError(
            f"{self.service.name} {self.month}: loading {self.trips.uri} into `{self.table}` gave {found}, "
            f"expected {self.trips.report.clean}. {note}",
            remedy="Materialize the clean asset of this month again, then the warehouse.",
        )
