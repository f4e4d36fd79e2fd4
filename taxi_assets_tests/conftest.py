"""Fixtures of all tests: the folder of real TLC files, and an environment without the machine's settings."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).parents[1]
DATA = REPOSITORY / ".." / "shared" / "data"
PACKAGE = REPOSITORY / "taxi_assets"
# Your own definitions in defs/ need not follow the rules that tests check for these modules.
PLATFORM_MODULES = sorted(path for path in PACKAGE.rglob("*.py") if PACKAGE / "defs" not in path.parents)

# The time that an example takes depends on what else the machine does.
hypothesis.settings.register_profile(
    "any speed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any speed")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="faults: run the long form, as `make reliability` does")
    parser.addoption(
        "--fuzz", type=int, metavar="SECONDS", help="faults: corrupt real files for this long, for each reader"
    )


def pytest_configure() -> None:
    """If the coverage of this process is measured, also measure child processes that get other variables."""
    if measured := os.environ.get("COVERAGE_PROCESS_CONFIG"):
        start = subprocess.Popen.__init__

        def start_measured(self: subprocess.Popen[Any], *args: Any, **options: Any) -> None:
            if options.get("env") is not None:
                options["env"] = {**options["env"], "COVERAGE_PROCESS_CONFIG": measured}
            start(self, *args, **options)

        subprocess.Popen.__init__ = start_measured  # type: ignore[method-assign]


@pytest.fixture(scope="session")
def long(pytestconfig: pytest.Config) -> bool:
    """Return whether fault tests run in their long form: hundreds of kills, minutes of fuzzing."""
    return bool(pytestconfig.getoption("--long"))


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("TAXI_", "DAGSTER_", "MAKE", "MFLAGS")):  # make passes its options to child processes
            monkeypatch.delenv(name)


@pytest.fixture(scope="session", autouse=True)
def _let_child_processes_be_interrupted() -> None:
    # A shell that starts the tests in the background makes them and all their child processes ignore SIGINT.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _speed_up_dagster() -> Iterator[None]:
    # The import takes five seconds, which the process that only distributes the tests can save.
    from taxi_assets_tests.dagster_speedups import faster_dagster  # noqa: PLC0415

    # Imported modules and collected tests stay until the end, so looking for garbage among them is wasted time.
    gc.collect()
    gc.freeze()
    with faster_dagster():
        yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def data(*, long: bool) -> Path:
    """Return the folder of real TLC files."""
    if not DATA.is_dir():
        # Without real files, the numbers of the long form would mean nothing.
        (pytest.fail if long else pytest.skip)("the real TLC files are missing: ../shared/data")
    return DATA.resolve()
