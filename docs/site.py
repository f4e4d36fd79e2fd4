"""Hook of mkdocs (mkdocs.yml): add README.md and all linked files of the repository to the website.

In the repository, links lead to pages, files and folders. This hook creates a page for each linked file or folder and
rewrites the links, so that they work on the website, too. It also draws the diagrams in Mermaid: the theme would load a
script from another server to draw them in the browser.
"""

from __future__ import annotations

import posixpath
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import mermaidx
from mkdocs.structure.files import File, Files

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.pages import Page

_REPOSITORY = Path(__file__).parents[1]
_PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "CONTRIBUTING.md", "CHANGELOG.md": "CHANGELOG.md"}
_LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]*)(#[^)\s]*)?(?=\))")
_FENCE = re.compile(r"^( *```\w+) (needs|file)=(\S+)$", re.MULTILINE)
_LANGUAGES = {".py": "python", ".sql": "sql", ".yaml": "yaml", ".yml": "yaml", ".env": "ini", ".tf": "terraform"}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Draw blocks in Mermaid as SVG."""
    fence = {"name": "mermaid", "class": "mermaid", "format": _draw}
    config.mdx_configs["pymdownx.superfences"] = {"custom_fences": [fence]}
    return config


@cache
def _diagram(source: str) -> str:
    svg: str = mermaidx.render(source).svg()
    return f'<div style="background: white">{svg}</div>'


def _draw(source: str, *_: object, **__: object) -> str:
    return _diagram(source)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside docs/, and one page for each file or folder that a page links to."""
    for name, page_uri in _PAGES.items():
        files.append(File.generated(config, page_uri, content=(_REPOSITORY / name).read_text()))
    for page in list(files.documentation_pages()):
        for path, _ in _LINK.findall(page.content_string):
            target = _repository_path(path, page.src_uri)
            page_uri = _page_uri(target)
            if target not in _PAGES and not target.startswith("docs/") and files.get_file_from_path(page_uri) is None:
                files.append(File.generated(config, page_uri, content=_page_content(target)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001  (set by mkdocs)
    """Rewrite links to pages of the website; show what a code block needs, or its path, as its title."""
    source = page.file.src_uri
    if source.startswith("files/"):
        return markdown

    def rewrite(match: re.Match[str]) -> str:
        if not match[1]:
            return match[0]
        target = _page_uri(_repository_path(match[1], source))
        return posixpath.relpath(target, posixpath.dirname(source) or ".") + (match[2] or "")

    return _FENCE.sub(lambda fence: f'{fence[1]} title="{_title(fence[2], fence[3])}"', _LINK.sub(rewrite, markdown))


def _title(key: str, value: str) -> str:
    return f"needs: {value.replace('-', ' ')}" if key == "needs" else value


def _repository_path(link: str, page_uri: str) -> str:
    """Return the repository path that a page links to."""
    outside_docs = {uri: name for name, uri in _PAGES.items()}
    folder = posixpath.dirname(outside_docs.get(page_uri, f"docs/{page_uri}"))
    return posixpath.normpath(posixpath.join(folder, link))


def _page_uri(path: str) -> str:
    """Return the page of the website for a file or folder of the repository."""
    if path in _PAGES:
        return _PAGES[path]
    return path.removeprefix("docs/") if path.startswith("docs/") else f"files/{path}.md"


def _page_content(target: str) -> str:
    path = _REPOSITORY / target
    if path.is_dir():
        names = "".join(
            f"- `{entry.name}`\n" for entry in sorted(path.iterdir()) if not entry.name.startswith(("_", "."))
        )
        return f"# {target}\n\nFolder of the repository:\n\n{names}"
    if path.suffix == ".md":
        return re.sub(_LINK, "#", path.read_text())
    return f"# {path.name}\n\n`{target}`\n\n````{_LANGUAGES.get(path.suffix, 'text')}\n{path.read_text()}\n````\n"
