"""Addresses of lakes and warehouses: what may be written, and what it stands for.

Belongs here: from text to a value, or a `ValueError` that says what is accepted. Who reads the text is `settings.py`,
what is made of the value is `build.py`.
"""

from __future__ import annotations

import re
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode

if TYPE_CHECKING:
    from collections.abc import Iterator

ACCEPTED_LAKES = "Accepted is a folder, such as ./data/lake, or gs://bucket/prefix."
ACCEPTED_WAREHOUSES = (
    "Accepted is duckdb:///relative/path.duckdb or duckdb:////absolute/path.duckdb, with ?schema=name if you like; "
    "bigquery://project/dataset, with ?location=EU&maximum_bytes_billed=10000000000 if you like; or "
    "postgresql://user@host:5432/database, with ?schema=name&sslmode=verify-full and what else libpq takes."
)

_SCHEMA = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_DUCKDB = re.compile(r"duckdb:///(?P<path>[^?#]+)(\?schema=(?P<schema>[^&#]*))?", re.IGNORECASE)
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
_BIGQUERY = re.compile(
    r"(?i:bigquery)://(?P<project>([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9])/(?P<dataset>[A-Za-z0-9_]{1,1024})"
    r"(\?(?P<options>[^#]*))?"
)
_POSTGRES = re.compile(
    r"(?i:postgres|postgresql)://(?P<authority>[^/?#\s]*)/(?P<database>[^/?#\s]+)(\?(?P<options>[^#]*))?"
)
# Of libpq: password, sslpassword, oauth_client_secret, scram_client_key; a passfile is a path.
_SECRET = re.compile(r"passw|passphrase|pwd|secret|token|credential|scram_\w*key", re.IGNORECASE)
_LOCATION = re.compile(r"[A-Za-z0-9-]+")
_BYTES = re.compile(r"[1-9][0-9]{0,17}")
# A mart over years of trips reads some gigabytes; nothing here should read more than this by mistake.
_MAXIMUM_BYTES_BILLED = 100_000_000_000


@dataclass(frozen=True)
class FolderAddress:
    """A folder, absolute."""

    folder: Path


@dataclass(frozen=True)
class BucketAddress:
    """A prefix, without slashes around it, in a bucket of Cloud Storage."""

    bucket: str
    prefix: str = ""


@dataclass(frozen=True)
class DuckDBAddress:
    """A DuckDB file, absolute, and the schema within it."""

    file: Path
    schema_name: str = "taxi"


@dataclass(frozen=True)
class BigQueryAddress:
    """A dataset; where it is, or is to be made if it does not exist; and how many bytes a query may read."""

    project: str
    dataset: str
    location: str | None = None
    maximum_bytes_billed: int = _MAXIMUM_BYTES_BILLED


@dataclass(frozen=True)
class PostgresAddress:
    """A database, as libpq takes its address, without a password; and the schema within it."""

    url: str
    schema_name: str = "taxi"


LakeAddress = FolderAddress | BucketAddress
WarehouseAddress = DuckDBAddress | BigQueryAddress | PostgresAddress


def parse_lake_address(text: str) -> LakeAddress:
    """What `TAXI_LAKE` says."""
    if not text:
        raise ValueError(f"It is empty. {ACCEPTED_LAKES}")
    if text.lower().startswith("gs://"):
        return parse_bucket_address(text, ACCEPTED_LAKES)
    if "://" in text or text.lower().startswith("gs:"):
        raise ValueError(ACCEPTED_LAKES)
    folder = _absolute_path(text, ACCEPTED_LAKES)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"It is a file. {ACCEPTED_LAKES}")
    return FolderAddress(folder)


def parse_bucket_address(text: str, accepted: str) -> BucketAddress:
    """`gs://bucket/prefix`."""
    bucket, _, prefix = text[len("gs://") :].partition("/")
    prefix = prefix.strip("/")
    if not _BUCKET.fullmatch(bucket):
        raise ValueError(
            f"It names no bucket: a name has small letters, digits, dots, dashes and underscores. {accepted}"
        )
    if re.search(r"[?#*\[\]\s]", prefix) or any(part in {"", ".", ".."} for part in prefix.split("/") if prefix):
        raise ValueError(f"Its prefix has an empty part, dots alone, white space or one of ? # * [ ]. {accepted}")
    return BucketAddress(bucket, prefix)


