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

from taxi_assets.cli.doctor import configuration
from taxi_assets.cli.doctor.check_runner import CheckRunner
from taxi_assets.cli.doctor.instance import reason
from taxi_assets.cli.doctor.versions import _problem
from taxi_assets.errors import LakeConfigurationError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

SECRET = "quite-secret"  # noqa: S105  (of nobody)


@pytest.fixture
def look(monkeypatch: pytest.MonkeyPatch) -> Callable[[CheckRunner, str, Callable[[CheckRunner], str]], str]:
    """Look at a part that is made for the test; gives the line that it comes out as."""

    def look(visit: CheckRunner, part: str, at: Callable[[CheckRunner], str]) -> str:
        module = types.ModuleType("taxi_assets.cli.doctor.made")
        setattr(module, "part", at)  # noqa: B010  (no attribute, for the type checker)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        return str(visit.run(part, "made:part"))

    return look


@pytest.fixture
def visit(look: Callable[[CheckRunner, str, Callable[[CheckRunner], str]], str]) -> CheckRunner:
    visit = CheckRunner(20)
    assert look(visit, "versions", lambda _: "as they must be") == "ok    versions       as they must be"
    return visit


def test_what_is_well_is_a_line_and_no_fault(visit: CheckRunner, look: Callable[..., str]) -> None:
    assert look(visit, "lake", lambda _: "a folder") == "ok    lake           a folder"
    assert visit.is_ok


def test_a_named_error_is_a_fault_with_its_remedy_a_line_for_each_of_its_lines(
    visit: CheckRunner, look: Callable[..., str]
) -> None:
    def fail(_visit: CheckRunner) -> str:
        raise LakeConfigurationError("One.\nTwo.", remedy="Do it.")

    assert (
        look(visit, "lake", fail)
        == "FAULT lake           One.\nFAULT lake           Two. Do it. [LakeConfigurationError]"
    )
    assert not visit.is_ok


def test_an_error_that_nobody_has_foreseen_is_named_by_its_place_and_not_quoted(
    visit: CheckRunner, look: Callable[..., str]
) -> None:
    def fail(_visit: CheckRunner) -> str:
        raise RuntimeError(f"postgresql://me:{SECRET}@host")

    message = look(visit, "lake", fail)
    assert message.startswith("FAULT lake           RuntimeError in test_doctor.py, line ")
    assert SECRET not in message
    assert "\n" not in message


def test_a_library_that_is_missing_is_named(visit: CheckRunner, look: Callable[..., str]) -> None:
    def fail(_visit: CheckRunner) -> str:
        import no_such_library  # type: ignore[import-not-found]  # noqa: PLC0415  (that is what it is about)

        return str(no_such_library)

    assert "The library no_such_library is missing, or cannot be loaded." in look(visit, "lake", fail)


def test_what_hangs_is_a_fault_when_its_time_is_up(look: Callable[..., str]) -> None:
    end = threading.Event()
    visit = CheckRunner(0.05)
    message = look(visit, "versions", lambda _: str(end.wait(60)))
    end.set()
    assert message.startswith("FAULT versions       There was no answer within 0.05 seconds.")
    assert not visit.is_ok


def test_what_waits_for_another_part_is_not_looked_at_and_no_fault_of_its_own(
    visit: CheckRunner, look: Callable[..., str]
) -> None:
    def fail(_visit: CheckRunner) -> str:
        raise LakeConfigurationError("It is wrong.", remedy="Change it.")

    def needs_account(visit: CheckRunner) -> str:
        visit.require("account")
        return "a bucket"

    look(visit, "account", fail)
    assert look(visit, "lake", needs_account) == "-     lake           not looked at: account first"


def test_what_needs_settings_is_not_looked_at_where_a_value_is_not_accepted(
    visit: CheckRunner, look: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def needs_settings(visit: CheckRunner) -> str:
        return visit.settings().schedule_timezone

    monkeypatch.setenv("TAXI_WAREHOSE", "duckdb:///trips.duckdb")
    assert look(visit, "schedules", needs_settings) == "ok    schedules      UTC", "misspelt: it means nothing"
    monkeypatch.setenv("TAXI_RETRY_DELAY_SECONDS", "soon")
    assert look(visit, "schedules", needs_settings) == "-     schedules      not looked at: settings first"


def test_of_a_library_that_is_missing_only_what_needs_it_is_not_looked_at(look: Callable[..., str]) -> None:
    def fail(_visit: CheckRunner) -> str:
        raise LakeConfigurationError("no-such-library is missing.", remedy="Install it.")

    def needs_it(_visit: CheckRunner) -> str:
        import no_such_library  # noqa: PLC0415  (that is what it is about)

        return str(no_such_library)

    def needs_it_and_says_so(visit: CheckRunner) -> str:
        try:
            return needs_it(visit)
        except ImportError:
            raise LakeConfigurationError("It does not open.", remedy="Open it.") from None

    visit = CheckRunner(20)
    look(visit, "versions", fail)
    assert look(visit, "lake", lambda _: "a folder") == "ok    lake           a folder"
    assert look(visit, "warehouse", needs_it) == "-     warehouse      not looked at: versions first"
    assert look(visit, "publisher", needs_it_and_says_so) == "-     publisher      not looked at: versions first"
    assert look(visit, "runs", fail).startswith("FAULT runs"), "a fault of its own is still one"


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
    message = _problem(Requirement(requirement))
    assert (message is None) if complaint is None else re.fullmatch(complaint, message or "")


# --- why an instance does not open -----------------------------------------------------------------------------------


def test_of_an_address_that_stands_in_an_error_nothing_before_its_host_is_quoted() -> None:
    error = RuntimeError("too many retries")
    error.__cause__ = psycopg2.OperationalError(f'could not translate host name "{SECRET}@host"\n  to address')
    assert reason(error) == 'could not translate host name …@host" to address'
    assert reason(ValueError(SECRET)) == "ValueError"


def test_libpqs_own_question_is_left_out_of_its_answer() -> None:
    asked = "\n\tIs the server running on that host and accepting TCP/IP connections?\n"
    error = psycopg2.OperationalError(f"first failed: Connection refused{asked}second failed: timeout expired{asked}")
    assert reason(error) == "first failed: Connection refused; second failed: timeout expired"


def test_a_misspelt_variable_is_a_fault(visit: CheckRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAXI_WAREHOSE", "duckdb:///trips.duckdb")
    monkeypatch.setenv("TAXI_NOTIFY_URLS_FILE", "/run/secrets/taxi_notify_urls")  # how images are told a secret
    with pytest.raises(SettingsError, match=r"^TAXI_WAREHOSE means nothing\. Is it misspelt"):
        configuration.settings(visit)
    monkeypatch.setenv("TAXI_RETRY_DELAY_SECONDS", "soon")
    with pytest.raises(
        SettingsError, match=r"^TAXI_WAREHOSE means nothing\..*\nTAXI_RETRY_DELAY_SECONDS='soon' is not"
    ):
        configuration.settings(visit)
