"""The layout that README shows is the one on disk, and no module is too long."""

from __future__ import annotations

import re
import subprocess

from taxi_assets_tests.conftest import REPOSITORY

PACKAGE = REPOSITORY / "taxi_assets"
TABLE = (REPOSITORY / "README.md").read_text().split("\n## Where things are\n")[1].split("\n## ")[0]
MOST_LINES = 400


def test_every_package_has_its_place_in_the_table_and_nothing_else_has() -> None:
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    named = re.findall(r"\(taxi_assets/(\w+)/?\)", TABLE)
    assert sorted(named) == sorted(packages)


def test_every_module_beside_the_packages_has_its_place_in_the_table_and_nothing_else_has() -> None:
    modules = {path.name for path in PACKAGE.glob("*.py")} - {"__init__.py"}
    named = re.findall(r"`(\w+\.py)`", TABLE)
    assert sorted(named) == sorted(modules)


def test_every_folder_at_the_top_has_its_place_in_the_table() -> None:
    known = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    folders = {name.partition("/")[0] for name in known.splitlines() if "/" in name and not name.startswith(".")}
    assert folders == set(re.findall(r"\]\((\w+)\)", TABLE))


def test_no_module_of_the_package_is_longer_than_can_be_kept_in_mind() -> None:
    lines = {str(path.relative_to(PACKAGE)): len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")}
    assert {name: count for name, count in lines.items() if count >= MOST_LINES} == {}
