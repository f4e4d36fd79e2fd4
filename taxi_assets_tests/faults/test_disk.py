"""Full disks, read-only disks, and permissions that are lost during a run, on real file systems of a few hundred KB.

Each gives one clear error and leaves every layer old or new, and the next run repairs the month. Tests that must mount
a file system are skipped without that permission; `test_full_disk.py` uses a limit on the size of files instead.
"""

from __future__ import annotations

import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from taxi_assets_tests.contract.stores.postgres import postgres_server, run
from taxi_assets_tests.faults.child_runs import ChildRun, Plan, barrier
from taxi_assets_tests.faults.conftest import MONTH, OTHER_MONTH, SERVICE
from taxi_assets_tests.faults.stores import observed_on_postgres
from taxi_assets_tests.pipeline_harness import Deployment, failure_messages, read_stored_month, stray_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from taxi_assets_tests.contract.stores.postgres import Server
    from taxi_assets_tests.faults.conftest import Republished
    from taxi_assets_tests.pipeline_harness import StoredMonth

__all__ = ["postgres_server"]

LARGE = 64_000_000
FULL, REMEDY = "No space left on device", "Free disk space or raise the quota, then run the month again."


@dataclass(frozen=True)
class Disk:
    """A file system in memory, of a size that can change."""

    folder: Path

    def resize(self, size: int) -> None:
        self._remount(f"size={size}")

    def shrink_to_free(self, free_bytes: int) -> None:
        """Shrink the disk to this much free space."""
        self.resize(shutil.disk_usage(self.folder).used + free_bytes)

    def forbid_writing(self) -> None:
        self._remount("ro")

    def allow_writing(self) -> None:
        self._remount("rw")

    def _remount(self, option: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{option}", self.folder], check=True)


@contextmanager
def mounted(folder: Path) -> Iterator[Disk]:
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={LARGE},mode=0755", "taxi-test", folder],
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        pytest.skip(f"mounting a small disk requires CAP_SYS_ADMIN: {done.stderr.strip()}")
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def disk() -> Iterator[Disk]:
    """A disk outside pytest's folder, which each start of pytest closes to others, such as the user of the server."""
    with TemporaryDirectory(prefix="taxi-disk-") as folder:
        Path(folder).chmod(0o711)
        with mounted(Path(folder) / "disk") as disk:
            yield disk


@pytest.fixture
def deployment(disk: Disk, republished: Republished) -> Deployment:
    """Every layer has the older version. The publisher is not on this disk and has the newer one."""
    return republished.outdated.copy_to(disk.folder / "home")


def assert_each_layer_is_old_or_new(found: StoredMonth, versions: Republished) -> None:
    older, newer = versions.older, versions.newer
    assert found.raw in (older.raw, newer.raw)
    assert found.quarantine in (older.quarantine, newer.quarantine)
    assert found.clean in (older.clean, newer.clean)
    assert (found.warehouse, found.loaded) in ((older.warehouse, older.loaded), (newer.warehouse, newer.loaded))


def assert_next_run_repairs(deployment: Deployment, versions: Republished) -> None:
    assert failure_messages(deployment.run(SERVICE, MONTH)) == []
    assert read_stored_month(deployment, SERVICE, MONTH) == versions.newer
    assert read_stored_month(deployment, SERVICE, OTHER_MONTH) == read_stored_month(
        versions.outdated, SERVICE, OTHER_MONTH
    )
    assert stray_files(deployment) == []


@pytest.mark.parametrize("free_bytes", [0, 60_000, 230_000])
def test_a_disk_that_fills_up_leaves_every_layer_old_or_new(
    deployment: Deployment,
    disk: Disk,
    republished: Republished,
    record_property: Callable[[str, object], None],
    free_bytes: int,
) -> None:
    """From no free space at all to enough for the lake but not for the warehouse."""
    disk.shrink_to_free(free_bytes)
    outcome = ChildRun(deployment, SERVICE, MONTH).wait()
    (line,) = outcome.failures
    lake, warehouse = (f"{store} cannot be written to ({FULL})." for store in (deployment.lake, deployment.warehouse))
    assert line in {
        f"{lake} {REMEDY} [LakeConfigurationError]",
        f"{warehouse} Its contents are unchanged. {REMEDY} [WarehouseConfigurationError]",
    }
    assert_each_layer_is_old_or_new(read_stored_month(deployment, SERVICE, MONTH), republished)
    disk.resize(LARGE)
    assert_next_run_repairs(deployment, republished)
    record_property("faults", 1)


def test_a_read_only_disk_is_one_clear_error_and_changes_nothing(
    deployment: Deployment, disk: Disk, republished: Republished, record_property: Callable[[str, object], None]
) -> None:
    disk.forbid_writing()
    outcome = ChildRun(deployment, SERVICE, MONTH).wait()
    (line,) = outcome.failures
    assert line.startswith(
        f"{deployment.lake} cannot be written to (Read-only file system). Grant this account write permission"
    )
    assert read_stored_month(deployment, SERVICE, MONTH) == republished.older
    disk.allow_writing()
    assert_next_run_repairs(deployment, republished)
    record_property("faults", 1)


@pytest.mark.parametrize(
    "crash_point", ["publishing raw object", "publishing quarantine", "publishing clean", "before loading"]
)
def test_a_permission_that_is_lost_during_a_run_is_one_clear_error(
    copy_of: Callable[[Deployment], Deployment],
    republished: Republished,
    record_property: Callable[[str, object], None],
    crash_point: str,
) -> None:
    deployment, shared = copy_of(republished.outdated), barrier(2)
    plan = Plan(waits_at=crash_point, barrier=shared, waits_twice=True, obeys_file_modes=True)
    child = ChildRun(deployment, SERVICE, MONTH, plan)
    shared.wait()
    paths = [deployment.home, *deployment.home.rglob("*")]
    modes = {path: path.stat().st_mode for path in paths}
    for path in paths:
        path.chmod(modes[path] & ~0o222)
    shared.wait()
    outcome = child.wait()
    found = read_stored_month(deployment, SERVICE, MONTH)
    for path in filter(Path.exists, paths):
        path.chmod(modes[path])

    assert not outcome.succeeded
    (line,) = outcome.failures
    assert "\n" not in line
    assert str(deployment.home) in line
    assert "Permission denied" in line
    assert_each_layer_is_old_or_new(found, republished)
    assert_next_run_repairs(deployment, republished)
    record_property("faults", 1)


def test_a_postgres_server_whose_disk_is_full_keeps_the_old_month(
    disk: Disk,
    republished: Republished,
    postgres_server: Server,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    if postgres_server.process is None:
        pytest.skip("TAXI_TEST_POSTGRES names an external server, whose disk must not be filled")
    folder, space = disk.folder / "tables", f"small_{tmp_path.name}".replace("-", "_")
    folder.mkdir()
    if postgres_server.process.system_user is not None:
        shutil.chown(folder, postgres_server.process.system_user)
    run(postgres_server.url, f"CREATE TABLESPACE {space} LOCATION '{folder}'")
    try:
        with observed_on_postgres(tmp_path / "observed", republished, postgres_server) as observed:
            url = str(observed.deployment.warehouse_address)
            ((name,),) = run(url, "SELECT current_database()")
            run(url, f"ALTER DATABASE {name} SET default_tablespace = {space}")
            observed.publish(republished.older_file)
            observed.run()
            before, names = observed.read_layers(), observed.inventory()
            observed.publish(republished.newer_file)
            disk.shrink_to_free(40_000)

            outcome = observed.start().wait()

            (line,) = outcome.failures
            assert "No space left on device" in line
            assert line.endswith("Free space on the server's disk. [WarehouseConfigurationError]")
            after = observed.read_layers()
            assert (after.warehouse, after.loaded) == (before.warehouse, before.loaded)
            disk.resize(LARGE)
            observed.run()
            assert observed.read_layers().is_consistent
            assert observed.read_layers().clean == republished.newer.clean
            added = observed.inventory() ^ names
            assert {name for name in added if "/revisions/" not in name} == set()
    finally:
        run(postgres_server.url, f"DROP TABLESPACE IF EXISTS {space}")
    record_property("faults", 1)
