"""What the documents say to type works, and what they point to is there."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from taxi_assets_tests.conftest import REPOSITORY

BIN = Path(sys.executable).parent
DOCUMENTS = sorted(
    file for folder in (".", "docs", "deploy/gcp", "deploy/kubernetes") for file in (REPOSITORY / folder).glob("*.md")
)
TEXTS = {str(file.relative_to(REPOSITORY)): file.read_text() for file in DOCUMENTS}

# A new command of docs/from-prefect.md goes into one of these: what it says when it has worked, or why it is not run.
RUN = {
    ".venv/bin/dagster asset materialize -m taxi_assets.definitions --select group:green --partition 2021-01": (
        'Finished execution of run for "__ASSET_JOB"'
    ),
    "make backfill SERVICE=green FROM=2021-01 TO=2021-02": "runs ended well",
    "make doctor": "ok    code location",
    ".venv/bin/dagster schedule start green_monthly -m taxi_assets.definitions": "Started schedule green_monthly",
    ".venv/bin/dagster sensor start green_publication -m taxi_assets.definitions": "Started sensor green_publication",
    ".venv/bin/dagster job backfill -m taxi_assets.definitions -j green --from 2021-01 --to 2021-03 --noprompt": (
        "Launched backfill job"
    ),
    ".venv/bin/dagster definitions validate": "Validation successful",
    ".venv/bin/dagster run list": "",
    ".venv/bin/dagster job list -m taxi_assets.definitions": "Job: green\n",
    "ls deploy/profiles": "gcp.env",
}
NOT_RUN = {
    "make setup": "downloads; it has made the environment that this runs in",
    "make dev": "runs until it is ended; ui/test_ui.py looks at its webserver",
    "make dev PROFILE=gcp": "needs the cloud; unit/test_profiles.py reads the profiles as make does",
    ".venv/bin/dagster-daemon run -m taxi_assets.definitions": "runs until it is ended; deployments/ runs it",
    'export DAGSTER_HOME="$PWD/data/dagster"': "the shell's own; every command here runs with one",
    "docker compose build": "needs Docker; deployments/test_docker_files.py checks the files",
    "deploy/docker/secrets.sh && docker compose up --detach --build": "needs Docker",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all commands, as for a person who types them one after the other."""
    folder = tmp_path_factory.mktemp("documents")
    (folder / "dagster").mkdir()
    (folder / "dagster/dagster.yaml").write_text((REPOSITORY / "dagster.yaml").read_text())
    return folder


def test_every_command_for_those_who_come_from_prefect_is_run_or_listed() -> None:
    rows = TEXTS["docs/from-prefect.md"].split("## Commands")[1].split("\n## ")[0].splitlines()
    right = [row.strip("|").split("|")[1] for row in rows if row.startswith("|")]
    commands = [span for cell in right for span in re.findall(r"`([^`]+)`", cell) if " " in span]
    assert sorted(commands) == sorted([*RUN, *NOT_RUN])


@pytest.mark.parametrize("command", RUN)
def test_a_command_works(home: Path, command: str) -> None:
    words = command.replace(".venv/bin", str(BIN)).split()
    ended = subprocess.run(
        [*words, *([f"VENV={BIN.parent}"] if words[0] == "make" else [])],
        cwd=REPOSITORY,
        env={
            "PATH": os.environ["PATH"],
            "HOME": os.environ.get("HOME", str(home)),
            "DAGSTER_HOME": str(home / "dagster"),
            "TAXI_LAKE": str(home / "lake"),
            "TAXI_WAREHOUSE": f"duckdb:///{home / 'warehouse.duckdb'}",
            "TAXI_SOURCE": "sample",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert RUN[command] in ended.stdout + ended.stderr


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


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lstrip("#").strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("document", TEXTS)
def test_every_target_of_make_and_every_file_that_is_named_is_there(document: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)", TEXTS[document])) <= targets
    roots = [REPOSITORY, REPOSITORY / "taxi_assets", REPOSITORY / "taxi_assets_tests", REPOSITORY / "docs"]
    for name in re.findall(r"`([\w./-]+/[\w./-]+\.(?:py|ya?ml|md|env|sh|sql))`", TEXTS[document]):
        assert any((root / name).exists() for root in roots), name


# --- messages in the runbook ------------------------------------------------------------------------------------------


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


def test_the_messages_of_the_runbook_are_those_of_the_code() -> None:
    blocks = re.findall(r"^```text\n(.*?)^```", TEXTS["docs/runbook.md"], re.MULTILINE | re.DOTALL)
    messages, templates = "".join(blocks).splitlines(), _templates()
    assert len(messages) >= 10
    for line in messages:
        found = [match for template in templates if (match := template.search(line))]
        assert any(match.start() == 0 for match in found), line  # what has happened
        assert any(match.end() == len(line) for match in found), line  # what to do
