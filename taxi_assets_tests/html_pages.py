"""Parsing of HTML pages for tests: texts, images, and the URLs that a browser would load."""

from __future__ import annotations

import base64
from html.parser import HTMLParser

_VOID = {"meta", "img", "br", "hr", "link", "input"}
_LOADS = {"src", "srcset", "href", "data", "action", "poster", "background", "formaction"}


class HtmlPage(HTMLParser):
    """A parsed HTML page. Raises `AssertionError` if a tag is not closed by its own end tag."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        """The texts of the page in order, without styles."""
        self.images: list[dict[str, str]] = []
        self.loaded_urls: list[str] = []
        """The URLs that a browser would load or link to, without data URIs."""
        self.tag_names: set[str] = set()
        self.event_handlers: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tag_names.add(tag)
        if tag not in _VOID:
            self._open.append(tag)
        if tag == "img":
            self.images.append({name: value or "" for name, value in attrs})
        for name, value in attrs:
            if name in _LOADS and not (value or "").startswith("data:"):
                self.loaded_urls.append(value or "")
            if name.startswith("on"):
                self.event_handlers.append(name)

    def handle_endtag(self, tag: str) -> None:
        assert self._open
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "style":
            assert "url(" not in data
            assert "@import" not in data
        elif data.strip():
            self.texts.append(" ".join(data.split()))

    def text_after(self, text: str, number: int = 1) -> str:
        """Return the text `number` places after the first text that equals `text`."""
        return self.texts[self.texts.index(text) + number]

    def png_bytes(self) -> list[bytes]:
        """Return the bytes of the embedded images, which must all be PNGs."""
        return [base64.b64decode(image["src"].removeprefix("data:image/png;base64,"), validate=True)
                for image in self.images]  # fmt: skip
