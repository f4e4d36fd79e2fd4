"""Every environment variable in a deployment file is documented, and every TAXI_* variable is a setting."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.deployments.files import SETTING_VARIABLES

if TYPE_CHECKING:
    from pathlib import Path

NAME = re.compile(
    r"\b(?:TAXI|DAGSTER|POSTGRES|GOOGLE)_[A-Z0-9_]*[A-Z0-9]\b|\bPG[A-Z]{4,}(?:_FILE)?\b|(?<=\$\{)[A-Z][A-Z0-9_]*(?=:-)"
)
FILES = sorted(
    path
    for pattern in ("Dockerfile", "docker-compose.yaml", "dagster_cloud.yaml", ".github/workflows/*", "deploy/*/*")
    for path in REPOSITORY.glob(pattern)
    if (path.is_file() and path.suffix not in {".md", ".sh", ".tf", ".py"}) or path.name == "entrypoint.sh"
)
DOCUMENTED = frozenset(
    name
    for document in (REPOSITORY / "README.md", *REPOSITORY.glob("docs/*.md"), *REPOSITORY.glob("deploy/*/README.md"))
    for name in re.findall(r"`\$?\{?([A-Z][A-Z0-9_]+)\b", document.read_text())
)


def test_the_deployment_files_are_found() -> None:
    assert {"Dockerfile", "docker-compose.yaml", "values.yaml", "ci.yaml", "dagster.yaml"} <= {f.name for f in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_every_variable_is_documented_and_every_setting_exists(path: Path) -> None:
    names = {name.removesuffix("_FILE") for name in NAME.findall(path.read_text())}
    assert not names - DOCUMENTED
    assert not {name for name in names if name.startswith("TAXI_")} - SETTING_VARIABLES
