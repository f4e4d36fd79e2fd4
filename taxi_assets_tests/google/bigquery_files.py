"""The BigQuery double's source files: gs:// objects or uploads, as Parquet or newline-delimited JSON.

Types, errors and permissions follow the pages "Loading Parquet data from Cloud Storage", "Introduction to external
tables" and "Loading JSON data from Cloud Storage".
"""

from __future__ import annotations

import json
import shutil
import urllib.error
import urllib.parse
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from taxi_assets_tests.google.bigquery_schemas import column_definitions, quoted
from taxi_assets_tests.google.bigquery_values import DUCKDB_TYPES, GoogleError, Resource, from_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

_READING: Final = "Error while reading data, error message:"
_TARGETS: Final = {"INTEGER": "INT64", "FLOAT": "DOUBLE", "BOOLEAN": "BOOL"}
# All addresses are on loopback, so proxies in the environment are ignored.
_OPENER: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class SourceFile:
    """A local copy of a file, and the address that messages name."""

    path: Path
    uri: str

    @property
    def size(self) -> int:
        """The number of bytes."""
        return self.path.stat().st_size


def download(endpoint: str, uris: Iterable[str], folder: Path, location: str) -> list[SourceFile]:
    """Download the current versions of objects for a job in a location."""
    return [_download_one(endpoint, uri, folder / f"{number}", location) for number, uri in enumerate(uris)]


def are_colocated(bucket: str, dataset: str) -> bool:
    """Return whether a bucket and a dataset are in compatible locations.

    Source: the section "Location considerations" of docs.cloud.google.com/bigquery/docs/external-tables. The page
    bigquery/docs/locations says instead that other locations only cost data transfer. Public reports of both kinds of
    jobs show a rejection (airbytehq/airbyte #17013, GoogleCloudDataproc/spark-bigquery-connector #110).
    """
    regions = {"us": {"us-central1"}, "eu": {"europe-west1", "europe-west4"}}.get(dataset.lower(), {dataset.lower()})
    dual_regions = {
        "nam4": {"us-central1", "us-east1"},
        "eur4": {"europe-north1", "europe-west4"},
        "asia1": {"asia-northeast1", "asia-northeast2"},
    }
    return bucket.lower() == dataset.lower() or bool(dual_regions.get(bucket.lower(), {bucket.lower()}) & regions)


def _download_one(endpoint: str, uri: str, path: Path, location: str) -> SourceFile:
    scheme, _, rest = uri.partition("://")
    bucket, _, name = rest.partition("/")
    if scheme != "gs" or not name:
        raise GoogleError("invalid", f"Source URI must be a Google Cloud Storage location: {uri}")
    if "*" in name:
        raise GoogleError("notImplemented", f"This double reads no wildcards: {uri}")
    url = f"{endpoint}/storage/v1/b/{bucket}"
    with _reading(uri, "storage.buckets.get"), _OPENER.open(url, timeout=60) as answer:
        source = str(json.load(answer)["location"])
    if not are_colocated(source, location):
        places = [place.upper() if "-" not in place else place.lower() for place in (source, location)]
        raise GoogleError(
            "invalid", f"Cannot read and write in different locations: source: {places[0]}, destination: {places[1]}"
        )
    url = f"{url}/o/{urllib.parse.quote(name, safe='')}?alt=media"
    with (
        _reading(uri, "storage.objects.get"),
        _OPENER.open(url, timeout=60) as answer,
        path.open("wb") as file,
    ):
        shutil.copyfileobj(answer, file, 1 << 20)
    return SourceFile(path, uri)


@contextmanager
def _reading(uri: str, permission: str) -> Iterator[None]:
    try:
        yield
    except urllib.error.HTTPError as error:
        with error:
            raise _unreadable(error.code, uri, permission) from error
    except OSError as error:
        raise GoogleError(
            "backendError", "Error encountered during execution. Retrying may solve the problem."
        ) from error


def _unreadable(status: int, uri: str, permission: str) -> GoogleError:
    if status == 404:
        return GoogleError("notFound", f"Not found: URI {uri}")
    if status in {401, 403}:
        # As in tuva-health/tuva-core #1319.
        kind = "bucket" if permission.startswith("storage.buckets.") else "object"
        return GoogleError(
            "accessDenied",
            "Access Denied: BigQuery BigQuery: Permission denied while globbing file pattern. "
            f"Caller does not have {permission} access to the Google Cloud Storage {kind}. "
            f"Permission '{permission}' denied on resource (or it may not exist). Please make sure {uri} is accessible "
            "via appropriate IAM roles, e.g. Storage Object Viewer or Storage Object Creator.",
        )
    return GoogleError("backendError", "Error encountered during execution. Retrying may solve the problem.")


def parquet_fields(file: SourceFile) -> list[Resource]:
    """Return the schema that BigQuery derives from a Parquet file."""
    return [{"name": column.name, "type": _type_of(column.type), "mode": "NULLABLE"} for column in _schema(file)]


