"""What all tests share: where the real files are, and that nothing leaks in from the machine's environment."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from alembic.script import ScriptDirectory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alembic.config import Config

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


@pytest.fixture(scope="session", autouse=True)
def _read_migrations_once() -> Iterator[None]:
    with migrations_read_once():
        yield


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real TLC files."""
    if not DATA.is_dir():
        pytest.skip("the real TLC files are missing: ../shared/data")
    return DATA.resolve()
