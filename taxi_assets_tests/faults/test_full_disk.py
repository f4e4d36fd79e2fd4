"""A store that cannot be written to: one clear error, nothing half-written, and the next run repairs the month."""

from __future__ import annotations

import resource
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from taxi_assets_tests.pipeline_harness import Deployment, failure_messages, file_states, read_stored_month, stray_files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SERVICE, MONTH = "green", "2020-10"
REMEDY = "Free disk space or raise the quota, then run the month again."


@contextmanager
def file_size_limit(bytes_: int) -> Iterator[None]:
    """Limit the size of files, which has the same effect as a full disk."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


@pytest.mark.parametrize("bytes_", [100_000, 1_500_000])
def test_a_full_disk_is_one_clear_error_and_the_next_run_succeeds(data: Path, tmp_path: Path, bytes_: int) -> None:
    deployment = Deployment(tmp_path, str(data / "months"))
    with file_size_limit(bytes_):
        result = deployment.run(SERVICE, MONTH)

    (line,) = failure_messages(result)
    problem = f"{deployment.lake} cannot be written to (File too large)."
    assert line == f"{problem} {REMEDY} [LakeConfigurationError]"
    assert not file_states(deployment)
    assert deployment.run(SERVICE, MONTH).success
    assert read_stored_month(deployment, SERVICE, MONTH).is_consistent


def test_a_full_disk_under_the_warehouse_leaves_it_unchanged(data: Path, tmp_path: Path) -> None:
    deployment = Deployment(tmp_path, str(data / "months"))
    assert deployment.run(SERVICE, "2013-08").success
    before = read_stored_month(deployment, SERVICE, "2013-08")
    with file_size_limit(2_100_000):  # larger than any file of the lake
        result = deployment.run(SERVICE, MONTH)

    (line,) = failure_messages(result)
    problem = f"{deployment.warehouse} cannot be written to (File too large). Its contents are unchanged."
    assert line == f"{problem} {REMEDY} [WarehouseConfigurationError]"
    assert read_stored_month(deployment, SERVICE, "2013-08") == before
    assert not read_stored_month(deployment, SERVICE, MONTH).warehouse
    assert deployment.run(SERVICE, MONTH).success
    assert read_stored_month(deployment, SERVICE, MONTH).is_consistent
    assert not stray_files(deployment)
