"""The warehouse: one table a service, one month one partition, replaced whole or not at all.

Belongs here: what every engine must be able to do. How an engine does it is a package of its own, such as `duckdb/`.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import dagster as dg

from taxi_assets.errors import (
    ReconciliationError,
    WarehouseBusyError,
    WarehouseSchemaError,
    WarehouseTableMissingError,
)
from taxi_assets.storage.pandas_types import normalize_types, to_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    import pandas as pd
    import pyarrow as pa

    from taxi_assets.marts.mart import Mart
    from taxi_assets.storage.lake.objects import ParquetPartition
    from taxi_assets.tlc.cleaning.report import ControlTotals
    from taxi_assets.tlc.month import Month
    from taxi_assets.tlc.schema import Service

POLL_SECONDS = 0.5
"""Pause between two reads of a ledger while another run is replacing a month."""

RECREATE_TABLE = "Rename or drop the old table, then load its months again."
"""What to do with a table that cannot follow the schema."""


def noop() -> None:
    """Nothing to look at again."""


@dataclass(frozen=True)
class LoadedMonth:
    """What the warehouse says it holds of a month: which data, and its control figures at the time."""

    data_version: str
    totals: ControlTotals
    run_id: str = field(default="", compare=False)
    """The run that loaded it; empty if the ledger does not say."""


class Warehouse(dg.ConfigurableResource, ABC):  # type: ignore[type-arg]  # Dagster's own pattern
    """Tables of trips, by service; marts, by month; and small tables without partitions."""

    kind: ClassVar[str]
    dialect: ClassVar[str]
    """What sqlglot calls the engine's SQL."""
    replacement_wait_seconds: ClassVar[float] = 60
    """How long a reader of the ledger waits for a run that is replacing a month."""

    @abstractmethod
    def replace_month(self, service: Service, month: Month, trips: ParquetPartition, *, run_id: str) -> None:
        """Replace a month of the service's table by the clean trips; a reader sees the old month or the new one.

        Creates the table where it is missing and adds columns that are new in the schema. Verifies the loaded rows
        against the trips' report before they become visible: raises `ReconciliationError`, and the old month stays.
        Raises `WarehouseSchemaError` where a column has another type than the schema says.
        """

    @abstractmethod
    def loaded_month(self, service: Service, month: Month) -> LoadedMonth | None:
        """What was last loaded for the month; None where nothing was."""

    def replacing_run_id(self, service: Service, month: Month) -> str | None:  # noqa: ARG002  (for engines to override)
        """The run that has begun to replace the month and has not finished, so that `loaded` is None meanwhile.

        It may have been killed: no other run can tell from the warehouse alone. Engines that replace trips and ledger
        row in one transaction always return None.
        """
        return None

    def loaded_month_after_wait(self, service: Service, month: Month) -> LoadedMonth | None:
        """Return what `loaded` does, after a wait for a run that is replacing the month.

        Raises:
            WarehouseBusyError: The other run has not finished within a minute.
        """
        ends = time.monotonic() + self.replacement_wait_seconds
        while (loaded := self.loaded_month(service, month)) is None:
            run_id = self.replacing_run_id(service, month)
            if run_id is None:
                return self.loaded_month(service, month)  # the other run may have finished between the two questions
            if time.monotonic() > ends:
                raise WarehouseBusyError(
                    f"The run {run_id} is replacing {service.name} {month} in {self.table_name(service.table)}; it has "
                    f"not finished within {self.replacement_wait_seconds:g} seconds.",
                    remedy="Try again when that run has ended. If it was killed, materialize the month's warehouse "
                    "asset again.",
                )
            time.sleep(POLL_SECONDS)
        return loaded

    def loaded_versions(self, services: Sequence[Service], month: Month) -> dict[str, str]:
        """Which data of the month are loaded, by the names of those services that are.

        Waits for runs that are replacing the month, as `loaded_after_wait` does.
        """
        found = {service.name: self.loaded_month_after_wait(service, month) for service in services}
        return {name: loaded.data_version for name, loaded in found.items() if loaded is not None}

    @abstractmethod
    def totals(self, service: Service, month: Month) -> ControlTotals:
        """Control figures, counted in the table now."""

    @abstractmethod
    def read_month(self, service: Service, month: Month, *, rows: int | None = None) -> pd.DataFrame:
        """The month in the order of the published file; or so many of its rows, whichever are cheap to have."""

    @abstractmethod
    def replace_frame(
        self,
        name: str,
        frame: pd.DataFrame,
        descriptions: Mapping[str, str],
        *,
        require_inputs_unchanged: Callable[[], None] = noop,
    ) -> None:
        """Replace a table without partitions by a frame, after `require_current`; see `replace_mart`."""

    @abstractmethod
    def read_frame(self, name: str) -> pd.DataFrame:
        """A table without partitions."""

    @abstractmethod
    def replace_mart(
        self,
        mart: Mart,
        month: Month,
        services: Sequence[Service],
        *,
        run_id: str,
        require_inputs_unchanged: Callable[[], None] = noop,
    ) -> int:
        """Replace a month of a mart by its query over the trips of these services; the number of rows.

        `require_current` raises where what the caller has looked at is not so any more. It is asked where no other run
        can write this month before this one has ended; an engine without such locks asks it afterwards as well.

        Creates the table where it is missing, adds columns that are new, describes all; makes its views anew. A reader
        sees the old month or the new one. Raises `WarehouseSchemaError` where a column has another type than the mart
        says, or a table that it reads lacks a column, and `WarehouseTableMissingError` where such a table is missing.
        """

    @abstractmethod
    def query_native(self, statement: str) -> pa.Table:
        """The rows of a query in the engine's own SQL, with the types that its engine gives them."""

    def read_native_frame(self, statement: str) -> pd.DataFrame:
        """The rows of a query in the engine's own SQL."""
        return to_frame(normalize_types(self.query_native(statement)))

    def session(self) -> AbstractContextManager[None]:
        """Around several calls in a row: what they need is opened once, where that is worth it."""
        return nullcontext()

    def read_portable_frame(
        self, query: str, *, services: Sequence[Service] = (), months: Sequence[Month] = ()
    ) -> pd.DataFrame:
        """The rows of a query in the language of marts; in it `all_trips` are these months of these services.

        Raises `MartDefinitionError` for what engines do not understand alike (see `marts/portable_sql.py`).
        """
        from taxi_assets.marts.sql_rendering import column_types, expand_all_trips, parse, render  # noqa: PLC0415  (0.2 s)

        asked = parse(query, "query")
        statement = render(expand_all_trips(asked, services, months), self.dialect, self.relation)
        return to_frame(normalize_types(self.query_native(statement), column_types(asked)))

    def relation(self, name: str) -> str:
        """A table's name as queries take it."""
        return self.table_name(name)

    @abstractmethod
    def table_name(self, name: str) -> str:
        """Qualified name of a table, for people and for metadata."""

    def missing_error(self, name: str) -> WarehouseTableMissingError:
        """There is no such table."""
        return WarehouseTableMissingError(
            f"There is no table {self.table_name(name)} in {self.uri()}.",
            remedy=f"Materialize the asset {name} first.",
        )

    @abstractmethod
    def uri(self) -> str:
        """The warehouse's address, without secrets."""


def reconciliation_error(
    service: Service,
    month: Month,
    trips: ParquetPartition,
    table: str,
    found: ControlTotals,
    note: str = "The month was left as it was.",
) -> ReconciliationError:
    """What was loaded into a table is not what the trips' report says."""
    return ReconciliationError(
        f"{service.name} {month}: loading {trips.uri} into {table} gave {found}, expected {trips.report.clean}. {note}",
        remedy="Materialize the clean asset of this month again, then the warehouse.",
    )


def column_type_error(table: str, column: str, found: str, wanted: str) -> WarehouseSchemaError:
    """A column is of another type than the schema says."""
    return WarehouseSchemaError(f"{table} has {column} as {found}; the schema says {wanted}.", remedy=RECREATE_TABLE)


def query_error(label: str, message: str) -> WarehouseSchemaError:
    """The engine does not understand a query on our tables; `what` names what it was for."""
    return WarehouseSchemaError(
        f"{label}: {message}.",
        remedy="If a table lacks a column that the schema has gained, load a month into it first.",
    )
