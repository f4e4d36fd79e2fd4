"""Metadata that Dagster's UI shows for assets and materializations: numbers, previews, columns with units.

A number's name includes its unit (`file_bytes`, `duration_seconds`, `quarantined_percent`), unless it is a count.
Numbers are rounded to the precision that a reader can use. The tags of assets are also defined here.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import dagster as dg

from taxi_assets.tlc.readers.header import readable_name
from taxi_assets.tlc.readers.open_trips import first_rows
from taxi_assets.tlc.services.registry import SERVICES
from taxi_assets.tlc.zones import ZONES_TABLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import BinaryIO

    import pandas as pd
    import pyarrow as pa

    from taxi_assets.marts.mart import Mart
    from taxi_assets.storage.warehouse.base_warehouse import Warehouse
    from taxi_assets.tlc.cleaning.report import CleaningReport
    from taxi_assets.tlc.file_format import CsvDialect, FileFormat
    from taxi_assets.tlc.rules import Rule
    from taxi_assets.tlc.schema import Column, Service
    from taxi_assets.tlc.sources.source_record import SourceRecord

PREVIEW_ROWS = 10
_CELL_CHARACTERS = 60
_BUCKETS = "https://storage.cloud.google.com"
# Markdown reads these as the end of a cell, or as code, HTML, a link, emphasis or an entity.
_SPECIAL = frozenset("\\|`<>[]!*_~&")


def asset_tags(layer: str, service: Service | None = None) -> dict[str, str]:
    """Return the tags of an asset, by which the UI and asset selections filter, such as `tag:layer=clean`.

    Args:
        layer: The layer of the asset, such as "clean" or "mart".
        service: The service; None for an asset that combines services.
    """
    return {"domain": "nyc-taxi", "layer": layer} | ({"service": service.name} if service else {})


def column_schema(columns: Iterable[Column]) -> dg.TableSchema:
    """Return the columns as Dagster's table schema: name, type, and description with unit."""
    return dg.TableSchema([dg.TableColumn(c.name, str(c.type), c.description_with_unit) for c in columns])


def code_reference(file: Path, *, label: str) -> dg.CodeReferencesMetadataValue:
    """Return a link to a source file that is not Python, such as the query of a mart."""
    return dg.CodeReferencesMetadataValue(
        code_references=[dg.LocalFileCodeReference(file_path=str(file), line_number=1, label=label)]
    )


def published_lineage(raw: dg.AssetKey, columns: Iterable[Column], report: CleaningReport) -> dict[str, Any]:
    """Return, for each column that cleaning has read, the published columns of the raw file.

    Derived columns are left out. The result is empty if the report is of an older version, which did not record names.

    Args:
        raw: The asset of the raw file.
        columns: The columns of the clean or quarantine layer.
        report: The cleaning report of the month.
    """
    names = {column.name: report.published_columns.get(column.name, ()) for column in columns}
    return _lineage({name: [(raw, published) for published in found] for name, found in names.items() if found})


def same_name_lineage(upstream: dg.AssetKey, columns: Iterable[Column]) -> dict[str, Any]:
    """Return, for each column of a table, the column of the same name of the asset that it is loaded from."""
    return _lineage({column.name: [(upstream, column.name)] for column in columns})


def mart_lineage(mart: Mart, services: Sequence[Service]) -> dict[str, Any]:
    """Return, for each column of a mart, the columns of other assets that it is computed from."""
    from taxi_assets.marts.sql_rendering import column_lineage  # noqa: PLC0415  (takes 0.2 s to import)

    def asset(table: str) -> dg.AssetKey:
        return dg.AssetKey(["reference" if table == ZONES_TABLE else "warehouse", table])

    lineage = column_lineage(mart, services).items()
    return _lineage({name: [(asset(table), column) for table, column in sorted(found)] for name, found in lineage})


def _lineage(upstream: Mapping[str, Iterable[tuple[dg.AssetKey, str]]]) -> dict[str, Any]:
    """Return the lineage of columns, under the name that Dagster recognizes; empty if there is none."""
    deps = {name: [dg.TableColumnDep(*column) for column in columns] for name, columns in upstream.items()}
    return {"dagster/column_lineage": dg.TableColumnLineage(deps)} if deps else {}


def column_descriptions(context: dg.OutputContext) -> dict[str, str]:
    """Return the descriptions of an asset's columns by name; empty if the asset has no column schema."""
    schema: Any = (context.definition_metadata or {}).get("dagster/column_schema")
    schema = getattr(schema, "value", schema) or getattr(schema, "schema", None)
    return {column.name: column.description or "" for column in schema.columns} if schema else {}


