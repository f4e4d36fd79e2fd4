"""The documentation as tests read it: the texts and their fenced code blocks.

`deployments/test_documented_commands.py` runs each block unchanged. A block that it cannot run states what it needs
after the language, as in `bash needs=google-cloud`. A block that is a file states its path, as in
`yaml file=force.yaml`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from textwrap import dedent

from taxi_assets_tests.conftest import REPOSITORY

FOLDERS = (".", "docs", "docs/how-to", "deploy/gcp", "deploy/kubernetes", "examples/dbt", ".github")
TEXTS = {
    str(file.relative_to(REPOSITORY)): file.read_text()
    for folder in FOLDERS
    for file in sorted((REPOSITORY / folder).glob("*.md"))
}

# What a block may need that a fresh copy of the project does not have offline.
NEEDS = {
    "docker": "Docker and its images",
    "git": "a clone with a history and a remote",
    "google-cloud": "a Google Cloud project",
    "hours": "an hour or more, and a quiet machine",
    "kubernetes": "a cluster",
    "notifier": "a service that receives messages",
    "network": "packages to download",
    "postgres": "a server at that address",
}
# Blocks that another test runs or verifies, by document and language.
ELSEWHERE = {
    ("README.md", "mermaid"): "definitions/test_generated_documents.py",
    ("docs/assets.md", "mermaid"): "definitions/test_generated_documents.py",
    ("docs/add-a-dataset.md", "diff"): "deployments/test_add_a_dataset.py",
    ("docs/add-a-dataset.md", "python"): "deployments/test_add_a_dataset.py",
    ("docs/add-a-dataset.md", "sh"): "deployments/test_add_a_dataset.py",
    ("docs/google-cloud.md", "yaml"): "unit/test_deploy_gcp.py",
    ("docs/how-to/component.md", "python"): "deployments/test_component_how_to.py",
    ("docs/how-to/component.md", "sh"): "deployments/test_component_how_to.py",
    ("docs/how-to/component.md", "toml"): "deployments/test_component_how_to.py",
    **{("docs/how-to/dbt.md", language): "unit/cli/test_dbt_sources.py" for language in ("python", "sql", "yaml")},
    ("docs/how-to/dbt.md", "sh"): "../examples/dbt/tests/example_tests.py",
    ("examples/dbt/README.md", "sh"): "../examples/dbt/tests/example_tests.py",
    ("docs/how-to/notebooks.md", "bash"): "deployments/test_notebooks.py",
    ("docs/how-to/notebooks.md", "python"): "deployments/test_notebooks.py",
    ("docs/questions.md", "sql"): "contract/test_questions.py",
}

_BLOCK = re.compile(r"^(?P<indent> *)```(?P<info>[^`\n]*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced code block, with the marks after its language."""

    document: str
    language: str
    needs: str | None
    file: str | None
    text: str

    @property
    def is_run(self) -> bool:
        """Whether `deployments/test_documented_commands.py` runs the block."""
        runnable = self.language in {"bash", "python", "sql"}
        return runnable and not (self.needs or self.file or (self.document, self.language) in ELSEWHERE)


def _blocks(document: str, text: str) -> list[Block]:
    found = []
    for match in _BLOCK.finditer(text):
        language, *marks = match["info"].split(" ")
        values = dict(mark.partition("=")[::2] for mark in marks)
        needs, file = values.pop("needs", None), values.pop("file", None)
        assert not values, f"{document}: unknown marks {values}"
        found.append(Block(document, language, needs, file, dedent(match["text"])))
    return found


BLOCKS = [block for document, text in TEXTS.items() for block in _blocks(document, text)]
