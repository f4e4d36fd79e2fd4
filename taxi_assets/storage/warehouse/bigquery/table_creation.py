"""Creates BigQuery tables and views, or updates existing ones. None of them expires.

A dataset may have a default expiration for its new tables, or for partitions of its new tables. BigQuery would then
delete months without an error: at once if they are older than that. The creation itself cannot say "never": a null
counts as not given (https://github.com/googleapis/python-bigquery/issues/2403), and 0 is invalid
(https://github.com/googleapis/google-cloud-python/issues/7340). A null in an update removes the expiration
(https://cloud.google.com/bigquery/docs/reference/rest/v2/datasets, `defaultTableExpirationMs`;
https://github.com/googleapis/google-cloud-ruby/issues/10889).

An existing table is read first, and written only if it differs: BigQuery allows five updates of a table's metadata in
ten seconds.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import tenacity
from google.api_core import exceptions as api_errors

from taxi_assets.errors import WarehouseBusyError, WarehouseConfigurationError, WarehouseSchemaError
from taxi_assets.google_auth import describe_google_error
from taxi_assets.storage.warehouse.bigquery.tables import merge_properties, require_compatible_table

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.cloud import bigquery

_UPDATE_ATTEMPTS = 5
"""How often an update of a table is tried while other runs change the table."""
_ENABLE_BILLING = "Link a billing account to the project: without one, BigQuery deletes everything after 60 days. "
_MILLISECONDS_PER_DAY = 24 * 3600 * 1000
_CREATION = dt.timedelta(minutes=1)
"""A change so soon after the creation of a table counts as a part of it."""


def find_table(client: bigquery.Client, name: str | bigquery.TableReference) -> bigquery.Table | None:
    """Return a table, given as `project.dataset.table` or by its reference; None if it does not exist."""
    try:
        return client.get_table(name)
    except api_errors.NotFound:
        return None


def create_or_update_table(client: bigquery.Client, wanted: bigquery.Table) -> None:
    """Create a table, or add the columns that it lacks and update its description and labels.

    Raises:
        WarehouseSchemaError: The table has another layout, or a column of another type.
        WarehouseConfigurationError: The table was used before and has an expiration, or BigQuery keeps an expiration.
        WarehouseBusyError: Other runs kept changing the table.
    """

    def changes(found: bigquery.Table) -> list[str]:
        require_compatible_table(found, wanted)
        if found.num_rows or not _is_unused(found):
            require_no_expiration(found)
        return merge_properties(found, wanted)

    _create_or_update(client, wanted, changes)


def create_or_update_view(client: bigquery.Client, wanted: bigquery.Table, definition: str) -> None:
    """Create a view, or update it if its query or description differs.

    Args:
        client: The client.
        wanted: The view.
        definition: The file that defines the view, for an error message.

    Raises:
        WarehouseSchemaError: A table has the name of the view.
        WarehouseConfigurationError: BigQuery keeps an expiration.
    """

    def changes(found: bigquery.Table) -> list[str]:
        if found.table_type != "VIEW":
            raise WarehouseSchemaError(
                f"`{wanted.project}.{wanted.dataset_id}.{wanted.table_id}` is a table, but {definition} defines a view "
                "of this name.",
                remedy="Rename or drop the table, then materialize the mart again.",
            )
        if (found.view_query, found.description) == (wanted.view_query, wanted.description):
            return []
        found.view_query, found.description = wanted.view_query, wanted.description
        found.labels = {**found.labels, **wanted.labels}
        return ["view_query", "description", "labels"]

    _create_or_update(client, wanted, changes)


def require_no_expiration(table: bigquery.Table, note: str = "") -> None:
    """Raise `WarehouseConfigurationError` if BigQuery deletes the table or its partitions after some time.

    Args:
        table: The table or view, as BigQuery returned it.
        note: The start of the remedy.
    """
    milliseconds = _partition_expiration(table)
    effects = {}
    if milliseconds is not None:
        effects["partition_expiration_days"] = (
            f"each partition {milliseconds / _MILLISECONDS_PER_DAY:g} days after its date"
        )
    if table.expires is not None:
        effects["expiration_timestamp"] = f"all rows on {table.expires:%Y-%m-%d}"
    if not effects:
        return
    name = f"`{table.project}.{table.dataset_id}.{table.table_id}`"
    kind = "VIEW" if table.table_type == "VIEW" else "TABLE"
    options = ", ".join(f"{option} = NULL" for option in effects)
    raise WarehouseConfigurationError(
        f"{name} has an expiration: BigQuery deletes {' and '.join(effects.values())}.",
        remedy=f"{note}Run: ALTER {kind} {name} SET OPTIONS ({options}). Then materialize the rows again that "
        "BigQuery has deleted already.",
    )


def remove_expiration(client: bigquery.Client, name: str) -> None:
    """Remove the expiration of a table, given as `project.dataset.table`.

    Raises:
        WarehouseConfigurationError: BigQuery keeps the expiration.
        WarehouseBusyError: Other runs kept changing the table.
    """
    _update(client, client.get_table(name), lambda _: [])


def _create_or_update(
    client: bigquery.Client, wanted: bigquery.Table, changes: Callable[[bigquery.Table], list[str]]
) -> None:
    """Create the table or view, or apply the changes; see `_update`."""
    found: Any = find_table(client, wanted.reference)
    if found is None:
        found = client.create_table(wanted, exists_ok=True)
    _update(client, found, changes)


def _update(client: bigquery.Client, found: Any, changes: Callable[[bigquery.Table], list[str]]) -> None:
    """Apply the changes to a table or view, and remove its expiration.

    Args:
        client: The client.
        found: The table or view, as BigQuery returned it.
        changes: Sets the properties of an existing table, and returns the names of those that it has changed.
    """
    try:
        for trial in tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(api_errors.PreconditionFailed),
            stop=tenacity.stop_after_attempt(_UPDATE_ATTEMPTS),
            wait=tenacity.wait_random_exponential(multiplier=0.5, max=10),
            reraise=True,
        ):
            with trial:
                if trial.retry_state.attempt_number > 1:
                    # Another run has updated the table; or this one has, and the answer was lost.
                    found = client.get_table(found.reference)
                changed = [*changes(found), *_remove_expiration(found)]
                if changed:
                    found = client.update_table(found, changed)
    except api_errors.PreconditionFailed as error:
        raise WarehouseBusyError(
            f"`{found.project}.{found.dataset_id}.{found.table_id}` could not be updated: other runs changed it "
            f"during each of {_UPDATE_ATTEMPTS} attempts ({describe_google_error(error)}).",
            remedy="Try again later.",
        ) from error
    require_no_expiration(found, _ENABLE_BILLING)


def _remove_expiration(table: bigquery.Table) -> list[str]:
    """Remove the expiration from a local table object; return the names of the properties that changed."""
    changed = []
    if table.expires is not None:
        table.expires = None
        changed.append("expires")
    if _partition_expiration(table) is not None:
        partitioning = table.time_partitioning
        partitioning.expiration_ms = None  # an explicit null: a patch keeps values that it does not name
        table.time_partitioning = partitioning
        changed.append("time_partitioning")
    return changed


def _is_unused(table: bigquery.Table) -> bool:
    """Return whether no one has changed the table since its creation, so that it never had rows.

    Only such a table takes its expiration from the dataset: the run that created it was killed before it removed that.
    """
    created, modified = table.created, table.modified
    return created is not None and modified is not None and bool(modified - created < _CREATION)


def _partition_expiration(table: bigquery.Table) -> int | None:
    """Return after how many milliseconds a partition is deleted; None if it is kept."""
    found: int | None = table.time_partitioning.expiration_ms if table.time_partitioning else None
    return found
