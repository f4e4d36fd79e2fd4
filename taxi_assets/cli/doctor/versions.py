"""Python and libraries: whether they are what `pyproject.toml` asks for."""

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

_LABELS = ("dagster", "pyarrow", "duckdb")
_REMEDY = "Run `make setup`; an image is built anew."
_PROJECT = Path(__file__).parents[3] / "pyproject.toml"


def versions(_visit: CheckRunner) -> str:
    """All that is asked for is there, in a version that will do."""
    python, requirements = _requirements()
    wrong = [] if python.contains(platform.python_version()) else [f"Python {platform.python_version()} ({python})"]
    wrong += [complaint for text in requirements if (complaint := _problem(Requirement(text)))]
    if wrong:
        raise PermanentError(f"Not as it must be: {', '.join(wrong)}.", remedy=_REMEDY)
    told = [f"{name} {metadata.version(name)}" for name in _LABELS]
    return f"Python {platform.python_version()}, {', '.join(told)}, {len(requirements)} libraries as they must be"


def _requirements() -> tuple[SpecifierSet, Sequence[str]]:
    """Of the source tree, else of the installed package."""
    if _PROJECT.is_file():
        project = tomllib.loads(_PROJECT.read_text())["project"]
        return SpecifierSet(project["requires-python"]), project["dependencies"]
    try:
        installed = metadata.distribution("taxi-assets")
    except metadata.PackageNotFoundError:
        label = f"Which versions it takes is not known here: there is no {_PROJECT}."
        raise PermanentError(label, remedy="Put the repository's there.") from None
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
