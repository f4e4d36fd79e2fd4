"""Find headers among the rows of a file. A file that was joined from parts has one for each part."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from taxi_assets.tlc.readers.header import column_names
from taxi_assets.tlc.readers.quoted_fields import split_fields
from taxi_assets.tlc.schema import normalize

if TYPE_CHECKING:
    from taxi_assets.tlc.readers.csv_blocks import Block
    from taxi_assets.tlc.schema import Service

# A line that has the name of the pickup column and of another one is a header.
_MINIMUM_NAMES = 2


class HeaderFinder:
    """Finds lines that name columns of a service."""

    def __init__(self, service: Service) -> None:
        names = column_names(service)
        self._delimiter = service.dialect.delimiter
        self._names = names.keys()
        self._pickup_names = {name for name, column in names.items() if column == "pickup_datetime"}

    def find(self, block: Block) -> list[int]:
        """Return the indices of the rows of a block that are headers."""
        # Searching the whole block is fast, and few blocks contain a name.
        condensed = block.content.lower().translate(None, b" _")
        if not any(name.encode() in condensed for name in self._pickup_names):
            return []
        return [index for index, line in enumerate(block.lines(np.arange(block.rows))) if self._is_header(line)]

    def _is_header(self, line: str) -> bool:
        names = {normalize(field) for field in split_fields(line, self._delimiter)}
        return not names.isdisjoint(self._pickup_names) and len(names & self._names) >= _MINIMUM_NAMES
