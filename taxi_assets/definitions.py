"""What Dagster loads."""

import gc
import sys

# What imports create lives as long as the process, so the garbage collector need not search it again and again, or
# take it apart at the end: together that is a fifth of a run's CPU. DuckDB is the exception, because it reports leaks
# unless it is taken apart.
collecting = gc.isenabled()
gc.disable()

from taxi_assets.build import build_definitions  # noqa: E402
from taxi_assets.settings import Settings  # noqa: E402

if "duckdb" not in sys.modules:
    gc.freeze()
if collecting:
    gc.enable()

defs = build_definitions(Settings.from_env())
