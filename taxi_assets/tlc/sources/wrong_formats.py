"""Recognize what servers send instead of a trip file: error pages, other documents, Git LFS pointers.

Belongs here: judging the first bytes. Does not belong here: what follows from it (`transports/`,
`validate_file.py`).
"""

from __future__ import annotations

import html
import re

HEAD_BYTES = 8 << 10
"""Bytes at the beginning of a file or an answer that the functions of this module need."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_HTML = re.compile(rb"<!doctype\s+html|<html|<head|<title", re.IGNORECASE)


def detect_wrong_format(head: bytes) -> str | None:
    """Return the kind of document that was downloaded instead of a trip file, or None if it is not recognized."""
    text = _text_of(head)
    if text.startswith(b"<"):
        code = xml_code(head)
        return detect_web_page(head) or "an XML document" + (f' ("{code}")' if code else "")
    if text.startswith((b"{", b"[")):
        return "a JSON document"
    if text.startswith(b"version https://git-lfs"):
        return "a git-LFS pointer"
    if text.startswith(b"PK\x03\x04"):
        return "a zip archive"
    return None


def detect_web_page(head: bytes) -> str | None:
    """Return "an HTML page", with its title, if that is what the bytes are; otherwise None."""
    text = _text_of(head)
    if not text.startswith(b"<") or not _HTML.search(text):
        return None
    title = page_title(head)
    return "an HTML page" + (f' ("{title}")' if title else "")


def page_title(head: bytes) -> str:
    """Return the title of an HTML page, in one line; empty if it has none."""
    return _first_match(rb"<title[^>]*>(.*?)</title", head)


def xml_code(head: bytes) -> str:
    """Return the code in an XML error, such as "AccessDenied" of S3; empty if there is none."""
    return _first_match(rb"<code>(.*?)</code>", head)


def _text_of(head: bytes) -> bytes:
    return head.removeprefix(_BYTE_ORDER_MARK).lstrip()


def _first_match(pattern: bytes, text: bytes) -> str:
    match = re.search(pattern, text, re.IGNORECASE | re.DOTALL)
    message = html.unescape(match[1].decode("utf-8", "replace")) if match else ""
    # A terminal could interpret control characters as commands.
    return " ".join("".join(c if c.isprintable() else " " for c in message).split())[:100]
