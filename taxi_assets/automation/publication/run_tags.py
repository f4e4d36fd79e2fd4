"""Tags of runs: our own, and Dagster's that it does not publish a name for."""

# Not dagster/backfill: that names a backfill of the daemon, which `make backfill` is not.
BACKFILL_TAG = "taxi_assets/backfill"

PARTITION_TAG = "dagster/partition"
WILL_RETRY_TAG = "dagster/will_retry"
