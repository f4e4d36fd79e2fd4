"""A visit to a deployment: part after part is looked at, each for some seconds at most, and comes out as one finding.

Belongs here: what all parts have in common, with nothing but Python itself, because libraries may be what is missing.
A look returns what is well, in a line, or raises; errors that are not ours may quote secrets, and are not quoted.
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

Check = "taxi_assets look"
"""The name of the threads that look."""

TIMEOUT_MARGIN = "Is what stands there up, and the way to it open (address, proxy, firewall)?"
"""What to ask where nobody answers."""


@dataclass(frozen=True)
class Finding:
    """What came of a part: well, at fault, or not looked at because of another fault."""

    part: str
    state: Literal["ok", "FAULT", "-"]
    message: str

    def __str__(self) -> str:
        """A line; where there are several mistakes, a line each."""
        return "\n".join(f"{self.state:<6}{self.part:<15}{line}" for line in self.message.splitlines())


class CheckSkippedError(Exception):
    """Another part comes first: its fault is named there."""


class CheckRunner:
    """What was found so far; `seconds` is how long one part may take."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._findings: dict[str, Finding] = {}

    def run(self, part: str, at: str, *, retry: float = 1) -> Finding:
        """Look at a part; `at` is the module and the function that do, as in `stores:lake`."""
        finding = self._finding(part, partial(self._run_check, part, at, retry * self.seconds))
        self._findings[part] = finding
        return finding

    def require(self, *parts: str) -> None:
        """Raises `NotLookedAtError` unless these parts are well."""
        for part in parts:
            if self._findings[part].state != "ok":
                raise CheckSkippedError(f"not looked at: {part} first")

    def settings(self) -> Settings:
        """The settings, where they are accepted; a variable too many keeps nothing from being looked at."""
        from taxi_assets.errors import SettingsError  # noqa: PLC0415  (see above)
        from taxi_assets.settings import Settings  # noqa: PLC0415

        try:
            return Settings.from_env()
        except SettingsError:
            raise CheckSkippedError("not looked at: settings first") from None

    @property
    def is_ok(self) -> bool:
        """Whether no fault was found."""
        return all(finding.state != "FAULT" for finding in self._findings.values())

    def _run_check(self, part: str, at: str, seconds: float) -> Finding:
        module, _, name = at.partition(":")
        look: Callable[[CheckRunner], str] = getattr(import_module(f"taxi_assets.cli.doctor.{module}"), name)
        answers: queue.SimpleQueue[Finding] = queue.SimpleQueue()
        # A thread: what hangs may be in C, where no signal is heard. The clock does not run while libraries are loaded.
        looking = partial(self._finding, part, lambda: Finding(part, "ok", look(self)))
        threading.Thread(target=lambda: answers.put(looking()), name=Check, daemon=True).start()
        try:
            return answers.get(timeout=seconds)
        except queue.Empty:
            return Finding(part, "FAULT", f"There was no answer within {seconds:g} seconds. {TIMEOUT_MARGIN}")

    def _finding(self, part: str, look: Callable[[], Finding]) -> Finding:
        try:
            return look()
        except CheckSkippedError as error:
            return Finding(part, "-", str(error))
        except Exception as error:  # noqa: BLE001  (whatever it is, it is what was to be found)
            if self._follows_from_versions(error):
                return Finding(part, "-", "not looked at: versions first")
            return Finding(part, "FAULT", _error_text(error))

    def _follows_from_versions(self, error: Exception) -> bool:
        """Whether a library that is not as it must be, which has been named, may be what is behind an error."""
        versions = self._findings.get("versions")
        if versions is None or versions.state == "ok":
            return False
        return not hasattr(error, "remedy") or _is_of_import(error)


def _is_of_import(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, ImportError):
        error = error.__cause__ or error.__context__
    return error is not None


def _error_text(error: Exception) -> str:
    if hasattr(error, "remedy"):
        return str(error)
    if isinstance(error, ImportError):
        return f"The library {error.name} is missing, or cannot be loaded. Run `make setup`."
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(place.filename).name}, line {place.lineno}"
    return f"{type(error).__name__} in {where}. `dagster definitions validate` shows more of what loads, or does not."
