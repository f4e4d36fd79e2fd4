"""Every error that this package raises on purpose.

Belongs here: one class per kind of problem, so that a user can look the class name up in docs/errors.md.
Does not belong here: handling errors (`automation/step_failures.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Mapping

    Facts = Mapping[str, str | int | float]


class TaxiAssetsError(Exception):
    """The base class of all errors of this package; only its subclasses are raised.

    The text of an error is one line: the problem, the remedy, and the class name in brackets. The command line, the
    logs and Dagster's UI show this line.

    Args:
        problem: What failed, the value or place (service, month, column, row), and the cause.
        remedy: What the user can do about it. Empty if `problem` says so already.
        facts: Values in `problem` by name. Dagster's UI shows them as metadata of the failure.
    """

    def __init__(self, problem: str, *, remedy: str, facts: Facts | None = None) -> None:
        Exception.__init__(self, problem, remedy)
        self.problem = problem
        self.remedy = remedy
        self.facts: Facts = facts or {}

    def __str__(self) -> str:
        return " ".join(filter(None, [self.problem, self.remedy, f"[{type(self).__name__}]"]))

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.problem, self.remedy, dict(self.facts))


def _rebuild(error_class: type[TaxiAssetsError], problem: str, remedy: str, facts: Facts) -> TaxiAssetsError:
    # pickle cannot restore an exception with keyword arguments, and backfills pass errors between processes.
    error = error_class(problem, remedy=remedy)
    error.facts = facts
    return error


class PermanentError(TaxiAssetsError):
    """The base class of errors that a retry does not resolve: someone has to change an input, a setting or the code.

    Such errors are not retried, except `LakeConflictError`: see `automation/step_failures.py`. Raised
    directly only by the checks of `make doctor`.
    """


class TransientError(TaxiAssetsError):
    """The base class of errors that may resolve themselves: retry policies retry the step.

    Raised directly only by the checks of `make doctor`.
    """


class SettingsError(PermanentError, click.ClickException):
    """An environment variable has a value that is not accepted.

    Raised when Dagster or a command loads the code. Dagster's CLI prints a click exception without a stack trace.
    """

    def __init__(self, problem: str, *, remedy: str) -> None:
        super().__init__(problem, remedy=remedy)
        click.ClickException.__init__(self, str(self))


class RunConfigError(PermanentError):
    """Run config, or a file with it, cannot be read or names something unknown. Raised before a month is cleaned."""


class NotPublishedError(PermanentError):
    """No publisher has the file. Raised when a run downloads it.

    The answer was HTTP 404 or 410, HTTP 403 without a page that blocks the client, a web page with HTTP 200, or no such
    file in a folder.
    """


class PublisherRequestError(PermanentError):
    """The publisher rejected the request, and would reject it again: a login, a permission or a wrong URL.

    Raised when a run downloads a file, or checks which version is published.
    """


class PublisherUnreachableError(TransientError):
    """The publisher could not be reached, blocked this machine, or broke off, until all retries were used up.

    Also raised if a file in a folder changes while it is read, or if the folder is gone.
    """


class PublisherServerError(PublisherUnreachableError):
    """The publisher answered a version check with HTTP 429 or 5xx, with a page that blocks the client, or not in time.

    Unlike other `PublisherUnreachableError`s, this may concern one file: other files may be available.
    """


class InvalidFileError(PermanentError):
    """The downloaded or stored file is not a valid file of trips or zones.

    Raised for an XML or JSON document, a Git LFS pointer, a truncated file, or a file that exceeds a size limit.
    """


class ColumnMismatchError(PermanentError):
    """A file lacks a required column, or two of its columns match the same canonical column.

    Raised when the header is read: the publisher has renamed a column, or the file belongs to another service.
    """


class WrongMonthError(PermanentError):
    """A file does not belong to its month: most of its pickups are in other months, or another month has the same file.

    Raised before anything of the month is written to the clean layer and the warehouse. A run can allow it in its
    config.
    """


class TooManyQuarantinedError(PermanentError):
    """More than half of the rows of a month break a rule, or more than 5% cannot be read. Nothing is written.

    This indicates a changed format. The message names the columns that cannot be read. A file in which hardly any row
    can be read is refused before its end.
    """


class AmbiguousTimesError(PermanentError):
    """The pickup times of a file are marked as UTC, are numbers since 1970 or are written like 3/1/2021.

    Tools write such marks for local times too, and outside of the US the day comes first. The times are accepted only
    if more of the pickups lie in the file's month with the expected meaning than with the other one. Nothing is
    written. If at most 5% of the rows have such times, these rows go to quarantine instead.
    """


class ReconciliationError(PermanentError):
    """Row counts or control totals differ between two layers, or a value cannot be stored in the warehouse.

    Raised before the month becomes visible or, in BigQuery, before it counts as loaded. The message says what the table
    holds now.
    """


class LakeObjectMissingError(PermanentError):
    """An object that an asset or a check reads is not in the lake: the asset that stores it has to run first."""


class LakeObjectDamagedError(PermanentError):
    """The bytes of an object in the lake are not those that were recorded, or it cannot be read as Parquet.

    Raised when a run reads it.
    """


class RevisionError(PermanentError):
    """A revision that a run or a pinned month names is not in the lake, or several begin with the same digits.

    Raised before a month is cleaned. The message lists the revisions of the month.
    """


class LakeConflictError(PermanentError):
    """Another run has replaced an object of the lake since this run read its version.

    Raised when this run writes or reads the object. The object of the other run stays.
    """


class LakeConfigurationError(PermanentError):
    """The lake's folder or bucket is missing, full or not accessible, or the credentials are not accepted.

    Raised at the first access that fails. Also raised if the staging folder of a run has been deleted.
    """


class LakeBusyError(TransientError):
    """Another process has been writing to the same folder of a local lake for longer than `wait_seconds`."""


class LakeUnreachableError(TransientError):
    """Cloud Storage could not be reached, or kept failing until all retries were used up.

    Also raised if a file is damaged in each of several uploads.
    """


class WarehouseUnreachableError(TransientError):
    """The warehouse's server could not be reached, broke off, or kept failing until all retries were used up."""


