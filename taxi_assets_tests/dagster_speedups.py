"""Make Dagster faster in tests: repeated work is done once per process."""

from __future__ import annotations

import inspect
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from dagster._core.definitions.metadata import source_code
from dagster._core.storage.event_log import in_memory as in_memory_event_log
from dagster._core.storage.event_log.schema import SqlEventLogStorageMetadata
from dagster._core.storage.event_log.sqlite import sqlite_event_log
from dagster._core.storage.runs import in_memory as in_memory_run_storage
from dagster._core.storage.runs.schema import RunStorageSqlMetadata
from dagster._core.storage.runs.sqlite import sqlite_run_storage
from dagster._core.storage.schedules.schema import ScheduleStorageSqlMetadata
from dagster._core.storage.schedules.sqlite import sqlite_schedule_storage
from sqlalchemy import create_engine, event
from sqlalchemy.engine import Engine
from sqlalchemy.schema import CreateIndex, CreateTable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from alembic.config import Config
    from sqlalchemy import Connection, MetaData
    from sqlalchemy.schema import ExecutableDDLElement

_SQLITE_STORAGES = (sqlite_event_log, sqlite_run_storage, sqlite_schedule_storage)


@contextmanager
def faster_dagster() -> Iterator[None]:
    """Apply all patches of this module."""
    with ExitStack() as stack:
        for patches in (cached_migrations, cached_tables, cached_engines, cached_source_lines):
            stack.enter_context(patches())
        yield


@contextmanager
def cached_migrations() -> Iterator[None]:
    """Apply a patch that reads Dagster's migrations once.

    Dagster reads them, about sixty Python files, for each SQLite file: a sixth of the time that tests take.
    """
    read: dict[str | None, ScriptDirectory] = {}
    from_config = ScriptDirectory.from_config

    def read_once(config: Config) -> ScriptDirectory:
        folder = config.get_main_option("script_location")
        if folder not in read:
            read[folder] = from_config(config)
        return read[folder]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScriptDirectory, "from_config", read_once)
        yield


@contextmanager
def cached_tables() -> Iterator[None]:
    """Apply a patch that compiles the statements that create the tables of an instance once.

    Dagster compiles them for each instance, and loads Alembic's environment to write the revision into its table.
    """
    compiled: dict[tuple[str, int], list[str]] = {}

    def create_all(metadata: MetaData, bind: Connection | Engine) -> None:
        if isinstance(bind, Engine):
            with bind.begin() as connection:
                return create_all(metadata, connection)
        dialect = bind.dialect
        key = dialect.name, id(metadata)
        if key not in compiled:
            tables = metadata.sorted_tables
            statements: list[ExecutableDDLElement] = [CreateTable(table, if_not_exists=True) for table in tables]
            statements += [CreateIndex(index, if_not_exists=True) for table in tables for index in table.indexes]
            compiled[key] = [str(statement.compile(dialect=dialect)) for statement in statements]
        for text in compiled[key]:
            bind.exec_driver_sql(text)
        return None

    def stamp(config: Config, connection: Connection, rev: str = "head") -> None:
        MigrationContext.configure(connection).stamp(ScriptDirectory.from_config(config), rev)

    with pytest.MonkeyPatch.context() as patch:
        for metadata in (SqlEventLogStorageMetadata, RunStorageSqlMetadata, ScheduleStorageSqlMetadata):
            patch.setattr(metadata, "create_all", partial(create_all, metadata))
        for storage in (*_SQLITE_STORAGES, in_memory_event_log, in_memory_run_storage):
            patch.setattr(storage, "stamp_alembic_rev", stamp)
        yield


@contextmanager
def cached_engines() -> Iterator[None]:
    """Apply a patch that creates one SQLAlchemy engine per database.

    Dagster creates an engine for every event, and each engine compiles every statement again. These do not wait until
    the disk has stored a commit: only a power failure would lose it.
    """
    engines: dict[str, Engine] = {}

    def engine(url: str, **options: Any) -> Engine:
        if url not in engines:
            engines[url] = create_engine(url, **options)
            event.listen(engines[url], "connect", lambda connection, _: connection.execute("PRAGMA synchronous = OFF"))
        return engines[url]

    with pytest.MonkeyPatch.context() as patch:
        for storage in _SQLITE_STORAGES:
            patch.setattr(storage, "create_engine", engine)
        yield


@contextmanager
def cached_source_lines() -> Iterator[None]:
    """Apply a patch that finds the line at which a function is defined once.

    Dagster parses the source of every asset's function, whenever definitions are built.
    """
    found: dict[Any, Any] = {}
    find = source_code.local_source_path_from_fn

    def find_once(function: Callable[..., Any]) -> Any:
        code = getattr(inspect.unwrap(function), "__code__", function)
        if code not in found:
            found[code] = find(function)
        return found[code]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source_code, "local_source_path_from_fn", find_once)
        yield
