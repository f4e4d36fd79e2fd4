"""All of TLC's history on paper: four services, first month to 2025-12; estimates are called so.

Rows and bytes were counted in the footers of TLC's own Parquet files, as far as somebody has published such counts
(github.com/lykmapipo/NYC-TLC-Trip-Data, data/trips-metadata), and go on as they were in the last counted months;
yellow's rows are those of docs/kubernetes.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.running import MATERIALIZE
from taxi_assets.tlc.month import Month

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.rounds import Result

_LAST = Month(2025, 12)
_GIB = 2**30
_MILLION = 1e6

# Assumed, as in docs/kubernetes.md: list prices, and what a pod waits for.
_CORE_HOUR, _TERABYTE, _STORED = 0.134 / 4, 6.25 / 1.0995, 0.02
_PODS, _POD_STARTS, _LOAD_JOB, _DOWNLOAD, _UPLOAD = 20, 15, 30, 20e6, 80e6
_COUNTED_BYTES, _ALL_QUERIED_BYTES, _STORED_BYTES = 2 * 176, 3.84e12 / 1.83e9, 240


@dataclass(frozen=True)
class History:
    """What TLC has published of a service. `counted` of its `months` files have so many rows and bytes.

    The others are estimated: `monthly` rows each, as many bytes a row as the counted ones.
    """

    service: str
    first: Month
    counted: int
    counted_rows: float
    counted_bytes: float
    monthly: float
    like: str
    """Which measured month its rows cost as much as."""
    source: str

    @property
    def months(self) -> int:
        """First to last."""
        return (_LAST.year - self.first.year) * 12 + _LAST.number - self.first.number + 1

    @property
    def rows(self) -> float:
        """Counted and estimated."""
        return self.counted_rows + (self.months - self.counted) * self.monthly

    @property
    def bytes(self) -> float:
        """Of the published files."""
        return self.rows * self.counted_bytes / self.counted_rows


_YELLOW, _FHVHV = "yellow, 7.7M", "fhvhv, 20M"
_MEASURED_ROWS = {_YELLOW: 7.7e6, _FHVHV: 20e6}

HISTORIES = (
    # 1,660,780,266 rows in 26.1997 GiB were counted, but not of all months: bytes a row from there.
    History(
        "yellow", Month(2009, 1), 204, 1.83e9, 26.1997 * _GIB * 1.83e9 / 1_660_780_266, 0, _YELLOW,
        "rows: TLC's published counts, rounded (docs/kubernetes.md); bytes a row: of the 1,660,780,266 rows counted",
    ),
    History(
        "green", Month(2013, 8), 125, 83_109_529, 1.2152 * _GIB, 57_000, _YELLOW,
        "counted 2014-01 to 2024-05; the other 24 months estimated at 57,000, the mean of 2024",
    ),
    History(
        "fhv", Month(2015, 1), 113, 758_801_924, 5.2644 * _GIB, 1_350_000, _YELLOW,
        "counted 2015-01 to 2024-05; 19 months estimated at 1.35 million, the mean of 2024; fewer columns than yellow",
    ),
    History(
        "fhvhv", Month(2019, 2), 64, 1_098_184_332, 26.0451 * _GIB, 20_100_000, _FHVHV,
        "counted 2019-02 to 2024-05; 19 months estimated at 20.1 million, the mean of 2024",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """The measured figures that the model is made of."""

    overhead: float
    """CPU seconds of a run of an empty month."""
    a_million: Mapping[str, float]
    """CPU seconds of a million rows, above that, by what they are like."""
    load: float
    """Seconds of loading a million rows into DuckDB, which takes one writer at a time."""
    busy: float
    """How much of two cores a backfill keeps busy."""
    clean_bytes: float
    """Bytes of a clean row of yellow."""

    @classmethod
    def take(cls, results: Mapping[str, Result]) -> Measured:
        """From the results; raises `KeyError` for what was not measured."""
        overhead = results["overhead"].median(MATERIALIZE, "cpu")
        growth, backfill = results["growth"], results["backfill"]
        return cls(
            overhead,
            {
                like: (growth.median(like, "cpu") - overhead) / (rows / _MILLION)
                for like, rows in _MEASURED_ROWS.items()
            },
            results["memory-load"].median("23M", "wall") / 23,
            min(1.0, backfill.median("2 at once", "cpu") / backfill.median("2 at once", "wall") / 2),
            results["clean-7.7M-parquet"].median("ours", "bytes") / 7.7e6,
        )

    def cpu(self, history: History) -> float:
        """Seconds of all its months."""
        return self.a_million[history.like] * history.rows / _MILLION + self.overhead * history.months


def tables(results: Mapping[str, Result]) -> str:
    """Both tables, as Markdown; a line that says what is missing where something was not measured."""
    try:
        measured = Measured.take(results)
    except KeyError as missing:
        return f"Not yet measured: {missing}."
    return "\n\n".join([_services(measured), _places(measured)])


def _services(measured: Measured) -> str:
    lines = [
        "| service | files | rows, million | published, GB | CPU-s a million rows | CPU hours | rows are |",
        "|---|--:|--:|--:|--:|--:|---|",
    ]
    for one in HISTORIES:
        cells = [
            one.service,
            f"{one.months:,}",
            f"{one.rows / _MILLION:,.0f}",
            f"{one.bytes / 1e9:.1f}",
            f"{measured.a_million[one.like]:.2f} (as {one.like})",
            f"{measured.cpu(one) / 3600:.2f}",
            one.source,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    files, rows = sum(one.months for one in HISTORIES), sum(one.rows for one in HISTORIES)
    cpu = sum(map(measured.cpu, HISTORIES))
    published = sum(one.bytes for one in HISTORIES) / 1e9
    lines.append(f"| **all** | {files:,} | {rows / _MILLION:,.0f} | {published:.1f} | | {cpu / 3600:.2f} | |")
    how = (
        f"CPU hours: the rows by CPU-s a million, and {measured.overhead:.2f} CPU-s for each file (a run of 100 rows). "
        "CPU-s a million rows: a month of *growth* above, less that overhead, by its rows."
    )
    return "\n".join([*lines, "", how])


def _places(measured: Measured) -> str:
    rows, files = sum(one.rows for one in HISTORIES), sum(one.months for one in HISTORIES)
    cpu, published = sum(map(measured.cpu, HISTORIES)), sum(one.bytes for one in HISTORIES)
    clean = rows * measured.clean_bytes
    loads = rows / _MILLION * measured.load
    two, sixteen = (max(cpu / cores / measured.busy, loads) for cores in (2, 16))
    waits = files * (_POD_STARTS + _LOAD_JOB) + published / _DOWNLOAD + (published + clean) / _UPLOAD
    read = rows * _COUNTED_BYTES / 1e12
    counting = f"loading is free, counting reads {read:.2f} TB at 6.25 $ a TiB"
    hours = f"{cpu / 3600:.1f} CPU hours"
    million = f"{rows / _MILLION:,.0f} million rows"
    one_writer = f"the larger of {hours} on 16 cores, as busy, and {million} by {measured.load:.2f} s of loading"
    waiting = (
        f"{files} times {_POD_STARTS} s for a pod and {_LOAD_JOB} s for a load job, download at 20 MB/s, upload at 80"
    )
    table = [
        ("2 cores, DuckDB", two, _cost(two * 2), f"{hours}, on 2 cores, {measured.busy:.0%} busy as in *backfill*"),
        ("16 cores, DuckDB", sixteen, _cost(sixteen * 16), f"{one_writer} (*memory-load*): one writer at a time"),
        (
            f"{_PODS} pods, BigQuery",
            (cpu + waits) / _PODS,
            _cost(cpu + waits) + read * _TERABYTE,
            f"{hours} and {waits / 3600:.1f} of waiting ({waiting}: estimated), by {_PODS}; {counting}",
        ),
    ]
    lines = ["| where | hours | $, once | made of |", "|---|--:|--:|---|"]
    lines += [f"| {where} | {seconds / 3600:.1f} | {cost:.2f} | {made_of} |" for where, seconds, cost, made_of in table]
    return "\n".join([*lines, "", _storage(rows, published, clean, measured)])


def _cost(core_seconds: float) -> float:
    return core_seconds / 3600 * _CORE_HOUR


def _storage(rows: float, published: float, clean: float, measured: Measured) -> str:
    warehouse = rows * _STORED_BYTES
    queried = rows * _ALL_QUERIED_BYTES / 1e12
    return (
        f"Kept: {published / 1e9:.0f} GB raw, {clean / 1e9:.0f} GB clean ({measured.clean_bytes:.1f} bytes a row, as "
        f"yellow's), {warehouse / 1e9:,.0f} GB in BigQuery ({_STORED_BYTES} bytes a row, docs/kubernetes.md): "
        f"{(published + clean + warehouse) / 1e9 * _STORED:.0f} $ a month at {_STORED} $ a GB. With marts and reports "
        f"BigQuery reads {queried:.1f} TB ({_ALL_QUERIED_BYTES:,.0f} bytes a row, docs/kubernetes.md): "
        f"{queried * _TERABYTE:.0f} $. A core is {_CORE_HOUR:.4f} $ an hour. Prices, and what a pod waits for, are "
        "assumptions: put in your own."
    )
