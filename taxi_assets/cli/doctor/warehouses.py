"""Check the warehouse of each engine: that it opens, and that this account may create tables."""

from __future__ import annotations

import tempfile
import uuid
from functools import partial
from typing import TYPE_CHECKING, Any

import dagster as dg

from taxi_assets.addresses import BigQueryAddress, BucketAddress, DuckDBAddress, PostgresAddress
from taxi_assets.build import build_lake, build_warehouse
from taxi_assets.cli.doctor.check_runner import UNREACHABLE_HINT
from taxi_assets.cli.doctor.stores import probe_object
from taxi_assets.errors import WarehouseBusyError, WarehouseConfigurationError, WarehouseUnreachableError
from taxi_assets.storage.warehouse.duckdb import DuckDBWarehouse
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.services.green import GREEN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taxi_assets.cli.doctor.check_runner import CheckRunner
    from taxi_assets.settings import Settings

_ANY_MONTH = Month(2021, 1)


def warehouse(checks: CheckRunner) -> str:
    """Check that the warehouse opens and that tables can be created."""
    settings = checks.settings()
    address = settings.warehouse
    if isinstance(address, DuckDBAddress):
        return _duckdb(address)
    try:
        if isinstance(address, PostgresAddress):
            return _postgres(address, checks.timeout_seconds)
        checks.require("Google account")
        return _bigquery(checks, settings, address)
    except WarehouseUnreachableError as error:  # its own fix is for a run that loads a month
        raise WarehouseUnreachableError(error.problem, remedy=UNREACHABLE_HINT) from None


def _duckdb(address: DuckDBAddress) -> str:
    """Check the file and its folder: DuckDB writes its write-ahead log next to the file."""
    trips = ", trips as views" if address.trip_views else ""
    where = f"DuckDB, {address.file}, schema {address.schema_name}{trips}"
    place = next(folder for folder in address.file.parents if folder.exists())
    try:
        tempfile.TemporaryFile(dir=place).close()
    except OSError as error:
        raise WarehouseConfigurationError(
            f"{place} cannot be written to ({error.strerror}).",
            remedy="Allow this account to write to it, or choose another file in TAXI_WAREHOUSE.",
        ) from None
    if not address.file.exists():
        return f"{where}: will be created on first use"
    try:
        warehouse = DuckDBWarehouse(file=str(address.file), wait_seconds=1)
        with warehouse.session(writes=True):
            warehouse.totals(GREEN, _ANY_MONTH)
    except WarehouseBusyError as error:
        return f"{where}: in use ({error.problem.rstrip('.')})"
    return f"{where}: opens"


def _postgres(address: PostgresAddress, seconds: float) -> str:
    """Create a table as a first load would, and roll it back."""
    from psycopg2 import sql  # noqa: PLC0415  (only needed here)

    from taxi_assets.storage.warehouse.postgres.session import open_session, without_secrets  # noqa: PLC0415

    schema, probe = address.schema_name, f"doctor_{uuid.uuid4().hex}"
    with open_session(address.url, wait_seconds=seconds / 2) as connection, connection.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("SELECT FROM pg_namespace WHERE nspname = %s", [schema])
        if cursor.fetchone() is None:
            cursor.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
        cursor.execute(sql.SQL("CREATE TABLE {} ()").format(sql.Identifier(schema, probe)))
        cursor.execute("ROLLBACK")
        version = connection.info.parameter_status("server_version").partition(" ")[0]
    return f"Postgres {version}, {without_secrets(address.url)}, schema {schema}: tables can be created"


