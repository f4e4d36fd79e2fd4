"""`python -m taxi_assets.cli.doctor`: print the finding of each part; exit with code 1 if a check fails.

A finding is one line, or one line per mistake if there are several.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import threading
import warnings

from taxi_assets.cli.doctor.check_runner import CHECK_THREAD, CheckRunner

_DEFAULT_TIMEOUT_SECONDS = 10
# The checks in their order, as `module:function` of this package. `CheckRunner` imports a module only when it runs the
# check, so that a missing library is one finding.
_CHECKS = {
    "versions": "versions:versions",
    "DAGSTER_HOME": "instance:home",
    "runs": "instance:runs",
    "run launcher": "launching:launcher",
    "compute logs": "launching:compute_logs",
    "settings": "configuration:settings",
    "Google account": "stores:google_account",
    "lake": "stores:lake",
    "warehouse": "warehouses:warehouse",
    "catalog": "catalogs:catalog",
    "publisher": "stores:publisher",
    "schedules": "configuration:schedules",
    "notifiers": "configuration:notifiers",
    "code location": "configuration:code_location",
    "outdated": "instance:outdated",
    "pinned": "stores:pinned",
}
_TIMEOUT_FACTORS = {
    "DAGSTER_HOME": 2,  # Dagster tries its storage for about 13 s
    "compute logs": 2,  # a bucket: Google's client queries the metadata server first
    "pinned": 6,  # a bucket: two requests per month, eight at a time
    "warehouse": 2,  # BigQuery: a load job takes seconds
}


def main(arguments: list[str] | None = None) -> int:
    """Run all checks, print each finding as soon as it is known, and return the exit code."""
    checks = CheckRunner(_timeout_seconds(arguments))
    for part, function in _CHECKS.items():
        print(checks.run(part, function, timeout_factor=_TIMEOUT_FACTORS.get(part, 1)), flush=True)  # noqa: T201  (output)
    return 0 if checks.is_ok else 1


def _timeout_seconds(arguments: list[str] | None) -> float:
    parser = argparse.ArgumentParser(
        prog="python -m taxi_assets.cli.doctor",
        description="Show what the settings mean, and check whether each part can be reached.",
    )
    parser.add_argument(
        "--seconds", type=float, default=_DEFAULT_TIMEOUT_SECONDS, help="time limit of each check (default: 10)"
    )
    return float(parser.parse_args(arguments).seconds)


if __name__ == "__main__":
    # Log lines and warnings of libraries would appear between the findings.
    logging.disable()
    warnings.simplefilter("ignore")
    code = main()
    if any(thread.name == CHECK_THREAD for thread in threading.enumerate()):
        sys.stdout.flush()
        os._exit(code)  # a check that hangs could also block an orderly exit
    sys.exit(code)
