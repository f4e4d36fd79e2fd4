"""Check Python and installed packages against `pyproject.toml`."""

from __future__ import annotations

import platform
import tomllib
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from taxi_assets.errors import PermanentError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taxi_assets.cli.doctor.check_runner import CheckRunner

_SHOWN_PACKAGES = ("dagster", "pyarrow", "duckdb")
_REMEDY = "Run `make setup`, or rebuild the image."
_PACKAGE = "taxi-assets"
_PROJECT = Path(__file__).parents[3] / "pyproject.toml"


def versions(_checks: CheckRunner) -> str:
    """Check that every required package is installed in an allowed version; return the main versions."""
    python, requirements = _requirements()
    wrong = [] if python.contains(platform.python_version()) else [f"Python {platform.python_version()} ({python})"]
    wrong += [problem for text in requirements if (problem := _problem(Requirement(text)))]
    if wrong:
        raise PermanentError(f"Missing or in a wrong version: {', '.join(wrong)}.", remedy=_REMEDY)
    shown = [f"{name} {metadata.version(name)}" for name in _SHOWN_PACKAGES]
    return f"Python {platform.python_version()}, {', '.join(shown)}, {len(requirements)} packages in allowed versions"


def _requirements() -> tuple[SpecifierSet, Sequence[str]]:
    """Return the requirements of the source tree, or of the installed package if there is no source tree."""
    if _PROJECT.is_file():
        project = tomllib.loads(_PROJECT.read_text())["project"]
        return SpecifierSet(project["requires-python"]), project["dependencies"]
    try:
        installed = metadata.distribution(_PACKAGE)
    except metadata.PackageNotFoundError:
        label = f"The required versions are not known: {_PROJECT} does not exist."
        raise PermanentError(label, remedy="Copy pyproject.toml of the repository there.") from None
    return SpecifierSet(installed.metadata["Requires-Python"]), installed.requires or []


def _problem(requirement: Requirement) -> str | None:
    if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
        return None
    try:
        found = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return f"{requirement.name} is missing"
    if requirement.specifier.contains(found, prereleases=True):
        return None
    return f"{requirement.name} {found} ({requirement.specifier})"