class WarehouseBusyError(TransientError):
    """Another process or session held the warehouse, a table or a month for longer than the timeout."""


class WarehouseConfigurationError(PermanentError):
    """`TAXI_WAREHOUSE` does not lead to a usable warehouse, or an operation is not permitted there.

    Raised for a file that is not a DuckDB database, a missing database, a dataset in another location, a full disk,
    missing permissions, and credentials that are not accepted.
    """


class WarehouseTableMissingError(PermanentError):
    """The warehouse does not have a table, or a month of it, that is to be read."""


class CatalogConfigurationError(PermanentError):
    """`TAXI_CATALOG` does not lead to a usable Iceberg catalog, or a table in it cannot be used.

    Raised for a rejected login or address, missing permissions, a missing package, a table whose column has another
    type, and a table whose files are outside the lake.
    """


class CatalogUnreachableError(TransientError):
    """The Iceberg catalog could not be reached or failed, or other runs kept committing to the same table."""


class ConcurrentUpdateError(TransientError):
    """Another run has changed the inputs of a table since this run read them.

    Raised before this run replaces a month of a mart, or the table `month_quality`. On BigQuery, which cannot lock a
    table, also raised afterwards. Also raised if another run commits the same month to an Iceberg table meanwhile.
    """


class WarehouseSchemaError(PermanentError):
    """A table or query in the warehouse does not match the schema: a column, its type, partitions or a key.

    Raised before a table is changed, or when a query fails.
    """


class AssetDefinitionError(PermanentError):
    """An asset is defined in a way that its IO manager cannot store or load: its types, its partitions or its name.

    Raised before the step's work starts if the type annotations show it, otherwise before anything is stored.
    """


class AssetValueError(PermanentError):
    """An asset returned a value that its IO manager cannot store. Raised before anything is stored."""


class RowsOutsidePartitionError(PermanentError):
    """An asset returned rows that do not belong to the partition of the run. Raised before anything is replaced."""


class ScanArgumentError(PermanentError):
    """`taxi_assets.scan` got the key of an asset that does not exist or has no rows, or a month that it cannot have."""


class ServiceDefinitionError(PermanentError):
    """The definition of a service is invalid: a column or its type is missing, or a name is not unique.

    Raised when `tlc/services/registry.py` is imported.
    """


class MartDefinitionError(PermanentError):
    """A file in `marts/sql/` is invalid: its header, a column, its key, or SQL that is not portable.

    Raised when the file is read, for a query that is not portable, and by Postgres for rows that the key does not tell
    apart.
    """


class NoTripsLoadedError(PermanentError):
    """The warehouse has no trips of the month for any service that a mart reads. Raised when the mart runs."""
