"""An estimate of time and cost for all published months of the four services, from the first month to 2025-12.

Rows and bytes are from the footers of TLC's Parquet files, for the months with published counts
(github.com/lykmapipo/NYC-TLC-Trip-Data, data/trips-metadata). Later months are estimated from the last counted ones.
The rows of yellow are those in docs/kubernetes.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.cleaning import OURS
from benchmarks.running import MATERIALIZE
from taxi_assets.tlc.month import Month

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.rounds import Result

_LAST = Month(2025, 12)
_GIB = 2**30
_MILLION = 1e6

# Assumptions, as in docs/kubernetes.md: list prices in US dollars, and the waiting times of a pod in seconds.
_CORE_HOUR, _TERABYTE, _STORED = 0.134 / 4, 6.25 / 1.0995, 0.02
_PODS, _POD_STARTS, _LOAD_JOB, _DOWNLOAD, _UPLOAD = 20, 15, 30, 20e6, 80e6
_COUNTED_BYTES, _ALL_QUERIED_BYTES, _STORED_BYTES = 176, 3.52e12 / 1.83e9, 240


@dataclass(frozen=True)
class ServiceHistory:
    """The published files of a service.

    The rows and bytes of `counted_files` are known. The other files are estimated: `estimated_monthly_rows` each, with
    as many bytes per row as the counted files.
    """

    service: str
    first: Month
    counted_files: int
    counted_rows: float
    counted_bytes: float
    estimated_monthly_rows: float
    cost_like: str
    """The measured month whose cost per row applies."""
    source: str

    @property
    def months(self) -> int:
        """The number of months, from the first to the last."""
        return (_LAST.year - self.first.year) * 12 + _LAST.number - self.first.number + 1

    @property
    def rows(self) -> float:
        """The number of rows, counted and estimated."""
        return self.counted_rows + (self.months - self.counted_files) * self.estimated_monthly_rows

    @property
    def bytes(self) -> float:
        """The size of the published files."""
        return self.rows * self.counted_bytes / self.counted_rows


_YELLOW, _FHVHV = "yellow, 7.7M", "fhvhv, 20M"
_MEASURED_ROWS = {_YELLOW: 7.7e6, _FHVHV: 20e6}

SERVICE_HISTORIES = (
    # Not all months were counted: 1,660,780,266 rows in 26.1997 GiB. They give the bytes per row.
    ServiceHistory(
        "yellow", Month(2009, 1), 204, 1.83e9, 26.1997 * _GIB * 1.83e9 / 1_660_780_266, 0, _YELLOW,
        "rows: TLC's published counts, rounded (docs/kubernetes.md); bytes per row: from 1,660,780,266 counted rows",
    ),
    ServiceHistory(
        "green", Month(2013, 8), 125, 83_109_529, 1.2152 * _GIB, 57_000, _YELLOW,
        "counted 2014-01 to 2024-05; the other 24 months estimated at 57,000, the mean of 2024",
    ),
    ServiceHistory(
        "fhv", Month(2015, 1), 113, 758_801_924, 5.2644 * _GIB, 1_350_000, _YELLOW,
        "counted 2015-01 to 2024-05; 19 months estimated at 1.35 million, the mean of 2024; fewer columns than yellow",
    ),
    ServiceHistory(
        "fhvhv", Month(2019, 2), 64, 1_098_184_332, 26.0451 * _GIB, 20_100_000, _FHVHV,
        "counted 2019-02 to 2024-05; 19 months estimated at 20.1 million, the mean of 2024",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class MeasuredCosts:
    """The measured inputs of the estimate."""

    overhead: float
    """CPU seconds of a run of a month with 100 rows."""
    per_million: Mapping[str, float]
    """CPU seconds per million rows above the overhead, by measured month."""
    load_per_million: float
    """Seconds per million rows of loading into DuckDB, which has one writer at a time."""
    busy: float
    """Share of two cores that a backfill keeps busy."""
    clean_bytes: float
    """Bytes of a clean row of yellow."""

    @classmethod
    def from_results(cls, results: Mapping[str, Result]) -> MeasuredCosts:
        """Read the inputs from the results.

        Raises:
            KeyError: A comparison was not measured.
        """
        overhead = results["overhead"].median(MATERIALIZE, "cpu")
        full_months, backfill = results["full-months"], results["backfill"]
        return cls(
            overhead,
            {
                like: (full_months.median(like, "cpu") - overhead) / (rows / _MILLION)
                for like, rows in _MEASURED_ROWS.items()
            },
            results["memory-load"].median("23M", "wall") / 23,
            min(1.0, backfill.median("2 workers", "cpu") / backfill.median("2 workers", "wall") / 2),
            results["clean-7.7M-parquet"].median(OURS, "bytes") / 7.7e6,
        )

    def cpu_seconds(self, history: ServiceHistory) -> float:
        """Return the CPU seconds of all months of a service."""
        return self.per_million[history.cost_like] * history.rows / _MILLION + self.overhead * history.months


def tables(results: Mapping[str, Result]) -> str:
    """Return both tables as Markdown, or a line that names the comparison that was not measured."""
    try:
        measured = MeasuredCosts.from_results(results)
    except KeyError as missing:
        return f"Not yet measured: {missing}."
    return "\n\n".join([_services(measured), _deployments(measured)])


def _services(measured: MeasuredCosts) -> str:
    lines = [
        "| service | files | million rows | published GB | CPU-s per million rows | CPU hours | source of the rows |",
        "|---|--:|--:|--:|--:|--:|---|",
    ]
    for one in SERVICE_HISTORIES:
        cells = [
            one.service,
            f"{one.months:,}",
            f"{one.rows / _MILLION:,.0f}",
            f"{one.bytes / 1e9:.1f}",
            f"{measured.per_million[one.cost_like]:.2f} (as {one.cost_like})",
            f"{measured.cpu_seconds(one) / 3600:.2f}",
            one.source,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    files, rows = sum(one.months for one in SERVICE_HISTORIES), sum(one.rows for one in SERVICE_HISTORIES)
    cpu = sum(map(measured.cpu_seconds, SERVICE_HISTORIES))
    published = sum(one.bytes for one in SERVICE_HISTORIES) / 1e9
    lines.append(f"| **all** | {files:,} | {rows / _MILLION:,.0f} | {published:.1f} | | {cpu / 3600:.2f} | |")
    calculation = (
        f"CPU hours: rows by CPU-s per million rows, plus {measured.overhead:.2f} CPU-s per file (a run of 100 rows). "
        "CPU-s per million rows: the CPU-s of a month in *full-months* minus that overhead, divided by its rows."
    )
    return "\n".join([*lines, "", calculation])


def _deployments(measured: MeasuredCosts) -> str:
    rows, files = sum(one.rows for one in SERVICE_HISTORIES), sum(one.months for one in SERVICE_HISTORIES)
    cpu, published = sum(map(measured.cpu_seconds, SERVICE_HISTORIES)), sum(one.bytes for one in SERVICE_HISTORIES)
    clean = rows * measured.clean_bytes
    loads = rows / _MILLION * measured.load_per_million
    two, sixteen = (max(cpu / cores / measured.busy, loads) for cores in (2, 16))
    waits = files * (_POD_STARTS + _LOAD_JOB) + published / _DOWNLOAD + (published + clean) / _UPLOAD
    read = rows * _COUNTED_BYTES / 1e12
    counting = f"loading is free; counting reads {read:.2f} TB at 6.25 $ per TiB"
    hours = f"{cpu / 3600:.1f} CPU hours"
    million = f"{rows / _MILLION:,.0f} million rows"
    loading = f"{million} by {measured.load_per_million:.2f} s of loading"
    one_writer = f"the larger of {hours} on 16 cores that are as busy, and {loading}"
    waiting = (
        f"estimated: {files} times {_POD_STARTS} s for a pod and {_LOAD_JOB} s for a load job, "
        "download at 20 MB/s, upload at 80 MB/s"
    )
    table = [
        (
            "2 cores, DuckDB",
            two,
            _cost(two * 2),
            f"{hours} on 2 cores that are {measured.busy:.0%} busy, as in *backfill*",
        ),
        ("16 cores, DuckDB", sixteen, _cost(sixteen * 16), f"{one_writer} (*memory-load*), with one writer at a time"),
        (
            f"{_PODS} pods, BigQuery",
            (cpu + waits) / _PODS,
            _cost(cpu + waits) + read * _TERABYTE,
            f"{hours} and {waits / 3600:.1f} hours of waiting ({waiting}), divided by {_PODS}; {counting}",
        ),
    ]
    lines = ["| deployment | hours | $, once | calculation |", "|---|--:|--:|---|"]
    lines += [
        f"| {deployment} | {seconds / 3600:.1f} | {cost:.2f} | {calculation} |"
        for deployment, seconds, cost, calculation in table
    ]
    return "\n".join([*lines, "", _storage(rows, published, clean, measured)])


def _cost(core_seconds: float) -> float:
    return core_seconds / 3600 * _CORE_HOUR


def _storage(rows: float, published: float, clean: float, measured: MeasuredCosts) -> str:
    warehouse = rows * _STORED_BYTES
    queried = rows * _ALL_QUERIED_BYTES / 1e12
    return (
        f"- Storage: {published / 1e9:.0f} GB raw, {clean / 1e9:.0f} GB clean ({measured.clean_bytes:.1f} bytes per "
        f"row, as for yellow), {warehouse / 1e9:,.0f} GB in BigQuery ({_STORED_BYTES} bytes per row). At {_STORED} $ "
        f"per GB, this costs {(published + clean + warehouse) / 1e9 * _STORED:.0f} $ a month.\n"
        f"- Queries with marts and reports: BigQuery reads {queried:.1f} TB ({_ALL_QUERIED_BYTES:,.0f} bytes per "
        f"row), which costs {queried * _TERABYTE:.0f} $.\n"
        f"- A core costs {_CORE_HOUR:.4f} $ per hour.\n\n"
        "The bytes per row in BigQuery are from [kubernetes.md](kubernetes.md#cost). Prices and waiting times are "
        "assumptions: replace them with your own."
    )
