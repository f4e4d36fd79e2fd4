"""Every check of the doctor ends in one finding, in time, and without a secret."""

from __future__ import annotations

import re
import sys
import threading
import types
from typing import TYPE_CHECKING

import psycopg2
import pytest
from packaging.requirements import Requirement

from taxi_assets.cli.doctor import configuration, versions
from taxi_assets.cli.doctor.check_runner import CheckRunner
from taxi_assets.cli.doctor.instance import reason
from taxi_assets.cli.doctor.versions import _problem
from taxi_assets.errors import LakeConfigurationError, PermanentError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SECRET = "quite-secret"  # noqa: S105  (not a real secret)


@pytest.fixture
def run_check(monkeypatch: pytest.MonkeyPatch) -> Callable[[CheckRunner, str, Callable[[CheckRunner], str]], str]:
    """Return a function that runs a check written for the test, and returns its line."""

    def run_check(checks: CheckRunner, part: str, at: Callable[[CheckRunner], str]) -> str:
        module = types.ModuleType("taxi_assets.cli.doctor.made")
        setattr(module, "part", at)  # noqa: B010  (no attribute, for the type checker)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        return str(checks.run(part, "made:part"))

    return run_check


@pytest.fixture
def checks(run_check: Callable[[CheckRunner, str, Callable[[CheckRunner], str]], str]) -> CheckRunner:
    checks = CheckRunner(20)
    assert run_check(checks, "versions", lambda _: "as required") == "ok    versions       as required"
    return checks


def test_a_part_without_faults_is_one_line(checks: CheckRunner, run_check: Callable[..., str]) -> None:
    assert run_check(checks, "lake", lambda _: "a folder") == "ok    lake           a folder"
    assert checks.is_ok


def test_a_known_error_is_a_fault_with_its_fix_and_one_line_per_mistake(
    checks: CheckRunner, run_check: Callable[..., str]
) -> None:
    def fail(_checks: CheckRunner) -> str:
        raise LakeConfigurationError("One.\nTwo.", remedy="Do it.")

    assert (
        run_check(checks, "lake", fail)
        == "FAULT lake           One.\nFAULT lake           Two. Do it. [LakeConfigurationError]"
    )
    assert not checks.is_ok


def test_an_unexpected_error_is_reported_by_its_place_and_not_quoted(
    checks: CheckRunner, run_check: Callable[..., str]
) -> None:
    def fail(_checks: CheckRunner) -> str:
        raise RuntimeError(f"postgresql://me:{SECRET}@host")

    message = run_check(checks, "lake", fail)
    assert message.startswith("FAULT lake           RuntimeError in test_doctor.py, line ")
    assert SECRET not in message
    assert "\n" not in message


def test_a_missing_library_is_named(checks: CheckRunner, run_check: Callable[..., str]) -> None:
    def fail(_checks: CheckRunner) -> str:
        import no_such_library  # type: ignore[import-not-found]  # noqa: PLC0415  (that is what it is about)

        return str(no_such_library)

    assert "The library no_such_library is missing or cannot be imported." in run_check(checks, "lake", fail)


def test_a_check_that_hangs_is_a_fault_after_its_time_limit(run_check: Callable[..., str]) -> None:
    end = threading.Event()
    checks = CheckRunner(0.05)
    message = run_check(checks, "versions", lambda _: str(end.wait(60)))
    end.set()
    assert message.startswith("FAULT versions       No answer within 0.05 seconds.")
    assert not checks.is_ok


def test_a_check_that_needs_a_faulty_part_is_skipped(checks: CheckRunner, run_check: Callable[..., str]) -> None:
    def fail(_checks: CheckRunner) -> str:
        raise LakeConfigurationError("It is wrong.", remedy="Change it.")

    def needs_account(checks: CheckRunner) -> str:
        checks.require("account")
        return "a bucket"

    run_check(checks, "account", fail)
    assert run_check(checks, "lake", needs_account) == "-     lake           skipped: fix account first"


def test_a_check_that_needs_settings_is_skipped_if_a_value_is_invalid(
    checks: CheckRunner, run_check: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def needs_settings(checks: CheckRunner) -> str:
        return checks.settings().schedule_timezone

    monkeypatch.setenv("TAXI_RETRY_DELAY_SECONDS", "soon")
    assert run_check(checks, "schedules", needs_settings) == "-     schedules      skipped: fix settings first"


def test_only_checks_that_need_a_missing_library_are_skipped(run_check: Callable[..., str]) -> None:
    def fail(_checks: CheckRunner) -> str:
        raise LakeConfigurationError("no-such-library is missing.", remedy="Install it.")

    def needs_it(_checks: CheckRunner) -> str:
        import no_such_library  # noqa: PLC0415  (that is what it is about)

        return str(no_such_library)

    def needs_it_and_says_so(checks: CheckRunner) -> str:
        try:
            return needs_it(checks)
        except ImportError:
            raise LakeConfigurationError("It does not open.", remedy="Open it.") from None

    checks = CheckRunner(20)
    run_check(checks, "versions", fail)
    assert run_check(checks, "lake", lambda _: "a folder") == "ok    lake           a folder"
    assert run_check(checks, "warehouse", needs_it) == "-     warehouse      skipped: fix versions first"
    assert run_check(checks, "publisher", needs_it_and_says_so) == "-     publisher      skipped: fix versions first"
    assert run_check(checks, "runs", fail).startswith("FAULT runs"), "a fault of its own is still one"


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
def test_an_installed_library_is_compared_with_its_requirement(requirement: str, complaint: str | None) -> None:
    message = _problem(Requirement(requirement))
    assert (message is None) if complaint is None else re.fullmatch(complaint, message or "")


# --- why an instance does not open -----------------------------------------------------------------------------------


def test_required_versions_that_are_not_known_are_an_error(
    checks: CheckRunner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    project = tmp_path / "pyproject.toml"
    monkeypatch.setattr(versions, "_PROJECT", project)
    monkeypatch.setattr(versions, "_PACKAGE", "not-installed")
    with pytest.raises(PermanentError, match=re.escape(f"{project} does not exist. Copy pyproject.toml")):
        versions.versions(checks)


def test_an_address_in_an_error_is_quoted_without_user_and_password() -> None:
    error = RuntimeError("too many retries")
    error.__cause__ = psycopg2.OperationalError(f'could not translate host name "{SECRET}@host"\n  to address')
    assert reason(error) == 'could not translate host name …@host" to address'
    assert reason(ValueError(SECRET)) == "ValueError"


def test_the_question_in_errors_of_libpq_is_left_out() -> None:
    asked = "\n\tIs the server running on that host and accepting TCP/IP connections?\n"
    error = psycopg2.OperationalError(f"first failed: Connection refused{asked}second failed: timeout expired{asked}")
    assert reason(error) == "first failed: Connection refused; second failed: timeout expired"


def test_a_misspelt_variable_is_a_fault(checks: CheckRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAXI_WAREHOSE", "duckdb:///trips.duckdb")
    monkeypatch.setenv("TAXI_NOTIFY_URLS_FILE", "/run/secrets/taxi_notify_urls")  # how images receive a secret
    with pytest.raises(SettingsError, match=r"^TAXI_WAREHOSE is not a setting\. Did you mean TAXI_WAREHOUSE\?"):
        configuration.settings(checks)
    monkeypatch.setenv("TAXI_RETRY_DELAY_SECONDS", "soon")
    with pytest.raises(
        SettingsError, match=r"^TAXI_WAREHOSE is not a setting\..*\nTAXI_RETRY_DELAY_SECONDS='soon' is not"
    ):
        configuration.settings(checks)
