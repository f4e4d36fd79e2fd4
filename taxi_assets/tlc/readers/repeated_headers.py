"""Find headers among the rows of a file. A file that was joined from parts has one for each part."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from taxi_assets.tlc.readers.header import column_names
from taxi_assets.tlc.readers.quoted_fields import split_fields
from taxi_assets.tlc.schema import normalize

if TYPE_CHECKING:
    from taxi_assets.tlc.readers.csv_blocks import Block
    from taxi_assets.tlc.schema import Service

# A line that has this many names of columns is a header.
_MINIMUM_NAMES = 2

_LINE_WITHOUT_DIGITS = re.compile(rb"(?:\A|[\r\n])[^0-9\r\n]+(?:[\r\n]|\Z)")


class HeaderFinder:
    """Finds lines that are headers: they name columns of a service, or have as many fields as rows but no digit.

    A service without pickup times has no such files.
    """

    def __init__(self, service: Service) -> None:
        self._delimiter = service.dialect.delimiter
        names = column_names(service)
        self._names = names.keys()
        self._has_times = "pickup_datetime" in names.values()

    def find(self, block: Block, width: int) -> list[int]:
        """Return the indices of the rows of a block that are headers.

        Args:
            block: The rows.
            width: The number of fields of a row.
        """
        # Searching the whole block is fast, and few blocks have such lines.
        if not self._has_times:
            return []
        condensed = block.content.lower().translate(None, b" _")
        named = sum(name.encode() in condensed for name in self._names) >= _MINIMUM_NAMES
        if not named and not _LINE_WITHOUT_DIGITS.search(block.content):
            return []
        return [index for index, line in enumerate(block.lines(np.arange(block.rows))) if self._is_header(line, width)]

    def _is_header(self, line: str, width: int) -> bool:
        fields = split_fields(line, self._delimiter)
        if len(self._names & {normalize(field) for field in fields}) >= _MINIMUM_NAMES:
            return True
        # Every row has a time, which has digits.
        has_names = len(fields) == width > 1 and all(map(normalize, fields))
        return has_names and not any(map(str.isdigit, line))
