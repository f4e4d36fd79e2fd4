"""Addresses of lakes, warehouses, Iceberg catalogs and the UI: the accepted forms, and the values they are parsed into.

Belongs here: parsing text into a value, or raising a `ValueError` that lists the accepted forms; recognizing the
addresses that Kubernetes puts into the environment. Does not belong here:
reading the environment (`settings.py`), and building lakes and warehouses from the values (`build.py`).
"""

from __future__ import annotations

import re
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LAKE_FORMS = "Use a folder, such as ./data/lake, or gs://bucket/prefix."
WAREHOUSE_FORMS = (
    "Use duckdb:///relative/path.duckdb or duckdb:////absolute/path.duckdb, optionally with "
    "?schema=name&trips=views; bigquery://project/dataset, optionally with "
    "?location=EU&maximum_bytes_billed=10000000000; or "
    "postgresql://user@host:5432/database, optionally with ?schema=name&sslmode=verify-full and other libpq options."
)

CATALOG_FORMS = (
    "Use sqlite:///relative/path.db or sqlite:////absolute/path.db; the address of a REST catalog, https://…, of a "
    "Hive metastore, thrift://host:9083, or of a SQL catalog, postgresql+psycopg2://user@host/database; glue; bigquery."
)

_OTHER_OPTIONS = (
    "After the question mark, only schema=name and trips=views are accepted, once. A path with a question mark cannot "
    f"be written in an address: rename it. {WAREHOUSE_FORMS}"
)

_SCHEMA = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_DUCKDB = re.compile(r"duckdb:///(?P<path>[^?]+)(\?(?P<options>[^#]+))?", re.IGNORECASE)
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
_BIGQUERY = re.compile(
    r"(?i:bigquery)://(?P<project>([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9])/(?P<dataset>[A-Za-z0-9_]{1,1024})"
    r"(\?(?P<options>[^#]*))?"
)
_POSTGRES = re.compile(
    r"(?i:postgres|postgresql)://(?P<authority>[^/?#\s]*)/(?P<database>[^/?#\s]+)(\?(?P<options>[^#]*))?"
)
# Secret libpq options: password, sslpassword, oauth_client_secret, scram_client_key. A passfile is only a path.
_SECRET = re.compile(r"passw|passphrase|pwd|secret|token|credential|scram_\w*key", re.IGNORECASE)
_CATALOG = re.compile(r"(https?|thrift|postgresql(\+\w+)?)://[^\s?#]+|glue|bigquery", re.IGNORECASE)
_SQLITE = re.compile(r"sqlite:///(?P<path>[^?#]+)", re.IGNORECASE)
_LOCATION = re.compile(r"[A-Za-z0-9-]+")
_BYTES = re.compile(r"[1-9][0-9]{0,17}")
# A mart over years of trips reads a few gigabytes. The limit stops queries that read far more by mistake.
_MAXIMUM_BYTES_BILLED = 100_000_000_000


@dataclass(frozen=True)
class FolderAddress:
    """A lake in a folder."""

    folder: Path
    """Absolute path."""


@dataclass(frozen=True)
class BucketAddress:
    """A lake or a publisher's files in Cloud Storage."""

    bucket: str
    prefix: str = ""
    """Prefix of object names, without a leading or trailing slash."""


@dataclass(frozen=True)
class DuckDBAddress:
    """A DuckDB file and a schema in it."""

    file: Path
    """Absolute path."""
    schema_name: str = "taxi"
    trip_views: bool = False
    """Whether trips are views over Parquet files, instead of tables."""


@dataclass(frozen=True)
class BigQueryAddress:
    """A BigQuery dataset, and a limit for its queries."""

    project: str
    dataset: str
    location: str | None = None
    """The location of the dataset, also used to create it. None means BigQuery's default."""
    maximum_bytes_billed: int = _MAXIMUM_BYTES_BILLED
    """Maximum bytes billed per query."""


@dataclass(frozen=True)
class PostgresAddress:
    """A PostgreSQL database and a schema in it."""

    url: str
    """A connection URL for libpq, without a password."""
    schema_name: str = "taxi"


LakeAddress = FolderAddress | BucketAddress
WarehouseAddress = DuckDBAddress | BigQueryAddress | PostgresAddress


def parse_lake_address(text: str) -> LakeAddress:
    """Parse a value of `TAXI_LAKE`.

    Raises:
        ValueError: The text is not the address of a lake. The message lists the accepted forms.
    """
    if not text:
        raise ValueError(f"It is empty. {LAKE_FORMS}")
    if text.lower().startswith("gs://"):
        return parse_bucket_address(text, LAKE_FORMS)
    if "://" in text or text.lower().startswith("gs:"):
        raise ValueError(LAKE_FORMS)
    folder = _absolute_path(text, LAKE_FORMS)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"It is a file. {LAKE_FORMS}")
    return FolderAddress(folder)


