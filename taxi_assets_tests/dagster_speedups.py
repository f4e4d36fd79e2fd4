"""Make Dagster faster in tests: repeated work is done once per process."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from alembic.script import ScriptDirectory
from dagster._core.storage.event_log.sqlite import sqlite_event_log
from dagster._core.storage.runs.sqlite import sqlite_run_storage
from dagster._core.storage.schedules.sqlite import sqlite_schedule_storage
from sqlalchemy import create_engine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alembic.config import Config
    from sqlalchemy import Engine


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
def cached_engines() -> Iterator[None]:
    """Apply a patch that creates one SQLAlchemy engine per database.

    Dagster creates an engine for every event, and each engine compiles every statement again.
    """
    engines: dict[str, Engine] = {}

    def engine(url: str, **options: Any) -> Engine:
        if url not in engines:
            engines[url] = create_engine(url, **options)
        return engines[url]

    with pytest.MonkeyPatch.context() as patch:
        for storage in (sqlite_event_log, sqlite_run_storage, sqlite_schedule_storage):
            patch.setattr(storage, "create_engine", engine)
        yield
