"""All prose uses the field's standard terms: Markdown, docstrings, comments, messages, and what Dagster shows."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

import dagster as dg
import pytest

from taxi_assets.build import build_definitions
from taxi_assets.settings import Settings
from taxi_assets_tests.conftest import PLATFORM_MODULES, REPOSITORY
from taxi_assets_tests.language import AVOIDED, avoided_in, hits, prose_files, ui_texts

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLES = (
    "shelf", "shelves", "made anew", "anew", "is told", "tells of", "what was said", "stands in", "stands at", "a look",
    "looks at", "what became of", "heals", "is no number", "is no file", "less its ending", "of one's own",
    "of our own", "so long as", "as far as", "beside", "conserved", "conservation", "patience", "picture", "figures",
    "mend", "nobody", "anybody", "somebody",
)  # fmt: skip
"""Everything that the style guide lists, as it would be written."""


def test_no_file_holds_a_phrase_to_avoid() -> None:
    assert [str(hit) for file in prose_files() for hit in hits(file)] == []


@pytest.mark.filterwarnings("ignore:Property `ScheduleDefinition.environment_vars`")
def test_no_text_that_dagster_shows_holds_a_phrase_to_avoid() -> None:
    texts = ui_texts(build_definitions(Settings()))
    assert len(texts) > 100
    found = [(place, phrase) for place, text in texts.items() for _, phrase, _ in avoided_in(text)]
    assert found == []


@pytest.mark.parametrize("phrase", EXAMPLES)
def test_every_listed_phrase_is_found(phrase: str) -> None:
    assert list(avoided_in(f"The month {phrase} the lake."))
    assert list(avoided_in(f"The month {phrase.capitalize()},\nthen another line."))
    assert not list(avoided_in(f"Code such as `{phrase}` is left alone."))


def test_a_phrase_is_found_in_markdown_docstrings_comments_and_configuration(tmp_path: Path) -> None:
    written = {
        "page.md": "# Title\n\nThe month stands in the lake.\n",
        "docstring.py": 'def load() -> None:\n    """Put the month where it\n    stands in the lake."""\n',
        "comment.py": "number = 1  # it stands in the lake\n",
        "two_lines.py": "# where it stands\n# in the lake\nnumber = 1\n",
        "settings.yaml": "# it stands in the lake\nlake: here\n",
    }
    for name, text in written.items():
        (tmp_path / name).write_text(text)
        (hit,) = hits(tmp_path / name)
        assert hit.phrase.split() == ["stands", "in"], name
    (tmp_path / "code.md").write_text("```\nit stands in the lake\n```\n")
    assert hits(tmp_path / "code.md") == []


def test_a_phrase_is_found_in_the_description_of_an_asset_of_a_check_and_of_a_job() -> None:
    @dg.asset(description="The file of a month, from the raw shelf.")
    def raw() -> None: ...

    @dg.asset_check(asset=raw, description="Rows are conserved.")
    def rows() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=True)

    job = dg.define_asset_job("all", description="Loads it anew.")
    texts = ui_texts(dg.Definitions(assets=[raw], asset_checks=[rows], jobs=[job]))
    assert {phrase for text in texts.values() for _, phrase, _ in avoided_in(text)} == {"shelf", "conserved", "anew"}


def test_every_public_module_class_and_function_has_a_docstring_with_a_summary() -> None:
    without = [
        f"{path.relative_to(REPOSITORY)}: {getattr(node, 'name', 'module')}"
        for path in PLATFORM_MODULES
        for node in public_definitions(ast.parse(path.read_text()))
        if not (ast.get_docstring(node) or "").strip().splitlines()
    ]
    assert without == []


def public_definitions(tree: ast.Module) -> list[ast.Module | ast.ClassDef | ast.FunctionDef]:
    """Return the module, its public classes with their public methods, and its public functions."""
    found: list[ast.Module | ast.ClassDef | ast.FunctionDef] = [tree]
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            found.append(node)
            if isinstance(node, ast.ClassDef):
                found += [m for m in node.body if isinstance(m, ast.FunctionDef) and not m.name.startswith("_")]
    return found


def test_the_list_of_phrases_says_what_to_write_instead() -> None:
    assert all(AVOIDED.values())
