"""Generate documentation from the code: `make docs` writes the pages, and a test checks that they are current.

Belongs here: pages and images that are derived from definitions, schemas and settings. Pages that people write are in
`docs/`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tabulate import tabulate

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    # Cells are not padded: otherwise one longer text would change every line of the table.
    return tabulate(list(rows), headers, tablefmt="pipe", disable_numparse=True, stralign=None)
