"""`make dev` prints the address of the UI when it shows the assets, and names a port that is in use."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import psutil
import pytest
import requests

from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.deployments.processes import free_port

if TYPE_CHECKING:
    from pathlib import Path

COMMAND = [sys.executable, "-m", "taxi_assets.cli.ui"]


@pytest.mark.parametrize("port", ["abc", "0", "65536"])
def test_a_port_that_is_not_a_port_is_one_error_that_names_the_variable_of_make(port: str) -> None:
    ended = subprocess.run([*COMMAND, "--port", port], capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.endswith(f"{port!r} is not a port. Write a number from 1 to 65535, as in PORT=3001.\n")


def test_the_address_is_printed_when_the_assets_are_loaded_and_a_used_port_is_an_error(tmp_path: Path) -> None:
    port = free_port()
    environment = {"PATH": os.environ["PATH"], "DAGSTER_HOME": str(tmp_path), "TAXI_SOURCE": "sample"}
    with subprocess.Popen(
        [*COMMAND, "--port", str(port)],
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            address = next(line for line in process.stdout if line.startswith("Dagster's UI: "))
            assert address == f"Dagster's UI: http://127.0.0.1:{port}\n"
            query = {"query": "{ assetsOrError { ... on AssetConnection { nodes { id } } } }"}
            assert requests.post(f"http://127.0.0.1:{port}/graphql", json=query, timeout=600).ok

            second = subprocess.run(
                [*COMMAND, "--port", str(port)], cwd=REPOSITORY, env=environment, capture_output=True, check=False
            )
            assert second.returncode == 1
            assert second.stderr.decode() == f"Port {port} is in use. Choose another one, such as PORT={port + 1}.\n"
        finally:
            processes = [*psutil.Process(process.pid).children(recursive=True)]
            process.terminate()
            process.wait(300)
            _, alive = psutil.wait_procs(processes, 300)
            for left in alive:
                left.kill()
    assert not alive
