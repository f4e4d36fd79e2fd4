"""The report of a cleaned month: how many rows and how much money are clean, and how many are quarantined and why.

The report is stored in the footers of both Parquet files of a month, so that a reader can tell whether the two belong
together. It has no value that differs between two runs over the same file: identical input produces identical bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field

from taxi_assets.tlc.footer_report import FooterReport
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.parquet_io import open_parquet_stream

if TYPE_CHECKING:
    from pathlib import Path

    from taxi_assets.tlc.schema import Service


class ControlTotals(BaseModel):
    """The control totals of a set of rows. They must be equal in every place where these rows are stored."""

    model_config = ConfigDict(frozen=True)

    rows: int = Field(description="Number of rows.")
    cents: int = Field(description="Sum of all money columns, in cents.")
    source_rows: int = Field(description="Sum of the row numbers in the published file.")

    def __add__(self, other: ControlTotals) -> ControlTotals:
        return ControlTotals(
            rows=self.rows + other.rows,
            cents=self.cents + other.cents,
            source_rows=self.source_rows + other.source_rows,
        )

    def __str__(self) -> str:
        return (
            f"{self.rows:,} rows, {self.cents / 100:,.2f} dollars in all money columns, "
            f"row numbers adding up to {self.source_rows:,}"
        )


NO_ROWS = ControlTotals(rows=0, cents=0, source_rows=0)


class ReasonTotals(BaseModel):
    """The rows with one quarantine reason. A row with several reasons counts for each."""

    model_config = ConfigDict(frozen=True)

    rows: int = Field(description="Number of rows.")
    total_cents: int = Field(description="Sum of total_amount, in cents. Amounts that cannot be read count as 0.")


class UnknownColumn(BaseModel):
    """A published column that matches no canonical column. Its values are not stored."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(description="Name as published, or the position of a field that the header does not name.")
    type: str = Field(description="Type in the file.")
    examples: Sequence[str] = Field(description="Up to three distinct values.")


class UnreadableColumn(BaseModel):
    """A canonical column with values that cannot be read. Their rows are in quarantine."""

    model_config = ConfigDict(frozen=True)

    published_as: str = Field(description="Name and type in the file, such as `VendorID, int64`.")
    rows: int = Field(description="Number of rows whose value cannot be read.")
    examples: Sequence[str] = Field(description="Up to three distinct values.")


class CleaningReport(FooterReport):
    """The outcome of cleaning one month's file."""

    FOOTER_KEY = b"taxi_assets"

    service: str = Field(description="Name of the service.")
    month: str = Field(description="The partition key, such as 2021-01.")
    data_version: str = Field(
        description="Digest of the raw bytes, the schema and the rules. Both files of a month have the same one."
    )
    raw_sha256: str = Field(description="SHA-256 digest of the published file.")
    pinned: bool = Field(
        default=False,
        description="Whether the month is pinned to this file: it is cleaned from it until a run releases it.",
    )
    generated: bool = Field(description="Whether the rows are the synthetic sample, not TLC's records.")
    rules: Sequence[str] = Field(description="Names of the rules that were applied.")
    rows_raw: int = Field(description="Rows of the published file, counted without the reader.")
    rows_quarantined: int = Field(description="Quarantined rows.")
    clean: ControlTotals = Field(description="Control totals of the clean trips.")
    quarantined_total_cents: int = Field(
        description="Sum of total_amount over quarantined rows, in cents. Amounts that cannot be read count as 0."
    )
    reasons: dict[str, ReasonTotals] = Field(description="Quarantined rows by reason, sorted by name.")
    rows_by_day: Sequence[int] = Field(
        description="Clean trips by day of pickup, one number per day of the month. Other pickup days are not counted."
    )
    unknown_columns: Sequence[UnknownColumn] = Field(description="Published columns that match no canonical column.")
    absent_columns: Sequence[str] = Field(description="Canonical columns that the file does not have, expected or not.")
    published_columns: dict[str, Sequence[str]] = Field(
        default={},
        description="Names in the file by canonical column, for the columns that it has. Empty in older reports.",
    )
    unreadable_columns: dict[str, UnreadableColumn] = Field(
        default={},
        description="Columns with values that cannot be read, the most affected first. Empty in older reports.",
    )
    interpretations: dict[str, Sequence[str]] = Field(
        default={},
        description="How times were read that were not published as local times, by canonical column. Empty in older "
        "reports.",
    )

    @property
    def share_quarantined(self) -> float:
        """The share of quarantined rows, from 0 to 1."""
        return self.rows_quarantined / self.rows_raw if self.rows_raw else 0.0

    def missing_columns(self, service: Service) -> list[str]:
        """Return the columns that are missing in the file, but expected in its month.

        Columns that the publisher introduced later, or had dropped before, are not expected.

        Args:
            service: The service of the report.
        """
        month = Month.parse(self.month)
        expected = {column.name for column in service.published_columns if column.is_published_in(month)}
        return [name for name in self.absent_columns if name in expected]


def to_cents(total: Any) -> int:
    """Return a decimal sum of dollars in cents. pyarrow returns None as the sum of no values; this returns 0."""
    return 0 if total is None else int(total.scaleb(2))


def _cents_of(money: Any) -> int:
    if pa.types.is_decimal64(money.type):
        return pc.sum(money.view(pa.int64())).as_py() or 0
    return to_cents(pc.sum(money).as_py())


def compute_totals(batch: Any, money_columns: Sequence[str]) -> ControlTotals:
    """Compute the control totals of a batch of clean trips.

    Args:
        batch: A record batch in canonical or working types.
        money_columns: The names of the service's money columns.
    """
    return ControlTotals(
        rows=batch.num_rows,
        cents=sum(_cents_of(batch.column(name)) for name in money_columns),
        source_rows=pc.sum(batch.column("source_row")).as_py() or 0,
    )


def compute_parquet_totals(path: Path, service: Service, month: Month) -> ControlTotals:
    """Compute the control totals of a month from the rows of a Parquet file of clean trips.

    Args:
        path: The Parquet file.
        service: Names the money columns.
        month: Only rows with this `data_month` count.
    """
    totals = NO_ROWS
    columns = [*service.money_columns, "source_row", "data_month"]
    with open_parquet_stream(path) as file:
        for batch in file.iter_batches(columns=columns, use_threads=False):
            of_month = pc.equal(batch.column("data_month"), pa.scalar(month.start))
            # Nearly every batch has only this month. Filtering it would take a fifth of the time.
            rows = batch if of_month.true_count == batch.num_rows else batch.filter(of_month)
            totals += compute_totals(rows, service.money_columns)
    return totals
