"""What every child needs, done once: the fork server imports this module, and forks the children from there.

A process started anew spends three seconds on importing; a forked one hundredths. Nothing here may start a thread, or
use pyarrow or DuckDB: threads do not survive a fork. Hence the warming up with an asset that does nothing.
"""

from __future__ import annotations

import importlib

import dagster as dg

for module in ("tabulate", "pyarrow.pandas_compat", "taxi_assets_tests.faults.children"):
    importlib.import_module(module)


@dg.asset
def nothing() -> None:
    pass


with dg.DagsterInstance.ephemeral() as instance:
    dg.materialize(
        [nothing], instance=instance, run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    )
