"""The layout that README shows is the one on disk."""

from __future__ import annotations

import re

from taxi_assets_tests.conftest import REPOSITORY

TABLE = (REPOSITORY / "README.md").read_text().split("\n## Where things are\n")[1].split("\n## ")[0]


def test_every_package_has_its_place_in_the_table_and_nothing_else_has() -> None:
    packages = {path.parent.name for path in (REPOSITORY / "taxi_assets").glob("*/__init__.py")}
    named = re.findall(r"\(taxi_assets/(\w+)/?\)", TABLE)
    assert sorted(named) == sorted(packages)
