"""The examples of docs/how-to/notebooks.md, run by Jupyter and marimo in a folder other than the project's."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from taxi_assets_tests.deployments.test_documented_commands import fresh_copy
from taxi_assets_tests.documentation import BLOCKS

if TYPE_CHECKING:
    from pathlib import Path

    from taxi_assets_tests.deployments.test_documented_commands import Shell

PAGE = [block for block in BLOCKS if block.document == "docs/how-to/notebooks.md"]
BACKFILL, REGISTER, EXPORT = (block.text for block in PAGE if block.language == "bash")
CELLS = [block.text for block in PAGE if block.language == "python" and not block.file]
(MARIMO,) = (block for block in PAGE if block.file)


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A shell in a copy of the project that has run the first command of the page."""
    shell = fresh_copy(tmp_path_factory.mktemp("project"))
    shell.output(BACKFILL)
    return shell


def output_of_cells(shell: Shell, folder: Path, cells: list[str]) -> str:
    """Run cells with the registered kernel in a folder; return everything that they display."""
    code: dict[str, object] = {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": []}
    notebook = {
        "cells": [{**code, "source": cell} for cell in cells],
        "metadata": {},
        "nbformat": 4,
        "nbformat_minor": 4,
    }
    (folder / "notebook.ipynb").write_text(json.dumps(notebook))
    run = f"{shell.folder}/.venv/bin/jupyter-execute notebook.ipynb --kernel_name=taxi_assets --inplace"
    shell.output(f"(cd {folder} && {run})")
    run_cells = json.loads((folder / "notebook.ipynb").read_text())["cells"]
    return json.dumps([output.get("data", output.get("text")) for cell in run_cells for output in cell["outputs"]])


@pytest.mark.timeout(1800)
def test_the_cells_of_the_page_run_in_jupyter_in_another_folder(shell: Shell, tmp_path: Path) -> None:
    shell.output(REGISTER)
    output = output_of_cells(shell, tmp_path, CELLS)
    assert "image/png" in output  # the chart
    assert "Manhattan" in output


@pytest.mark.timeout(1800)
def test_a_run_does_not_wait_for_a_notebook_that_keeps_its_connections_open(shell: Shell, tmp_path: Path) -> None:
    shell.output(REGISTER)
    again = f"""
import subprocess
done = subprocess.run({BACKFILL!r}, shell=True, cwd={str(shell.folder)!r}, capture_output=True, text=True)
assert done.returncode == 0, done.stdout
assert views.sql("SELECT count(*) FROM taxi.green_trips").fetchall()[0][0] == trips.count_rows()
print(done.stdout)
"""
    assert "runs succeeded" in output_of_cells(shell, tmp_path, [*CELLS, again])


@pytest.mark.timeout(1800)
def test_the_notebook_of_the_page_runs_in_marimo_in_another_folder(shell: Shell, tmp_path: Path) -> None:
    assert MARIMO.file is not None
    (tmp_path / MARIMO.file).write_text(MARIMO.text)
    shell.output(f"(cd {tmp_path} && {EXPORT.replace('.venv', f'{shell.folder}/.venv')})")
    assert "Manhattan" in (tmp_path / "taxi_notebook.html").read_text()
