"""The BigQuery double's rules for schemas and partitioning: which declarations and which changes are valid.

They follow the pages "Specifying a schema", "Modify table schemas", "Introduction to partitioned tables" and
"Introduction to clustered tables".
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from taxi_assets_tests.google.bigquery_values import DUCKDB_TYPES, GoogleError, Resource, canonical_type

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

_COLUMN_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,299}")
_PARTITION_ID: Final = {
    "YEAR": (re.compile(r"\d{4}"), "%Y"),
    "MONTH": (re.compile(r"\d{4}(0[1-9]|1[0-2])"), "%Y%m"),
    "DAY": (re.compile(r"\d{8}"), "%Y%m%d"),
    "HOUR": (re.compile(r"\d{10}"), "%Y%m%d%H"),
}
NULL_PARTITION: Final = "__NULL__"
"""The partition of rows whose partitioning column is null."""


def quoted(name: str) -> str:
    """Return a name as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def normalized_fields(fields: Sequence[Resource]) -> list[Resource]:
    """Return the fields of a schema as BigQuery answers them: with canonical type names and explicit modes."""
    seen: set[str] = set()
    result = []
    for field in fields:
        name = field["name"]
        if not _COLUMN_NAME.fullmatch(name):
            raise GoogleError(
                "invalid",
                f'Invalid field name "{name}". Fields must contain only letters, numbers, and '
                "underscores, start with a letter or underscore, and be at most 300 characters long.",
            )
        if name.lower() in seen:
            raise GoogleError("invalid", f"Duplicate field name: {name} already exists in schema.")
        seen.add(name.lower())
        mode = (field.get("mode") or "NULLABLE").upper()
        if mode == "REPEATED":
            raise GoogleError("notImplemented", f"This double keeps no REPEATED columns: {name}")
        extras = {key: str(field[key]) for key in ("description", "precision", "scale") if field.get(key)}
        result.append({"name": name, "type": canonical_type(field["type"]), "mode": mode, **extras})
    return result


def column_definitions(fields: Sequence[Resource]) -> str:
    """Return the column list of a DuckDB table."""
    return ", ".join(f"{quoted(field['name'])} {DUCKDB_TYPES[field['type']]}" for field in fields)


def check_change(table: str, old: Sequence[Resource], new: Sequence[Resource], allowed: Collection[str]) -> None:
    """Reject a change of a schema that is not allowed.

    Args:
        table: The table's name, for the message.
        old: The current fields.
        new: The fields wanted.
        allowed: Values of a job's `schemaUpdateOptions`: ALLOW_FIELD_ADDITION, ALLOW_FIELD_RELAXATION.
    """
    mismatch = f"Provided Schema does not match Table {table}."
    after = {field["name"].lower(): field for field in new}
    for field in old:
        changed = after.pop(field["name"].lower(), None)
        if changed is None:
            raise GoogleError("invalid", f"{mismatch} Field {field['name']} is missing in new schema")
        for aspect in ("type", "mode"):
            was, becomes = field[aspect], changed[aspect]
            relaxed = (was, becomes) == ("REQUIRED", "NULLABLE") and "ALLOW_FIELD_RELAXATION" in allowed
            if was != becomes and not relaxed:
                changes = f"Field {field['name']} has changed {aspect} from {was} to {becomes}"
                raise GoogleError("invalid", f"{mismatch} {changes}")
    for field in after.values():
        if "ALLOW_FIELD_ADDITION" not in allowed:
            raise GoogleError("invalid", f"{mismatch} Cannot add fields (field: {field['name']})")
        if field["mode"] == "REQUIRED":
            label = f"Cannot add required fields to an existing schema. (field: {field['name']})"
            raise GoogleError("invalid", f"{mismatch} {label}")


def check_layout(fields: Sequence[Resource], partitioning: Resource | None, clustering: Resource | None) -> None:
    """Reject partitioning or clustering that is invalid for a table of these columns."""
    types = {field["name"].lower(): field["type"] for field in fields}
    if partitioning is not None:
        if partitioning.get("type", "").upper() not in _PARTITION_ID:
            raise GoogleError("invalid", f"Invalid value for timePartitioning.type: {partitioning.get('type')}")
        if "field" not in partitioning:
            raise GoogleError("notImplemented", "This double has no partitioning by time of ingestion.")
        kind = types.get(partitioning["field"].lower())
        if kind is None:
            raise GoogleError("invalid", "The field specified for partitioning cannot be found in the schema.")
        if kind not in {"DATE", "DATETIME", "TIMESTAMP"}:
            raise GoogleError(
                "invalid",
                "The field specified for time partitioning must be of type TIMESTAMP, DATE or "
                f"DATETIME, but {partitioning['field']} is {kind}.",
            )
    names = (clustering or {}).get("fields", [])
    if len(names) > 4:
        raise GoogleError("invalid", "Cannot specify more than 4 columns for clustering.")
    for name in names:
        if name.lower() not in types:
            raise GoogleError(
                "invalid", f"The field specified for clustering cannot be found in the schema. Invalid field: {name}."
            )
        if types[name.lower()] in {"FLOAT", "BYTES", "TIME"}:
            raise GoogleError("invalid", f"Clustering is not supported on column {name} of type {types[name.lower()]}.")


def layout_text(partitioning: Resource | None, clustering: Resource | None) -> str:
    """Return partitioning and clustering as BigQuery's messages spell them."""
    if partitioning is None and not clustering:
        return "none"
    parts = []
    if partitioning is not None:
        field = f",field:{partitioning['field'].lower()}" if "field" in partitioning else ""
        parts.append(f"interval(type:{partitioning['type'].lower()}{field})")
    if clustering and clustering.get("fields"):
        parts.append(f"clustering({','.join(clustering['fields']).lower()})")
    return " ".join(parts)


def check_same_layout(table: Resource, partitioning: Resource | None, clustering: Resource | None) -> None:
    """Reject a job that specifies another layout than the table's."""
    if partitioning is None and clustering is None:
        return
    expected = layout_text(table.get("timePartitioning"), table.get("clustering"))
    given = layout_text(partitioning, clustering)
    if expected != given:
        raise GoogleError(
            "invalid",
            "Incompatible table partitioning specification. Expects partitioning specification "
            f"{expected}, but input partitioning specification is {given}",
        )


def check_partition_id(table: Resource, partition: str) -> None:
    """Reject a partition decorator that does not fit the table."""
    partitioning = table.get("timePartitioning")
    name = f"{table['tableReference']['tableId']}${partition}"
    if partitioning is None:
        raise GoogleError("invalid", f"Cannot read partition information from a table that is not partitioned: {name}")
    if partition != NULL_PARTITION and not _PARTITION_ID[partitioning["type"]][0].fullmatch(partition):
        raise GoogleError(
            "invalid", f"Invalid partition decorator ${partition}: the table is partitioned by {partitioning['type']}."
        )


def partition_expression(partitioning: Resource) -> str:
    """Return a SQL expression for the partition of a row."""
    style = _PARTITION_ID[partitioning["type"]][1]
    column = quoted(partitioning["field"])
    return f"coalesce(strftime({column}::TIMESTAMP, '{style}'), '{NULL_PARTITION}')"
