"""The Iceberg catalog of a deployment, as a Dagster resource.

Belongs here: opening the catalog, and creating tables in it. Does not belong here: commits (`month_commit.py`), and
deleting old versions (`iceberg_maintenance.py`).
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import pyarrow as pa
from pydantic import Field

from taxi_assets.errors import CatalogConfigurationError, CatalogUnreachableError, TaxiAssetsError
from taxi_assets.storage.iceberg.iceberg_names import CATALOG, NAMESPACE, lake_root, new_folder, table_name
from taxi_assets.storage.lake.base_lake import Lake
from taxi_assets.storage.lake_tables import LakeTable
from taxi_assets.tlc.parquet_io import STATISTICS_COLUMNS

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

_SQLITE_WAIT_SECONDS = 60
_PARTITION_COLUMN = "data_month"
# Two runs of one table that commit at once take turns: the second writes its metadata again.
_TABLE_PROPERTIES = {
    "commit.retry.num-retries": "20",
    "commit.retry.max-wait-ms": "5000",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "100",
}
# Messages of SQL catalogs that may succeed later: SQLite's and libpq's.
_TRANSIENT = re.compile(
    "locked|could not connect|could not translate host name|Connection refused|Connection reset|server closed"
    "|terminating connection|the database system is|timed out|timeout expired"
)
# Errors of connections, by module and name, because most deployments do not have these clients.
_TRANSIENT_CLASSES = {
    "thrift.transport.TTransport.TTransportException",
    "botocore.exceptions.ConnectionError",
    "botocore.exceptions.HTTPClientError",
    "google.api_core.exceptions.ServerError",
    "google.api_core.exceptions.TooManyRequests",
    "google.api_core.exceptions.RetryError",
    "google.auth.exceptions.TransportError",
}
_NAME_MAPPING = "schema.name-mapping.default"  # files of the lake have no field IDs: readers match columns by name


class IcebergCatalog(dg.ConfigurableResource):  # type: ignore[type-arg]  # Dagster's own pattern
    """A catalog of Iceberg tables, whose files are in the lake."""

    lake: dg.ResourceDependency[Lake]
    address: str = Field(
        description="An address for pyiceberg, such as sqlite:////path/catalog.db or https://…, or the type of a "
        "catalog without an address, such as glue. Other properties come from pyiceberg's own configuration."
    )

    def open(self) -> "Catalog":
        """Open the catalog.

        Raises:
            CatalogConfigurationError: The catalog rejects the address or the credentials.
            CatalogUnreachableError: The catalog does not answer.
        """
        from pyiceberg.catalog import load_catalog  # noqa: PLC0415  (only deployments with a catalog need it)

        from taxi_assets.storage.iceberg.lake_file_io import register_lake  # noqa: PLC0415

        with translate_catalog_errors(f"The catalog {self.address} cannot be opened"):
            if self.file is not None:
                self.file.parent.mkdir(parents=True, exist_ok=True)
            return load_catalog(CATALOG, **self._location(), **register_lake(self.lake))

    @property
    def file(self) -> Path | None:
        """The file of an embedded catalog; None for other catalogs."""
        return Path(self.address.removeprefix("sqlite:///")) if self.address.startswith("sqlite:") else None

    def _location(self) -> dict[str, str]:
        if "://" not in self.address:
            return {"type": self.address}
        return {"uri": self.address if self.file is None else f"{self.address}?timeout={_SQLITE_WAIT_SECONDS}"}

    def open_table(self, source: LakeTable) -> "Table":
        """Return the Iceberg table of a table in the lake.

        Creates the table if it does not exist, and adds the columns and descriptions that it lacks.

        Raises:
            CatalogConfigurationError: The table has a column of another type.
            CatalogUnreachableError: The catalog does not answer.
        """
        from pyiceberg.exceptions import NoSuchTableError  # noqa: PLC0415

        catalog, name = self.open(), table_name(source)
        with translate_catalog_errors(f"The table {name} cannot be read"):
            try:
                table = catalog.load_table(name)
            except NoSuchTableError:
                table = self._create_table(catalog, source)
        with translate_catalog_errors(f"The columns of {name} cannot be changed"):
            _add_columns(table, source)
        return table

    def _create_table(self, catalog: "Catalog", source: LakeTable) -> "Table":
        from pyiceberg.exceptions import (  # noqa: PLC0415
            CommitFailedException,
            NamespaceAlreadyExistsError,
            TableAlreadyExistsError,
        )
        from sqlalchemy.exc import IntegrityError  # noqa: PLC0415

        name = table_name(source)
        with suppress(NamespaceAlreadyExistsError, IntegrityError):  # another run has created it just now
            catalog.create_namespace(NAMESPACE)
        folder = new_folder(source)
        location = f"{lake_root(self.lake)}/{folder}"
        try:
            creation = catalog.create_table_transaction(
                name, described_schema(source), location=location, properties=_properties(source)
            )
            with creation, creation.update_spec() as partitions:
                partitions.add_identity(_PARTITION_COLUMN)
                mapping = creation.table_metadata.schema().name_mapping
                creation.set_properties({_NAME_MAPPING: mapping.model_dump_json()})
        except (TableAlreadyExistsError, CommitFailedException):  # the same
            table = catalog.load_table(name)
            if not table.metadata_location.startswith(f"{location}/"):  # no catalog names the files of this attempt
                for key in self.lake.sizes_in(f"{folder}/metadata"):
                    self.lake.delete(key)
            return table
        return catalog.load_table(name)


def described_schema(source: LakeTable) -> pa.Schema:
    """Return the columns of a table, with their descriptions in the form that pyiceberg reads."""
    docs = {column.name: column.description_with_unit for column in source.columns}
    return pa.schema([field.with_metadata({"doc": docs[field.name]}) for field in source.schema])


def _properties(source: LakeTable) -> dict[str, str]:
    # pyiceberg logs a warning for each column without statistics, unless the table's metrics leave it out.
    metrics = {f"write.metadata.metrics.column.{c}": "full" for c in STATISTICS_COLUMNS if c in source.schema.names}
    return {
        **_TABLE_PROPERTIES,
        "comment": source.description,
        **({"write.metadata.metrics.default": "none", **metrics} if source.asset.startswith("clean/") else {}),
    }


def _add_columns(table: "Table", source: LakeTable) -> None:
    """Add the columns that a table lacks, and change descriptions. Without changes, nothing is committed."""
    from pyiceberg.exceptions import CommitFailedException  # noqa: PLC0415

    for is_last in (False, False, False, True):
        try:
            with table.update_schema() as changes:
                changes.union_by_name(described_schema(source))
        except CommitFailedException:  # another run has changed the table
            if is_last:
                raise
            table.refresh()
        else:
            return


@contextmanager
def translate_catalog_errors(label: str) -> Iterator[None]:
    """Translate errors of pyiceberg and of its catalogs.

    Args:
        label: The subject and verb of the message, such as "The table taxi.green_trips cannot be read".

    Raises:
        CatalogConfigurationError: The problem stays until someone changes a setting, a permission or the catalog.
        CatalogUnreachableError: The catalog does not answer, or fails.
    """
    try:
        yield
    except (TaxiAssetsError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        if not isinstance(error, Exception):
            raise
        message = " ".join(str(error).split())[:500] or type(error).__name__
        if _is_transient(error):
            raise CatalogUnreachableError(f"{label} ({message}).", remedy="Try again later.") from error
        raise CatalogConfigurationError(
            f"{label} ({type(error).__name__}: {message}).",
            remedy="Check TAXI_CATALOG, pyiceberg's own configuration, and the permissions of this account.",
        ) from error


def _is_transient(error: Any) -> bool:
    import requests  # noqa: PLC0415
    import sqlalchemy.exc  # noqa: PLC0415
    from pyiceberg import exceptions  # noqa: PLC0415

    if isinstance(error, sqlalchemy.exc.OperationalError):
        return _TRANSIENT.search(str(error)) is not None
    if any(f"{base.__module__}.{base.__qualname__}" in _TRANSIENT_CLASSES for base in type(error).__mro__):
        return True
    return isinstance(
        error,
        (
            ConnectionError,
            TimeoutError,
            requests.ConnectionError,
            requests.Timeout,
            requests.exceptions.ChunkedEncodingError,
            exceptions.CommitFailedException,
            exceptions.CommitStateUnknownException,
            exceptions.ServerError,
            exceptions.ServiceUnavailableError,
            exceptions.TooManyRequestsError,
            exceptions.WaitingForLockException,
        ),
    )
