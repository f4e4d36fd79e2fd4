"""What became of a month: how many rows and how much money are clean, how many are in quarantine and why.

The report is stored in the footers of both Parquet files of a month, so that either tells whether they belong together.
It holds nothing that changes between two runs over the same bytes: same input, same file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field

from taxi_assets.tlc.parquet_io import open_parquet_stream

if TYPE_CHECKING:
    from pathlib import Path

    from taxi_assets.tlc.month import Month
    from taxi_assets.tlc.schema import Service

FOOTER_KEY = b"taxi_assets"


class ControlTotals(BaseModel):
    """Control figures of a set of rows: what must be equal wherever these rows stand."""

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
    """One reason for quarantine. A row that has several is counted under each."""

    model_config = ConfigDict(frozen=True)

    rows: int
    total_cents: int = Field(description="Sum of their total_amount, in cents; 0 where it cannot be read.")


class UnknownColumn(BaseModel):
    """A published column that the schema does not know; it is kept out."""

    model_config = ConfigDict(frozen=True)

    name: str
    type: str
    examples: Sequence[str]


class CleaningReport(BaseModel):
    """What cleaning made of one month's file."""

    model_config = ConfigDict(frozen=True)

    service: str
    month: str
    data_version: str = Field(
        description="Digest of the raw bytes, the schema, the rules: names both halves of a pair."
    )
    raw_sha256: str
    generated: bool = Field(description="True for the generated sample: not TLC's records.")
    rules: Sequence[str] = Field(description="The rules that were applied.")
    rows_raw: int
    rows_quarantined: int
    clean: ControlTotals
    quarantined_total_cents: int = Field(description="Sum of total_amount over quarantined rows where it can be read.")
    reasons: dict[str, ReasonTotals]
    rows_by_day: Sequence[int] = Field(description="Clean rows by day of pickup, first to last day of the month.")
    unknown_columns: Sequence[UnknownColumn]
    absent_columns: Sequence[str]

    @property
    def share_quarantined(self) -> float:
        """Between 0 and 1."""
        return self.rows_quarantined / self.rows_raw if self.rows_raw else 0.0

    def footer(self) -> dict[bytes, bytes]:
        """As Parquet key-value metadata."""
        return {FOOTER_KEY: self.model_dump_json().encode()}

    @classmethod
    def from_footer(cls, metadata: dict[bytes, bytes] | None) -> CleaningReport | None:
        """Read it back; None where a file has none, or one of another version of this package."""
        text = (metadata or {}).get(FOOTER_KEY)
        try:
            return None if text is None else cls.model_validate_json(text)
        except ValueError:
            return None


def to_cents(total: Any) -> int:
    """Cents of a decimal sum as pyarrow gives it; 0 for the sum of nothing."""
    return 0 if total is None else int(total.scaleb(2))


def _cents_of(money: Any) -> int:
    if pa.types.is_decimal64(money.type):
        return pc.sum(money.view(pa.int64())).as_py() or 0
    return to_cents(pc.sum(money).as_py())


def compute_totals(batch: Any, money_columns: Sequence[str]) -> ControlTotals:
    """Control figures of a batch of clean trips."""
    return ControlTotals(
        rows=batch.num_rows,
        cents=sum(_cents_of(batch.column(name)) for name in money_columns),
        source_rows=pc.sum(batch.column("source_row")).as_py() or 0,
    )


def compute_parquet_totals(path: Path, service: Service, month: Month) -> ControlTotals:
    """Control figures of a month in a file of clean trips, counted from its rows."""
    totals = NO_ROWS
    columns = [*service.money_columns, "source_row", "data_month"]
    with open_parquet_stream(path) as file:
        for batch in file.iter_batches(columns=columns, use_threads=False):
            of_month = pc.equal(batch.column("data_month"), pa.scalar(month.start))
            whole = of_month.true_count == batch.num_rows  # nearly always, and filtering takes a fifth of the time
            totals += compute_totals(batch if whole else batch.filter(of_month), service.money_columns)
    return totals
