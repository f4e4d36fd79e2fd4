"""What all tests share: where the real files are, and that nothing leaks in from the machine's environment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).parents[1]
DATA = REPOSITORY / ".." / "shared" / "data"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="faults: the long form, as `make reliability` runs it")
    parser.addoption(
        "--fuzz", type=int, metavar="SECONDS", help="faults: spoil real files for so long, for each reader"
    )


@pytest.fixture(scope="session")
def long(pytestconfig: pytest.Config) -> bool:
    """Whether faults are tried in their long form: hundreds of kills, minutes of fuzzing."""
    return bool(pytestconfig.getoption("--long"))


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("TAXI_", "DAGSTER_")):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session", autouse=True)
def _dagster_is_quicker() -> Iterator[None]:
    # Five seconds to import, which the process that only hands out the tests can do without.
    from taxi_assets_tests.dagster_speedups import engines_made_once, migrations_read_once  # noqa: PLC0415

    with migrations_read_once(), engines_made_once():
        yield


@pytest.fixture(scope="session")
def data(*, long: bool) -> Path:
    """The folder of real TLC files."""
    if not DATA.is_dir():
        # Figures of the long form would be of next to nothing.
        (pytest.fail if long else pytest.skip)("the real TLC files are missing: ../shared/data")
    return DATA.resolve()
