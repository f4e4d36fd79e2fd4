"""Every error this package raises on purpose, each with its remedy.

Belongs here: one class per thing that can go wrong, so that a reader finds the cause by name.
Does not belong here: handling. A permanent error stays until somebody changes something (input, setting, code); a
transient one may pass by itself and is worth another try.
"""

from __future__ import annotations

import click


class TaxiAssetsError(Exception):
    """Something went wrong that has a name: `what` happened (with service, month, column, row), and the `remedy`.

    Its text is one line, `what` followed by `remedy` and the error's name, to be looked up in docs/errors.md: what the
    CLI, the logs and the UI show. Where `what` says already what to do, the remedy is empty.
    """

    def __init__(self, problem: str, *, remedy: str) -> None:
        Exception.__init__(self, problem, remedy)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return " ".join(filter(None, [self.problem, self.remedy, f"[{type(self).__name__}]"]))

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.problem, self.remedy)


def _rebuild(error_class: type[TaxiAssetsError], problem: str, remedy: str) -> TaxiAssetsError:
    # Exceptions with keyword arguments do not pickle by themselves, and backfills hand errors between processes.
    return error_class(problem, remedy=remedy)


class PermanentError(TaxiAssetsError):
    """The same input gives the same error: no retry."""


class TransientError(TaxiAssetsError):
    """May pass by itself: worth a retry."""


class SettingsError(PermanentError, click.ClickException):
    """An environment variable holds a value that is not accepted.

    It is found while the code is loaded; as a click exception too, Dagster's CLI prints it without a stack trace.
    """

    def __init__(self, problem: str, *, remedy: str) -> None:
        super().__init__(problem, remedy=remedy)
        click.ClickException.__init__(self, str(self))


class RunConfigError(PermanentError):
    """A run was asked for something that does not exist, such as an unknown rule."""


class NotPublishedError(PermanentError):
    """No publisher has the month (HTTP 403, 404, 410, or no such file in a folder)."""


class PublisherRequestError(PermanentError):
    """The publisher answered, but with an error that does not pass by itself."""


class PublisherUnreachableError(TransientError):
    """The publisher could not be reached, or broke off, more often than we try."""


class PublisherServerError(PublisherUnreachableError):
    """The publisher answered for this file that it fails at the moment; for others it may well not."""


class InvalidFileError(PermanentError):
    """What arrived is no trip file: an error page, a pointer, a file cut off in the middle, or beyond the limits."""


class ColumnMismatchError(PermanentError):
    """The columns of a file are not those of any known era."""


class TooManyQuarantinedError(PermanentError):
    """More than half of a month would be quarantined: a changed format, not dirt. Nothing is published."""


class ReconciliationError(PermanentError):
    """Rows were lost or doubled on the way. Nothing is published."""


class LakeObjectMissingError(PermanentError):
    """A shelf of the lake does not hold the month that was asked for."""


class LakeObjectDamagedError(PermanentError):
    """An object in the lake is not what its record says it is."""


class LakeConflictError(PermanentError):
    """Another run has replaced an object since this one looked at it."""


class LakeConfigurationError(PermanentError):
    """What the lake stands on is missing, or may not be used: the bucket, a permission, the credentials."""


class LakeBusyError(TransientError):
    """Another process has been publishing to a shelf of the lake for longer than we wait."""


class LakeUnreachableError(TransientError):
    """The lake's service could not be reached, or kept failing for longer than we try."""


class WarehouseUnreachableError(TransientError):
    """The warehouse's service could not be reached, or kept failing for longer than we try."""


class WarehouseBusyError(TransientError):
    """Another process holds the warehouse for longer than we wait."""


class WarehouseConfigurationError(PermanentError):
    """What stands at the warehouse's address is missing, no warehouse, or may not be used."""


class WarehouseTableMissingError(PermanentError):
    """The warehouse does not have the table, or the month of it, that was asked for."""


class ConcurrentUpdateError(TransientError):
    """What a table is made of has changed while it was made; another run may have made it newer already."""


class WarehouseSchemaError(PermanentError):
    """A table in the warehouse is made otherwise than the schema says: a type, or its partitions."""


class ServiceDefinitionError(PermanentError):
    """A service in `tlc/services/registry.py` lacks what every one has: a column, its type, a name of its own."""


class MartDefinitionError(PermanentError):
    """A file in `marts/sql/` is no mart: its header, a column, or SQL that engines do not all understand alike."""


class NoTripsLoadedError(PermanentError):
    """No service's trips of a month are in the warehouse, so there is nothing to make a mart of."""
