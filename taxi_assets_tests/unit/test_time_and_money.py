"""docs/time-and-money.md: its inputs are those of docs/benchmarks.md, and its results follow from them."""

from __future__ import annotations

import re

import pytest

from taxi_assets_tests.documentation import TEXTS

PAGE, BENCHMARKS = TEXTS["docs/time-and-money.md"], TEXTS["docs/benchmarks.md"]
SERVICES = ("yellow", "green", "fhv", "fhvhv")


def number(cell: str) -> float | None:
    """Return the first number of a cell; None if it has none."""
    found = re.search(r"\d[\d,]*(?:\.\d+)?", cell)
    return float(found[0].replace(",", "")) if found else None


def rows(text: str, heading: str) -> dict[str, list[float | None]]:
    """Return the numbers of the rows of a section's tables by their first cell, in bold or not."""
    section = text.split(f"\n## {heading}\n")[1].split("\n## ", maxsplit=1)[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if "|" in line]
    return {first.strip("*"): [number(cell) for cell in others] for first, *others in cells}


COUNTED = rows(PAGE, "What is measured or counted")
FILES, MILLION_ROWS, PUBLISHED_GB, CPU_HOURS = (value or 0 for value in COUNTED["all"])
CLEAN_GB = MILLION_ROWS * 17.9 / 1e3
CORES = 2 * 0.82
DOWNLOAD_HOURS = PUBLISHED_GB * 1e3 / 12.5 / 3600
UPLOAD_HOURS = (PUBLISHED_GB + CLEAN_GB) * 1e3 / 5 / 3600
COMPUTE_HOURS = CPU_HOURS / CORES
MART_HOURS = 2 * 1.75 / 1.4 * MILLION_ROWS / 3600 / CORES
LOAD_JOB_HOURS = FILES * 30 / 2 / 3600
QUERY_HOURS = FILES * (25 + 3) * 2 / 2 / 3600
POD_HOURS = FILES * (65 + 2 * 25) / 3600
QUERIES = MILLION_ROWS * 1923 / 1e6 / 1.0995 * 6.25
TRANSFER = PUBLISHED_GB / 1.074 * 0.12


@pytest.mark.parametrize("service", [*SERVICES, "all"])
def test_the_inputs_are_those_of_the_benchmarks(service: str) -> None:
    files, million_rows, gigabytes, per_million, cpu_hours, *_ = rows(BENCHMARKS, "Estimate for the full history")[
        service
    ]
    if service == "all":
        assert per_million is None
    assert COUNTED[service] == [files, million_rows, gigabytes, cpu_hours]


def test_further_inputs_are_those_of_the_benchmarks() -> None:
    estimate = " ".join(BENCHMARKS.split("\n## Estimate for the full history\n")[1].split())
    for quoted in (
        "75 GB clean (17.9 bytes per row",
        "1,003 GB in BigQuery",
        "this costs 23 $ a month",
        "(1,923 bytes per row), which costs 46 $",
        "cores that are 82% busy",
        "7.7 CPU hours and 8.7 hours of waiting",
        "A core costs 0.0335 $ per hour.",
    ):
        assert quoted in estimate
    (marts,) = re.findall(r"^\| queries without Dagster \| [\d.]+ \| ([\d.]+) \|", BENCHMARKS, re.MULTILINE)
    assert float(marts) == 1.75


@pytest.mark.parametrize(
    ("section", "part", "expected"),
    [
        ("Laptop", "download", DOWNLOAD_HOURS),
        ("Laptop", "layers and reports", COMPUTE_HOURS),
        ("Laptop", "marts, with checks", MART_HOURS),
        ("Laptop", "all", DOWNLOAD_HOURS + COMPUTE_HOURS + MART_HOURS),
        ("Laptop to the cloud", "download from the publisher", DOWNLOAD_HOURS),
        ("Laptop to the cloud", "upload of raw and clean files", UPLOAD_HOURS),
        ("Laptop to the cloud", "download of raw files from the bucket", DOWNLOAD_HOURS),
        ("Laptop to the cloud", "layers and reports", COMPUTE_HOURS),
        ("Laptop to the cloud", "load jobs", LOAD_JOB_HOURS),
        ("Laptop to the cloud", "queries of marts and reports", QUERY_HOURS),
        ("Laptop to the cloud", "queries, with marts and reports", QUERIES),
        ("Laptop to the cloud", "data transfer out", TRANSFER),
        ("Laptop to the cloud", "once", QUERIES + TRANSFER),
        (
            "Laptop to the cloud",
            "all",
            2 * DOWNLOAD_HOURS + UPLOAD_HOURS + COMPUTE_HOURS + LOAD_JOB_HOURS + QUERY_HOURS,
        ),
        ("Cloud", "layers", (7.7 + 8.7) / 20),
        ("Cloud", "marts and reports", POD_HOURS / 20),
        ("Cloud", "all", (7.7 + 8.7 + POD_HOURS) / 20),
        ("Cloud", "pods", (7.7 + 8.7 + POD_HOURS) * 0.0335),
        ("Cloud", "once", (7.7 + 8.7 + POD_HOURS) * 0.0335 + QUERIES),
    ],
)
def test_each_result_follows_from_the_inputs(section: str, part: str, expected: float) -> None:
    stated = rows(PAGE, section)[part][0]
    assert stated is not None
    tolerance = 0.5 if stated >= 25 else 0.051  # whole dollars, and one decimal of hours
    assert stated == pytest.approx(expected, abs=tolerance)


def test_the_summary_repeats_the_results() -> None:
    summary = [row for row in PAGE.splitlines() if row.startswith(("| laptop", "| cloud"))]
    hours = [number(row.split("|")[2]) for row in summary]
    assert hours == [rows(PAGE, section)["all"][0] for section in ("Laptop", "Laptop to the cloud", "Cloud")]
    dollars = [number(row.split("|")[3]) for row in summary]
    assert dollars == [0, *(rows(PAGE, section)["once"][0] for section in ("Laptop to the cloud", "Cloud"))]
