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

LAKES = "Accepted is a folder, such as ./data/lake, or gs://bucket/prefix."
WAREHOUSES = (
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


def read_lake(text: str) -> LakeAddress:
    """What `TAXI_LAKE` says."""
    if not text:
        raise ValueError(f"It is empty. {LAKES}")
    if text.lower().startswith("gs://"):
        return read_bucket(text, LAKES)
    if "://" in text or text.lower().startswith("gs:"):
        raise ValueError(LAKES)
    folder = _absolute(text, LAKES)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"It is a file. {LAKES}")
    return FolderAddress(folder)


def read_bucket(text: str, accepted: str) -> BucketAddress:
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


def read_warehouse(text: str) -> WarehouseAddress:
    """What `TAXI_WAREHOUSE` says."""
    if text.lower().startswith("bigquery:"):
        return _read_bigquery(text)
    if text.lower().startswith(("postgresql:", "postgres:")):
        return _read_postgres(text)
    return _read_duckdb(text)


def _read_duckdb(text: str) -> DuckDBAddress:
    address = _DUCKDB.fullmatch(text)
    if address is None:
        raise ValueError(WAREHOUSES)
    schema = _schema(address["schema"])
    file = _absolute(address["path"], WAREHOUSES)
    if file.is_dir():
        raise ValueError(f"It is a folder. {WAREHOUSES}")
    return DuckDBAddress(file, schema)


def _read_bigquery(text: str) -> BigQueryAddress:
    address = _BIGQUERY.fullmatch(text)
    if address is None:
        raise ValueError(
            f"It names no project and dataset (letters, digits, underscores; in projects dashes). {WAREHOUSES}"
        )
    options = _options(address["options"] or "", {"location", "maximum_bytes_billed"})
    location, limit = options.get("location"), options.get("maximum_bytes_billed", str(_MAXIMUM_BYTES_BILLED))
    if location is not None and not _LOCATION.fullmatch(location):
        raise ValueError(f"{location!r} is no location, such as US, EU or europe-west6. {WAREHOUSES}")
    if not _BYTES.fullmatch(limit):
        raise ValueError(f"{limit!r} is no number of bytes. {WAREHOUSES}")
    return BigQueryAddress(address["project"], address["dataset"], location, int(limit))


def _read_postgres(text: str) -> PostgresAddress:
    address = _POSTGRES.fullmatch(text)
    if address is None:
        raise ValueError(f"It names no database, or has no host and slash before it. {WAREHOUSES}")
    options = _options(address["options"] or "")
    password = address["authority"].rpartition("@")[0].partition(":")[2]
    if password or any(map(is_secret, options)):
        raise ValueError("A secret does not belong into an address: put a password into PGPASSWORD or ~/.pgpass.")
    schema = _schema(options.pop("schema", None))
    url = f"postgresql://{address['authority']}/{address['database']}"
    return PostgresAddress(f"{url}?{urlencode(options)}" if options else url, schema)


def is_secret(option: str) -> bool:
    """Whether an option of an address may hold a secret, by its name."""
    return _SECRET.search(option) is not None


def _schema(name: str | None) -> str:
    if name is None:
        return "taxi"
    if not _SCHEMA.fullmatch(name) or name.lower().startswith(("pg_", "information_schema")):
        raise ValueError(
            f"{name!r} is no schema name to use: one has letters, digits and underscores, starts with no digit, and is "
            "none of the engine's own."
        )
    return name


def _options(query: str, known: set[str] | None = None) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        raise ValueError(WAREHOUSES) from None
    options = dict(pairs)
    if len(options) < len(pairs) or (known is not None and not options.keys() <= known):
        raise ValueError(WAREHOUSES)
    return options


@contextmanager
def accepted_values(accepted: str) -> Iterator[None]:
    """What the file system says of a path that nothing could ever stand at becomes a `ValueError`."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no such user's home
        message = getattr(error, "strerror", None) or str(error).rstrip(".")
        raise ValueError(f"{message}. {accepted}") from None


def _absolute(text: str, accepted: str) -> Path:
    with accepted_values(accepted):
        path = Path(text).expanduser().absolute()
        with suppress(FileNotFoundError):
            path.stat()
    return path
