"""The BigQuery double's limits that depend on time: default expirations of a dataset, and the rate of table updates.

Expirations follow the REST reference of datasets (`defaultTableExpirationMs`, `defaultPartitionExpirationMs`) and the
page "Manage partitioned tables". In a creation, a null counts as not given (googleapis/python-bigquery issue 2403) and
0 is invalid (googleapis/google-cloud-python issue 7340). In a patch, a null removes the expiration
(googleapis/google-cloud-ruby issue 10889). The rate limit follows the pages "Quotas and limits" and "Troubleshoot quota
and limit errors".
"""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from taxi_assets_tests.google.bigquery_schemas import NULL_PARTITION, partition_expression
from taxi_assets_tests.google.bigquery_values import GoogleError, Resource

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass
class UpdateLimit:
    """The rate limit for updates of one table. By default, there is none."""

    count: int | None = None
    seconds: float = 10
    clock: Callable[[], float] = time.monotonic
    _updates: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))

    def count_update(self, dataset: str, table: str) -> None:
        """Count an update, or raise the service's error. A rejected update does not count."""
        now = self.clock()
        recent = [then for then in self._updates[dataset, table] if now - then < self.seconds]
        if self.count is not None and len(recent) >= self.count:
            raise GoogleError(
                "rateLimitExceeded", "Exceeded rate limits: too many table update operations for this table."
            )
        self._updates[dataset, table] = [*recent, now]


def apply_default_expirations(dataset: Resource, table: Resource, created: int) -> None:
    """Set the expirations of a new table or view that come from its dataset.

    A partitioned table takes only the default for partitions if the dataset has both. A value given explicitly wins.

    Args:
        dataset: The dataset's resource.
        table: The resource of the table, changed in place.
        created: The time of the creation, in milliseconds since 1970.
    """
    if table.get("timePartitioning", {}).get("expirationMs") in {0, "0"}:
        raise GoogleError("invalid", "The value of the partition expiration must be positive.")
    of_partitions, of_tables = (dataset.get(f"default{name}ExpirationMs") for name in ("Partition", "Table"))
    if "timePartitioning" in table and of_partitions is not None:
        if table["timePartitioning"].get("expirationMs") is None:
            table["timePartitioning"]["expirationMs"] = of_partitions
    elif of_tables is not None:
        table.setdefault("expirationTime", str(created + int(of_tables)))


def expired_rows(partitioning: Resource | None) -> str | None:
    """Return a SQL condition for the rows of expired partitions; None if none expires."""
    milliseconds = (partitioning or {}).get("expirationMs")
    if partitioning is None or milliseconds is None:
        return None
    column = '"' + partitioning["field"] + '"'
    start = f"date_trunc('{partitioning['type'].lower()}', {column}::TIMESTAMP)"
    return (
        f"{partition_expression(partitioning)} <> '{NULL_PARTITION}' "
        f"AND epoch_ms({start}) + {int(milliseconds)} < {time.time_ns() // 1_000_000}"
    )
