"""What the documents say is so: links, files, targets of make, messages, promises; and no block of code is untried."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import PurePath
from typing import TYPE_CHECKING

import pytest

from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.documentation import BLOCKS, ELSEWHERE, NEEDS, TEXTS

if TYPE_CHECKING:
    from taxi_assets_tests.documentation import Block

TESTS = REPOSITORY / "taxi_assets_tests"
README = TEXTS["README.md"]
# What holds a promise that is measured, not tested.
MEASURED = {"`make bench`"}
# Documents whose blocks of text are messages of this program.
OF_MESSAGES = {"docs/errors.md": 1, "docs/runbook.md": 10, "docs/upgrades.md": 1}


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lstrip("#").strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("document", TEXTS)
def test_every_link_leads_somewhere(document: str) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", TEXTS[document])
    for link in links:
        path, _, heading = link.partition("#")
        if "://" in link:
            continue
        target = (REPOSITORY / document).parent / path if path else REPOSITORY / document
        assert target.exists(), link
        if heading:
            assert heading in {_anchor(line) for line in target.read_text().splitlines() if line.startswith("#")}, link


def test_every_picture_is_shown_somewhere() -> None:
    pictures = {path.name for path in (REPOSITORY / "docs/images").iterdir()}
    assert pictures == set(re.findall(r"images/([\w-]+\.(?:png|svg))\)", "".join(TEXTS.values())))


@pytest.mark.parametrize("document", TEXTS)
def test_every_target_of_make_and_every_file_that_is_named_is_there(document: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)", TEXTS[document])) <= targets
    to_be_made = re.findall(r"^`(\S+)`:$", TEXTS[document], re.MULTILINE)  # its text follows
    roots = [REPOSITORY, REPOSITORY / "taxi_assets", TESTS, REPOSITORY / "docs"]
    for name in re.findall(r"`([\w./-]+/[\w./-]+\.(?:py|ya?ml|md|env|sh|sql))`", TEXTS[document]):
        assert name in to_be_made or any((root / name).exists() for root in roots), name


@pytest.mark.parametrize("document", TEXTS)
def test_every_fence_is_read_as_a_block(document: str) -> None:
    fences = re.findall(r"^ *```", TEXTS[document], re.MULTILINE)
    assert len(fences) == 2 * sum(block.document == document for block in BLOCKS)


@pytest.mark.parametrize("document", TEXTS)
def test_commands_stand_in_fences_where_tests_see_them(document: str) -> None:
    unfenced = re.sub(r"^( *)```.*?^\1```$", "", TEXTS[document], flags=re.MULTILINE | re.DOTALL)
    commands = r"^(?: {4}|\t)\s*(?:make|export|\.venv/\S+|dagster|docker|git|curl|pip) .*"
    assert not re.findall(commands, unfenced, re.MULTILINE)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{block.document}:{block.language}")
def test_every_block_is_run_is_a_file_is_held_elsewhere_or_says_what_it_needs(block: Block) -> None:
    assert block.needs is None or block.needs in NEEDS
    held = (block.document, block.language) in ELSEWHERE or (block.language == "text" and block.document in OF_MESSAGES)
    example = block.language == "text" and block.document == "README.md"  # compared with what `make demo` prints
    assert block.needs or block.file or held or example or block.is_run, "run it, or say what it needs"


@pytest.mark.parametrize(("place", "test"), ELSEWHERE.items(), ids=str)
def test_a_test_that_holds_blocks_of_a_document_names_it(place: tuple[str, str], test: str) -> None:
    assert place[0] in (TESTS / test).read_text()
    assert [block for block in BLOCKS if (block.document, block.language) == place]


# --- promises ---------------------------------------------------------------------------------------------------------


def _promises(document: str) -> list[tuple[str, str]]:
    """The rows of the page's table: a promise, and what holds it."""
    section = re.split(r"^## (?:What you can rely on|Promises, and .*)$", TEXTS[document], flags=re.MULTILINE)[1]
    rows = [row.strip("|").split("|") for row in section.split("\n## ")[0].splitlines() if row.startswith("|")]
    header, _, *promises = [[cell.strip() for cell in row] for row in rows]
    assert (header[0], header[-1]) == ("promise", "held by")
    return [(promise, held_by) for promise, *_, held_by in promises]


@pytest.mark.parametrize(("document", "least"), [("README.md", 8), ("docs/reliability.md", 30)])
def test_the_tests_behind_every_promise_are_there(document: str, least: int) -> None:
    promises = _promises(document)
    assert len(promises) >= least
    for promise, held_by in promises:
        named = [span for span in re.findall(r"`([^`]+)`", held_by) if span.endswith((".py", "/"))]
        assert named or held_by in MEASURED, promise
        folder = ""
        for name in named:  # the second of a folder goes without it
            folder = str(PurePath(name).parent) if "/" in name.rstrip("/") else folder
            assert (TESTS / name).exists() or (TESTS / folder / name).exists(), name


def test_no_promise_is_made_twice() -> None:
    promises = [promise for document in ("README.md", "docs/reliability.md") for promise, _ in _promises(document)]
    assert len(set(promises)) == len(promises)


# --- the README -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ("where is the rule for zero passengers?", r"ZERO_PASSENGERS = Rule\("),
        ("what happens to a row that breaks it?", r"left out of `clean` and kept in `quarantine`"),
        ("how is a month replaced in BigQuery", r"one load job from the lake into the partition"),
        ("which file do I touch for a new column", r"A line in the service's file in \[`taxi_assets/tlc/services/`\]"),
    ],
)
def test_a_newcomer_s_question_is_answered_one_opening_behind_the_readme(asked: str, answer: str) -> None:
    (row,) = [line for line in README.splitlines() if line.startswith("|") and asked in line]
    path, heading = re.findall(r"\]\(([^)#]+)#?([^)]*)\)", row)[0]
    text = (REPOSITORY / path).read_text()
    if heading:
        sections = re.split(r"^(?=## )", text, flags=re.MULTILINE)
        (text,) = [section for section in sections if _anchor(section.splitlines()[0]) == heading]
    assert re.search(answer, text)


# --- messages ---------------------------------------------------------------------------------------------------------


@cache
def _templates() -> list[re.Pattern[str]]:
    """The texts of the code, with anything where a value is put in."""
    texts = set()
    for file in (REPOSITORY / "taxi_assets").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.JoinedStr):
                texts.add(tuple(str(p.value) if isinstance(p, ast.Constant) else None for p in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.add((node.value,))
    long = [text for text in texts if sum(len(part or "") for part in text) >= 15]
    return [re.compile("".join(".*" if part is None else re.escape(part) for part in text)) for text in long]


@pytest.mark.parametrize(("document", "least"), OF_MESSAGES.items())
def test_the_messages_of_a_document_are_those_of_the_code(document: str, least: int) -> None:
    errors = (REPOSITORY / "taxi_assets/errors.py").read_text()
    blocks = [block.text for block in BLOCKS if block.document == document and block.language == "text"]
    messages, templates = "".join(blocks).splitlines(), _templates()
    assert len(messages) >= least
    for message in messages:
        line, _, name = message.removesuffix("]").partition(" [")
        assert not name or f"class {name}(" in errors, name
        found = [match for template in templates if (match := template.search(line))]
        assert any(match.start() == 0 for match in found), line  # what has happened
        assert any(match.end() == len(line) for match in found), line  # what to do
