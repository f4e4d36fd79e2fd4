"""The code location that Dagster loads: the definitions of the deployment that the environment describes."""

import gc
import sys

# Objects that imports create live as long as the process. Without a collection during the imports, and with these
# objects frozen, the garbage collector does not scan them during a run or at exit: a fifth of a run's CPU time.
# DuckDB must not be frozen, because it reports leaks if its objects are not collected at exit.
gc_was_enabled = gc.isenabled()
gc.disable()

from taxi_assets.build import build_definitions  # noqa: E402
from taxi_assets.settings import Settings  # noqa: E402

if "duckdb" not in sys.modules:
    gc.freeze()
if gc_was_enabled:
    gc.enable()

defs = build_definitions(Settings.from_env())
