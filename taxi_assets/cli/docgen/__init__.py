"""The documents that are made from the code: `make docs` writes them, a test holds that they are current.

Belongs here: text and pictures of what the code says of itself. What a person writes stands in docs/.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tabulate import tabulate

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    # Not padded: a longer text would otherwise change every line of its table.
    return tabulate(list(rows), headers, tablefmt="pipe", disable_numparse=True, stralign=None)
