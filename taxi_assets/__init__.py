"""New York's taxi records as Dagster assets; see README.md."""

import os

# Read when pyarrow is first imported. A month is read, worked on and written in three threads, and pyarrow's usual
# allocator keeps what one of them took and another freed: 40 to 70 MB more at the peak.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "jemalloc")
