"""The licenses of the packages that the platform runs on.

`python -m taxi_assets_tests.licenses` prints docs/licenses.md. requirements/runtime.lock lists the packages;
pip-licenses reads the license that each installed package declares. Packages that are needed only outside Linux are
not installed, so they are not listed.
"""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sys
from pathlib import Path

_LOCK = Path(__file__).parents[1] / "requirements" / "runtime.lock"

ALLOWED = (
    "Apache", "BSD", "ISC", "MIT", "Zlib", "PSF", "Python Software Foundation", "Mozilla Public License 2.0", "MPL-2.0",
    "Lesser General Public License",
)  # fmt: skip
"""Licenses that allow everyone to run, change and redistribute a platform that imports the package."""

_HEAD = """# Licenses

The packages that the platform runs on, as pinned in requirements/runtime.lock, with the license that each package
declares. `make docs` writes this page. `taxi_assets_tests/unit/test_licenses.py` rejects other kinds of license. LGPL
and MPL are allowed: the packages are used unchanged, which puts no conditions on code that imports them.

| package | license |
|---|---|
"""


def locked_packages() -> list[str]:
    """Return the sorted names of the packages that the platform needs, on any operating system."""
    return sorted(set(re.findall(r"^([a-z0-9][a-z0-9._-]*)(?:\[[a-z,]+\])?==", _LOCK.read_text(), re.MULTILINE)))


@functools.cache
def installed_licenses() -> dict[str, str]:
    """Return the license that each installed package of the lock file declares, by package name."""
    command = [sys.executable, "-m", "piplicenses", "--format=json", "--from=mixed", "--with-system"]
    rows = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    declared = {re.sub(r"[-_.]+", "-", row["Name"]).lower(): " ".join(row["License"].split()) for row in rows}
    return {name: declared[name] for name in locked_packages() if name in declared}


def is_allowed_license(license_name: str) -> bool:
    """Return whether a license is allowed, or is a choice of licenses of which one is allowed."""
    return any(allowed in license_name for allowed in ALLOWED)


def render_page() -> str:
    """Return the text of docs/licenses.md."""
    return _HEAD + "".join(f"| {name} | {declared} |\n" for name, declared in installed_licenses().items())


if __name__ == "__main__":
    print(render_page(), end="")  # noqa: T201  (the output of a command)
