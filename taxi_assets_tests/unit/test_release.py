"""The changelog follows Keep a Changelog and agrees with the version. Each decision has a date and a status."""

from __future__ import annotations

import re
import tomllib
from datetime import date

from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.documentation import TEXTS

SECTIONS = re.findall(r"^## (.+)$", TEXTS["CHANGELOG.md"], re.MULTILINE)
KINDS = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]  # in the order of Keep a Changelog
_RELEASE = re.compile(r"\[(\d+\.\d+\.\d+)\] - (\d{4}-\d\d-\d\d)")
_DECISION = re.compile(
    r"^## (\d+)\. (.+)\n\n- \*\*Status:\*\* (?:accepted|superseded) on (\d{4}-\d\d-\d\d)\b", re.MULTILINE
)


def _releases() -> list[tuple[str, date]]:
    matches = [_RELEASE.fullmatch(section) for section in SECTIONS[1:]]
    assert all(matches), SECTIONS
    return [(match[1], date.fromisoformat(match[2])) for match in matches if match]


def test_the_newest_section_of_the_changelog_has_the_version_of_the_package() -> None:
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
    assert _releases()[0][0] == version
    assert f"git tag --annotate v{version} " in TEXTS["CONTRIBUTING.md"]


def test_the_changelog_lists_unreleased_changes_first_then_releases_from_new_to_old() -> None:
    assert SECTIONS[0] == "[Unreleased]"
    dates = [released for _, released in _releases()]
    assert dates == sorted(dates, reverse=True)


def test_each_section_of_the_changelog_has_the_kinds_of_changes_in_their_order() -> None:
    for section in re.split(r"^## ", TEXTS["CHANGELOG.md"], flags=re.MULTILINE)[1:]:
        kinds = re.findall(r"^### (.+)$", section, re.MULTILINE)
        assert kinds == [kind for kind in KINDS if kind in kinds], section.splitlines()[0]


def test_each_decision_has_a_number_a_status_and_a_date() -> None:
    decisions = TEXTS["docs/decisions.md"]
    titles = re.findall(r"^## (.+)$", decisions, re.MULTILINE)
    found = [(int(number), title, date.fromisoformat(day)) for number, title, day in _DECISION.findall(decisions)]
    assert [f"{number}. {title}" for number, title, _ in found] == titles
    assert [number for number, *_ in found] == list(range(1, len(titles) + 1))
