"""A session with a Postgres server: how it is opened, and what the server's complaints are called here.

Belongs here: connection parameters, and one clear line for everything that libpq and the server can say. The password
is libpq's business (`PGPASSWORD`, `.pgpass`): nothing here knows it.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import psycopg2
import psycopg2.extensions

from taxi_assets.addresses import may_hold_secret
from taxi_assets.errors import (
    TaxiAssetsError,
    WarehouseBusyError,
    WarehouseConfigurationError,
    WarehouseUnreachableError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

# Unless the address says otherwise: a server that is gone without a word is noticed after a minute.
_DEFAULTS = {"connect_timeout": "10", "keepalives_idle": "30", "keepalives_interval": "10", "keepalives_count": "3"}
_OURS = {"application_name": "taxi_assets", "client_encoding": "UTF8"}
_NO_LIMITS = (
    "statement_timeout",
    "transaction_timeout",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
)

# Complaints that pass by themselves, by the first characters of their SQLSTATE: connection lost, deadlock, too many
# clients, out of memory, cancelled or shut down by an administrator.
_TRANSIENT_CODES = ("08", "40", "53200", "53300", "57014", "57P")

# While a connection is made there is no SQLSTATE, only text.
_REFUSED = (
    (
        re.compile(r"authentication failed|no password supplied|role .* does not exist", re.IGNORECASE),
        "Put the role's password into PGPASSWORD or .pgpass, and check the role in the address.",
    ),
    (re.compile(r"database .* does not exist"), "Create the database (CREATE DATABASE), or correct the address."),
    (
        re.compile(r"no pg_hba\.conf entry|not permitted to log in|permission denied"),
        "Have the server's administrator let this role in from this machine (GRANT CONNECT, pg_hba.conf).",
    ),
    (
        re.compile(r"certificate|does not support SSL|sslmode|SSL error"),
        "Check sslmode and the certificates in the address against what the server has.",
    ),
    (re.compile(r"invalid|unexpected character|missing"), "Correct the address."),
)


def without_secrets(url: str) -> str:
    """The address without any password that somebody put there all the same."""
    hidden = re.sub(r"(://[^/?#@:]*):[^/?#]*@", r"\1@", url)
    address, _, options = hidden.partition("?")
    shown = "&".join(part for part in options.split("&") if not may_hold_secret(unquote(part.partition("=")[0])))
    return f"{address}?{shown}".rstrip("?&")


@contextmanager
def open_session(url: str, *, wait_seconds: float) -> Iterator[Any]:
    """A connection that commits each statement, closed afterwards.

    What Postgres complains of comes out as `WarehouseUnreachableError` where it may pass by itself, and as
    `WarehouseConfigurationError` where somebody has to do something.
    """
    connection = None
    try:
        connection = psycopg2.connect(**(_DEFAULTS | psycopg2.extensions.parse_dsn(url) | _OURS))
        connection.autocommit = True
        _prepare(connection, url, wait_seconds)
        yield connection
    except psycopg2.Error as error:
        named = _connection_error(error, url) if connection is None else _named_error(error, url, connection)
        raise named from (None if connection is None else error)  # an address that libpq can't read stands in its error
    finally:
        if connection is not None:
            connection.close()


def _prepare(connection: Any, url: str, wait_seconds: float) -> None:
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise WarehouseConfigurationError(
            f"{without_secrets(url)} is a database in {encoding}, which not every text can be stored in.",
            remedy="Create one with ENCODING 'UTF8', and correct the address.",
        )
    with connection.cursor() as cursor:
        # A role's own settings must neither cut a load short nor round what is read.
        cursor.execute(
            "SELECT set_config('lock_timeout', %s, false), set_config('extra_float_digits', '1', false), "
            "set_config('default_transaction_read_only', 'off', false)",
            [f"{wait_seconds * 1000:.0f}ms"],
        )
        # Not every version has all of them.
        cursor.execute("SELECT set_config(name, '0', false) FROM pg_settings WHERE name = ANY(%s)", [[*_NO_LIMITS]])


def _connection_error(error: psycopg2.Error, url: str) -> TaxiAssetsError:
    where, message = without_secrets(url), _one_line(str(error)).replace(url, without_secrets(url))
    for pattern, remedy in _REFUSED:
        if pattern.search(message):
            return WarehouseConfigurationError(f"{where} cannot be used: {message}.", remedy=remedy)
    return _unreachable_error(where, message)


def _root(error: psycopg2.Error) -> psycopg2.Error:
    """What the server said, where all that followed was that its connection is closed."""
    cause: BaseException | None = error
    while cause is not None and not error.pgcode:
        if isinstance(cause, psycopg2.Error):
            error = cause
        cause = cause.__context__
    return error


def _named_error(failure: psycopg2.Error, url: str, connection: Any) -> TaxiAssetsError:
    error = _root(failure)
    where, code = without_secrets(url), error.pgcode or ""
    message = _one_line(error.diag.message_primary or str(error))
    if connection.closed:
        # What libpq has gathered: psycopg2 itself passes on the end of it alone.
        last_words = re.search(r"^FATAL: *(.+)", connection.info.error_message or "", re.MULTILINE)
        message = message if last_words is None else _one_line(last_words[1])
    if connection.closed or code.startswith(_TRANSIENT_CODES):
        return _unreachable_error(where, message)
    if code == "55P03":
        return WarehouseBusyError(
            f"{where}: others held a table for longer than we wait ({message}).",
            remedy="End their sessions (pg_stat_activity names them), or let them finish, and run the month again.",
        )
    if error.diag.message_detail:
        message = f"{message} ({_one_line(error.diag.message_detail)})"
    return WarehouseConfigurationError(
        f"{where} refused a statement: {message}.", remedy=_remedy(code, message, connection)
    )


def _unreachable_error(address: str, message: str) -> WarehouseUnreachableError:
    return WarehouseUnreachableError(
        f"{address} cannot be reached, or broke off: {message}.",
        remedy="What was loaded before is untouched; run the month again once the server answers.",
    )


def _remedy(code: str, message: str, connection: Any) -> str:
    role, database = (_quote(name) for name in (connection.info.user, connection.info.dbname))
    schema = re.search(r"for schema (\S+)", message)
    if code == "42501" and "for database" in message:
        return f"Have its owner run: GRANT CREATE ON DATABASE {database} TO {role};"
    if code == "42501" and schema is not None:
        return f"Have its owner run: GRANT USAGE, CREATE ON SCHEMA {_quote(schema[1])} TO {role};"
    return {
        "23502": "Drop that rule from the whole table: not every published trip follows it.",
        "23505": "Drop that rule from the whole table: not every published trip follows it.",
        "23514": "Drop that rule from the whole table: not every published trip follows it.",
        "2BP01": "Make what depends on a month's table depend on the whole table.",
        "42501": f"Tables are replaced by their owner: have it run GRANT (itself) TO {role};",
        "42P07": "Rename or drop what has that name.",
        "53100": "Free space on the server's disk.",
    }.get(code, "The server's log says more.")


def _one_line(text: str) -> str:
    return " ".join(text.split()).rstrip(".?!")


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
