"""Crash points of a run: the points before and after each durable write, reported by name when the run reaches them.

The code under test is real: wrappers around its calls report the points.

- `WRITES`: writes of a lake in a folder, and of DuckDB.
- `STEPS`: start and end of each Dagster step.
- `STATEMENTS`: statements that change something on a Postgres server.

Google's test doubles see every request, so they need no crash points.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from unittest import mock

import dagster as dg
import duckdb
import psycopg2
import psycopg2.extensions
from psycopg2 import sql

from taxi_assets.storage.lake.local_lake import LocalLake
from taxi_assets.storage.warehouse.duckdb import DuckDBWarehouse, connections

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager


@contextmanager
def _report_writes(home: Path, reached: Callable[[str], None]) -> Iterator[None]:
    replace, link, unlink, connect = Path.replace, Path.hardlink_to, Path.unlink, duckdb.connect
    publish, load = LocalLake.publish, DuckDBWarehouse.replace_month

    @contextmanager
    def around(name: str | None) -> Iterator[None]:
        if name is not None:
            reached(f"before {name}")
        yield
        if name is not None:
            reached(f"after {name}")

    def reporting_replace(path: Path, target: Path) -> Path:
        with around(_crash_point_name(Path(target), home)):
            return replace(path, target)

    def reporting_publish(lake: LocalLake, file: Path, key: str, **options: Any) -> None:
        reached(f"publishing {_crash_point_name(Path(lake.folder, key), home)}")  # before the lake takes its lock
        publish(lake, file, key, **options)

    def reporting_link(path: Path, target: Path) -> None:
        with around(_crash_point_name(path, home)):
            link(path, target)

    def reporting_unlink(path: Path, missing_ok: bool = False) -> None:
        held = path.is_relative_to(home / "lake" / "raw") and path.exists()
        with around(f"removing {path.name.partition('.')[2]}" if held else None):
            unlink(path, missing_ok=missing_ok)

    def reporting_load(*args: Any, **options: Any) -> None:
        with around("loading"):
            load(*args, **options)

    def reporting_connect(*args: Any, **options: Any) -> Any:
        return _ReportingConnection(connect(*args, **options), reached)

    with (
        mock.patch.object(Path, "replace", reporting_replace),
        mock.patch.object(Path, "hardlink_to", reporting_link),
        mock.patch.object(Path, "unlink", reporting_unlink),
        mock.patch.object(LocalLake, "publish", reporting_publish),
        mock.patch.object(DuckDBWarehouse, "replace_month", reporting_load),
        mock.patch.object(duckdb, "connect", reporting_connect),
    ):
        connections.close_idle()  # these were opened by the real `duckdb.connect`
        yield
        connections.close_idle()


def _crash_point_name(target: Path, home: Path) -> str | None:
    """Name the object that a rename to `target` publishes; None for a temporary file."""
    layer = target.parent.parent.name if target.is_relative_to(home / "lake") else ""
    if layer == "revisions":  # the replaced file, its record, and the record of the new file
        kept = [path for path in target.parent.glob(f"{target.name.partition('.')[0]}.*") if path != target]
        return "revision" if not target.name.endswith(".source.json") else "revision record" if kept else "new record"
    if layer == "raw":
        return "raw record" if target.name.endswith(".source.json") else "raw object"
    if target.parent == home:
        return f"making {target.name}"
    if target.parent.parent.name.endswith(".trips"):
        return "trips file"
    return layer or None


class _ReportingConnection:
    """A DuckDB connection that reports its commits, and the statements that replace rows."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, reached: Callable[[str], None]) -> None:
        self._connection = connection
        self._reached = reached
        self._wrote = False

    def begin(self) -> Self:
        self._wrote = False
        self._connection.begin()
        return self

    def execute(self, statement: str, *parameters: Any) -> Any:
        result = self._connection.execute(statement, *parameters)
        verb, _, table = [*statement.split(), "", "", ""][:3]
        if verb in {"DELETE", "INSERT"}:
            self._wrote = True
            is_ledger = "loaded_months" in table or "stored_partitions" in table
            self._reached(f"after {verb} {'ledger' if is_ledger else 'trips'}")
        return result

    def commit(self) -> Self:
        name = "warehouse month" if self._wrote else "warehouse table"
        self._reached(f"before {name}")
        self._connection.commit()
        self._reached(f"after {name}")
        return self

    def cursor(self) -> Self:
        return type(self)(self._connection.cursor(), self._reached)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


@contextmanager
def _report_steps(_home: Path, reached: Callable[[str], None]) -> Iterator[None]:
    log = dg.DagsterEvent.from_step

    def reporting_from_step(event_type: Any, step_context: Any, *args: Any, **options: Any) -> dg.DagsterEvent:
        if event_type.value in {"STEP_START", "STEP_SUCCESS"}:
            reached(f"{'before' if event_type.value == 'STEP_START' else 'after'} {step_context.step.key}")
        return log(event_type, step_context, *args, **options)

    with mock.patch.object(dg.DagsterEvent, "from_step", reporting_from_step):
        yield


@contextmanager
def _report_statements(_home: Path, reached: Callable[[str], None]) -> Iterator[None]:
    class Cursor(psycopg2.extensions.cursor):  # type: ignore[misc]  # psycopg2 has no types
        def execute(self, query: Any, parameters: Any = None) -> None:
            name = _changing_verb(query, self)
            super().execute(query, parameters)
            if name:
                reached(f"after {name}")

        def copy_expert(self, query: Any, file: Any, size: int = 8192) -> None:
            reached("before COPY")
            super().copy_expert(query, file, size)
            reached("after COPY")

    class Connection(psycopg2.extensions.connection):  # type: ignore[misc]
        def commit(self) -> None:
            if self.info.transaction_status == psycopg2.extensions.TRANSACTION_STATUS_INTRANS:
                reached("before COMMIT")
            super().commit()
            reached("after COMMIT")

    connect = psycopg2.connect

    def reporting_connect(*args: Any, **options: Any) -> Any:
        return connect(*args, cursor_factory=Cursor, connection_factory=Connection, **options)

    with mock.patch("taxi_assets.storage.warehouse.postgres.session.psycopg2.connect", reporting_connect):
        yield


def _changing_verb(query: Any, cursor: Any) -> str | None:
    """Return what a statement changes, such as DETACH PARTITION; None for a statement that only reads."""
    text = query.as_string(cursor) if isinstance(query, sql.Composable) else str(query)
    found = re.match(r"\s*(CREATE|TRUNCATE|DROP|ALTER|DELETE|INSERT|LOCK|COMMENT)\b", text)
    if found is None:
        return None
    label = re.search(r"\b(DETACH PARTITION|ATTACH PARTITION|RENAME TO|ADD CONSTRAINT)\b", text)
    return label[1] if label else found[1]


WRITES, STEPS, STATEMENTS = "writes", "steps", "statements"
_REPORTERS: Mapping[str, Callable[[Path, Callable[[str], None]], AbstractContextManager[None]]] = {
    WRITES: _report_writes,
    STEPS: _report_steps,
    STATEMENTS: _report_statements,
}


def report_crash_points(kind: str, home: Path, on_reached: Callable[[str], None]) -> AbstractContextManager[None]:
    """Call `on_reached` with the name of each crash point of a kind, as the run reaches it."""
    return _REPORTERS[kind](home, on_reached)