def parquet_query(files: Sequence[SourceFile], fields: Sequence[Resource], *, ignore_unknown: bool = False) -> str:
    """Return a SQL query for the rows of Parquet files.

    Columns are matched by name; those that the files lack are null. A column of another type is rejected, because
    BigQuery casts nothing that it loads.
    """
    for file in files:
        _check_parquet(file, fields, ignore_unknown=ignore_unknown)
    present = {column.name.lower(): column.name for column in _schema(files[0])}
    columns = []
    for field in fields:
        source = present.get(field["name"].lower())
        value = "NULL" if source is None else quoted(source)
        columns.append(f"CAST({value} AS {DUCKDB_TYPES[field['type']]}) AS {quoted(field['name'])}")
    paths = ", ".join("'" + str(file.path).replace("'", "''") + "'" for file in files)
    return f"SELECT {', '.join(columns)} FROM read_parquet([{paths}], hive_partitioning = false)"


def _schema(file: SourceFile) -> pa.Schema:
    try:
        return pq.read_schema(file.path)
    except (pa.ArrowException, OSError) as error:
        raise GoogleError("invalid", f"{_READING} Input file is not in Parquet format. File: {file.uri}") from error


def _check_parquet(file: SourceFile, fields: Sequence[Resource], *, ignore_unknown: bool) -> None:
    wanted = {field["name"].lower(): field["type"] for field in fields}
    schema = _schema(file)
    with pq.ParquetFile(file.path) as parquet:
        physical = {
            column.path: column.physical_type for column in map(parquet.schema.column, range(len(parquet.schema)))
        }
    for column in schema:
        target = wanted.get(column.name.lower())
        if target is None:
            if not ignore_unknown:
                raise GoogleError("invalid", f"{_READING} No such field: {column.name}. File: {file.uri}")
        elif _type_of(column.type) != target and not pa.types.is_null(column.type):
            raise GoogleError(
                "invalid",
                f"{_READING} Parquet column '{column.name}' has type "
                f"{physical.get(column.name, column.type)} which does not match the target cpp_type "
                f"{_TARGETS.get(target, target)}. File: {file.uri}",
            )


def _type_of(kind: pa.DataType) -> str:
    """Return the BigQuery type of a Parquet column; an unsupported one gets a name that matches no column."""
    tests = (
        (pa.types.is_integer, "INTEGER"),
        (pa.types.is_floating, "FLOAT"),
        (pa.types.is_boolean, "BOOLEAN"),
        (lambda one: pa.types.is_string(one) or pa.types.is_large_string(one), "STRING"),
        (lambda one: pa.types.is_dictionary(one) and pa.types.is_string(one.value_type), "STRING"),
        (lambda one: pa.types.is_binary(one) or pa.types.is_large_binary(one), "BYTES"),
        (lambda one: pa.types.is_decimal(one) and one.scale <= 9 and one.precision - one.scale <= 29, "NUMERIC"),
        (pa.types.is_date, "DATE"),
        (lambda one: pa.types.is_timestamp(one) and one.unit == "ns", "INTEGER"),
        (lambda one: pa.types.is_timestamp(one) and one.tz is None, "DATETIME"),
        (pa.types.is_timestamp, "TIMESTAMP"),
        (pa.types.is_time, "TIME"),
        (pa.types.is_null, "INTEGER"),
    )
    return next((name for matches, name in tests if matches(kind)), f"unsupported {kind}")


def json_rows(files: Sequence[SourceFile], fields: Sequence[Resource], *, ignore_unknown: bool) -> list[list[Any]]:
    """Return the rows of newline-delimited JSON, converted to the types of the columns."""
    rows = []
    for file in files:
        position = 0
        for line in file.path.read_bytes().splitlines(keepends=True):
            if line.strip():
                rows.append(_json_row(line, position, fields, ignore_unknown=ignore_unknown))
            position += len(line)
    return rows


def _json_row(line: bytes, position: int, fields: Sequence[Resource], *, ignore_unknown: bool) -> list[Any]:
    where = f"{_READING} JSON parsing error in row starting at position {position}:"
    try:
        given = json.loads(line, parse_float=str)
    except ValueError as error:
        raise GoogleError("invalid", f"{where} Parser terminated before end of string") from error
    if not isinstance(given, dict):
        raise GoogleError("invalid", f"{where} Start of row is not an object.")
    values = {name.lower(): value for name, value in given.items()}
    known = {field["name"].lower() for field in fields}
    for name in given:
        if name.lower() not in known and not ignore_unknown:
            raise GoogleError("invalid", f"{where} No such field: {name}.")
    row = []
    for field in fields:
        value = values.get(field["name"].lower())
        try:
            row.append(from_text(value, field["type"]))
        except ValueError as error:
            wrong = f"Could not convert value to {field['type'].lower()}. Field: {field['name']}; Value: {value}"
            raise GoogleError("invalid", f"{where} {wrong}") from error
    return row


def create_table_sql(relation: str, fields: Sequence[Resource]) -> str:
    """Return the SQL statement that creates an empty table with these columns."""
    return f"CREATE TABLE {relation} ({column_definitions(fields)})"
