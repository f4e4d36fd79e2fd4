"""Code versions of assets: the UI marks a materialization as stale if its asset has another code version now.

Belongs here: the code versions of assets whose content follows from a constant or from their columns. Cleaning, marts
and reports compute their own.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from taxi_assets.tlc.schema import Column

AS_PUBLISHED = "1"
"""The code version of assets that store files as published, whatever the code."""


def columns_version(columns: Iterable[Column], version: int = 1) -> str:
    """Return a digest of the names and types of a table's columns.

    Args:
        columns: The columns of the table, in order.
        version: The version of the code that computes the rows.

    Returns:
        16 hexadecimal digits.
    """
    content = [version, *((column.name, str(column.type)) for column in columns)]
    return hashlib.sha256(repr(content).encode()).hexdigest()[:16]
