"""Recognize quoted fields in files in which one line is one row.

TLC's files are not quoted, and with quoting enabled, one stray quote can merge thousands of rows. Tools that save them
again quote fields that contain commas. Such a line is recognized by itself, so a stray quote has no effect on others.
"""

from __future__ import annotations

import csv

import numpy as np

JOINED_COMMA = "\x1f"
"""Replaces a comma within quotes, so that the line can be split at its other commas. No trip file has it."""

_QUOTE, _COMMA = b'",'


def split_fields(line: str, delimiter: str = ",") -> list[str]:
    """Split a line into fields: at each delimiter, except within quotes if the line is quoted consistently."""
    return (_parse_quoted(line, delimiter) if '"' in line else None) or line.split(delimiter)


def join_quoted_fields(content: bytes) -> bytes:
    """Replace the commas within quoted fields by `JOINED_COMMA`, and remove the quotes of these lines.

    Args:
        content: Complete lines in valid UTF-8.

    Returns:
        The lines, each as it is unless it is quoted consistently and has a comma within quotes. The content itself is
        returned if no line is like that.
    """
    if b'"' not in content or JOINED_COMMA.encode() in content or not _may_have_quoted_commas(content):
        return content
    return b"".join(_join(line) + b"\n" for line in content.splitlines())


def _join(line: bytes) -> bytes:
    fields = _parse_quoted(line.decode(), ",") if b'"' in line else None
    if fields is None or not any("," in field for field in fields):
        return line
    return ",".join(field.replace(",", JOINED_COMMA) for field in fields).encode()


def _parse_quoted(line: str, delimiter: str) -> list[str] | None:
    try:
        return next(csv.reader([line], delimiter=delimiter, strict=True), [])
    except csv.Error:
        return None


def _may_have_quoted_commas(content: bytes) -> bool:
    characters = np.frombuffer(content, np.uint8)
    within_quotes = np.logical_xor.accumulate(characters == _QUOTE)
    return bool(((characters == _COMMA) & within_quotes).any())
