"""Every code block of the documentation works offline, in a fresh copy of the project."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import urllib.request
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg
import duckdb
import psutil
import pytest
import tenacity

from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.deployments.files import copy_project
from taxi_assets_tests.deployments.processes import BIN, free_port
from taxi_assets_tests.documentation import BLOCKS, TEXTS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from taxi_assets_tests.documentation import Block

RUN = sorted({block.document for block in BLOCKS if block.is_run})
# Commands that run until they are stopped. They work if the UI answers.
SERVERS = {"make demo-ui\n"}

# The commands of docs/from-prefect.md that no block of another document has, each with a part of its output; and those
# that the tests do not run, each with the reason.
COMMANDS = {
    ".venv/bin/dagster run list": "",
    ".venv/bin/dg list defs": "green_monthly",
    "ls deploy/profiles": "gcp.env",
}
NOT_RUN = {
    "make setup": "needs the network; it created the environment of this test",
    "make dev": "runs until it is stopped; ui/test_ui.py tests its webserver",
    "make dev PROFILE=gcp": "needs Google Cloud; unit/test_profiles.py reads the profiles as make does",
    ".venv/bin/dagster-daemon run -m taxi_assets.definitions": "runs until it is stopped; deployments/ tests it",
    "docker compose build": "needs Docker; deployments/test_docker_files.py checks the files",
    "deploy/docker/secrets.sh && docker compose up --detach --build": "needs Docker",
}


@dataclass(frozen=True)
class Shell:
    """A shell in a fresh copy of the project. Variables that one block exports are set in the next one."""

    folder: Path
    variables: dict[str, str]

    def run(self, block: Block) -> str:
        """Run a block and return its output; fail the test if the block fails."""
        if block.text in SERVERS:
            return self._start_and_request(block.text)
        if block.language == "python":
            return self.output(f".venv/bin/python - <<'END'\n{block.text}END")
        if block.language == "sql":
            return self.output(f".venv/bin/python - <<'END'\n{_QUERY.format(query=block.text)}END")
        return self.output(block.text.replace("RUN_ID", self._newest_run()))

    def output(self, commands: str) -> str:
        """Run commands and return their output."""
        with subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", f". ./exported\n{commands}\nexport -p > exported"],
            cwd=self.folder, env=self.variables, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        ) as process:  # fmt: skip
            try:
                output, _ = process.communicate(timeout=3000)
            finally:
                with suppress(ProcessLookupError):  # ends processes that it left behind
                    os.killpg(process.pid, signal.SIGKILL)
        assert process.returncode == 0, f"{commands}\n{output[-12000:]}"
        return output

    def _newest_run(self) -> str:
        home = self.folder / "data/dagster"
        if not (home / "history/runs.db").exists():
            return "RUN_ID"
        with dg.DagsterInstance.from_config(str(home)) as instance:
            return next((run.run_id for run in instance.get_runs(limit=1)), "RUN_ID")

    def _start_and_request(self, command: str) -> str:
        port = free_port()
        with self.running("bash", "-c", command, PORT=str(port)):
            for attempt in tenacity.Retrying(wait=tenacity.wait_fixed(0.5), stop=tenacity.stop_after_delay(600)):
                with attempt, urllib.request.urlopen(f"http://127.0.0.1:{port}/server_info", timeout=60) as response:
                    return str(response.read())
        raise AssertionError(command)

    @contextmanager
    def running(self, *command: str, **variables: str) -> Iterator[None]:
        """Run a command in the background while the context is open."""
        with (self.folder / "background.log").open("a") as log:
            process = subprocess.Popen(
                command, cwd=self.folder, env=self.variables | variables, stdout=log, stderr=log, start_new_session=True
            )
        try:
            yield
        finally:
            processes = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            os.killpg(process.pid, signal.SIGINT)
            _, alive = psutil.wait_procs(processes, 5)
            for remaining in alive:
                remaining.kill()
            process.wait(120)


_QUERY = """import duckdb
rows = duckdb.connect("data/warehouse.duckdb", read_only=True).sql('''{query}''').fetchall()
assert rows
"""


def fresh_copy(folder: Path) -> Shell:
    """Copy the project, and link the environment of this test."""
    copy_project(folder)
    (folder / ".venv").symlink_to(BIN.parent)
    (folder / "exported").touch()
    # The linked environment contains the package of another folder. Generated months take the place of TLC's.
    variables = {"PYTHONPATH": str(folder), "TAXI_SOURCE": "sample"}
    return Shell(folder, {"PATH": os.environ["PATH"], "HOME": str(folder), **variables})


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """One shell for all commands of a table, which a reader may run one after the other."""
    shell = fresh_copy(tmp_path_factory.mktemp("documents"))
    shell.output(
        'export DAGSTER_HOME="$PWD/data/dagster" && mkdir -p "$DAGSTER_HOME" && cp dagster.yaml "$DAGSTER_HOME"'
    )
    return shell


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("document", RUN)
def test_every_block_of_a_document_works_offline_in_a_fresh_copy(tmp_path: Path, document: str) -> None:
    shell = fresh_copy(tmp_path)
    blocks = [block for block in BLOCKS if block.document == document and not block.needs]
    output = ""
    for block in blocks:  # in the order in which a reader would follow them
        if block.file:
            (shell.folder / block.file).write_text(block.text)
        elif block.is_run:
            output += shell.run(block)
    if document == "README.md":
        (table,) = [block.text for block in blocks if block.language == "text"]
        assert table in output
        assert_demo_is_complete(table, shell.folder / "data/demo/warehouse.duckdb")


def assert_demo_is_complete(table: str, warehouse: Path) -> None:
    """Compare the numbers that `make demo` prints with each other, and with the rows in its warehouse."""
    rows = {tuple(line.split()[:2]): line.split()[2:6] for line in table.splitlines() if " 2021-" in line}
    raw, clean, quarantined, loaded = (int(number.replace(",", "")) for number in rows["yellow", "2021-01"])
    assert abs(raw - 100_000) < 3_000
    assert raw == clean + quarantined
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        (trips,) = connection.execute("SELECT count(*) FROM taxi.yellow_trips").fetchall()
        (zones,) = connection.execute("SELECT count(*) FROM taxi.taxi_zones").fetchall()
    assert (loaded,) == (clean,) == trips
    assert zones == (265,)


def test_every_command_of_the_prefect_page_is_run_or_listed() -> None:
    rows = TEXTS["docs/from-prefect.md"].split("## Commands")[1].split("\n## ")[0].splitlines()
    cells = [row.strip("|").split("|")[1] for row in rows if row.startswith("|")]
    commands = [span for cell in cells for span in re.findall(r"`([^`]+)`", cell) if " " in span]
    assert set(commands) - commands_in_blocks() == {*COMMANDS, *NOT_RUN}


def commands_in_blocks() -> set[str]:
    """Return the lines of all blocks that the tests run, without comments."""
    blocks = [block.text for block in BLOCKS if block.is_run and not block.needs]
    return {line.partition("  #")[0].strip() for text in blocks for line in text.splitlines()}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_prefect_page_works(shell: Shell, command: str) -> None:
    assert COMMANDS[command] in shell.output(command)


def test_the_website_is_built_without_a_warning(tmp_path: Path) -> None:
    result = subprocess.run(
        [BIN / "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)],
        cwd=REPOSITORY, env={"PATH": os.environ["PATH"], "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    external = re.compile(r"<(?:script|link|img|iframe)\b[^>]*(?:src|href)=\"(?:https?:)?//[^\"]+\"")
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > 25
    assert not [found for page in pages for found in external.findall(page.read_text())], "The site must work offline."
