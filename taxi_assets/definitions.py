"""What Dagster loads."""

import gc
import sys

from taxi_assets.build import build_definitions
from taxi_assets.settings import Settings

# What libraries made as they were imported lives as long as the process, and so does whatever else there is by now: it
# need not be gone through again and again, nor taken apart at the end, which is a fifth of a run's CPU. But DuckDB
# complains of leaks unless it is taken apart.
if "duckdb" not in sys.modules:
    gc.freeze()

defs = build_definitions(Settings.from_env())
