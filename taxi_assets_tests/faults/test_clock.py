"""A clock that is set back: what was written lies in the future then, and nothing is taken for older than it is.

Nothing here is decided by which of two times is the later one: versions are told apart by being another, the leftovers
of dead runs by their locks. How long a failed run is waited for, and when it is told of, is tried in
`definitions/test_run_planner.py` and `test_notifications.py`.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from taxi_assets_tests.faults.children import Child, Plan
from taxi_assets_tests.faults.conftest import FILE, MONTH, SERVICE
from taxi_assets_tests.pipeline_harness import Deployment, failures, read_stored_month, stray_files

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from taxi_assets_tests.faults.conftest import Republished

YEAR = 365 * 24 * 3600


def set_back_the_clock(folder: Path) -> None:
    """Everything that is there was written in a year from now."""
    later = time.time() + YEAR
    for path in [folder, *folder.rglob("*")]:
        os.utime(path, (later, later))


@pytest.mark.parametrize("died", ["before raw object", "after quarantine", "before warehouse month"])
def test_what_a_killed_run_left_in_the_future_is_swept_and_healed(
    republished: Republished,
    copy_of: Callable[[Deployment], Deployment],
    record_property: Callable[[str, object], None],
    died: str,
) -> None:
    deployment = copy_of(republished.held)
    assert Child(deployment, SERVICE, MONTH, Plan(dies=died)).end().killed
    set_back_the_clock(deployment.home)
    assert failures(deployment.run(SERVICE, MONTH)) == []
    assert read_stored_month(deployment, SERVICE, MONTH) == republished.newer
    assert stray_files(deployment) == []
    record_property("faults", 1)


def test_a_version_that_is_published_with_an_older_time_is_a_new_version(
    republished: Republished, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    deployment = replace(republished.held.copy_to(tmp_path / "home"), source=str(tmp_path))
    (tmp_path / FILE).write_bytes(republished.newer_file)
    os.utime(tmp_path / FILE, (0, 0))
    assert failures(deployment.run(SERVICE, MONTH)) == []
    assert read_stored_month(deployment, SERVICE, MONTH).clean == republished.newer.clean
    record_property("faults", 1)
