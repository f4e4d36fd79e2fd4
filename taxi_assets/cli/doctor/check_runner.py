"""Run the checks of `make doctor`, each with a time limit, and turn each result into one finding.

This module imports only the standard library, because a missing library is one of the faults to find. A check returns
one line that describes the part, or raises. Texts of foreign errors are not shown, because they may contain secrets.
"""

from __future__ import annotations

import queue
import threading
import traceback
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

    from taxi_assets.settings import Settings

CHECK_THREAD = "taxi_assets check"
"""Name of the threads that run checks."""

UNREACHABLE_HINT = "Check that the service runs, and that it can be reached (address, proxy, firewall)."
"""The fix for a service that does not answer."""


@dataclass(frozen=True)
class Finding:
    """The result of one check: the part is ok, has a fault, or was skipped (`-`) because another part has one."""

    part: str
    state: Literal["ok", "FAULT", "-"]
    message: str

    def __str__(self) -> str:
        """Return one line, or one line per mistake if there are several."""
        return "\n".join(f"{self.state:<6}{self.part:<15}{line}" for line in self.message.splitlines())


class CheckSkippedError(Exception):
    """The check needs another part, whose fault is reported there."""


class CheckRunner:
    """Runs checks one after the other and keeps their findings.

    Attributes:
        timeout_seconds: Time limit of one check.
    """

    def __init__(self, seconds: float) -> None:
        self.timeout_seconds = seconds
        self._findings: dict[str, Finding] = {}

    def run(self, part: str, function: str, *, timeout_factor: float = 1) -> Finding:
        """Check one part.

        Args:
            part: Name of the part.
            function: Module and name of the check in this package, such as `stores:lake`.
            timeout_factor: Multiplies the time limit for a slow check.
        """
        finding = self._finding(part, partial(self._run_check, part, function, timeout_factor * self.timeout_seconds))
        self._findings[part] = finding
        return finding

    def require(self, *parts: str) -> None:
        """Raise `CheckSkippedError` unless these parts are ok."""
        for part in parts:
            if not self.is_found_ok(part):
                raise CheckSkippedError(f"skipped: fix {part} first")

    def is_found_ok(self, part: str) -> bool:
        """Return whether a part, which has been checked, is ok."""
        return self._findings[part].state == "ok"

    def settings(self) -> Settings:
        """Return the settings; unknown variables are ignored here.

        Raises:
            CheckSkippedError: A variable has an invalid value.
        """
        from taxi_assets.errors import SettingsError  # noqa: PLC0415  (see the module's docstring)
        from taxi_assets.settings import Settings  # noqa: PLC0415

        try:
            return Settings.from_env()
        except SettingsError:
            raise CheckSkippedError("skipped: fix settings first") from None

    @property
    def is_ok(self) -> bool:
        """Whether no check has found a fault."""
        return all(finding.state != "FAULT" for finding in self._findings.values())

    def _run_check(self, part: str, function: str, seconds: float) -> Finding:
        module, _, name = function.partition(":")
        check: Callable[[CheckRunner], str] = getattr(import_module(f"taxi_assets.cli.doctor.{module}"), name)
        results: queue.SimpleQueue[Finding] = queue.SimpleQueue()
        # A thread, because code in C that hangs handles no signal. The import above does not count toward the limit.
        run_check = partial(self._finding, part, lambda: Finding(part, "ok", check(self)))
        threading.Thread(target=lambda: results.put(run_check()), name=CHECK_THREAD, daemon=True).start()
        try:
            return results.get(timeout=seconds)
        except queue.Empty:
            return Finding(part, "FAULT", f"No answer within {seconds:g} seconds. {UNREACHABLE_HINT}")

    def _finding(self, part: str, check: Callable[[], Finding]) -> Finding:
        try:
            return check()
        except CheckSkippedError as error:
            return Finding(part, "-", str(error))
        except Exception as error:  # noqa: BLE001  (any error is a finding)
            if self._may_follow_from_versions(error):
                return Finding(part, "-", "skipped: fix versions first")
            return Finding(part, "FAULT", _error_text(error))

    def _may_follow_from_versions(self, error: Exception) -> bool:
        """Return whether a missing or wrong library, which is reported already, may have caused an error."""
        versions = self._findings.get("versions")
        if versions is None or versions.state == "ok":
            return False
        return not hasattr(error, "remedy") or _is_caused_by_import(error)


def _is_caused_by_import(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, ImportError):
        error = error.__cause__ or error.__context__
    return error is not None


def _error_text(error: Exception) -> str:
    if hasattr(error, "remedy"):
        return str(error)
    if isinstance(error, ImportError):
        return f"The library {error.name} is missing or cannot be imported. Run `make setup`."
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(place.filename).name}, line {place.lineno}"
    return f"{type(error).__name__} in {where}. Run `dagster definitions validate` to see the whole error."
