"""Render the report of a month as Markdown, which Dagster's UI shows on the page of the asset.

A browser blocks links from the UI to files (`file://`), and the UI strips HTML. So the metadata of a month contains the
main content of its report: the metrics, the tables and two charts.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import dagster as dg

from taxi_assets import metadata
from taxi_assets.reports.chart_style import ChartImage

# The event log stores these charts, so they are few and small.
_SHOWN = ("trips_per_day", "hour_by_weekday")
_REVISION = "revision"


def report_markdown(content: Mapping[str, Any], charts: Sequence[ChartImage], uri: str) -> dg.MarkdownMetadataValue:
    """Return the report of a month as Markdown.

    Args:
        content: The content of the page, as `page_content` returns it.
        charts: The charts of the month. Two of them are embedded, as small images.
        uri: The address of the page in the lake.
    """
    months, quality = content["months"], content["quality"]
    compared = ["metric", months["this"], *(title for month in months["others"] for title in (month, "change"))]
    reasons = ["reason", "rows", "share of file", *(["total amount"] if quality["with_dollars"] else [])]
    parts = [
        f"# {content['title']}",
        content["generated"],
        _facts((tile["name"], "; ".join([tile["value"], *tile["more"]])) for tile in content["tiles"]),
        "## Comparison",
        metadata.markdown_table(
            compared,
            [
                [row["name"], row["value"], *(cell[name] for cell in row["others"] for name in ("value", "change"))]
                for row in content["comparison"]
            ],
        ),
        *(_chart(chart) for chart in charts if chart.name in _SHOWN),
        *_section(
            "Payment types",
            ["payment", "trips", "share of trips", "revenue", "tips, % of fares"],
            [[row[name] for name in ("name", "trips", "share", "revenue", "tips")] for row in content["payments"]],
        ),
        "## Data quality",
        metadata.markdown_text(quality["row_counts"]),
        *_section(
            None,
            reasons,
            [
                [row[name] for name in ("name", "rows", "share", "dollars")][: len(reasons)]
                for row in quality["reasons"]
            ],
        ),
        _facts((fact["name"], fact["value"]) for fact in quality["facts"]),
        *(["## Revision", metadata.markdown_text(content["revision"])] if content["revision"] else []),
        *(_chart(chart) for chart in charts if chart.name == _REVISION),
        f"The whole page, with all charts, is in the lake: {metadata.markdown_text(uri)}",
    ]
    return dg.MetadataValue.md("\n\n".join(part for part in parts if part))


def _chart(chart: ChartImage) -> str:
    return metadata.image(chart.name.replace("_", " "), chart.thumbnail()).md_str or ""


def _facts(facts: Iterable[tuple[str, str]]) -> str:
    return "\n".join(f"- {name}: {metadata.markdown_text(value)}" for name, value in facts)


def _section(heading: str | None, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return []
    return [*([f"## {heading}"] if heading else []), metadata.markdown_table(headers, rows)]
