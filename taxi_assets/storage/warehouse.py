"""The warehouse: one table a service, one month one partition, replaced whole or not at all.

Belongs here: what every engine must be able to do. How an engine does it is a package of its own, such as `duckdb/`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import dagster as dg

from taxi_assets.errors import WarehouseTableMissingError
from taxi_assets.storage.frames import answer, to_frame

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

    import pandas as pd
    import pyarrow as pa

    from taxi_assets.marts.mart import Mart
    from taxi_assets.storage.shelves import ParquetMonth
    from taxi_assets.tlc.month import Month
    from taxi_assets.tlc.report import Totals
    from taxi_assets.tlc.schema import Service


@dataclass(frozen=True)
class LoadedMonth:
    """What the warehouse says it holds of a month: which data, and its control figures at the time."""

    data_version: str
    totals: Totals


class Warehouse(dg.ConfigurableResource, ABC):  # type: ignore[type-arg]  # Dagster's own pattern
    """Tables of trips, by service; marts, by month; and small tables without partitions."""

    kind: ClassVar[str]
    dialect: ClassVar[str]
    """What sqlglot calls the engine's SQL."""

    @abstractmethod
    def replace_month(self, service: Service, month: Month, trips: ParquetMonth, *, run_id: str) -> None:
        """Replace a month of the service's table by the clean trips; a reader sees the old month or the new one.

        Creates the table where it is missing and adds columns that are new in the schema. Verifies the loaded rows
        against the trips' report before they become visible: raises `ConservationError`, and the old month stays.
        Raises `WarehouseSchemaError` where a column has another type than the schema says.
        """

    @abstractmethod
    def loaded(self, service: Service, month: Month) -> LoadedMonth | None:
        """What was last loaded for the month; None where nothing was."""

    @abstractmethod
    def totals(self, service: Service, month: Month) -> Totals:
        """Control figures, counted in the table now."""

    @abstractmethod
    def read_month(self, service: Service, month: Month, *, rows: int | None = None) -> pd.DataFrame:
        """The month in the order of the published file; or so many of its rows, whichever are cheap to have."""

    @abstractmethod
    def replace_frame(self, name: str, frame: pd.DataFrame, descriptions: Mapping[str, str]) -> None:
        """Replace a table without partitions by a frame."""

    @abstractmethod
    def read_frame(self, name: str) -> pd.DataFrame:
        """A table without partitions."""

    @abstractmethod
    def replace_mart(self, mart: Mart, month: Month, services: Sequence[Service], *, run_id: str) -> int:
        """Replace a month of a mart by its query over the trips of these services; the number of rows.

        Creates the table where it is missing, adds columns that are new, describes all; makes its views anew. A reader
        sees the old month or the new one. Raises `WarehouseSchemaError` where a column has another type than the mart
        says, or a table that it reads lacks a column, and `WarehouseTableMissingError` where such a table is missing.
        """

    @abstractmethod
    def query(self, statement: str) -> pa.Table:
        """The rows of a query in the engine's own SQL, with the types that its engine gives them."""

    def fetch(self, statement: str) -> pd.DataFrame:
        """The rows of a query in the engine's own SQL."""
        return to_frame(answer(self.query(statement)))

    def session(self) -> AbstractContextManager[None]:
        """Around several calls in a row: what they need is opened once, where that is worth it."""
        return nullcontext()

    def ask(self, query: str, *, services: Sequence[Service] = (), months: Sequence[Month] = ()) -> pd.DataFrame:
        """The rows of a query in the language of marts; in it `all_trips` are these months of these services.

        Raises `MartDefinitionError` for what engines do not understand alike (see `marts/language.py`).
        """
        from taxi_assets.marts.statements import over_trips, parse, render, types_of  # noqa: PLC0415  (0.2 s)

        asked = parse(query, "query")
        statement = render(over_trips(asked, services, months), self.dialect, self.relation)
        return to_frame(answer(self.query(statement), types_of(asked)))

    def relation(self, name: str) -> str:
        """A table's name as queries take it."""
        return self.table_name(name)

    @abstractmethod
    def table_name(self, name: str) -> str:
        """Qualified name of a table, for people and for metadata."""

    def missing(self, name: str) -> WarehouseTableMissingError:
        """There is no such table."""
        return WarehouseTableMissingError(
            f"There is no table {self.table_name(name)} in {self.uri()}.",
            remedy=f"Materialize the asset {name} first.",
        )

    @abstractmethod
    def uri(self) -> str:
        """The warehouse's address, without secrets."""
