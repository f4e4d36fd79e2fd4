"""Run the checks that need the real Google Cloud; `verify.sh` starts it.

It creates two buckets and a dataset with a random suffix, runs the steps below in them, and prints what held and the
cost. It removes what it created, also after a failure or an interruption. It changes and removes nothing else.
"""

from __future__ import annotations

import datetime as dt
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pyarrow as pa
import pyarrow.parquet
from google.api_core import exceptions as api_errors
from google.cloud import bigquery, storage
from tabulate import tabulate

from taxi_assets.errors import LakeConfigurationError, TaxiAssetsError
from taxi_assets.google_auth import describe_google_error, load_credentials
from taxi_assets.resources.google import CloudStorageResource
from taxi_assets.storage.lake.gcs_lake import DAMAGED_UPLOAD, GcsLake

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

REPOSITORY = Path(__file__).resolve().parents[2]
MONTH, NEXT_MONTH = "2021-01", "2021-02"
_DAY_MILLISECONDS = 24 * 3600 * 1000
PRICE_PER_TEBIBYTE = 6.25
"""US dollars per TiB that a query is billed for, on demand (cloud.google.com/bigquery/pricing, 2025)."""


class StepFailedError(Exception):
    """A step did not hold. The message is shown in the table."""


@dataclass
class Verification:
    """The resources that the steps use.

    Attributes:
        project: The ID of the project.
        location: The location of bucket and dataset.
        logs: The folder of the output of the steps.
        key: The service account's key, as in TAXI_GOOGLE_CREDENTIALS; None for application default credentials.
    """

    project: str
    location: str
    logs: Path
    key: str | None
    suffix: str = field(default_factory=lambda: secrets.token_hex(4))

    def __post_init__(self) -> None:
        self.bucket, self.other_bucket = f"taxi-verify-{self.suffix}", f"taxi-verify-other-{self.suffix}"
        self.dataset, self.test_datasets = f"taxi_verify_{self.suffix}", f"taxi_verify_test_{self.suffix}"
        self.other_location = "europe-west6" if self.location.upper().startswith("US") else "us-west1"
        self.objects = storage.Client(project=self.project, credentials=load_credentials(self.key))
        self.tables: Any = bigquery.Client(
            project=self.project, location=self.location, credentials=load_credentials(self.key)
        )

    # --- resources ---------------------------------------------------------------------------------------------------

    def create(self, stack: ExitStack) -> None:
        """Create the buckets and the dataset; the stack removes them."""
        for name, location in ((self.bucket, self.location), (self.other_bucket, self.other_location)):
            with _interruptions.delay():
                bucket = self.objects.bucket(name)
                # As deploy/gcp creates it.
                bucket.versioning_enabled = True
                bucket.iam_configuration.uniform_bucket_level_access_enabled = True
                bucket.iam_configuration.public_access_prevention = "enforced"
                bucket.soft_delete_policy.retention_duration_seconds = 0  # nothing is kept after the removal
                self.objects.create_bucket(bucket, location=location)
                stack.callback(self._remove_bucket, name)
        with _interruptions.delay():
            dataset = bigquery.Dataset(f"{self.project}.{self.dataset}")
            dataset.location = self.location
            # For the step `expirations`. Months of the past would be deleted at once.
            dataset.default_partition_expiration_ms = dataset.default_table_expiration_ms = _DAY_MILLISECONDS
            self.tables.create_dataset(dataset)
            stack.callback(self._remove_dataset, self.dataset)
        # The contract tests remove their datasets themselves, unless they are killed.
        stack.callback(self._remove_test_datasets)

    def _remove_bucket(self, name: str) -> None:
        bucket = self.objects.bucket(name)
        for blob in self.objects.list_blobs(bucket, versions=True):
            blob.delete()
        bucket.delete()
        click.echo(f"removed gs://{name}")

    def _remove_dataset(self, name: str) -> None:
        self.tables.delete_dataset(name, delete_contents=True)
        click.echo(f"removed the dataset {self.project}.{name}")

    def _remove_test_datasets(self) -> None:
        for dataset in self.tables.list_datasets():
            if dataset.dataset_id.startswith(f"{self.test_datasets}_"):
                self._remove_dataset(dataset.dataset_id)

    # --- commands ----------------------------------------------------------------------------------------------------

    def run(self, step: str, *arguments: str, **variables: str) -> str:
        """Run a Python module with the settings of the scratch resources; return its output.

        Raises:
            StepFailedError: It ended with an exit code other than 0.
        """
        # No other setting of the caller is used: notifications, for example, would be sent.
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("TAXI_", "DAGSTER_"))}
        settings = {
            "TAXI_LAKE": f"gs://{self.bucket}/lake",
            "TAXI_WAREHOUSE": f"bigquery://{self.project}/{self.dataset}?location={self.location}",
            "TAXI_SOURCE": "sample",
            "DAGSTER_HOME": str(self.logs / "dagster"),
        }
        if self.key is not None:
            settings["TAXI_GOOGLE_CREDENTIALS"] = self.key
        log = self.logs / f"{step}.log"
        with log.open("w") as output, ExitStack() as stack:
            with _interruptions.delay():
                process = subprocess.Popen(
                    [sys.executable, "-m", *arguments],
                    cwd=REPOSITORY,
                    env=kept | settings | variables,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
                stack.callback(_end, process)
            code = process.wait()
        if code != 0:
            raise StepFailedError(f"see {log}")
        return log.read_text()

    def dry_run(self, query: str) -> int:
        """Return the bytes that a query would process."""
        return int(self.tables.query(query, job_config=bigquery.QueryJobConfig(dry_run=True)).total_bytes_processed)


@dataclass
class _Interruptions:
    """Delays interruptions, so that what has been created is also registered for removal."""

    delayed: bool = False
    received: int | None = None

    def handle(self, number: int, _frame: object) -> None:
        self.received = number
        if not self.delayed:
            raise SystemExit(128 + number)

    @contextmanager
    def delay(self) -> Iterator[None]:
        self.delayed = True
        try:
            yield
        finally:
            self.delayed = False
        if self.received is not None:
            raise SystemExit(128 + self.received)


_interruptions = _Interruptions()


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a command and the processes that it started, which are in its process group."""
    for kind in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, kind)
        except ProcessLookupError:
            return
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            continue


# --- steps ------------------------------------------------------------------------------------------------------------


def credentials_and_roles(run: Verification) -> str:
    """Run the doctor on bucket and dataset."""
    run.run("doctor", "taxi_assets.cli.doctor")
    return "keys, tokens, roles, and a load from the bucket"


def contract(run: Verification) -> str:
    """Run the contract tests on the real stores only."""
    tests = ["taxi_assets_tests/contract", "-k", "real", "-q", "-rfE", "-p", "no:cacheprovider"]
    output = run.run(
        "contract",
        *("pytest", *tests),
        TAXI_TEST_GCP_PROJECT=run.project,
        TAXI_TEST_GCP_BUCKET=run.bucket,
        TAXI_TEST_GCP_LOCATION=run.location,
        TAXI_TEST_GCP_DATASETS=run.test_datasets,
    )
    return output.strip().splitlines()[-1].strip("= ")


def months(run: Verification) -> str:
    """Load a generated month of every service, with marts, checks and reports."""
    run.run("months", "taxi_assets.cli.backfill", "demo")
    return f"generated trips of {MONTH}, all checks passed"


def next_month(run: Verification) -> str:
    """Load another month of green, for the step `pruning`."""
    run.run(
        "next-month",
        "taxi_assets.cli.backfill",
        "backfill",
        "--service=green",
        f"--from={NEXT_MONTH}",
        f"--to={NEXT_MONTH}",
    )
    return f"generated trips of green {NEXT_MONTH}"


def descriptions(run: Verification) -> str:
    """Check that the loads kept the descriptions of all columns."""
    columns = run.tables.get_table(f"{run.project}.{run.dataset}.green_trips").schema
    missing = [column.name for column in columns if not column.description]
    if missing:
        raise StepFailedError(f"no description: {', '.join(missing)}")
    return f"all {len(columns)} columns of green_trips still have one"


def expirations(run: Verification) -> str:
    """Check that no table or view has the expiration that the dataset gives to new ones."""
    found = [run.tables.get_table(one.reference) for one in run.tables.list_tables(run.dataset)]
    expire = [
        table.table_id
        for table in found
        if table.expires or (table.time_partitioning and table.time_partitioning.expiration_ms)
    ]
    if expire or not found:
        raise StepFailedError(f"tables with an expiration: {', '.join(expire) or 'none, because there are no tables'}")
    return f"none of {len(found)} tables and views has the dataset's expiration"


def pruning(run: Verification) -> str:
    """Compare the bytes of a query of one month with those of all months."""
    query = f"SELECT SUM(total_amount) FROM `{run.project}.{run.dataset}.green_trips`"  # noqa: S608  (own names)
    everything, month = run.dry_run(query), run.dry_run(f"{query} WHERE data_month = '{MONTH}-01'")
    if not 0 < month < everything:
        raise StepFailedError(f"one of two months processes {month:,} of {everything:,} bytes")
    return f"one of two months processes {month:,} of {everything:,} bytes"


def messages(run: Verification) -> str:
    """Check the messages of Cloud Storage that the code recognizes."""
    lake = GcsLake(storage=CloudStorageResource(project=run.project, credentials=run.key), bucket=f"{run.bucket}-none")
    try:
        lake.version("any")
    except LakeConfigurationError as error:
        if "does not exist" not in error.problem:
            raise StepFailedError(f"missing bucket: {error.problem}") from None
    else:
        raise StepFailedError("a missing bucket was not reported")
    blob = run.objects.bucket(run.bucket).blob("damaged")
    blob.crc32c = "AAAAAA=="
    try:
        blob.upload_from_string(b"content", checksum=None)
    except api_errors.BadRequest as error:
        if not DAMAGED_UPLOAD.search(describe_google_error(error)):
            raise StepFailedError(f"damaged upload: {describe_google_error(error)}") from None
    else:
        raise StepFailedError("an upload with a wrong checksum was accepted")
    return "missing bucket, damaged upload"


def other_location(run: Verification) -> str:
    """Find out whether BigQuery loads from a bucket in an incompatible location: Google's pages disagree."""
    rows = pa.BufferOutputStream()
    pyarrow.parquet.write_table(pa.table({"row": [1]}), rows)
    run.objects.bucket(run.other_bucket).blob("rows.parquet").upload_from_string(rows.getvalue().to_pybytes())
    config = bigquery.LoadJobConfig(source_format=bigquery.SourceFormat.PARQUET)
    table = f"{run.project}.{run.dataset}.other_location"
    try:
        run.tables.load_table_from_uri(f"gs://{run.other_bucket}/rows.parquet", table, job_config=config).result()
    except api_errors.BadRequest as error:
        if "different locations" not in describe_google_error(error):
            raise StepFailedError(f"unknown message: {describe_google_error(error)}") from None
        return f"refused: {run.other_location} for {run.location}"
    return f"accepted, and costs data transfer: {run.other_location} for {run.location}"


STEPS: Mapping[str, Callable[[Verification], str]] = {
    "doctor": credentials_and_roles,
    "messages": messages,
    "other-location": other_location,
    "months": months,
    "next-month": next_month,
    "descriptions": descriptions,
    "expirations": expirations,
    "pruning": pruning,
    "contract": contract,
}


def cost(run: Verification, started: dt.datetime) -> str:
    """Return what the queries of this account in the project cost since the start."""
    try:
        jobs = list(run.tables.list_jobs(min_creation_time=started))
    except api_errors.GoogleAPICallError as error:
        return f"unknown ({describe_google_error(error)})"
    billed = sum(job.total_bytes_billed or 0 for job in jobs if job.job_type == "query")
    dollars = billed / 2**40 * PRICE_PER_TEBIBYTE
    return (
        f"{len(jobs)} jobs; {billed / 2**20:,.0f} MiB billed for queries, {dollars:.4f} US dollars at "
        f"{PRICE_PER_TEBIBYTE} per TiB (the first TiB of a month is free)"
    )


def verify(run: Verification) -> bool:
    """Run all steps; print a line for each, the table and the cost. Return whether all held."""
    started, table = dt.datetime.now(dt.UTC), []
    (run.logs / "dagster").mkdir()
    shutil.copy(REPOSITORY / "dagster.yaml", run.logs / "dagster")
    with ExitStack() as stack:
        try:
            run.create(stack)
            for name, step in STEPS.items():
                click.echo(f"{name} …")
                begin = time.monotonic()
                try:
                    result, shown = "held", step(run)
                except (StepFailedError, TaxiAssetsError, api_errors.GoogleAPICallError) as error:
                    result, shown = "failed", " ".join(str(error).split())
                table.append((name, result, f"{time.monotonic() - begin:.0f}", shown))
        finally:
            _interruptions.delayed = True  # until everything is removed
            click.echo(tabulate(table, headers=("step", "result", "seconds", "shown")))
            click.echo(f"cost: {cost(run, started)}")
    return all(result == "held" for _, result, *_ in table)


def main(project: str, location: str) -> int:
    """Verify, and return the exit code: 0 if all steps held."""
    for kind in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(kind, _interruptions.handle)
    logs = Path(tempfile.mkdtemp(prefix="taxi-verify-"))
    run = Verification(project, location, logs, os.environ.get("TAXI_GOOGLE_CREDENTIALS") or None)
    click.echo(
        f"gs://{run.bucket}, gs://{run.other_bucket} and {project}.{run.dataset} are created, and removed at the end."
    )
    try:
        held = verify(run)
    except api_errors.GoogleAPICallError as error:
        click.echo(f"Not all resources could be created or removed: {describe_google_error(error)}.")
        return 1
    click.echo("Everything held." if held else f"Not everything held. The output of the steps is in {logs}.")
    if held:
        shutil.rmtree(logs)
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
