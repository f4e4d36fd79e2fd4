"""What the platform runs on may be run, changed and passed on by anybody, and the list of it is true."""

from __future__ import annotations

import re

import pytest

from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.licences import is_allowed, licences, locked

# Of other systems: never installed where tests run.
ELSEWHERE = {"colorama", "pyreadline3", "pywin32"}


def test_every_package_that_runs_has_a_licence_that_is_allowed() -> None:
    message = licences()
    assert set(locked()) - set(message) <= ELSEWHERE
    assert len(message) > 80
    assert {name: licence for name, licence in message.items() if not is_allowed(licence)} == {}


@pytest.mark.parametrize(
    "licence",
    ["UNKNOWN", "", "GPL-3.0-only", "GNU General Public License v3 (GPLv3)", "AGPL-3.0", "BUSL-1.1", "Proprietary"],
)
def test_others_would_be_noticed(licence: str) -> None:
    assert not is_allowed(licence)


def test_the_list_is_the_one_that_make_docs_writes() -> None:
    listed = dict(re.findall(r"^\| (\S+) \| (.+) \|$", (REPOSITORY / "docs" / "licences.md").read_text(), re.MULTILINE))
    listed.pop("package", None)
    # What a package says may differ from one version of Python to another: by name, then.
    assert sorted(listed) == sorted(licences())
    assert [licence for licence in listed.values() if not is_allowed(licence)] == []
