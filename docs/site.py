"""What the website has beside the pages of docs/: README.md as its home, and each file that a page links to.

A hook of mkdocs (mkdocs.yml). In the repository links lead from page to page and to files; here they do the same.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File, Files

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.pages import Page

_REPOSITORY = Path(__file__).parents[1]
_PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "CONTRIBUTING.md", "CHANGELOG.md": "CHANGELOG.md"}
_LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]*)(#[^)\s]*)?(?=\))")
_FENCE = re.compile(r"^( *```\w+) (needs|file)=(\S+)$", re.MULTILINE)
_LANGUAGES = {".py": "python", ".sql": "sql", ".yaml": "yaml", ".yml": "yaml", ".env": "ini", ".tf": "terraform"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that stand outside of docs/, and a page for each file or folder that any page links to."""
    for name, home in _PAGES.items():
        files.append(File.generated(config, home, content=(_REPOSITORY / name).read_text()))
    for page in list(files.documentation_pages()):
        for path, _ in _LINK.findall(page.content_string):
            target = _target(path, page.src_uri)
            source = _page_of(target)
            if target not in _PAGES and not target.startswith("docs/") and files.get_file_from_path(source) is None:
                files.append(File.generated(config, source, content=_shown(target)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001  (mkdocs')
    """Lead links to where this site has their targets; say above a block what it needs, or which file it is."""
    source = page.file.src_uri
    if source.startswith("files/"):
        return markdown

    def here(match: re.Match[str]) -> str:
        if not match[1]:
            return match[0]
        to = _page_of(_target(match[1], source))
        return posixpath.relpath(to, posixpath.dirname(source) or ".") + (match[2] or "")

    return _FENCE.sub(lambda fence: f'{fence[1]} title="{_title(fence[2], fence[3])}"', _LINK.sub(here, markdown))


def _title(word: str, value: str) -> str:
    return f"needs: {value.replace('-', ' ')}" if word == "needs" else value


def _target(path: str, page: str) -> str:
    """The file in the repository that a page links to."""
    outside = {site: name for name, site in _PAGES.items()}
    stands = posixpath.dirname(outside.get(page, f"docs/{page}"))
    return posixpath.normpath(posixpath.join(stands, path))


def _page_of(target: str) -> str:
    """Where this site has a file of the repository."""
    if target in _PAGES:
        return _PAGES[target]
    return target.removeprefix("docs/") if target.startswith("docs/") else f"files/{target}.md"


def _shown(target: str) -> str:
    path = _REPOSITORY / target
    if path.is_dir():
        names = "".join(
            f"- `{entry.name}`\n" for entry in sorted(path.iterdir()) if not entry.name.startswith(("_", "."))
        )
        return f"# {target}\n\nA folder of the repository:\n\n{names}"
    if path.suffix == ".md":
        return re.sub(_LINK, "#", path.read_text())
    return f"# {path.name}\n\n`{target}`\n\n````{_LANGUAGES.get(path.suffix, 'text')}\n{path.read_text()}\n````\n"
