"""The layout on disk is the one that README shows, and a reader finds any module by its name."""

from __future__ import annotations

import ast
import re
import subprocess
from collections import defaultdict

from taxi_assets_tests.conftest import PACKAGE, PLATFORM_MODULES, REPOSITORY

TABLE = (REPOSITORY / "README.md").read_text().split("\n## Repository layout\n")[1].split("\n## ")[0]
MAX_LINES = 400
MAX_TOP_MODULES = 10
ENGINES = {PACKAGE / "storage" / "warehouse" / engine for engine in ("bigquery", "duckdb", "postgres")}
PRIVATE_DAGSTER = re.compile(r"dagster\._|dagster_shared")


def test_readme_lists_every_package() -> None:
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    named = re.findall(r"\(taxi_assets/(\w+)/?\)", TABLE)
    assert sorted(named) == sorted(packages)


def test_readme_lists_every_module_at_the_top_of_the_package() -> None:
    modules = {path.name for path in PACKAGE.glob("*.py")} - {"__init__.py"}
    named = re.findall(r"`(\w+\.py)`", TABLE)
    assert sorted(named) == sorted(modules)


def test_readme_lists_every_folder_at_the_top_of_the_repository() -> None:
    known = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    folders = {name.partition("/")[0] for name in known.splitlines() if "/" in name and not name.startswith(".")}
    assert folders == set(re.findall(r"\]\((\w+)\)", TABLE))


def test_at_most_ten_modules_are_at_the_top_of_the_package() -> None:
    modules = {path.name for path in PACKAGE.glob("*.py")} - {"__init__.py"}
    assert len(modules) <= MAX_TOP_MODULES


def test_no_module_is_longer_than_400_lines() -> None:
    lines = {str(path.relative_to(PACKAGE)): len(path.read_text().splitlines()) for path in PLATFORM_MODULES}
    assert {name: count for name, count in lines.items() if count >= MAX_LINES} == {}


def test_two_modules_share_a_file_name_only_if_they_implement_the_interface_of_a_warehouse_engine() -> None:
    folders = defaultdict(set)
    for path in PLATFORM_MODULES:
        if path.name not in {"__init__.py", "__main__.py"}:
            folders[path.name].add(path.parent)
    shared = {name: found for name, found in folders.items() if len(found) > 1 and not found <= ENGINES}
    assert shared == {}


def test_only_dagster_compat_imports_private_parts_of_dagster() -> None:
    importers = {
        path.name
        for path in PLATFORM_MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if any(PRIVATE_DAGSTER.match(name) for name in imported_names(node))
    }
    assert importers == {"dagster_compat.py"}


def imported_names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []
