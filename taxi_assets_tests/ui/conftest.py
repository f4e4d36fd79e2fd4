"""Dagster's UI on a new instance with generated trips, and a browser: Chromium or Chrome."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from socket import create_server
from typing import TYPE_CHECKING

import psutil
import pytest
import tenacity
from playwright.sync_api import Page, expect, sync_playwright

from taxi_assets_tests.conftest import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def ui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run `dagster dev` on an instance without materializations, and return its address."""
    home = tmp_path_factory.mktemp("ui")
    (home / "dagster").mkdir()
    shutil.copy(REPOSITORY / "dagster.yaml", home / "dagster")
    with create_server(("127.0.0.1", 0)) as free_socket:
        port = free_socket.getsockname()[1]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("TAXI_", "DAGSTER_"))},
        "DAGSTER_HOME": str(home / "dagster"),
        "TAXI_SOURCE": "sample",
        "TAXI_LAKE": str(home / "lake"),
        "TAXI_WAREHOUSE": f"duckdb:///{home / 'warehouse.duckdb'}",
    }
    with (home / "log").open("w") as log:
        command = [str(Path(sys.executable).with_name("dagster")), "dev", "--host", "127.0.0.1", "--port", str(port)]
        process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=log, stderr=log)
    try:
        address = f"http://127.0.0.1:{port}"
        _wait_for(f"{address}/server_info", home / "log")
        yield address
    finally:
        processes = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        process.send_signal(signal.SIGINT)
        _, remaining = psutil.wait_procs(processes, 10)
        for survivor in remaining:
            survivor.kill()
        process.wait(20)


def _wait_for(address: str, log: Path) -> None:
    for attempt in tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(OSError),
        wait=tenacity.wait_fixed(0.5),
        stop=tenacity.stop_after_delay(120),
        retry_error_callback=lambda _: pytest.fail(log.read_text()),
    ):
        with attempt, urllib.request.urlopen(address, timeout=5):  # noqa: S310  (a local server)
            pass


@pytest.fixture(scope="session")
def page(ui: str) -> Iterator[Page]:
    """Return a tab of a new browser profile."""
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed; on Debian: apt-get install chromium")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        tab = chromium.new_page(viewport={"width": 1500, "height": 940}, base_url=ui)
        tab.set_default_timeout(60_000)
        expect.set_options(timeout=30_000)
        tab.goto("/")
        yield tab
        chromium.close()