def parse_bucket_address(text: str, accepted_forms: str) -> BucketAddress:
    """Parse `gs://bucket/prefix`.

    Args:
        text: The address; it must begin with `gs://`.
        accepted_forms: The last sentence of the error message.

    Raises:
        ValueError: The bucket's name or the prefix is invalid.
    """
    bucket, _, prefix = text[len("gs://") :].partition("/")
    prefix = prefix.strip("/")
    if not _BUCKET.fullmatch(bucket):
        raise ValueError(
            "Its bucket name is missing or invalid: bucket names consist of lowercase letters, digits, dots, "
            f"dashes and underscores. {accepted_forms}"
        )
    if re.search(r"[?#*\[\]\s]", prefix) or any(segment in {"", ".", ".."} for segment in prefix.split("/") if prefix):
        raise ValueError(
            "Its prefix contains an empty segment, a '.' or '..' segment, whitespace, or one of ? # * [ ]. "
            f"{accepted_forms}"
        )
    return BucketAddress(bucket, prefix)


def parse_warehouse_address(text: str) -> WarehouseAddress:
    """Parse a value of `TAXI_WAREHOUSE`.

    Raises:
        ValueError: The text is not the address of a warehouse. The message lists the accepted forms, or names the
            invalid option. It contains no secrets.
    """
    if text.lower().startswith("bigquery:"):
        return _parse_bigquery_address(text)
    if text.lower().startswith(("postgresql:", "postgres:")):
        return _parse_postgres_address(text)
    return _parse_duckdb_address(text)


def _parse_duckdb_address(text: str) -> DuckDBAddress:
    address = _DUCKDB.fullmatch(text)
    if address is None:
        raise ValueError(WAREHOUSE_FORMS)
    try:
        options = _parse_options(address["options"] or "", {"schema", "trips"})
    except ValueError:
        raise ValueError(_OTHER_OPTIONS) from None
    schema, trips = _parse_schema_name(options.get("schema")), options.get("trips", "tables")
    if trips not in {"tables", "views"}:
        raise ValueError(f"{trips!r} is not a valid value of trips: use tables or views. {WAREHOUSE_FORMS}")
    file = _absolute_path(address["path"], WAREHOUSE_FORMS)
    if file.is_dir():
        raise ValueError(f"It is a folder. {WAREHOUSE_FORMS}")
    return DuckDBAddress(file, schema, trip_views=trips == "views")


def _parse_bigquery_address(text: str) -> BigQueryAddress:
    address = _BIGQUERY.fullmatch(text)
    if address is None:
        raise ValueError(
            "Its project or dataset is missing or invalid. A project ID consists of lowercase letters, digits and "
            f"dashes; a dataset name of letters, digits and underscores. {WAREHOUSE_FORMS}"
        )
    options = _parse_options(address["options"] or "", {"location", "maximum_bytes_billed"})
    location, limit = options.get("location"), options.get("maximum_bytes_billed", str(_MAXIMUM_BYTES_BILLED))
    if location is not None and not _LOCATION.fullmatch(location):
        raise ValueError(f"{location!r} is not a BigQuery location, such as US, EU or europe-west6. {WAREHOUSE_FORMS}")
    if not _BYTES.fullmatch(limit):
        raise ValueError(f"{limit!r} is not a valid maximum_bytes_billed: use a positive integer. {WAREHOUSE_FORMS}")
    return BigQueryAddress(address["project"], address["dataset"], location, int(limit))


def _parse_postgres_address(text: str) -> PostgresAddress:
    address = _POSTGRES.fullmatch(text)
    if address is None:
        raise ValueError(f"It is not of the form postgresql://host/database. {WAREHOUSE_FORMS}")
    options = _parse_options(address["options"] or "")
    password = address["authority"].rpartition("@")[0].partition(":")[2]
    if password or any(map(may_contain_secret, options)):
        raise ValueError("It contains a secret. Put the password into PGPASSWORD or ~/.pgpass.")
    schema = _parse_schema_name(options.pop("schema", None))
    url = f"postgresql://{address['authority']}/{address['database']}"
    return PostgresAddress(f"{url}?{urlencode(options)}" if options else url, schema)


