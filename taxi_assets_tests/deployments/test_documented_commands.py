"""What the documents say to type works: every block of code, in a fresh copy of the project, offline."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import urllib.request
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg
import psutil
import pytest
import tenacity

from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.deployments.processes import BIN, free_port
from taxi_assets_tests.documentation import BLOCKS, TEXTS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from taxi_assets_tests.documentation import Block

RUN = sorted({block.document for block in BLOCKS if block.is_run})
# Commands that run until they are ended: they have worked when the UI answers.
UNTIL_ENDED = {"make demo-ui\n"}

# A new command of docs/from-prefect.md goes into one of these: what it says when it has worked, or why it is not run.
COMMANDS = {
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
    'export DAGSTER_HOME="$PWD/data/dagster"': "",
}
NOT_RUN = {
    "make setup": "downloads; it has made the environment that this runs in",
    "make dev": "runs until it is ended; ui/test_ui.py looks at its webserver",
    "make dev PROFILE=gcp": "needs the cloud; unit/test_profiles.py reads the profiles as make does",
    ".venv/bin/dagster-daemon run -m taxi_assets.definitions": "runs until it is ended; deployments/ runs it",
    "docker compose build": "needs Docker; deployments/test_docker_files.py checks the files",
    "deploy/docker/secrets.sh && docker compose up --detach --build": "needs Docker",
}


@dataclass(frozen=True)
class Shell:
    """A shell in a fresh copy of the project; what one block exports the next one has."""

    folder: Path
    variables: dict[str, str]

    def run(self, block: Block) -> str:
        """What it prints; the test fails where it does not end well."""
        if block.text in UNTIL_ENDED:
            return self._until_it_answers(block.text)
        if block.language == "python":
            return self.message(f".venv/bin/python - <<'END'\n{block.text}END")
        if block.language == "sql":
            return self.message(f".venv/bin/python - <<'END'\n{_QUERY.format(query=block.text)}END")
        return self.message(block.text.replace("RUN_ID", self._newest_run()))

    def message(self, commands: str) -> str:
        """What commands print."""
        with subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", f". ./exported\n{commands}\nexport -p > exported"],
            cwd=self.folder, env=self.variables, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        ) as process:  # fmt: skip
            try:
                message, _ = process.communicate(timeout=800)
            finally:
                with suppress(ProcessLookupError):  # nothing of it goes on
                    os.killpg(process.pid, signal.SIGKILL)
        assert process.returncode == 0, f"{commands}\n{message[-12000:]}"
        return message

    def _newest_run(self) -> str:
        home = self.folder / "data/dagster"
        if not (home / "history/runs.db").exists():
            return "RUN_ID"
        with dg.DagsterInstance.from_config(str(home)) as instance:
            return next((run.run_id for run in instance.get_runs(limit=1)), "RUN_ID")

    def _until_it_answers(self, command: str) -> str:
        port = free_port()
        with self.running("bash", "-c", command, DAGSTER_CLI_DEV_PORT=str(port)):
            for trial in tenacity.Retrying(wait=tenacity.wait_fixed(0.5), stop=tenacity.stop_after_delay(240)):
                with trial, urllib.request.urlopen(f"http://127.0.0.1:{port}/server_info", timeout=5) as answer:
                    return str(answer.read())
        raise AssertionError(command)

    @contextmanager
    def running(self, *command: str, **variables: str) -> Iterator[None]:
        """While a command goes on in the background."""
        with (self.folder / "background.log").open("a") as log:
            process = subprocess.Popen(
                command, cwd=self.folder, env=self.variables | variables, stdout=log, stderr=log, start_new_session=True
            )
        try:
            yield
        finally:
            family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            os.killpg(process.pid, signal.SIGINT)
            _, left = psutil.wait_procs(family, 5)
            for member in left:
                member.kill()
            process.wait(20)


_QUERY = """import duckdb
rows = duckdb.connect("data/warehouse.duckdb", read_only=True).sql('''{query}''').fetchall()
assert rows
"""


def fresh(folder: Path) -> Shell:
    """A copy of what git knows, with the environment that this runs in."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        if (REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, folder / name)  # with times: make would set up the environment anew
    (folder / ".venv").symlink_to(BIN.parent)
    (folder / "exported").touch()
    # The generated months stand for TLC's.
    return Shell(folder, {"PATH": os.environ["PATH"], "HOME": str(folder), "TAXI_SOURCE": "sample"})


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """One for all commands of a table, as for a person who types them one after the other."""
    shell = fresh(tmp_path_factory.mktemp("documents"))
    shell.message(
        'export DAGSTER_HOME="$PWD/data/dagster" && mkdir -p "$DAGSTER_HOME" && cp dagster.yaml "$DAGSTER_HOME"'
    )
    return shell


@pytest.mark.timeout(900)
@pytest.mark.parametrize("document", RUN)
def test_every_block_of_a_document_works_in_a_fresh_copy_offline(tmp_path: Path, document: str) -> None:
    shell = fresh(tmp_path)
    blocks = [block for block in BLOCKS if block.document == document and not block.needs]
    for block in blocks:
        if block.file:
            (shell.folder / block.file).write_text(block.text)
    message = "".join(shell.run(block) for block in blocks if block.is_run)
    if document == "README.md":
        (table,) = [block.text for block in blocks if block.language == "text"]
        assert table in message


def test_every_command_for_those_who_come_from_prefect_is_run_or_listed() -> None:
    rows = TEXTS["docs/from-prefect.md"].split("## Commands")[1].split("\n## ")[0].splitlines()
    right = [row.strip("|").split("|")[1] for row in rows if row.startswith("|")]
    commands = [span for cell in right for span in re.findall(r"`([^`]+)`", cell) if " " in span]
    assert sorted(commands) == sorted([*COMMANDS, *NOT_RUN])


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_for_those_who_come_from_prefect_works(shell: Shell, command: str) -> None:
    assert COMMANDS[command] in shell.message(command)


def test_the_website_is_built_without_a_warning(tmp_path: Path) -> None:
    ended = subprocess.run(
        [BIN / "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)],
        cwd=REPOSITORY, env={"PATH": os.environ["PATH"], "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    fetched = re.compile(r"<(?:script|link|img|iframe)\b[^>]*(?:src|href)=\"(?:https?:)?//[^\"]+\"")
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > 25
    assert not [found for page in pages for found in fetched.findall(page.read_text())], "works offline"
