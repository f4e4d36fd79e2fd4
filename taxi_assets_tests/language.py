"""Find words and phrases that this project does not use, each with the standard term to write in its place.

Run it by hand on files: `python -m taxi_assets_tests.language README.md taxi_assets/build.py`.
"""

from __future__ import annotations

import ast
import io
import json
import re
import subprocess
import sys
import tokenize
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from taxi_assets_tests.conftest import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import dagster as dg

AVOIDED = {
    r"shel(?:f|ves)": "layer",
    r"(?:made|makes|make|making) (?:it |them )?again|anew": "rebuilt, recomputed, again",
    r"(?:is|are|was|were|be|been) told|tells? of|told of|telling of": "is notified, reports",
    r"said": "message, stated",
    r"(?:stands?|stood|standing) (?:in|at|on|there|behind|beside|for)": "is stored in, is in, means",
    r"looks? at|looked at|looking at|a look|looks|one look|each look|last look|next look": "scan, check, read",
    r"(?:what|has|have) (?:became|become|becomes) of": "the outcome of",
    r"heals?|healed|healing": "recovers, repairs",
    r"(?<!there\s)(?:is|are|was|were) no (?:number|file|month|error|trip|day|table|zone|asset|mart)s?": "is not a …",
    r"less (?:its|the) (?:ending|extension|header)": "without the …",
    r"of (?:one's|our|ours|their|his) own": "your own, custom",
    r"so long as|as far as": "while, where",
    r"beside": "next to, in addition to",
    r"conserv(?:ed|es|ation|e)": "reconciled, reconciliation",
    r"patience|patient": "timeout, retry policy",
    r"pictures?|pictured": "chart, image",
    r"figures": "metrics, statistics, numbers",
    r"mend(?:s|ed|ing)?": "fix",
    r"nobody|anybody|somebody": "name the component",
    r"who(?:m|se)?ever|that which": "name the actor",
    r"likeness|misfits?|errands?|stranger": "definition, malformed row, request, wrong format",
    r"overtaken?|overtakes": "concurrent update",
    r"put off|puts off": "deferred",
    r"brought home|brings home|bring home": "loaded",
    r"carried through|see to the rest": "completed",
    r"spoilt|spoils?|spoiled": "corrupted",
    r"for ever": "forever",
    r"made of whichever": "computed from the",
    r"in passing": "remove",
}
"""A regular expression for words to avoid, without regard to case, and what to write instead."""

# A phrase may go on in the next line.
_ANY = re.compile(
    r"(?<![\w-])(?:" + "|".join(f"({pattern})".replace(" ", r"\s+") for pattern in AVOIDED) + r")(?![\w-])",
    re.IGNORECASE,
)
_CODE = re.compile(r"```.*?```|`[^`\n]*`|https?://\S+|\]\([^)]*\)", re.DOTALL)
_COMMENT = re.compile(r"(?:^|\s)#(?!!)(.*)")
_WITH_COMMENTS = {".yaml", ".yml", ".toml", ".env", ".sh", ".tf", ".sql", ".ini"}


@dataclass(frozen=True)
class Hit:
    """An avoided phrase, and its place."""

    file: str
    line: int
    phrase: str
    use: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.phrase!r}; write: {self.use}"


def avoided_in(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield each avoided phrase of a text: the line (from 0), the phrase and its replacement. Code is skipped."""
    prose = _CODE.sub(lambda code: re.sub(r"[^\n]", " ", code.group()), text)
    for found in _ANY.finditer(prose):
        yield prose.count("\n", 0, found.start()), found.group(), _use(found.group())


def _use(phrase: str) -> str:
    words = " ".join(phrase.split())
    return next(use for pattern, use in AVOIDED.items() if re.search(pattern, words, re.IGNORECASE))


def hits(path: Path) -> list[Hit]:
    """Return the avoided phrases in the prose of a file.

    Markdown and templates are prose but for their code. Of Python, docstrings, comments and, in the package itself,
    all other strings are prose: error messages, log lines and what Dagster shows. Of other files, comments are.
    """
    name = str(path.relative_to(REPOSITORY)) if path.is_relative_to(REPOSITORY) else str(path)
    texts = _python_texts(path) if path.suffix == ".py" else _texts(path)
    found = [Hit(name, first + line, phrase, use) for first, text in texts for line, phrase, use in avoided_in(text)]
    return sorted(set(found), key=lambda hit: hit.line)


def _texts(path: Path) -> Iterator[tuple[int, str]]:
    text = path.read_text()
    if path.suffix in {".md", ".j2"} or ".github/ISSUE_TEMPLATE" in str(path):
        yield 1, text
    elif path.suffix in _WITH_COMMENTS or path.name in {"Makefile", "Dockerfile", "run"}:
        for number, line in enumerate(text.splitlines(), start=1):
            if comment := _COMMENT.search(line):
                yield number, comment.group(1)


def _python_texts(path: Path) -> Iterator[tuple[int, str]]:
    source = path.read_text()
    # A comment of several lines is one text: a phrase may go on in the next line.
    block: list[tuple[int, str]] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            if block and token.start[0] != block[-1][0] + 1:
                yield block[0][0], "\n".join(text for _, text in block)
                block = []
            block.append((token.start[0], token.string.lstrip("# ")))
    if block:
        yield block[0][0], "\n".join(text for _, text in block)
    tree = ast.parse(source)
    everything = path.is_relative_to(REPOSITORY / "taxi_assets")
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and (everything or _is_statement(node, tree)):
            yield node.lineno, node.value


def _is_statement(node: ast.Constant, tree: ast.Module) -> bool:
    """Whether a string is a docstring, or documents the assignment above it."""
    if not hasattr(tree, "statements"):
        tree.statements = {id(e.value) for e in ast.walk(tree) if isinstance(e, ast.Expr)}  # type: ignore[attr-defined]
    return id(node) in tree.statements  # type: ignore[attr-defined]


def ui_texts(definitions: dg.Definitions) -> dict[str, str]:
    """Return every text with more than one word that Dagster's UI gets of definitions, by its place.

    That is what the code location sends to the webserver: descriptions of assets, columns, checks, jobs, sensors,
    schedules, resources and run config, labels of conditions, and metadata.
    """
    from dagster._core.remote_representation.external_data import RepositorySnap  # noqa: PLC0415
    from dagster._serdes import serialize_value  # noqa: PLC0415

    snapshot = json.loads(serialize_value(RepositorySnap.from_def(definitions.get_repository_def())))
    return {place: text for place, text in _strings(snapshot, "") if " " in text and "dagster." not in place}


def _strings(value: object, place: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _strings(item, f"{place}[{number}]")
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _strings(item, f"{place}.{key}")


def prose_files() -> Iterable[Path]:
    """Return every tracked file that holds prose, except this one and licenses."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    mine = {"taxi_assets_tests/language.py", "docs/licenses.md"}
    suffixes = {".py", ".md", ".j2", *_WITH_COMMENTS}
    return [
        REPOSITORY / name
        for name in listed
        if name not in mine and (Path(name).suffix in suffixes or Path(name).name in {"Makefile", "Dockerfile", "run"})
    ]


if __name__ == "__main__":
    chosen = [Path(name).resolve() for name in sys.argv[1:]]
    files = [f for f in prose_files() if not chosen or any(f == c or c in f.parents for c in chosen)]
    for hit in [hit for file in files for hit in hits(file)]:
        print(hit)  # noqa: T201
