"""What all tests share: where the real files are, and that nothing leaks in from the machine's environment."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
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

REPOSITORY = Path(__file__).parents[1]
DATA = REPOSITORY / ".." / "shared" / "data"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="faults: the long form, as `make reliability` runs it")


@pytest.fixture(scope="session")
def long(pytestconfig: pytest.Config) -> bool:
    """Whether faults are tried in their long form: hundreds of kills, minutes of fuzzing."""
    return bool(pytestconfig.getoption("--long"))


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("TAXI_", "DAGSTER_")):
            monkeypatch.delenv(name)


@contextmanager
def migrations_read_once() -> Iterator[None]:
    """Dagster reads its migrations, some sixty Python files, anew for each SQLite file: a sixth of what tests cost."""
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
def engines_made_once() -> Iterator[None]:
    """Dagster makes an SQLAlchemy engine for every event, which compiles every statement anew."""
    made: dict[str, Engine] = {}

    def engine(url: str, **options: Any) -> Engine:
        if url not in made:
            made[url] = create_engine(url, **options)
        return made[url]

    with pytest.MonkeyPatch.context() as patch:
        for storage in (sqlite_event_log, sqlite_run_storage, sqlite_schedule_storage):
            patch.setattr(storage, "create_engine", engine)
        yield


@pytest.fixture(scope="session", autouse=True)
def _dagster_is_quicker() -> Iterator[None]:
    with migrations_read_once(), engines_made_once():
        yield


@pytest.fixture(scope="session")
def data(*, long: bool) -> Path:
    """The folder of real TLC files."""
    if not DATA.is_dir():
        # Figures of the long form would be of next to nothing.
        (pytest.fail if long else pytest.skip)("the real TLC files are missing: ../shared/data")
    return DATA.resolve()
