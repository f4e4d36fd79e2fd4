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

LOOK = "taxi_assets look"
"""The name of the threads that look."""

_LATE = "Is what stands there up, and the way to it open (address, proxy, firewall)?"


@dataclass(frozen=True)
class Finding:
    """What came of a part: well, at fault, or not looked at because of another fault."""

    part: str
    state: Literal["ok", "FAULT", "-"]
    said: str

    def __str__(self) -> str:
        """A line; where there are several mistakes, a line each."""
        return "\n".join(f"{self.state:<6}{self.part:<15}{line}" for line in self.said.splitlines())


class NotLookedAtError(Exception):
    """Another part comes first: its fault is named there."""


class Visit:
    """What was found so far; `seconds` is how long one part may take."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._findings: dict[str, Finding] = {}

    def look(self, part: str, at: str, *, patience: float = 1) -> Finding:
        """Look at a part; `at` is the module and the function that do, as in `stores:lake`."""
        finding = self._found(part, partial(self._look, part, at, patience * self.seconds))
        self._findings[part] = finding
        return finding

    def require(self, *parts: str) -> None:
        """Raises `NotLookedAtError` unless these parts are well."""
        for part in parts:
            if self._findings[part].state != "ok":
                raise NotLookedAtError(f"not looked at: {part} first")

    def settings(self) -> Settings:
        """The settings, once it is known that they are accepted."""
        self.require("settings")
        from taxi_assets.settings import Settings  # noqa: PLC0415  (see above)

        return Settings.from_env()

    @property
    def is_well(self) -> bool:
        """Whether no fault was found."""
        return all(finding.state != "FAULT" for finding in self._findings.values())

    def _look(self, part: str, at: str, seconds: float) -> Finding:
        if part != "versions":
            self.require("versions")
        module, _, name = at.partition(":")
        look: Callable[[Visit], str] = getattr(import_module(f"taxi_assets.doctor.{module}"), name)
        answers: queue.SimpleQueue[Finding] = queue.SimpleQueue()
        # A thread: what hangs may be in C, where no signal is heard. The clock does not run while libraries are loaded.
        looking = partial(self._found, part, lambda: Finding(part, "ok", look(self)))
        threading.Thread(target=lambda: answers.put(looking()), name=LOOK, daemon=True).start()
        try:
            return answers.get(timeout=seconds)
        except queue.Empty:
            return Finding(part, "FAULT", f"There was no answer within {seconds:g} seconds. {_LATE}")

    def _found(self, part: str, look: Callable[[], Finding]) -> Finding:
        try:
            return look()
        except NotLookedAtError as error:
            return Finding(part, "-", str(error))
        except Exception as error:  # noqa: BLE001  (whatever it is, it is what was to be found)
            return Finding(part, "FAULT", _named(error))


def _named(error: Exception) -> str:
    if hasattr(error, "remedy"):
        return str(error)
    if isinstance(error, ImportError):
        return f"The library {error.name} is missing, or cannot be loaded. Run `make setup`."
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(place.filename).name}, line {place.lineno}"
    return f"{type(error).__name__} in {where}. `dagster definitions validate` shows more of what loads, or does not."
