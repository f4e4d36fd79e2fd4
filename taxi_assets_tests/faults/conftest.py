"""One real month in two versions: as first published, and as published again; and what a good run makes of each."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.faults.reliability_metrics import Figures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from taxi_assets_tests.pipeline_harness import Deployment, StoredMonth

SHORT_SEEDS, LONG_SEEDS = 1, 4
LONG_SECONDS = 1800
"""Of spoilt files, to each reader."""

SERVICE, MONTH, NEIGHBOUR = "green", "2013-08", "2013-10"
FILE = f"{SERVICE}_tripdata_{MONTH}.csv"


_FIGURES = pytest.StashKey[Figures]()
_CHOOSING = ("fuzz", "keyword", "markexpr", "deselect", "ignore", "ignore_glob", "lf", "collectonly")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_FIGURES] = Figures()
    config.pluginmanager.register(_Recorder(config.stash[_FIGURES]))


class _Recorder:
    """Hears of every test, those of xdist's workers too."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures
        self._outcomes: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        worse = report.outcome if report.when == "call" or report.outcome != "passed" else None
        self._outcomes[report.nodeid] = worse or self._outcomes.get(report.nodeid, report.outcome)
        if report.when == "teardown":
            self._figures.add(report.user_properties, self._outcomes.pop(report.nodeid))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config) -> None:
    """On the controller alone: workers have no terminal."""
    figures = config.stash[_FIGURES]
    terminalreporter.section("what was tried")
    terminalreporter.write_line(figures.table())
    whole = [Path(argument).resolve() for argument in config.args] == [Path(__file__).parent]
    if config.getoption("--long") and whole and exitstatus == 0 and not any(map(config.getoption, _CHOOSING)):
        figures.keep(REPOSITORY / "docs" / "reliability.md")
    elif config.getoption("--long"):
        terminalreporter.write_line("Not kept in docs/reliability.md: some of it failed, or was not run.")


@pytest.fixture(autouse=True)
def _count_kills(record_property: Callable[[str, object], None]) -> Iterator[None]:
    """Of runs in processes of their own; one that hangs has failed its test by then."""
    from taxi_assets_tests.faults.children import Child  # noqa: PLC0415  (slow to import: see taxi_assets_tests/conftest.py)

    ended, killed = Child.ended, Child.killed
    yield
    if Child.ended > ended:
        record_property("kills", Child.killed - killed)
        record_property("hangs", 0)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """What is killed at random is tried with one seed, and with several in the long form."""
    if "kill_seed" in metafunc.fixturenames:
        seeds = range(LONG_SEEDS if metafunc.config.getoption("--long") else SHORT_SEEDS)
        metafunc.parametrize("kill_seed", seeds, ids=[f"seed{seed}" for seed in seeds])


@pytest.fixture
def fuzz_seconds(pytestconfig: pytest.Config, long: bool) -> int:
    """For how long a reader is given spoilt files; one round at least."""
    asked: int | None = pytestconfig.getoption("--fuzz")
    return asked or (LONG_SECONDS if long else 0)


@dataclass(frozen=True)
class Republished:
    """A month whose publisher offers the newer version by now."""

    empty: Deployment
    """Nothing was ever run; its publisher offers the newer version."""
    held: Deployment
    """Holds the older version on every shelf; its publisher offers the newer one."""
    current: Deployment
    """Holds the newer version on every shelf."""
    older_file: bytes
    newer_file: bytes
    older: StoredMonth
    newer: StoredMonth


@pytest.fixture(scope="session")
def republished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Republished:
    """Made once; tests work on copies of its deployments."""
    from taxi_assets_tests.pipeline_harness import Deployment, read_stored_month  # noqa: PLC0415

    home = tmp_path_factory.mktemp("republished")
    published = home / "published"
    published.mkdir()
    neighbour = f"{SERVICE}_tripdata_{NEIGHBOUR}.csv"
    shutil.copyfile(data / "first100" / neighbour, published / neighbour)
    older_file, newer_file = _two_versions(data)

    (published / FILE).write_bytes(older_file)
    held = Deployment(home / "held", str(published))
    assert held.run(SERVICE, NEIGHBOUR).success
    assert held.run(SERVICE, MONTH).success
    older = read_stored_month(held, SERVICE, MONTH)

    (published / FILE).write_bytes(newer_file)
    current = held.copy_to(home / "current")
    assert current.run(SERVICE, MONTH).success
    newer = read_stored_month(current, SERVICE, MONTH)

    # Otherwise a mixture could look like one of them.
    assert older.agree
    assert newer.agree
    assert older.clean
    assert newer.clean
    assert older.quarantine
    assert newer.quarantine
    assert len({half.rows for half in (older.clean, older.quarantine, newer.clean, newer.quarantine)}) == 4
    empty = Deployment(home / "empty", str(published))
    return Republished(empty, held, current, older_file, newer_file, older, newer)


def _two_versions(data: Path) -> tuple[bytes, bytes]:
    """The first 900 rows of the month as published; the first 1,400, of which one says something else by now."""
    lines = (data / "months" / FILE).read_bytes().splitlines(keepends=True)
    headers = 2  # one, and this era's blank line
    older, newer = (b"".join(lines[: headers + rows]) for rows in (900, 1400))
    corrected = newer.replace(b"2013-08-01 08:14:37", b"2013-08-01 08:14:38", 1)
    assert corrected != newer
    return older, corrected


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[Deployment], Deployment]:
    """A deployment of the test's own."""

    def copy(deployment: Deployment) -> Deployment:
        return deployment.copy_to(tmp_path / "home")

    return copy
