"""The licences of what the platform runs on: `python -m taxi_assets_tests.licences` writes docs/licences.md.

What packages say of themselves is read by pip-licenses; which of them run is what requirements/runtime.lock says. Those
that Linux does not need are not installed, and not listed.
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
"""Licences by which anybody may run, change and pass on a platform that imports the package."""

_HEAD = """# Licences

What the platform runs on, as requirements/runtime.lock pins it, and under which licence each package says it is; made
by `make docs`. `taxi_assets_tests/unit/test_licences.py` lets no other kind of licence in. LGPL and MPL are among
them: their packages are used as they are, unchanged, which asks nothing of code that imports them.

| package | licence |
|---|---|
"""


def locked() -> list[str]:
    """The names of the packages that run, on some platform."""
    return sorted(set(re.findall(r"^([a-z0-9][a-z0-9._-]*)(?:\[[a-z,]+\])?==", _LOCK.read_text(), re.MULTILINE)))


@functools.cache
def licences() -> dict[str, str]:
    """What each of them that is installed says of itself, by its name."""
    command = [sys.executable, "-m", "piplicenses", "--format=json", "--from=mixed", "--with-system"]
    found = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    message = {re.sub(r"[-_.]+", "-", row["Name"]).lower(): " ".join(row["License"].split()) for row in found}
    return {name: message[name] for name in locked() if name in message}


def is_allowed(licence: str) -> bool:
    """Whether it is one of those, or leaves the choice among licences of which one is."""
    return any(allowed in licence for allowed in ALLOWED)


def page() -> str:
    """The document."""
    return _HEAD + "".join(f"| {name} | {licence} |\n" for name, licence in licences().items())


if __name__ == "__main__":
    print(page(), end="")  # noqa: T201  (what a command says)
