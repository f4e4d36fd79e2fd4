"""Real broken downloads: each gives one clear error, nothing is stored, and an earlier month is unchanged."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from taxi_assets_tests.loopback_publisher import LoopbackPublisher
from taxi_assets_tests.pipeline_harness import (
    Deployment,
    StoredMonth,
    failure_messages,
    file_states,
    read_stored_month,
    stray_files,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SERVICE, MONTH = "yellow", "2021-01"
STEM = f"{SERVICE}_tripdata_{MONTH}"
FINDINGS = {
    "cut_mid_row.csv": "truncated in the middle of its last line",
    "error_page_html.parquet": 'an HTML page ("ERROR: The request could not be satisfied")',
    "git_lfs_pointer.csv.gz": "a git-LFS pointer",
    "no_footer.parquet": "Parquet file without a footer",
}
NOTHING = StoredMonth(raw={}, record=None, quarantine=None, clean=None, warehouse=(), loaded=None)


@pytest.fixture(params=["folder", "http"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """TAXI_SOURCE: the folder `published`, or a web server of it."""
    folder = tmp_path / "published"
    folder.mkdir()
    with ExitStack() as stack:
        yield str(folder) if request.param == "folder" else stack.enter_context(LoopbackPublisher(folder)).base


def publish(file: Path, folder: Path) -> None:
    """Publish only this file, as the month."""
    shutil.rmtree(folder)
    folder.mkdir()
    shutil.copyfile(file, folder / f"{STEM}.{file.name.partition('.')[2]}")


def assert_refused(deployment: Deployment, file: Path) -> None:
    result = deployment.run(SERVICE, MONTH)
    assert not result.success
    (line,) = failure_messages(result)
    assert "\n" not in line
    for part in (SERVICE, MONTH, STEM, FINDINGS[file.name]):
        assert part in line


def test_every_broken_file_is_tested(data: Path) -> None:
    assert sorted(path.name for path in (data / "broken").iterdir()) == sorted(FINDINGS)


@pytest.mark.parametrize("name", FINDINGS)
def test_a_broken_file_is_refused_and_nothing_is_stored(data: Path, tmp_path: Path, source: str, name: str) -> None:
    publish(data / "broken" / name, tmp_path / "published")
    deployment = Deployment(tmp_path / "home", source)
    assert_refused(deployment, data / "broken" / name)
    assert read_stored_month(deployment, SERVICE, MONTH) == NOTHING
    assert file_states(deployment) == {}
    assert stray_files(deployment) == []


def test_a_broken_file_does_not_change_a_month_that_was_loaded(data: Path, tmp_path: Path, source: str) -> None:
    shutil.copyfile(data / "samples" / f"{STEM}.head99.csv", tmp_path / "good.csv")
    publish(tmp_path / "good.csv", tmp_path / "published")
    deployment = Deployment(tmp_path / "home", source)
    assert failure_messages(deployment.run(SERVICE, MONTH)) == []
    loaded, before = read_stored_month(deployment, SERVICE, MONTH), file_states(deployment)
    assert loaded.is_consistent

    for name in FINDINGS:
        publish(data / "broken" / name, tmp_path / "published")
        assert_refused(deployment, data / "broken" / name)
        assert file_states(deployment) == before, name

    assert read_stored_month(deployment, SERVICE, MONTH) == loaded
    assert stray_files(deployment) == []
