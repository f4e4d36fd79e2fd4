"""Names of run tags: this package's own, and those of Dagster that have no public name."""

SERVICE_TAG = "taxi_assets/service"
MONTH_TAG = "taxi_assets/month"
REASON_TAG = "taxi_assets/reason"
"""Value: new, revised or retry."""
VERSION_TAG = "taxi_assets/version"
"""Value: `FileVersion.name` (ETag, Last-Modified or size) of the version that the run was requested for."""
REQUEST_TAG = "taxi_assets/request"
"""Value: `RequestedRun.request`; the same for all attempts."""
ATTEMPT_TAG = "taxi_assets/attempt"
REQUESTED_AT_TAG = "taxi_assets/requested_at"

PINNED_TAG = "taxi_assets/pinned"
"""Set by a run that cleans a pinned month. Value: the first 12 digits of the file's SHA-256 digest."""
UNCOMPARED_TAG = "taxi_assets/uncompared"
"""Set by a run of a raw file if the lake has an older revision that the file has not been compared with yet. Value: the
first 12 digits of the file's SHA-256 digest."""

# Not dagster/backfill: that tag marks a backfill of Dagster's daemon. `make backfill` does not use the daemon.
BACKFILL_TAG = "taxi_assets/backfill"

PARTITION_TAG = "dagster/partition"
PARENT_RUN_TAG = "dagster/parent_run_id"
WILL_RETRY_TAG = "dagster/will_retry"
