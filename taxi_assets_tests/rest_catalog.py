"""An Iceberg REST catalog on loopback, in memory, whose requests can fail.

It answers the requests of the platform as the OpenAPI description of Apache Iceberg says
(apache/iceberg, open-api/rest-catalog-open-api.yaml). Metadata files are written to the location of the table, which
must be a folder.
"""

from __future__ import annotations

import json
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from pyiceberg.catalog import MetastoreCatalog
from pyiceberg.catalog.rest import CreateTableRequest
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import CommitTableRequest
from pyiceberg.table.metadata import new_table_metadata
from pyiceberg.table.update import update_table_metadata

if TYPE_CHECKING:
    from pyiceberg.table.metadata import TableMetadata

_UNAVAILABLE = 503


class RestCatalog:
    """The server. While it is entered, it answers at `address`."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        """Method and path of all requests so far."""
        self.fails_at: int | None = None
        """The number of the request, from 0, that is answered by 503."""
        self.has_effect = False
        """Whether that request takes effect before it is answered."""
        self.namespaces: set[str] = set()
        self.tables: dict[str, tuple[str, TableMetadata]] = {}
        """Location of the metadata, and metadata, by name."""
        self.lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.catalog = self
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.01,)).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(  # noqa: PLR0911  (one for each request)
        self, method: str, path: str, body: bytes
    ) -> tuple[int, object]:
        """Return the status and the content of an answer."""
        match method, path.removeprefix("/v1/").split("/"):
            case "GET", ["config"]:
                return 200, {"defaults": {}, "overrides": {}}
            case "POST", ["namespaces"]:
                [name] = json.loads(body)["namespace"]
                if name in self.namespaces:
                    return _error(409, "AlreadyExistsException")
                self.namespaces.add(name)
                return 200, {"namespace": [name], "properties": {}}
            case "GET" | "HEAD", ["namespaces", name]:
                return (200, {"namespace": [name]}) if name in self.namespaces else _error(404, "NoSuchNamespace")
            case "GET", ["namespaces", name, "tables"]:
                return 200, {"identifiers": [{"namespace": [name], "name": table} for table in self.tables]}
            case "POST", ["namespaces", _, "tables"]:
                return self._stage(CreateTableRequest.model_validate_json(body))
            case "GET" | "HEAD", ["namespaces", _, "tables", table]:
                return self._table(table)
            case "POST", ["namespaces", _, "tables", table]:
                return self._commit(table, CommitTableRequest.model_validate_json(body))
        return _error(400, f"{method} {path} is not known")

    def _stage(self, request: CreateTableRequest) -> tuple[int, object]:
        if request.name in self.tables:
            return _error(409, "AlreadyExistsException")
        assert request.stage_create
        assert request.location
        metadata = new_table_metadata(
            request.table_schema, request.partition_spec, request.write_order, request.location, request.properties  # type: ignore[arg-type]  # the platform gives all
        )  # fmt: skip
        return 200, {"metadata": json.loads(metadata.model_dump_json()), "config": {}}

    def _table(self, name: str) -> tuple[int, object]:
        if name not in self.tables:
            return _error(404, "NoSuchTableException")
        location, metadata = self.tables[name]
        return 200, {
            "metadata-location": location, "metadata": json.loads(metadata.model_dump_json()), "config": {},
        }  # fmt: skip

    def _commit(self, name: str, request: CommitTableRequest) -> tuple[int, object]:
        location, current = self.tables.get(name, ("", None))
        try:
            for requirement in request.requirements:
                requirement.validate(current)
        except CommitFailedException as error:
            return _error(409, str(error))
        base: Any = current or MetastoreCatalog._empty_table_metadata()  # noqa: SLF001  (it has no public name)
        changed = update_table_metadata(base, request.updates, current is None, location or None)
        version = int(location.rpartition("/")[2][:5]) + 1 if location else 0
        location = f"{changed.location}/metadata/{version:05d}-{uuid.uuid4()}.metadata.json"
        file = Path(urlsplit(location).path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(changed.model_dump_json())
        self.tables[name] = location, changed
        return self._table(name)


def _error(status: int, message: str) -> tuple[int, object]:
    return status, {"error": {"message": message, "type": message, "code": status}}


class _Server(ThreadingHTTPServer):
    catalog: RestCatalog


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (as the base class names it)
        pass

    def _answer(self) -> None:
        catalog, body = self.server.catalog, self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with catalog.lock:
            fails = len(catalog.requests) == catalog.fails_at
            catalog.requests.append(f"{self.command} {self.path}")
            status, content = _error(_UNAVAILABLE, "The server is busy")
            if not fails or catalog.has_effect:
                answered = catalog.answer(self.command, urlsplit(self.path).path, body)
                status, content = (status, content) if fails else answered
        sent = b"" if self.command == "HEAD" else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    do_GET = do_HEAD = do_POST = _answer  # noqa: N815  (as the base class names them)