def rows_metadata(context: dg.OutputContext, schema: pa.Schema, rows: int) -> dict[str, Any]:
    """Return the columns and the number of rows that an IO manager has stored.

    Args:
        context: The context of the output; the asset's column schema may describe columns.
        schema: The columns.
        rows: Number of rows, of the partition if the asset is partitioned.
    """
    descriptions = column_descriptions(context)
    columns = [dg.TableColumn(field.name, str(field.type), descriptions.get(field.name)) for field in schema]
    found: dict[str, Any] = {"dagster/column_schema": dg.TableSchema(columns)}
    if not context.has_asset_partitions:
        return found | {"dagster/row_count": rows}
    # Dagster gives all partitions of a run the same metadata, so the rows of several partitions are not told apart.
    return found | ({"dagster/partition_row_count": rows} if len(context.asset_partition_keys) == 1 else {})


def rows_preview(schema: pa.Schema, batch: pa.RecordBatch | None) -> dict[str, dg.MarkdownMetadataValue]:
    """Return the first rows of a batch as a Markdown table; without a batch, an empty table with the columns."""
    rows = [] if batch is None else batch.slice(0, PREVIEW_ROWS).to_pylist()
    names = schema.names if batch is None else batch.schema.names
    shown = [[round(value, 4) if isinstance(value, float) else value for value in row.values()] for row in rows]
    return {"preview": dg.MetadataValue.md(markdown_table(names, shown))}


def source_metadata(record: SourceRecord, *, digest_key: str = "raw_sha256") -> dict[str, Any]:
    """Return the source of a published file: publisher, URL, validators, digest and download time.

    Args:
        record: The source record of the file.
        digest_key: The metadata key for the SHA-256 digest.
    """
    known: dict[str, Any] = {
        "publisher": record.publisher,
        "url": dg.MetadataValue.url(record.url) if record.url.startswith("http") else record.url,
        "etag": record.etag,
        "last_modified": record.last_modified,
        digest_key: record.sha256,
        "format": str(record.format),
        "fetched_at": dg.MetadataValue.timestamp(record.fetched_at),
    }
    return {name: value for name, value in known.items() if value is not None} | generated_note(record.generated)


def lake_uri(uri: str) -> dict[str, str]:
    """Return the URI of a lake object or folder, under the name that Dagster recognizes. A path becomes `file://…`."""
    return {"dagster/uri": uri if "://" in uri else Path(uri).absolute().as_uri()}


def table_location(warehouse: Warehouse, name: str) -> dict[str, str]:
    """Return where a table is stored, under the names that Dagster recognizes. Nothing is opened.

    Args:
        warehouse: The warehouse. It need not be set up for reading yet.
        name: The table's name, without its schema.
    """
    return {"dagster/table_name": warehouse.unquoted_name(name), "dagster/storage_kind": warehouse.kind}


def display_uri(uri: str) -> dg.MetadataValue[Any]:
    """Return a lake object's path, or the URL at which a signed-in browser opens it if the lake is a bucket."""
    bucket_path = uri.removeprefix("gs://")
    if bucket_path == uri:
        return dg.MetadataValue.path(uri)
    return dg.MetadataValue.url(f"{_BUCKETS}/{quote(bucket_path)}")


def image(name: str, png: bytes) -> dg.MarkdownMetadataValue:
    """Return a PNG image as Markdown with embedded bytes, because the UI strips HTML.

    The event log stores the bytes, so the image must be small.
    """
    data = base64.b64encode(png).decode()
    return dg.MetadataValue.md(f"![{name}](data:image/png;base64,{data})")


def generated_note(generated: bool) -> dict[str, str]:
    """Return the note that marks rows of the generated sample; empty for published rows."""
    return {"sample": "Generated sample data; not TLC trip records."} if generated else {}


def report_metadata(report: CleaningReport) -> dict[str, Any]:
    """Return the outcome of cleaning a month: rows and dollars, clean and quarantined, and the reasons."""
    money = {"quarantined_dollars": dollars(report.quarantined_total_cents)} if _has_total(report) else {}
    return {
        "rows_raw": report.rows_raw,
        "rows_clean": report.clean.rows,
        "rows_quarantined": report.rows_quarantined,
        "quarantined_percent": percent(report.share_quarantined),
        **money,
        "quarantined_by_reason": dg.MetadataValue.md(_reasons_table(report)),
        "rules": ", ".join(report.rules) or "none",
        "absent_columns": ", ".join(report.missing_columns(SERVICES[report.service])) or "none",
        "unknown_columns": "; ".join(
            f"{c.name} ({c.type}): {', '.join(c.examples)}" for c in report.unknown_columns
        ) or "none",
        "unreadable_columns": "; ".join(
            f"{name} ({c.published_as}): {c.rows:,} rows, such as {', '.join(c.examples)}"
            for name, c in report.unreadable_columns.items()
        ) or "none",
        "interpretations": " ".join(
            f"{name}: {' '.join(sentences)}" for name, sentences in report.interpretations.items()
        ) or "none",
    } | generated_note(report.generated) | _pinned_revision(report)  # fmt: skip


