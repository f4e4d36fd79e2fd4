"""Synthetic metrics and cleaning reports of a month, for tests of pages and charts."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from decimal import Decimal

from taxi_assets.reports.metrics import Headline, HourOfWeek, MoneyMetrics, MonthMetrics, ZoneMetrics
from taxi_assets.tlc.cleaning.report import CleaningReport, ControlTotals, ReasonTotals
from taxi_assets.tlc.file_format import FileFormat
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.revision_report import ADDED, CHANGED, REMOVED, RevisionReport
from taxi_assets.tlc.services.fhv import FHV
from taxi_assets.tlc.services.green import GREEN
from taxi_assets.tlc.sources.source_record import SourceRecord

MONTH = Month(2023, 1)


def headline(month: Month = MONTH, trips: int = 3100) -> Headline:
    return Headline(
        month=month,
        trips=trips,
        trips_per_day=trips / month.days,
        busiest=HourOfWeek(5, 17, 40.0),
        revenue=Decimal(trips) * 20,
        fare_per_trip=16.5,
        tips_per_fare=0.2,
        miles_per_trip=2.5,
        minutes_per_trip=15.0,
    )


def month_metrics() -> MonthMetrics:
    """Of green, with every figure there is."""
    payment = MoneyMetrics("Credit card", 3000, Decimal(48000), Decimal(9600), Decimal(60000))
    return MonthMetrics(
        service=GREEN,
        month=MONTH,
        headline=headline(),
        month_before=headline(Month(2022, 12), 3000),
        year_before=None,
        days=[100] * 31,
        trips_outside=0,
        hours=[[float(hour) for hour in range(24)] for _ in range(7)],
        zones=[ZoneMetrics("East Harlem North", "Manhattan", 500), ZoneMetrics("Zone 7", "", 400)],
        trips_without_zone=31,
        fares=[
            MoneyMetrics("$0 to $5", 100, *[Decimal(300)] * 3),
            MoneyMetrics("$5 and more", 3000, *[Decimal(9)] * 3),
        ],
        tip_by_fare=[1.5, None],
        payments=[payment, MoneyMetrics("Dispute", 100, Decimal(0), Decimal(0), Decimal(0))],
    )


def metrics_without_money() -> MonthMetrics:
    """Of fhv in its first years: bases reported pickups and no more."""
    only_trips = replace(
        headline(), revenue=None, fare_per_trip=None, tips_per_fare=None, miles_per_trip=None, minutes_per_trip=None
    )
    return replace(
        month_metrics(), service=FHV, headline=only_trips, month_before=None, fares=[], tip_by_fare=[], payments=[],
        zones=[], trips_without_zone=3100,
    )  # fmt: skip


def no_metrics() -> MonthMetrics:
    """Of a month whose rows are all in quarantine."""
    nothing = replace(metrics_without_money().headline, trips=0, trips_per_day=0.0, busiest=None)
    return replace(metrics_without_money(), headline=nothing, days=[0] * 31, trips_without_zone=0,
                   hours=[[None] * 24 for _ in range(7)])  # fmt: skip


def report(service: str = "green", rows: int = 3100) -> CleaningReport:
    return CleaningReport(
        service=service,
        month=str(MONTH),
        data_version="a1b2c3d4",
        raw_sha256="0123456789abcdef" * 4,
        generated=False,
        rules=["zero_passengers"],
        rows_raw=rows + 50,
        rows_quarantined=50,
        clean=ControlTotals(rows=rows, cents=0, source_rows=0),
        quarantined_total_cents=123_456,
        reasons={"zero_passengers": ReasonTotals(rows=50, total_cents=123_456)},
        rows_by_day=[100] * 31,
        unknown_columns=[],
        absent_columns=[],
    )


def source() -> SourceRecord:
    return SourceRecord(
        url="https://mirror.test/green_tripdata_2023-01.parquet",
        publisher="tlc",
        format=FileFormat.PARQUET,
        bytes=1_427_002,
        sha256=report().raw_sha256,
        rows=3150,
        fetched_at=dt.datetime(2024, 3, 5, 6, 7, tzinfo=dt.UTC),
    )


def revision_report(
    rows_added: int = 0, rows_changed: int = 0, rows_removed: int = 0, cents: int = 0
) -> RevisionReport:
    """Of a month that was revised; all rows that differ are of its first day, except changed ones, of its last day."""
    rows = {ADDED: rows_added, REMOVED: rows_removed}
    return RevisionReport(
        service="green",
        month=str(MONTH),
        data_version="b1",
        old_sha256="0123456789ab" + "c" * 52,
        new_sha256=report().raw_sha256,
        rows_old=3100,
        rows_new=3100 + rows_added - rows_removed,
        quarantined_old=50,
        quarantined_new=50,
        rows_added=rows_added,
        rows_removed=rows_removed,
        rows_changed=rows_changed,
        changed_by_column={},
        cents=cents,
        cents_by_column={},
        columns_only_old=[],
        columns_only_new=[],
        rows_by_day={name: [count, *[0] * 30] for name, count in rows.items()} | {CHANGED: [*[0] * 30, rows_changed]},
    )
