"""The doctor's own bearing: whatever a part does, it comes out as one finding, in time, quoting no secret."""

from __future__ import annotations

import re
import sys
import threading
import types
from typing import TYPE_CHECKING

import psycopg2
import pytest
from packaging.requirements import Requirement

from taxi_assets.doctor import configuration
from taxi_assets.doctor.instance import _reason
from taxi_assets.doctor.versions import _complaint
from taxi_assets.doctor.visit import Visit
from taxi_assets.errors import LakeUnusableError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

SECRET = "quite-secret"  # noqa: S105  (of nobody)


@pytest.fixture
def look(monkeypatch: pytest.MonkeyPatch) -> Callable[[Visit, str, Callable[[Visit], str]], str]:
    """Look at a part that is made for the test; gives the line that it comes out as."""

    def look(visit: Visit, part: str, at: Callable[[Visit], str]) -> str:
        module = types.ModuleType("taxi_assets.doctor.made")
        setattr(module, "part", at)  # noqa: B010  (no attribute, for the type checker)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        return str(visit.look(part, "made:part"))

    return look


@pytest.fixture
def visit(look: Callable[[Visit, str, Callable[[Visit], str]], str]) -> Visit:
    visit = Visit(20)
    assert look(visit, "versions", lambda _: "as they must be") == "ok    versions       as they must be"
    return visit


def test_what_is_well_is_a_line_and_no_fault(visit: Visit, look: Callable[..., str]) -> None:
    assert look(visit, "lake", lambda _: "a folder") == "ok    lake           a folder"
    assert visit.is_well


def test_a_named_error_is_a_fault_with_its_remedy_a_line_for_each_of_its_lines(
    visit: Visit, look: Callable[..., str]
) -> None:
    def fail(_visit: Visit) -> str:
        raise LakeUnusableError("One.\nTwo.", remedy="Do it.")

    assert look(visit, "lake", fail) == "FAULT lake           One.\nFAULT lake           Two. Do it."
    assert not visit.is_well


def test_an_error_that_nobody_has_foreseen_is_named_by_its_place_and_not_quoted(
    visit: Visit, look: Callable[..., str]
) -> None:
    def fail(_visit: Visit) -> str:
        raise RuntimeError(f"postgresql://me:{SECRET}@host")

    said = look(visit, "lake", fail)
    assert said.startswith("FAULT lake           RuntimeError in test_doctor.py, line ")
    assert SECRET not in said
    assert "\n" not in said


def test_a_library_that_is_missing_is_named(visit: Visit, look: Callable[..., str]) -> None:
    def fail(_visit: Visit) -> str:
        import no_such_library  # type: ignore[import-not-found]  # noqa: PLC0415  (that is what it is about)

        return str(no_such_library)

    assert "The library no_such_library is missing, or cannot be loaded." in look(visit, "lake", fail)


def test_what_hangs_is_a_fault_when_its_time_is_up(look: Callable[..., str]) -> None:
    end = threading.Event()
    visit = Visit(0.05)
    said = look(visit, "versions", lambda _: str(end.wait(60)))
    end.set()
    assert said.startswith("FAULT versions       There was no answer within 0.05 seconds.")
    assert not visit.is_well


def test_what_waits_for_another_part_is_not_looked_at_and_no_fault_of_its_own(
    visit: Visit, look: Callable[..., str]
) -> None:
    def fail(_visit: Visit) -> str:
        raise LakeUnusableError("It is wrong.", remedy="Change it.")

    def needs_settings(visit: Visit) -> str:
        return str(visit.settings())

    look(visit, "settings", fail)
    assert look(visit, "lake", needs_settings) == "-     lake           not looked at: settings first"


def test_without_the_right_versions_nothing_else_is_looked_at(look: Callable[..., str]) -> None:
    def fail(_visit: Visit) -> str:
        raise LakeUnusableError("dagster is missing.", remedy="Install it.")

    visit = Visit(20)
    look(visit, "versions", fail)
    assert look(visit, "lake", lambda _: "a folder") == "-     lake           not looked at: versions first"


# --- versions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("requirement", "complaint"),
    [
        ("dagster>=1.13", None),
        ("dagster>=99", r"dagster 1\.\S+ \(>=99\)"),
        ("no-such-library>=1", "no-such-library is missing"),
        ("no-such-library>=1; python_version < '3'", None),
    ],
)
def test_a_library_is_there_in_a_version_that_will_do(requirement: str, complaint: str | None) -> None:
    said = _complaint(Requirement(requirement))
    assert (said is None) if complaint is None else re.fullmatch(complaint, said or "")


# --- why an instance does not open -----------------------------------------------------------------------------------


def test_of_an_address_that_stands_in_an_error_nothing_before_its_host_is_quoted() -> None:
    error = RuntimeError("too many retries")
    error.__cause__ = psycopg2.OperationalError(f'could not translate host name "{SECRET}@host"\n  to address')
    assert _reason(error) == 'could not translate host name …@host" to address'
    assert _reason(ValueError(SECRET)) == "ValueError"


def test_a_misspelt_variable_is_a_fault(visit: Visit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAXI_WAREHOSE", "duckdb:///trips.duckdb")
    monkeypatch.setenv("TAXI_NOTIFY_FILE", "/run/secrets/taxi_notify")  # how images are told a secret
    with pytest.raises(SettingsError, match=r"^TAXI_WAREHOSE means nothing\. Is it misspelt"):
        configuration.settings(visit)
