"""Licenses: every package may be run, changed and redistributed by everyone, and docs/licenses.md is up to date."""

from __future__ import annotations

import re

import pytest

from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.licenses import installed_licenses, is_allowed_license, locked_packages

# Packages for other operating systems, which are not installed where tests run.
NOT_INSTALLED = {"colorama", "pyreadline3", "pywin32"}


def test_every_runtime_package_has_an_allowed_license() -> None:
    licenses = installed_licenses()
    assert set(locked_packages()) - set(licenses) <= NOT_INSTALLED
    assert len(licenses) > 80
    assert {name: declared for name, declared in licenses.items() if not is_allowed_license(declared)} == {}


@pytest.mark.parametrize(
    "license_name",
    ["UNKNOWN", "", "GPL-3.0-only", "GNU General Public License v3 (GPLv3)", "AGPL-3.0", "BUSL-1.1", "Proprietary"],
)
def test_a_missing_or_restrictive_license_is_rejected(license_name: str) -> None:
    assert not is_allowed_license(license_name)


def test_docs_licenses_md_lists_the_installed_packages() -> None:
    page = (REPOSITORY / "docs" / "licenses.md").read_text()
    listed = dict(re.findall(r"^\| (\S+) \| (.+) \|$", page, re.MULTILINE))
    listed.pop("package", None)
    # Only names are compared: the license that a package declares may differ between versions of Python.
    assert sorted(listed) == sorted(installed_licenses())
    assert [declared for declared in listed.values() if not is_allowed_license(declared)] == []
