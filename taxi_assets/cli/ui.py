"""`python -m taxi_assets.cli.ui`: start Dagster's UI and daemon, and print the address when the UI shows the assets.

`make dev` and `make demo-ui` call it.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

import requests

_FIRST_PORT = 3000
_PORTS = 100
_LAST_PORT = 65_535
_LOADED = "{ workspaceOrError { ... on Workspace { locationEntries { loadStatus } } } }"


def main() -> None:
    """Replace this process by `dagster dev`; a child of it prints the address."""
    parser = argparse.ArgumentParser(prog="python -m taxi_assets.cli.ui", description="Start Dagster's UI and daemon.")
    parser.add_argument("--port", type=_port, help=f"default: the first free one from {_FIRST_PORT} on")
    wanted = parser.parse_args().port
    candidates = [wanted] if wanted else range(_FIRST_PORT, _FIRST_PORT + _PORTS)
    port = next(filter(_is_free, candidates), None)
    if port is None:
        parser.exit(1, f"Port {candidates[0]} is in use. Choose another one, such as PORT={candidates[0] + 1}.\n")
    server = os.getpid()
    if os.fork() == 0:
        _announce(port, server)
        os._exit(0)
    dagster = str(Path(sys.executable).with_name("dagster"))
    os.execv(dagster, [dagster, "dev", "--host", "127.0.0.1", "--port", str(port)])  # noqa: S606  (no shell is needed)


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= _LAST_PORT:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a port. Write a number from 1 to {_LAST_PORT}, as in PORT=3001."
        )
    return int(text)


def _is_free(port: int) -> bool:
    with socket.socket() as found:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port whose last connection has just ended
        try:
            found.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _announce(port: int, server: int) -> None:
    """Print the address once all code has been loaded, while the server runs."""
    url = f"http://127.0.0.1:{port}"
    while os.getppid() == server:
        with suppress(requests.RequestException, ValueError, KeyError, TypeError):
            answer = requests.post(f"{url}/graphql", json={"query": _LOADED}, timeout=10).json()
            entries = answer["data"]["workspaceOrError"]["locationEntries"]
            if entries and all(entry["loadStatus"] == "LOADED" for entry in entries):
                print(f"\nDagster's UI: {url}", flush=True)  # noqa: T201  (output)
                return
        time.sleep(1)


if __name__ == "__main__":
    main()
