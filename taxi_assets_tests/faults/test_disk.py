"""Real disks that fill up, or are read-only, file systems of a few hundred KB; and rights that are lost in the middle.

One clear line, every shelf old or new, and the month is whole once the disk is well again. What needs a root that may
mount is skipped where there is none; `test_full_disk.py` tries the same by a limit on the size of files.
"""

from __future__ import annotations

import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from taxi_assets_tests.contract.stores.postgres import postgres_server, run
from taxi_assets_tests.faults.children import Child, Plan, meeting
from taxi_assets_tests.faults.conftest import MONTH, NEIGHBOUR, SERVICE
from taxi_assets_tests.faults.stores import in_postgres
from taxi_assets_tests.pipeline_harness import Deployment, failures, read_stored_month, stray_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from taxi_assets_tests.contract.stores.postgres import Server
    from taxi_assets_tests.faults.conftest import Republished
    from taxi_assets_tests.pipeline_harness import StoredMonth

__all__ = ["postgres_server"]

ROOMY = 64_000_000
FULL, REMEDY = "No space left on device", "Make room, then run the month again."


@dataclass(frozen=True)
class Disk:
    """A file system of its own, in memory, as large as is said."""

    folder: Path

    def resize(self, size: int) -> None:
        self._remount(f"size={size}")

    def leave(self, room: int) -> None:
        """Make it so small that this is all the room left."""
        self.resize(shutil.disk_usage(self.folder).used + room)

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
        ["mount", "-t", "tmpfs", "-o", f"size={ROOMY},mode=0755", "taxi-test", folder],
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        pytest.skip(f"a small disk takes the right to mount one (CAP_SYS_ADMIN): {done.stderr.strip()}")
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with mounted(tmp_path / "disk") as disk:
        yield disk


@pytest.fixture
def on_disk(disk: Disk, republished: Republished) -> Deployment:
    """Holds the older version; its publisher, elsewhere, offers the newer one."""
    return republished.held.copy_to(disk.folder / "home")


def assert_each_shelf_is_old_or_new(found: StoredMonth, versions: Republished) -> None:
    older, newer = versions.older, versions.newer
    assert found.raw in (older.raw, newer.raw)
    assert found.quarantine in (older.quarantine, newer.quarantine)
    assert found.clean in (older.clean, newer.clean)
    assert (found.warehouse, found.loaded) in ((older.warehouse, older.loaded), (newer.warehouse, newer.loaded))


def assert_heals(deployment: Deployment, versions: Republished) -> None:
    assert failures(deployment.run(SERVICE, MONTH)) == []
    assert read_stored_month(deployment, SERVICE, MONTH) == versions.newer
    assert read_stored_month(deployment, SERVICE, NEIGHBOUR) == read_stored_month(versions.held, SERVICE, NEIGHBOUR)
    assert stray_files(deployment) == []


@pytest.mark.parametrize("room", [0, 60_000, 230_000])
def test_a_disk_that_fills_up_leaves_every_shelf_whole(
    on_disk: Deployment, disk: Disk, republished: Republished, record_property: Callable[[str, object], None], room: int
) -> None:
    """From no room for anything to room for all of the lake, and too little for the warehouse."""
    disk.leave(room)
    outcome = Child(on_disk, SERVICE, MONTH).end()
    (line,) = outcome.failures
    assert line in {
        f"{on_disk.lake} cannot be written to ({FULL}). {REMEDY} [LakeConfigurationError]",
        f"{on_disk.warehouse} cannot be written to ({FULL}). Its contents are unchanged. {REMEDY} [WarehouseConfigurationError]",
    }
    assert_each_shelf_is_old_or_new(read_stored_month(on_disk, SERVICE, MONTH), republished)
    disk.resize(ROOMY)
    assert_heals(on_disk, republished)
    record_property("faults", 1)


def test_a_read_only_disk_is_one_line_and_changes_nothing(
    on_disk: Deployment, disk: Disk, republished: Republished, record_property: Callable[[str, object], None]
) -> None:
    disk.forbid_writing()
    outcome = Child(on_disk, SERVICE, MONTH).end()
    (line,) = outcome.failures
    assert line.startswith(f"{on_disk.lake} cannot be written to (Read-only file system). Let this account write to it")
    assert read_stored_month(on_disk, SERVICE, MONTH) == republished.older
    disk.allow_writing()
    assert_heals(on_disk, republished)
    record_property("faults", 1)


@pytest.mark.parametrize(
    "moment", ["publishing raw object", "publishing quarantine", "publishing clean", "before loading"]
)
def test_a_permission_that_is_lost_in_the_middle_of_a_run(
    copy_of: Callable[[Deployment], Deployment],
    republished: Republished,
    record_property: Callable[[str, object], None],
    moment: str,
) -> None:
    deployment, gate = copy_of(republished.held), meeting(2)
    child = Child(deployment, SERVICE, MONTH, Plan(meets=moment, gate=gate, stays=True, heeds_modes=True))
    gate.wait()
    paths = [deployment.home, *deployment.home.rglob("*")]
    modes = {path: path.stat().st_mode for path in paths}
    for path in paths:
        path.chmod(modes[path] & ~0o222)
    gate.wait()
    outcome = child.end()
    found = read_stored_month(deployment, SERVICE, MONTH)
    for path in filter(Path.exists, paths):
        path.chmod(modes[path])

    assert not outcome.succeeded
    (line,) = outcome.failures
    assert "\n" not in line
    assert str(deployment.home) in line
    assert "Permission denied" in line
    assert_each_shelf_is_old_or_new(found, republished)
    assert_heals(deployment, republished)
    record_property("faults", 1)


def test_a_postgres_server_whose_disk_is_full_keeps_the_old_month(
    disk: Disk,
    republished: Republished,
    postgres_server: Server,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    if postgres_server.process is None:
        pytest.skip("TAXI_TEST_POSTGRES names a server whose disk is not ours to fill")
    folder, space = disk.folder / "tables", f"small_{tmp_path.name}".replace("-", "_")
    folder.mkdir()
    if postgres_server.process.system_user is not None:
        shutil.chown(folder, postgres_server.process.system_user)
    for above in (tmp_path, *tmp_path.parents[:3]):
        above.chmod(above.stat().st_mode | 0o011)  # the server is another user, and must get there
    run(postgres_server.url, f"CREATE TABLESPACE {space} LOCATION '{folder}'")
    try:
        with in_postgres(tmp_path / "place", republished, postgres_server) as place:
            url = str(place.deployment.warehouse_address)
            ((name,),) = run(url, "SELECT current_database()")
            run(url, f"ALTER DATABASE {name} SET default_tablespace = {space}")
            place.offer(republished.older_file)
            place.run()
            before, names = place.look(), place.names()
            place.offer(republished.newer_file)
            disk.leave(40_000)

            outcome = place.start().end()

            (line,) = outcome.failures
            assert "No space left on device" in line
            assert line.endswith("Free space on the server's disk. [WarehouseConfigurationError]")
            assert (place.look().warehouse, place.look().loaded) == (before.warehouse, before.loaded)
            disk.resize(ROOMY)
            place.run()
            assert place.look().agree
            assert place.look().clean == republished.newer.clean
            assert place.names() == names
    finally:
        run(postgres_server.url, f"DROP TABLESPACE IF EXISTS {space}")
    record_property("faults", 1)