def _bigquery(checks: CheckRunner, settings: Settings, address: BigQueryAddress) -> str:
    """Create and delete a table, or a dataset if the configured one does not exist, and load from the lake."""
    from google.api_core.exceptions import NotFound  # noqa: PLC0415  (Google's clients take a while to load)
    from google.cloud import bigquery  # noqa: PLC0415

    name, probe = f"{address.project}.{address.dataset}", f"doctor_{uuid.uuid4().hex}"
    once: dict[str, Any] = {"retry": None, "timeout": checks.timeout_seconds / 2}
    lake = settings.lake if isinstance(settings.lake, BucketAddress) and checks.is_found_ok("lake") else None
    with (
        dg.build_resources({"warehouse": build_warehouse(settings)}) as resources,  # the key is looked up
        resources.warehouse.client(f"{name} cannot be used") as client,
    ):
        try:
            place = client.get_dataset(name, **once).location
        except NotFound:
            dataset = bigquery.Dataset(f"{address.project}.{probe}")
            dataset.location = place = address.location or "US"
            client.create_dataset(dataset, **once)
            state = f"will be created on first use, in {place}"
            table = f"{address.project}.{probe}.probe"
            delete = partial(client.delete_dataset, dataset, delete_contents=True)
        else:
            _require_location(name, place, address.location)
            table = f"{name}.{probe}"
            state = f"exists, in {place}; tables can be created"
            delete = partial(client.delete_table, table, not_found_ok=True)
        try:
            client.create_table(bigquery.Table(table, [bigquery.SchemaField("data_month", "DATE")]), **once)
            if lake is not None:
                bucket_place = _load_from_lake(settings, client, table, place, once)
                state = f"{state}, and loaded from the lake, whose bucket is in {bucket_place}"
        finally:
            delete(**once)
        dry = bigquery.QueryJobConfig(dry_run=True)
        client.query("SELECT 1", job_config=dry, location=place, job_retry=None, **once)
    return f"BigQuery, {name}, at most {address.maximum_bytes_billed:,} bytes per query: {state}"


def _load_from_lake(settings: Settings, client: Any, table: str, place: str, once: Mapping[str, Any]) -> str:
    """Load a small Parquet object of the lake into a table, as each month is loaded; return the bucket's location.

    Google's documentation contradicts itself: buckets in other locations are refused (external-tables), or cost data
    transfer (locations). So only BigQuery decides.
    """
    import pyarrow as pa  # noqa: PLC0415  (only needed here)
    import pyarrow.parquet  # noqa: PLC0415
    from google.api_core.exceptions import BadRequest, Forbidden, NotFound  # noqa: PLC0415
    from google.cloud import bigquery  # noqa: PLC0415

    from taxi_assets.google_auth import describe_google_error  # noqa: PLC0415

    content = pa.BufferOutputStream()
    pyarrow.parquet.write_table(pa.table({"data_month": [_ANY_MONTH.start]}), content)
    with (
        dg.build_resources({"lake": build_lake(settings)}) as resources,
        probe_object(resources.lake, content.getvalue().to_pybytes()) as key,
    ):
        lake = resources.lake
        try:
            bucket_place = str(lake.storage.get_client().get_bucket(lake.bucket, **once).location)
        except Forbidden:
            bucket_place = "a location that cannot be read without storage.buckets.get"
        config = bigquery.LoadJobConfig(
            source_format=bigquery.SourceFormat.PARQUET,
            # BigQuery may start the job after the table has been deleted.
            create_disposition=bigquery.CreateDisposition.CREATE_NEVER,
        )
        try:
            job = client.load_table_from_uri(lake.uri(key), table, location=place, job_config=config, **once)
            job.result(timeout=2 * once["timeout"])
        except (BadRequest, NotFound) as error:
            message = describe_google_error(error)
            raise WarehouseConfigurationError(
                f"BigQuery cannot load from the lake: {message}. The bucket {lake.bucket} is in {bucket_place}, and "
                f"the dataset is in {place}.",
                remedy="Create the dataset in the location of the bucket, or the bucket in that of the dataset "
                "(docs/google-cloud.md)."
                if "different locations" in message
                else "Check TAXI_LAKE and TAXI_WAREHOUSE.",
            ) from None
    return bucket_place


def _require_location(name: str, found: str, wanted: str | None) -> None:
    if wanted is not None and found.lower() != wanted.lower():
        raise WarehouseConfigurationError(
            f"The dataset {name} is in {found}, but TAXI_WAREHOUSE has location={wanted}.",
            remedy=f"Set location={found}, or use another dataset: a dataset cannot be moved.",
        )
