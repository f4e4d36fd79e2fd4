"""A clock that is set back, so that existing files have times in the future.

The code does not compare times: versions are compared for equality, and temporary files of dead runs are found by their
locks. The delay before a failed run is retried, and its notification, are tested in
`definitions/test_run_decisions.py` and `definitions/test_notification_sensors.py`.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from taxi_assets_tests.faults.child_runs import ChildRun, Plan
from taxi_assets_tests.faults.conftest import FILE, MONTH, SERVICE
from taxi_assets_tests.pipeline_harness import Deployment, failure_messages, read_stored_month, stray_files

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from taxi_assets_tests.faults.conftest import Republished

YEAR = 365 * 24 * 3600


def set_back_the_clock(folder: Path) -> None:
    """Move the times of all files one year into the future."""
    later = time.time() + YEAR
    for path in [folder, *folder.rglob("*")]:
        os.utime(path, (later, later))


@pytest.mark.parametrize("crash_point", ["before raw object", "after quarantine", "before warehouse month"])
def test_files_that_a_killed_run_left_in_the_future_are_deleted_or_replaced(
    republished: Republished,
    copy_of: Callable[[Deployment], Deployment],
    record_property: Callable[[str, object], None],
    crash_point: str,
) -> None:
    deployment = copy_of(republished.outdated)
    assert ChildRun(deployment, SERVICE, MONTH, Plan(dies_at=crash_point)).wait().killed
    set_back_the_clock(deployment.home)
    assert failure_messages(deployment.run(SERVICE, MONTH)) == []
    assert read_stored_month(deployment, SERVICE, MONTH) == republished.newer
    assert stray_files(deployment) == []
    record_property("faults", 1)


def test_a_version_with_an_older_time_is_loaded_as_a_new_version(
    republished: Republished, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    deployment = replace(republished.outdated.copy_to(tmp_path / "home"), source=str(tmp_path))
    (tmp_path / FILE).write_bytes(republished.newer_file)
    os.utime(tmp_path / FILE, (0, 0))
    assert failure_messages(deployment.run(SERVICE, MONTH)) == []
    assert read_stored_month(deployment, SERVICE, MONTH).clean == republished.newer.clean
    record_property("faults", 1)
