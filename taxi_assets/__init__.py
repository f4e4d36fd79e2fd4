"""New York's taxi records as Dagster assets. README.md has an overview."""

import os

# pyarrow reads this when it is first imported. Cleaning uses three threads, and memory that one thread allocates is
# freed by another. With pyarrow's default allocator, the peak is 40 to 70 MB higher.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "jemalloc")
