"""Limits on the size of a published file, and the errors of a file whose content is invalid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from taxi_assets.errors import InvalidFileError

GIB = 1 << 30

CHECK_FILE = "Check the file that the publisher sent: it is not a trip file."
OPEN_IN_BROWSER = (
    "Open the URL in a browser to inspect the response, then try again later or choose another publisher (TAXI_SOURCE)."
)
GET_COMPLETE_FILE = "Get the complete file from its publisher, or choose another publisher (TAXI_SOURCE)."
RAISE_MAX_BYTES = "Raise TAXI_MAX_FILE_BYTES if the file is genuine."
RAISE_MAX_RATIO = "Raise TAXI_MAX_EXPANSION_RATIO if the file is genuine."


@dataclass(frozen=True)
class FileLimits:
    """Limits on a file: published bytes, decompressed bytes, and the ratio of the two."""

    max_bytes: int = 8 * GIB
    max_expanded_bytes: int = 64 * GIB
    max_expansion_ratio: int = 200

    @property
    def expansion_finding(self) -> str:
        """Completes the sentence "… was rejected: …" for a file that exceeds `max_expansion_ratio`."""
        return f"it expands to more than {self.max_expansion_ratio} times its size"

    @classmethod
    def from_settings(cls, max_bytes: int, max_expansion_ratio: int) -> Self:
        """Return the limits for the given settings. A file may expand to eight times `max_bytes`."""
        return cls(max_bytes, 8 * max_bytes, max_expansion_ratio)


DEFAULT_LIMITS = FileLimits()


def invalid_file_error(label: str, url: str, finding: str, *, remedy: str) -> InvalidFileError:
    """Build the error for a file with invalid content; `finding` completes the sentence."""
    return InvalidFileError(f"{label} from {url} was rejected: {finding}.", remedy=remedy)


class InvalidContentError(Exception):
    """The content of a file is invalid; `finding` completes the sentence "… was rejected: …"."""

    def __init__(self, finding: str, remedy: str = GET_COMPLETE_FILE) -> None:
        super().__init__(finding)
        self.finding = finding
        self.remedy = remedy


class NoRowsError(InvalidContentError):
    """The file has a header, but no rows."""


class ExpansionLimiter:
    """Counts the decompressed bytes of a file, and raises an error at the limits.

    Without limits, a few kilobytes can expand to terabytes.
    """

    def __init__(self, limits: FileLimits, size: int) -> None:
        self._expanded = 0
        self._limits = limits
        self._max_by_ratio = limits.max_expansion_ratio * size

    def add(self, expanded: int) -> None:
        """Count further decompressed bytes.

        Raises:
            InvalidContentError: A limit is exceeded.
        """
        self._expanded += expanded
        if self._expanded > self._limits.max_expanded_bytes:
            raise InvalidContentError(
                f"it expands to more than {self._limits.max_expanded_bytes:,} bytes", RAISE_MAX_BYTES
            )
        if self._expanded > self._max_by_ratio:
            raise InvalidContentError(self._limits.expansion_finding, RAISE_MAX_RATIO)
