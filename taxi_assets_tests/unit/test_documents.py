"""The documentation is true: its links, files, make targets and messages exist, and tests verify promises and code."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import PurePath
from typing import TYPE_CHECKING

import pytest

from taxi_assets.tlc.services.registry import SERVICES
from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.documentation import BLOCKS, ELSEWHERE, NEEDS, TEXTS

if TYPE_CHECKING:
    from taxi_assets_tests.documentation import Block

TESTS = REPOSITORY / "taxi_assets_tests"
README = TEXTS["README.md"]
# Promises that are measured, not tested.
MEASURED = {"`make bench`"}
# Documents whose text blocks are messages of this package, with the least number of messages in each.
MESSAGES = {"docs/errors.md": 1, "docs/runbook.md": 10, "docs/upgrades.md": 1}


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lstrip("#").strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("document", TEXTS)
def test_every_link_has_a_target(document: str) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", TEXTS[document])
    for link in links:
        path, _, heading = link.partition("#")
        if "://" in link:
            continue
        target = (REPOSITORY / document).parent / path if path else REPOSITORY / document
        assert target.exists(), link
        if heading:
            assert heading in {_anchor(line) for line in target.read_text().splitlines() if line.startswith("#")}, link


def test_every_image_is_used() -> None:
    images = {path.name for path in (REPOSITORY / "docs/images").iterdir()}
    assert images == set(re.findall(r"images/([\w-]+\.(?:png|svg))\)", "".join(TEXTS.values())))


@pytest.mark.parametrize("document", TEXTS)
def test_every_named_make_target_and_file_exists(document: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)", TEXTS[document])) <= targets
    created_by_reader = re.findall(r"^`(\S+)`:$", TEXTS[document], re.MULTILINE)  # the file's text follows
    roots = [REPOSITORY, REPOSITORY / "taxi_assets", TESTS, REPOSITORY / "docs", (REPOSITORY / document).parent]
    for name in re.findall(r"`([\w./-]+/[\w./-]+\.(?:py|ya?ml|md|env|sh|sql))`", TEXTS[document]):
        assert name in created_by_reader or any((root / name).exists() for root in roots), name


@pytest.mark.parametrize("document", TEXTS)
def test_every_fence_is_parsed_as_a_block(document: str) -> None:
    fences = re.findall(r"^ *```", TEXTS[document], re.MULTILINE)
    assert len(fences) == 2 * sum(block.document == document for block in BLOCKS)


@pytest.mark.parametrize("document", TEXTS)
def test_every_command_is_in_a_fenced_block(document: str) -> None:
    unfenced = re.sub(r"^( *)```.*?^\1```$", "", TEXTS[document], flags=re.MULTILINE | re.DOTALL)
    commands = r"^(?: {4}|\t)\s*(?:make|export|\.venv/\S+|dagster|docker|git|curl|pip) .*"
    assert not re.findall(commands, unfenced, re.MULTILINE)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{block.document}:{block.language}")
def test_every_block_is_run_or_is_a_file_or_states_what_it_needs(block: Block) -> None:
    assert block.needs is None or block.needs in NEEDS
    is_message = block.language == "text" and block.document in MESSAGES
    is_tested = (block.document, block.language) in ELSEWHERE or is_message
    is_output = block.language == "text" and block.document == "README.md"  # compared with the output of `make demo`
    assert block.needs or block.file or is_tested or is_output or block.is_run, "Run it, or state what it needs."


@pytest.mark.parametrize(("place", "test"), ELSEWHERE.items(), ids=str)
def test_a_test_that_runs_blocks_of_a_document_names_the_document(place: tuple[str, str], test: str) -> None:
    assert place[0] in (TESTS / test).read_text()
    assert [block for block in BLOCKS if (block.document, block.language) == place]


# --- promises ---------------------------------------------------------------------------------------------------------


def _promises(document: str) -> list[tuple[str, str]]:
    """Return the promises of a document, each with the tests that verify it."""
    table = re.split(r"^(?=\| promise )", TEXTS[document], flags=re.MULTILINE)[1].split("\n\n")[0]
    header, _, *rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()]
    assert header[0] == "promise"
    assert header[-1] == "verified by"
    return [(promise, verified_by) for promise, *_, verified_by in rows]


@pytest.mark.parametrize(("document", "least"), [("README.md", 8), ("docs/reliability.md", 30)])
def test_the_tests_that_verify_a_promise_exist(document: str, least: int) -> None:
    promises = _promises(document)
    assert len(promises) >= least
    for promise, verified_by in promises:
        named = [span for span in re.findall(r"`([^`]+)`", verified_by) if span.endswith((".py", "/"))]
        assert named or verified_by in MEASURED, promise
        folder = ""
        for name in named:  # a name without a folder is in the folder of the previous name
            folder = str(PurePath(name).parent) if "/" in name.rstrip("/") else folder
            assert (TESTS / name).exists() or (TESTS / folder / name).exists(), name


def test_no_promise_is_made_twice() -> None:
    promises = [promise for document in ("README.md", "docs/reliability.md") for promise, _ in _promises(document)]
    assert len(set(promises)) == len(promises)


# --- the README -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Where is the rule for zero passengers?", r"ZERO_PASSENGERS = Rule\("),
        ("What happens to a row that violates a rule?", r"left out of `clean` and kept in `quarantine`"),
        ("How is a month replaced in BigQuery", r"one load job from the lake into the partition"),
        (
            "Which file do I change for a new column?",
            r"Add a `Column` to the service's file in \[`taxi_assets/tlc/services/`\]",
        ),
        ("What does the sensor do when the publisher revises a loaded month?", r"it requests a run of the month"),
    ],
)
def test_a_file_linked_from_the_readme_answers_the_question(question: str, answer: str) -> None:
    (row,) = [line for line in README.splitlines() if line.startswith("|") and question in line]
    path, heading = re.findall(r"\]\(([^)#]+)#?([^)]*)\)", row)[0]
    text = (REPOSITORY / path).read_text()
    if heading:
        sections = re.split(r"^(?=## )", text, flags=re.MULTILINE)
        (text,) = [section for section in sections if _anchor(section.splitlines()[0]) == heading]
    assert re.search(answer, text)


# --- messages ---------------------------------------------------------------------------------------------------------


@cache
def _templates() -> list[re.Pattern[str]]:
    """Return a pattern for each text in the code; a placeholder matches any value."""
    texts = set()
    for file in (REPOSITORY / "taxi_assets").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.JoinedStr):
                texts.add(tuple(str(p.value) if isinstance(p, ast.Constant) else None for p in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.add((node.value,))
    long = [text for text in texts if sum(len(part or "") for part in text) >= 15]
    return [re.compile("".join(".*" if part is None else re.escape(part) for part in text)) for text in long]


@pytest.mark.parametrize(("document", "least"), MESSAGES.items())
def test_every_message_in_a_document_is_a_message_of_the_code(document: str, least: int) -> None:
    errors = (REPOSITORY / "taxi_assets/errors.py").read_text()
    blocks = [block.text for block in BLOCKS if block.document == document and block.language == "text"]
    messages, templates = "".join(blocks).splitlines(), _templates()
    assert len(messages) >= least
    for message in messages:
        line, _, name = message.removesuffix("]").partition(" [")
        assert not name or f"class {name}(" in errors, name
        found = [match for template in templates if (match := template.search(line))]
        assert any(match.start() == 0 for match in found), line  # what failed
        assert any(match.end() == len(line) for match in found), line  # the fix


@pytest.mark.parametrize("document", sorted({*TEXTS} - {"docs/data-dictionary.md", "docs/assets.md"}))
def test_only_generated_pages_state_the_limits_of_rules(document: str) -> None:
    for rule in {rule.name: rule for service in SERVICES.values() for rule in service.rules}.values():
        for limit in re.findall(r"\d+ (?:miles|hours)", rule.description):
            for line in TEXTS[document].splitlines():
                assert limit not in line or "trip" not in line.lower(), line
