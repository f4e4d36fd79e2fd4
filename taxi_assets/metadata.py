"""What the UI shows of assets and materializations: figures, previews, columns with units.

Belongs here: metadata and the policy that all assets share (owners, tags). Nothing here decides anything.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import dagster as dg

from taxi_assets.tlc.readers.open_trips import first_rows
from taxi_assets.tlc.services.registry import SERVICES
from taxi_assets.tlc.zones import ZONES_TABLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path
    from typing import BinaryIO

    import pandas as pd

    from taxi_assets.marts.mart import Mart
    from taxi_assets.tlc.cleaning.report import CleaningReport
    from taxi_assets.tlc.file_format import FileFormat
    from taxi_assets.tlc.schema import Column, Service
    from taxi_assets.tlc.sources.source_record import SourceRecord

OWNERS = ["team:taxi-data"]
PREVIEW_ROWS = 10
_CELL_CHARACTERS = 60
_BUCKETS = "https://storage.cloud.google.com"
# What Markdown would read as a cell's end, code, HTML, a link, emphasis or an entity.
_SPECIAL = frozenset("\\|`<>[]!*_~&")


def asset_tags(service: Service | None = None) -> dict[str, str]:
    """Tags of an asset."""
    return {"domain": "nyc-taxi"} | ({"service": service.name} if service else {})


def column_schema(columns: Iterable[Column]) -> dg.TableSchema:
    """Columns as the UI's table schema."""
    return dg.TableSchema([dg.TableColumn(c.name, str(c.type), c.description_with_unit) for c in columns])


def code_reference(file: Path, *, label: str) -> dg.CodeReferencesMetadataValue:
    """A link of the UI to a file that no function stands in."""
    return dg.CodeReferencesMetadataValue(
        code_references=[dg.LocalFileCodeReference(file_path=str(file), line_number=1, label=label)]
    )


def column_lineage(mart: Mart, services: Sequence[Service]) -> dg.TableColumnLineage:
    """Which columns of which assets each column of a mart is made from."""
    from taxi_assets.marts.sql_rendering import column_lineage  # noqa: PLC0415  (a fifth of a second)

    def asset(table: str) -> dg.AssetKey:
        return dg.AssetKey(["reference" if table == ZONES_TABLE else "warehouse", table])

    return dg.TableColumnLineage(
        {
            name: [dg.TableColumnDep(asset(table), column) for table, column in sorted(columns)]
            for name, columns in column_lineage(mart, services).items()
        }
    )


def column_descriptions(context: dg.OutputContext) -> dict[str, str]:
    """The descriptions of an asset's columns, by name."""
    schema: Any = (context.definition_metadata or {}).get("dagster/column_schema")
    schema = getattr(schema, "value", schema) or getattr(schema, "schema", None)
    return {column.name: column.description or "" for column in schema.columns} if schema else {}


def source_metadata(record: SourceRecord, *, digest: str = "raw_sha256") -> dict[str, Any]:
    """Where a published file came from; `digest` names its sha256."""
    known: dict[str, Any] = {
        "publisher": record.publisher,
        "url": dg.MetadataValue.url(record.url) if record.url.startswith("http") else record.url,
        "etag": record.etag,
        "last_modified": record.last_modified,
        digest: record.sha256,
        "format": str(record.format),
        "fetched_at": dg.MetadataValue.timestamp(record.fetched_at),
    }
    return {name: value for name, value in known.items() if value is not None} | generated_note(record.generated)


def display_uri(uri: str) -> dg.MetadataValue[Any]:
    """Of an object in the lake: a path, or what a browser that is signed in opens."""
    bucket = uri.removeprefix("gs://")
    return dg.MetadataValue.path(uri) if bucket == uri else dg.MetadataValue.url(f"{_BUCKETS}/{quote(bucket)}")


def image(name: str, png: bytes) -> dg.MarkdownMetadataValue:
    """A small picture: Markdown with the bytes in it, because the UI drops HTML. The event log holds it."""
    data = base64.b64encode(png).decode()
    return dg.MetadataValue.md(f"![{name}](data:image/png;base64,{data})")


def generated_note(generated: bool) -> dict[str, str]:
    """Said wherever rows come from the generated sample."""
    return {"sample": "Generated data, for trying things out: these are not TLC's records."} if generated else {}


def report_metadata(report: CleaningReport) -> dict[str, Any]:
    """What became of the month: rows, and money, by reason."""
    known_money = {"quarantined_dollars": report.quarantined_total_cents / 100} if _has_total(report) else {}
    return {
        "rows_raw": report.rows_raw,
        "rows_clean": report.clean.rows,
        "rows_quarantined": report.rows_quarantined,
        "share_quarantined": report.share_quarantined,
        **known_money,
        "quarantined_by_reason": dg.MetadataValue.md(_reasons_table(report)),
        "rules": ", ".join(report.rules) or "none",
        "absent_columns": ", ".join(report.absent_columns) or "none",
        "unknown_columns": "; ".join(
            f"{c.name} ({c.type}): {', '.join(c.examples)}" for c in report.unknown_columns
        ) or "none",
    } | generated_note(report.generated)  # fmt: skip


def _has_total(report: CleaningReport) -> bool:
    # Services of for-hire vehicles report no total, so there is no figure to show, not even 0.00.
    return any(column.name == "total_amount" for column in SERVICES[report.service].columns)


def _reasons_table(report: CleaningReport) -> str:
    if not report.reasons:
        return "Nothing was quarantined."
    headers = ["reason", "rows", "total_amount, dollars"]
    rows = [(name, f"{r.rows:,}", f"{r.total_cents / 100:,.2f}") for name, r in report.reasons.items()]
    shown = len(headers) if _has_total(report) else 2
    return markdown_table(headers[:shown], [row[:shown] for row in rows])


def preview(frame: pd.DataFrame) -> dg.MarkdownMetadataValue:
    """The first rows as a table."""
    first = frame.head(PREVIEW_ROWS)
    return dg.MetadataValue.md(markdown_table(list(first.columns), first.astype(object).to_numpy().tolist()))


def file_preview(file: BinaryIO, format_: FileFormat) -> dg.MarkdownMetadataValue:
    """The first rows of a published file as a table, as they stand there."""
    return dg.MetadataValue.md(markdown_table(*first_rows(file, format_, PREVIEW_ROWS)))


def markdown_table(headers: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """A Markdown table; what comes from data cannot break out of its cell."""
    from tabulate import tabulate  # noqa: PLC0415  (only where a table is shown)

    return tabulate(
        [[_cell(v) for v in row] for row in rows], [_cell(h) for h in headers], tablefmt="pipe", disable_numparse=True
    )


def _cell(value: Any) -> str:
    missing = value is None or (not isinstance(value, str) and str(value) in {"<NA>", "nan", "NaT"})
    text = "" if missing else "".join(c if c.isprintable() else " " for c in str(value))
    if len(text) > _CELL_CHARACTERS:
        text = text[:_CELL_CHARACTERS] + "…"
    return "".join(f"\\{c}" if c in _SPECIAL else c for c in text)


def size_metadata(*, rows: int, bytes_: int | None = None, seconds: float | None = None) -> Mapping[str, Any]:
    """Figures that the UI plots over months; the row count is the one Dagster knows by name."""
    figures: dict[str, Any] = {"dagster/partition_row_count": rows, "bytes": bytes_}
    if seconds is not None:
        figures["seconds"] = round(seconds, 3)
    return {name: value for name, value in figures.items() if value is not None}