def _pinned_revision(report: CleaningReport) -> dict[str, str]:
    return {"pinned_revision": report.raw_sha256} if report.pinned else {}


def rules_metadata(service: Service, rules: Sequence[Rule]) -> dict[str, Any]:
    """Return the rules that a month was cleaned with, each with its limit, and the parts of its code version."""
    lines = [f"- `{rule.name}`: {rule.description}" for rule in rules]
    return {
        "rules": dg.MetadataValue.md("\n".join(lines) or "none"),
        "code_parts": dg.MetadataValue.json(service.code_parts),
    }


def _has_total(report: CleaningReport) -> bool:
    # For-hire services report no total, so no amount is shown, not even 0.00.
    return any(column.name == "total_amount" for column in SERVICES[report.service].columns)


def _reasons_table(report: CleaningReport) -> str:
    if not report.reasons:
        return "No rows were quarantined."
    headers = ["reason", "rows", "total_amount (US dollars)"]
    rows = [(name, f"{r.rows:,}", f"{r.total_cents / 100:,.2f}") for name, r in report.reasons.items()]
    shown = len(headers) if _has_total(report) else 2
    return markdown_table(headers[:shown], [row[:shown] for row in rows])


def preview(frame: pd.DataFrame) -> dg.MarkdownMetadataValue:
    """Return the first rows of a frame as a Markdown table."""
    first = frame.head(PREVIEW_ROWS)
    return dg.MetadataValue.md(markdown_table(list(first.columns), first.astype(object).to_numpy().tolist()))


def file_contents(file: BinaryIO, format_: FileFormat, dialect: CsvDialect) -> dict[str, Any]:
    """Return the columns of a published file, and its first rows as a Markdown table with values as published."""
    first = first_rows(file, format_, PREVIEW_ROWS, dialect)
    # If two columns have the same name, the last one counts.
    types = {readable_name(name, index): type_ for index, (name, type_) in enumerate(zip(*first[:2], strict=True))}
    return {
        "dagster/column_schema": dg.TableSchema([dg.TableColumn(name, type_) for name, type_ in types.items()]),
        "preview": dg.MetadataValue.md(markdown_table(first.names, first.rows)),
    }


def markdown_table(headers: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """Return a Markdown table. Values are escaped, so that no text in the data can break out of its cell."""
    from tabulate import tabulate  # noqa: PLC0415  (needed only by runs)

    return tabulate(
        [[_cell(v) for v in row] for row in rows], [_cell(h) for h in headers], tablefmt="pipe", disable_numparse=True
    )


def _cell(value: Any) -> str:
    missing = value is None or (not isinstance(value, str) and str(value) in {"<NA>", "nan", "NaT"})
    text = "" if missing else str(value)
    return markdown_text(text if len(text) <= _CELL_CHARACTERS else text[:_CELL_CHARACTERS] + "…")


def markdown_text(text: str) -> str:
    """Return a text of the data as one line of Markdown that is shown as it is."""
    return "".join(f"\\{c}" if c in _SPECIAL else c if c.isprintable() else " " for c in text)


def size_metadata(*, rows: int, file_bytes: int | None = None, seconds: float | None = None) -> Mapping[str, Any]:
    """Return the size of a month and the duration of the work. The UI plots both by partition.

    Args:
        rows: Number of rows, under the name that Dagster itself recognizes.
        file_bytes: Size in bytes of the file that contains the rows.
        seconds: Duration of the work.
    """
    sizes: dict[str, Any] = {"dagster/partition_row_count": rows, "file_bytes": file_bytes}
    if seconds is not None:
        sizes |= duration_metadata(seconds)
    return {name: value for name, value in sizes.items() if value is not None}


def duration_metadata(seconds: float) -> dict[str, float]:
    """Return the duration of a step's work, to the millisecond."""
    return {"duration_seconds": round(seconds, 3)}


def percent(share: float) -> float:
    """Convert a share between 0 and 1 to percent, with 2 decimals."""
    return round(100 * share, 2)


def dollars(cents: int) -> float:
    """Convert cents to US dollars, with 2 decimals."""
    return round(cents / 100, 2)


def require_owners(owners: Sequence[str]) -> tuple[str, ...]:
    """Return the owners of assets without duplicates; raise a `ValueError` if Dagster does not accept one of them."""
    for owner in owners:
        try:
            dg.AssetSpec("any", owners=[owner])
        except dg.DagsterInvalidDefinitionError:
            fix = "Use email addresses, and teams such as team:taxi-data, separated by commas."
            raise ValueError(f"{owner!r} is not an owner. {fix}") from None
    return tuple(dict.fromkeys(owners))
