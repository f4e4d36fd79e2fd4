"""Names of run tags: this package's own, and those of Dagster that have no public name."""

SERVICE_TAG = "taxi_assets/service"
MONTH_TAG = "taxi_assets/month"
REASON_TAG = "taxi_assets/reason"
VERSION_TAG = "taxi_assets/version"
"""Name of the published version that the run was requested for."""
REQUEST_TAG = "taxi_assets/request"
"""Name of the request; all attempts at it have the same name."""
ATTEMPT_TAG = "taxi_assets/attempt"
REQUESTED_AT_TAG = "taxi_assets/requested_at"

# Not dagster/backfill: that tag marks a backfill of Dagster's daemon, and `make backfill` is none.
BACKFILL_TAG = "taxi_assets/backfill"

PARTITION_TAG = "dagster/partition"
PARENT_RUN_TAG = "dagster/parent_run_id"
WILL_RETRY_TAG = "dagster/will_retry"
