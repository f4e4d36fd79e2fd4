"""Two published versions of one real month, and the result of a run with each."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.faults.reliability_metrics import ReliabilityMetrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from taxi_assets_tests.pipeline_harness import Deployment, StoredMonth

SHORT_SEEDS, LONG_SEEDS = 1, 4
LONG_SECONDS = 1800
"""How long the long form gives corrupted files to each reader."""

SERVICE, MONTH, OTHER_MONTH = "green", "2013-08", "2013-10"
FILE = f"{SERVICE}_tripdata_{MONTH}.csv"


_METRICS = pytest.StashKey[ReliabilityMetrics]()
_SELECTION_OPTIONS = ("fuzz", "keyword", "markexpr", "deselect", "ignore", "ignore_glob", "lf", "collectonly")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_METRICS] = ReliabilityMetrics()
    config.pluginmanager.register(_Recorder(config.stash[_METRICS]))


class _Recorder:
    """Records the reports of all tests, including those of xdist workers."""

    def __init__(self, metrics: ReliabilityMetrics) -> None:
        self._metrics = metrics
        self._outcomes: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        worse = report.outcome if report.when == "call" or report.outcome != "passed" else None
        self._outcomes[report.nodeid] = worse or self._outcomes.get(report.nodeid, report.outcome)
        if report.when == "teardown":
            self._metrics.add(report.user_properties, self._outcomes.pop(report.nodeid))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config) -> None:
    """Print the metrics. Only the controller does, because workers have no terminal."""
    metrics = config.stash[_METRICS]
    terminalreporter.section("reliability metrics")
    terminalreporter.write_line(metrics.table())
    whole = [Path(argument).resolve() for argument in config.args] == [Path(__file__).parent]
    if config.getoption("--long") and whole and exitstatus == 0 and not any(map(config.getoption, _SELECTION_OPTIONS)):
        metrics.write_to(REPOSITORY / "docs" / "reliability.md")
    elif config.getoption("--long"):
        terminalreporter.write_line("docs/reliability.md is unchanged, because tests failed or were not selected.")


@pytest.fixture(autouse=True)
def _count_kills(record_property: Callable[[str, object], None]) -> Iterator[None]:
    """Record the kills of child runs. A hang has failed its test already."""
    from taxi_assets_tests.faults.child_runs import ChildRun  # noqa: PLC0415  (slow to import: see taxi_assets_tests/conftest.py)

    ended, killed = ChildRun.ended, ChildRun.killed
    yield
    if ChildRun.ended > ended:
        record_property("kills", ChildRun.killed - killed)
        record_property("hangs", 0)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Random kills use one seed, and several seeds in the long form."""
    if "kill_seed" in metafunc.fixturenames:
        seeds = range(LONG_SEEDS if metafunc.config.getoption("--long") else SHORT_SEEDS)
        metafunc.parametrize("kill_seed", seeds, ids=[f"seed{seed}" for seed in seeds])


@pytest.fixture
def fuzz_seconds(pytestconfig: pytest.Config, long: bool) -> int:
    """How long a reader is given corrupted files. A test runs at least one round."""
    requested: int | None = pytestconfig.getoption("--fuzz")
    return requested or (LONG_SECONDS if long else 0)


@dataclass(frozen=True)
class Republished:
    """Deployments whose publisher now has the newer version of a month."""

    empty: Deployment
    """Nothing was ever run."""
    outdated: Deployment
    """Every layer has the older version."""
    current: Deployment
    """Every layer has the newer version."""
    older_file: bytes
    newer_file: bytes
    older: StoredMonth
    newer: StoredMonth


@pytest.fixture(scope="session")
def republished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Republished:
    """Session-wide; tests work on copies of its deployments."""
    from taxi_assets_tests.pipeline_harness import Deployment, read_stored_month  # noqa: PLC0415

    home = tmp_path_factory.mktemp("republished")
    published = home / "published"
    published.mkdir()
    other_file = f"{SERVICE}_tripdata_{OTHER_MONTH}.csv"
    shutil.copyfile(data / "first100" / other_file, published / other_file)
    older_file, newer_file = _two_versions(data)

    (published / FILE).write_bytes(older_file)
    outdated = Deployment(home / "held", str(published))
    assert outdated.run(SERVICE, OTHER_MONTH).success
    assert outdated.run(SERVICE, MONTH).success
    older = read_stored_month(outdated, SERVICE, MONTH)

    (published / FILE).write_bytes(newer_file)
    current = outdated.copy_to(home / "current")
    assert current.run(SERVICE, MONTH).success
    newer = read_stored_month(current, SERVICE, MONTH)

    # All row counts differ, so that a mixture of layers cannot pass for one version.
    assert older.is_consistent
    assert newer.is_consistent
    assert older.clean
    assert newer.clean
    assert older.quarantine
    assert newer.quarantine
    assert len({half.rows for half in (older.clean, older.quarantine, newer.clean, newer.quarantine)}) == 4
    empty = Deployment(home / "empty", str(published))
    return Republished(empty, outdated, current, older_file, newer_file, older, newer)


def _two_versions(data: Path) -> tuple[bytes, bytes]:
    """Return the first 900 rows of the month, and the first 1,400 rows with one corrected pickup time."""
    lines = (data / "months" / FILE).read_bytes().splitlines(keepends=True)
    headers = 2  # the header and, in this era, a blank line
    older, newer = (b"".join(lines[: headers + rows]) for rows in (900, 1400))
    corrected = newer.replace(b"2013-08-01 08:14:37", b"2013-08-01 08:14:38", 1)
    assert corrected != newer
    return older, corrected


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[Deployment], Deployment]:
    """Copy a deployment into the test's folder."""

    def copy(deployment: Deployment) -> Deployment:
        return deployment.copy_to(tmp_path / "home")

    return copy
