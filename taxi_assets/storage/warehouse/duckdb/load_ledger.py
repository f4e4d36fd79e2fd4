"""The ledger of loaded months in a DuckDB file: one row for each month of trips, written together with the trips.

Does not belong here: the trips themselves.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

import duckdb

from taxi_assets.storage.warehouse.base_warehouse import LoadedMonth
from taxi_assets.tlc.cleaning.report import ControlTotals

if TYPE_CHECKING:
    from taxi_assets.storage.lake.objects import ParquetPartition
    from taxi_assets.storage.warehouse.duckdb.tables import Schema
    from taxi_assets.tlc.month import Month
    from taxi_assets.tlc.schema import Service

LOADED_MONTHS = "loaded_months"
"""The name of the ledger."""


@dataclass(frozen=True)
class LoadLedger:
    """The table `loaded_months` of a schema. It need not exist."""

    schema: Schema

    @property
    def name(self) -> str:
        """The quoted name of the table, with database and schema."""
        return self.schema.table_name(LOADED_MONTHS)

    def create(self) -> None:
        """Create the table if it is missing."""
        self.schema.connection.execute(
            f"CREATE TABLE IF NOT EXISTS {self.name} (table_name VARCHAR, data_month DATE, data_version VARCHAR, "
            "row_count BIGINT, cents BIGINT, source_rows BIGINT, loaded_at TIMESTAMP, run_id VARCHAR)"
        )
        self.schema.connection.execute(f"ALTER TABLE {self.name} ADD COLUMN IF NOT EXISTS file VARCHAR")

    def find(self, service: Service, month: Month) -> LoadedMonth | None:
        """Return the row of a month; None if the month is not loaded."""
        try:
            row = self.schema.connection.execute(
                f"SELECT data_version, row_count, cents, source_rows, run_id FROM {self.name} "
                "WHERE table_name = ? AND data_month = ?",
                [service.table, month.start],
            ).fetchone()
        except duckdb.CatalogException:  # the table does not exist yet
            return None
        if row is None:
            return None
        return LoadedMonth(row[0], ControlTotals(rows=row[1], cents=row[2], source_rows=row[3]), row[4] or "")

    def record(
        self, service: Service, month: Month, trips: ParquetPartition, run_id: str, *, file: str | None = None
    ) -> None:
        """Replace the row of a month, within the caller's transaction.

        Args:
            service: The service that was loaded.
            month: The month that was loaded.
            trips: The trips that were loaded.
            run_id: The run that loaded them.
            file: The name of the month's file, if the trips are a view over files.
        """
        report = trips.report
        self.forget(service, month.start)
        self.schema.connection.execute(
            f"INSERT INTO {self.name} (table_name, data_month, data_version, row_count, cents, source_rows, "
            "loaded_at, run_id, file) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                service.table,
                month.start,
                report.data_version,
                report.clean.rows,
                report.clean.cents,
                report.clean.source_rows,
                dt.datetime.now(dt.UTC).replace(tzinfo=None),
                run_id,
                file,
            ],
        )

    def forget(self, service: Service, month: dt.date) -> None:
        """Delete the row of a month."""
        self.schema.connection.execute(
            f"DELETE FROM {self.name} WHERE table_name = ? AND data_month = ?", [service.table, month]
        )

    def forget_all(self, service: Service) -> None:
        """Delete all rows of a service: someone has dropped its table or view."""
        rows = self.schema.connection.execute(
            f"SELECT data_month FROM {self.name} WHERE table_name = ?", [service.table]
        ).fetchall()
        for (month,) in rows:
            self.forget(service, month)

    def files(self, service: Service) -> dict[dt.date, str]:
        """Return the names of the files over which a service's trips are a view, by month."""
        rows = self.schema.connection.execute(
            f"SELECT data_month, file FROM {self.name} WHERE table_name = ? AND file IS NOT NULL ORDER BY data_month",
            [service.table],
        ).fetchall()
        return dict(rows)
