"""Open sessions with a Postgres server, and turn the server's errors into errors of this package.

libpq itself reads the password (`PGPASSWORD`, `.pgpass`); this package never holds it.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import psycopg2
import psycopg2.extensions

from taxi_assets.addresses import may_contain_secret
from taxi_assets.errors import (
    TaxiAssetsError,
    WarehouseBusyError,
    WarehouseConfigurationError,
    WarehouseUnreachableError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

# The URL may override these. The keepalives detect a silently lost connection within a minute.
_DEFAULTS = {"connect_timeout": "10", "keepalives_idle": "30", "keepalives_interval": "10", "keepalives_count": "3"}
_FIXED = {"application_name": "taxi_assets", "client_encoding": "UTF8"}
_TIMEOUTS_TO_DISABLE = (
    "statement_timeout",
    "transaction_timeout",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
)

# The first characters of the SQLSTATE of transient errors: connection lost, deadlock, out of memory, too many clients,
# canceled or shut down by an administrator.
_TRANSIENT_CODES = ("08", "40", "53200", "53300", "57014", "57P")

# Connection errors have no SQLSTATE, only text.
_CONNECTION_REMEDIES = (
    (
        re.compile(r"authentication failed|no password supplied|role .* does not exist", re.IGNORECASE),
        "Put the role's password into PGPASSWORD or .pgpass, and check the role in the URL.",
    ),
    (re.compile(r"database .* does not exist"), "Create the database (CREATE DATABASE), or correct the URL."),
    (
        re.compile(r"no pg_hba\.conf entry|not permitted to log in|permission denied"),
        "Ask the server's administrator to allow this role from this machine (GRANT CONNECT, pg_hba.conf).",
    ),
    (
        re.compile(r"certificate|does not support SSL|sslmode|SSL error"),
        "Check that sslmode and the certificates in the URL match the server.",
    ),
    (re.compile(r"invalid|unexpected character|missing"), "Correct the URL."),
)


def without_secrets(url: str) -> str:
    """Return the connection URL without passwords and other secrets, in case it contains any."""
    without_password = re.sub(r"(://[^/?#@:]*):[^/?#]*@", r"\1@", url)
    base, _, options = without_password.partition("?")
    shown = "&".join(part for part in options.split("&") if not may_contain_secret(unquote(part.partition("=")[0])))
    return f"{base}?{shown}".rstrip("?&")


@contextmanager
def open_session(url: str, *, wait_seconds: float) -> Iterator[Any]:
    """Open a connection in autocommit mode. Database errors inside the block become errors of this package.

    Args:
        url: A libpq connection URL. The password comes from libpq's own sources.
        wait_seconds: How long a statement waits for a lock, unless its transaction sets another lock timeout.

    Raises:
        WarehouseUnreachableError: The error may be transient, such as a lost connection.
        WarehouseBusyError: A statement did not get its lock within `wait_seconds`.
        WarehouseConfigurationError: The URL, the database, a privilege or a user-created object (constraint, view)
            must be changed.
    """
    connection = None
    try:
        connection = psycopg2.connect(**(_DEFAULTS | psycopg2.extensions.parse_dsn(url) | _FIXED))
        connection.autocommit = True
        _configure(connection, url, wait_seconds)
        yield connection
    except psycopg2.Error as error:
        if connection is None:
            raise _connection_error(error, url) from None  # libpq's own error may quote the URL with its secrets
        raise _statement_error(error, url, connection) from error
    finally:
        if connection is not None:
            connection.close()


def _configure(connection: Any, url: str, wait_seconds: float) -> None:
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise WarehouseConfigurationError(
            f"{without_secrets(url)} is a database in {encoding}, which cannot store every text.",
            remedy="Create a database with ENCODING 'UTF8', and correct the URL.",
        )
    with connection.cursor() as cursor:
        # Settings of the role or the database must neither cut a load short nor round the numbers that are read.
        cursor.execute(
            "SELECT set_config('lock_timeout', %s, false), set_config('extra_float_digits', '1', false), "
            "set_config('default_transaction_read_only', 'off', false)",
            [f"{wait_seconds * 1000:.0f}ms"],
        )
        # Older server versions lack some of these timeout settings.
        cursor.execute(
            "SELECT set_config(name, '0', false) FROM pg_settings WHERE name = ANY(%s)", [[*_TIMEOUTS_TO_DISABLE]]
        )


def _connection_error(error: psycopg2.Error, url: str) -> TaxiAssetsError:
    shown_url, message = without_secrets(url), _one_line(str(error)).replace(url, without_secrets(url))
    for pattern, remedy in _CONNECTION_REMEDIES:
        if pattern.search(message):
            return WarehouseConfigurationError(f"{shown_url} cannot be used: {message}.", remedy=remedy)
    return _unreachable_error(shown_url, message)


def _first_error(error: psycopg2.Error) -> psycopg2.Error:
    """Return the server's first error if the given error is only a follow-up, such as "connection already closed"."""
    cause: BaseException | None = error
    while cause is not None and not error.pgcode:
        if isinstance(cause, psycopg2.Error):
            error = cause
        cause = cause.__context__
    return error


def _statement_error(failure: psycopg2.Error, url: str, connection: Any) -> TaxiAssetsError:
    error = _first_error(failure)
    shown_url, code = without_secrets(url), error.pgcode or ""
    message = _one_line(error.diag.message_primary or str(error))
    if connection.closed:
        # libpq has the server's last message; psycopg2 passes on only the end of it.
        fatal = re.search(r"^FATAL: *(.+)", connection.info.error_message or "", re.MULTILINE)
        message = message if fatal is None else _one_line(fatal[1])
    if connection.closed or code.startswith(_TRANSIENT_CODES):
        return _unreachable_error(shown_url, message)
    if code == "55P03":  # lock_not_available
        return WarehouseBusyError(
            f"{shown_url}: another session kept a table locked ({message}).",
            remedy="End that session (pg_stat_activity lists sessions), or let it finish, and run the month again.",
        )
    if error.diag.message_detail:
        message = f"{message} ({_one_line(error.diag.message_detail)})"
    return WarehouseConfigurationError(
        f"{shown_url} rejected a statement: {message}.", remedy=_remedy(code, message, connection)
    )


def _unreachable_error(shown_url: str, message: str) -> WarehouseUnreachableError:
    return WarehouseUnreachableError(
        f"{shown_url} cannot be reached, or the connection was lost: {message}.",
        remedy="Run the month again once the server answers. The data that was loaded before is unchanged.",
    )


def _remedy(code: str, message: str, connection: Any) -> str:
    role, database = (_quote(name) for name in (connection.info.user, connection.info.dbname))
    schema = re.search(r"for schema (\S+)", message)
    if code == "42501" and "for database" in message:
        return f"Ask the owner of the database to run: GRANT CREATE ON DATABASE {database} TO {role};"
    if code == "42501" and schema is not None:
        return f"Ask the owner of the schema to run: GRANT USAGE, CREATE ON SCHEMA {_quote(schema[1])} TO {role};"
    drop_constraint = "Drop that constraint from the parent table: some published trips violate it."
    return {
        "23502": drop_constraint,
        "23505": drop_constraint,
        "23514": drop_constraint,
        "2BP01": "Change the dependent object so that it depends on the parent table, not on the table of a month.",
        "42501": f"Ask the owner of the table to run: GRANT <owner's role> TO {role}; only an owner can replace it.",
        "42P07": "Rename or drop the object that has that name.",
        "53100": "Free space on the server's disk.",
    }.get(code, "See the server's log for details.")


def _one_line(text: str) -> str:
    return " ".join(text.split()).rstrip(".?!")


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