def parse_catalog_address(text: str | None) -> str | None:
    """Return a value of `TAXI_CATALOG` with an absolute path; None if there is none.

    Raises:
        ValueError: The text is not the address of an Iceberg catalog. The message lists the accepted forms.
    """
    address = (text or "").strip()
    if not address:
        return None
    embedded = _SQLITE.fullmatch(address)
    user = "" if embedded else address.partition("://")[2].rpartition("@")[0]
    if ":" in user or (user and address.lower().startswith("http")):  # a password may contain a slash or an @
        raise ValueError("It contains a secret. Put it into pyiceberg's own configuration, or PGPASSWORD.")
    if find_spec("pyiceberg") is None:
        raise ValueError("It needs pyiceberg: pip install 'taxi-assets[iceberg]'")
    if embedded:
        file = _absolute_path(embedded["path"], CATALOG_FORMS)
        if file.is_dir():
            raise ValueError(f"It is a folder. {CATALOG_FORMS}")
        return f"sqlite:///{file}"
    if not _CATALOG.fullmatch(address):
        raise ValueError(CATALOG_FORMS)
    return address


def may_contain_secret(option: str) -> bool:
    """Return whether an option of an address may contain a secret, judging by the option's name."""
    return _SECRET.search(option) is not None


def _parse_schema_name(name: str | None) -> str:
    if name is None:
        return "taxi"
    if not _SCHEMA.fullmatch(name) or name.lower().startswith(("pg_", "information_schema")):
        raise ValueError(
            f"{name!r} is not a valid schema name. Use letters, digits and underscores, without a digit at the start; "
            "names that the engine reserves are not allowed."
        )
    return name


def _parse_options(query: str, known: set[str] | None = None) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        raise ValueError(WAREHOUSE_FORMS) from None
    options = dict(pairs)
    if len(options) < len(pairs) or (known is not None and not options.keys() <= known):
        raise ValueError(WAREHOUSE_FORMS)
    return options


def parse_ui_url(text: str | None) -> str | None:
    """Return the address of Dagster's UI without a slash at the end; None if there is none.

    Raises:
        ValueError: The text is not the address of a web page, or has a login, a query or a fragment.
    """
    address = (text or "").strip().rstrip("/")
    if address and not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#@]*)?", address):
        raise ValueError("Use the address of Dagster's UI, such as https://dagster.example.com.")
    return address or None


def anchor_path(address: str, folder: Path) -> str:
    """Return the address with its path in `folder`, if it has a relative path; otherwise the address unchanged.

    Args:
        address: A path, or the address of a lake, warehouse or publisher. It need not be valid.
        folder: An absolute path.
    """
    text = address.strip()
    scheme = text[: len("duckdb:///")] if text.lower().startswith(("duckdb:///", "sqlite:///")) else ""
    path = text.removeprefix(scheme)
    if not path or "://" in path or path.lower().startswith(("file:", "gs:")) or path.startswith("~"):
        return address
    return f"{scheme}{folder / path}"


def without_secrets(address: str) -> str:
    """Return an address without the text before an @ (user, password) and after a ? or # (tokens).

    The address may be malformed.
    """
    hidden = re.sub(r"^(\w+:/*)?.*@", r"\1…@", address, flags=re.DOTALL)
    return re.sub(r"([?#]).*", r"\1…", hidden, flags=re.DOTALL)


@contextmanager
def os_errors_as_value_errors(accepted_forms: str) -> Iterator[None]:
    """Raise a `ValueError` if the file system rejects a path, for example because it is too long.

    Args:
        accepted_forms: The last sentence of the error message.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:  # RuntimeError: the home folder of `~user` is unknown
        message = getattr(error, "strerror", None) or str(error).rstrip(".")
        raise ValueError(f"{message}. {accepted_forms}") from None


def _absolute_path(text: str, accepted_forms: str) -> Path:
    with os_errors_as_value_errors(accepted_forms):
        path = Path(text).expanduser().absolute()
        with suppress(FileNotFoundError):
            path.stat()
    return path


# The end of a variable, after the name of the service, such as TAXI_ASSETS of the service `taxi-assets`. Source:
# Kubernetes, pkg/kubelet/envvars/envvars.go.
_HOST = "_SERVICE_HOST"
_SERVICE_LINK = re.compile(
    r"_(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT(?:_\d+_(?:TCP|UDP|SCTP)(?:_PROTO|_PORT|_ADDR)?)?)"
)


def is_service_link(variable: str, environment: Iterable[str]) -> bool:
    """Return whether Kubernetes has set a variable to the address of a service.

    For each service of the namespace, Kubernetes adds variables to a container, such as TAXI_ASSETS_SERVICE_HOST and
    TAXI_ASSETS_PORT_4000_TCP_ADDR. The host is always one of them.

    Args:
        variable: The name of the variable.
        environment: The names of all variables.
    """
    services = (name.removesuffix(_HOST) for name in environment if name.endswith(_HOST))
    return any(
        variable.startswith(service) and _SERVICE_LINK.fullmatch(variable, len(service)) is not None
        for service in services
    )
