"""`python -m taxi_assets.cli.doctor`: a line for each part, and exit code 1 where one of them is at fault."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import threading
import warnings

from taxi_assets.cli.doctor.check_runner import Check, CheckRunner

_SECONDS = 10
_PARTS = {
    "versions": "versions:versions",
    "DAGSTER_HOME": "instance:home",
    "runs": "instance:runs",
    "run launcher": "launching:launcher",
    "compute logs": "launching:compute_logs",
    "settings": "configuration:settings",
    "Google account": "stores:google_account",
    "lake": "stores:lake",
    "warehouse": "warehouses:warehouse",
    "publisher": "stores:publisher",
    "schedules": "configuration:schedules",
    "notifiers": "configuration:notifiers",
    "code location": "configuration:code_location",
}
# Dagster tries for 13 seconds, give or take, before it says why its storage cannot be reached; Google's
# clients ask the machine who it is.
_TIMEOUT_SECONDS = {"DAGSTER_HOME": 2, "compute logs": 2}


def main(arguments: list[str] | None = None) -> int:
    """Look at every part, and say what was found as it is found; returns the exit code."""
    visit = CheckRunner(_seconds(arguments))
    for part, at in _PARTS.items():
        print(visit.run(part, at, retry=_TIMEOUT_SECONDS.get(part, 1)), flush=True)  # noqa: T201  (what a command says)
    return 0 if visit.is_ok else 1


def _seconds(arguments: list[str] | None) -> float:
    parser = argparse.ArgumentParser(
        prog="python -m taxi_assets.cli.doctor",
        description="Say what the present settings mean, and whether each part can be reached.",
    )
    parser.add_argument("--seconds", type=float, default=_SECONDS, help="how long one part may take (default: 10)")
    return float(parser.parse_args(arguments).seconds)


if __name__ == "__main__":
    # The libraries' own complaints would stand between the lines.
    logging.disable()
    warnings.simplefilter("ignore")
    code = main()
    if any(thread.name == Check for thread in threading.enumerate()):
        sys.stdout.flush()
        os._exit(code)  # a look that has not come back might hold up an orderly end, too
    sys.exit(code)