def parse_warehouse_address(text: str) -> WarehouseAddress:
    """What `TAXI_WAREHOUSE` says."""
    if text.lower().startswith("bigquery:"):
        return _parse_bigquery_address(text)
    if text.lower().startswith(("postgresql:", "postgres:")):
        return _parse_postgres_address(text)
    return _parse_duckdb_address(text)


def _parse_duckdb_address(text: str) -> DuckDBAddress:
    address = _DUCKDB.fullmatch(text)
    if address is None:
        raise ValueError(ACCEPTED_WAREHOUSES)
    schema = _parse_schema_name(address["schema"])
    file = _absolute_path(address["path"], ACCEPTED_WAREHOUSES)
    if file.is_dir():
        raise ValueError(f"It is a folder. {ACCEPTED_WAREHOUSES}")
    return DuckDBAddress(file, schema)


def _parse_bigquery_address(text: str) -> BigQueryAddress:
    address = _BIGQUERY.fullmatch(text)
    if address is None:
        raise ValueError(
            f"It names no project and dataset (letters, digits, underscores; in projects dashes). {ACCEPTED_WAREHOUSES}"
        )
    options = _parse_options(address["options"] or "", {"location", "maximum_bytes_billed"})
    location, limit = options.get("location"), options.get("maximum_bytes_billed", str(_MAXIMUM_BYTES_BILLED))
    if location is not None and not _LOCATION.fullmatch(location):
        raise ValueError(f"{location!r} is no location, such as US, EU or europe-west6. {ACCEPTED_WAREHOUSES}")
    if not _BYTES.fullmatch(limit):
        raise ValueError(f"{limit!r} is no number of bytes. {ACCEPTED_WAREHOUSES}")
    return BigQueryAddress(address["project"], address["dataset"], location, int(limit))


def _parse_postgres_address(text: str) -> PostgresAddress:
    address = _POSTGRES.fullmatch(text)
    if address is None:
        raise ValueError(f"It names no database, or has no host and slash before it. {ACCEPTED_WAREHOUSES}")
    options = _parse_options(address["options"] or "")
    password = address["authority"].rpartition("@")[0].partition(":")[2]
    if password or any(map(may_hold_secret, options)):
        raise ValueError("A secret does not belong into an address: put a password into PGPASSWORD or ~/.pgpass.")
    schema = _parse_schema_name(options.pop("schema", None))
    url = f"postgresql://{address['authority']}/{address['database']}"
    return PostgresAddress(f"{url}?{urlencode(options)}" if options else url, schema)


def may_hold_secret(option: str) -> bool:
    """Whether an option of an address may hold a secret, by its name."""
    return _SECRET.search(option) is not None


def _parse_schema_name(name: str | None) -> str:
    if name is None:
        return "taxi"
    if not _SCHEMA.fullmatch(name) or name.lower().startswith(("pg_", "information_schema")):
        raise ValueError(
            f"{name!r} is no schema name to use: one has letters, digits and underscores, starts with no digit, and is "
            "none of the engine's own."
        )
    return name


def _parse_options(query: str, known: set[str] | None = None) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        raise ValueError(ACCEPTED_WAREHOUSES) from None
    options = dict(pairs)
    if len(options) < len(pairs) or (known is not None and not options.keys() <= known):
        raise ValueError(ACCEPTED_WAREHOUSES)
    return options


@contextmanager
def os_errors_as_value_errors(accepted: str) -> Iterator[None]:
    """What the file system says of a path that nothing could ever stand at becomes a `ValueError`."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no such user's home
        message = getattr(error, "strerror", None) or str(error).rstrip(".")
        raise ValueError(f"{message}. {accepted}") from None


def _absolute_path(text: str, accepted: str) -> Path:
    with os_errors_as_value_errors(accepted):
        path = Path(text).expanduser().absolute()
        with suppress(FileNotFoundError):
            path.stat()
    return path
