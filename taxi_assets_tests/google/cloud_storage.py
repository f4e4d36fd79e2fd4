"""A test double of Google Cloud Storage on loopback: gcp-storage-emulator, completed to what the real JSON API does.

    with CloudStorage() as storage:
        ...set storage.environment...
        storage.script(Fault(status=503), Fault(status=503, after=True), method="POST", path="/upload/")
        ...the official client writes to storage.bucket...
        assert storage.objects() == {"raw/2021-01.parquet": generation}

The emulator stores the objects and serves listings, buckets and upload sessions. This module adds copies, generations
and their preconditions, old versions, checksums, atomic reads, ranges, pages of listings, permissions and faults. It
also adds reading an object by the XML API, which Polars uses ("GET Object" and "HEAD Object" in its reference).
The additions follow Google's Cloud Storage documentation: the JSON API reference (objects), and the pages "Request
preconditions", "Resumable uploads", "Object Versioning", "Data validation" and "HTTP status and error codes for JSON".
"""

from __future__ import annotations

import datetime as dt
import io
import json
import re
import socket
import struct
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qsl, unquote, urlsplit

# It ships no type information.
from gcp_storage_emulator.handlers import buckets, objects
from gcp_storage_emulator.server import Router

from taxi_assets_tests.google.cloud_storage_objects import ACCOUNT, Answer, Objects, RefusedError, Request, json_answer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["ACCOUNT", "BUCKET", "CloudStorage", "Fault", "Request"]

BUCKET = "taxi-lake"
LIST_PAGE = 1000
"""The largest number of objects and folders in one answer to a listing."""

_VERBS = {
    2: {"GET": "buckets.list", "POST": "buckets.create"},
    3: {"GET": "buckets.get", "PATCH": "buckets.update", "DELETE": "buckets.delete"},
    4: {"GET": "objects.list", "POST": "objects.create"},
    5: {"GET": "objects.get", "PATCH": "objects.update", "DELETE": "objects.delete"},
}
"""The permission that a method needs, by the number of parts in the path `/b/<bucket>/o/<object>`."""

_XML_OBJECT = re.compile(r"/(?!b/|batch/|storage/|upload/|download/)([^/]+)/(.+)")
"""The path of an object in the XML API."""


@dataclass(frozen=True)
class Fault:
    """How one request fails. `Fault()` lets it succeed, so that a later one can fail."""

    status: int | None = None
    """Answer with this status and Google's error body. The request has no effect."""
    message: str | None = None
    reason: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    """Headers added to the answer, such as Retry-After."""
    reset: bool = False
    """Close the connection by TCP reset, without an answer and without effect."""
    after: bool = False
    """Let the request take effect first, so that only its answer is lost."""
    before: Callable[[], object] | None = None
    """Called before the request is handled, for example to replace the object."""
    cut_after: int | None = None
    """Send only this many bytes of the body, then close the connection."""
    corrupt: bool = False
    """Change a byte of the content that is uploaded or downloaded. The checksums stay those of the real content."""
    fields: Mapping[str, str] = field(default_factory=dict)
    """Fields of the answer, such as `crc32c`, that have these values instead of the real ones."""


class _Exchange:
    """A request handler for the emulator's router, which reads from and writes to memory."""

    def __init__(self, handler: BaseHTTPRequestHandler, storage: Objects, body: bytes) -> None:
        self.path, self.headers, self.server, self.storage = handler.path, handler.headers, handler.server, storage
        self.rfile, self.wfile = io.BytesIO(body), io.BytesIO()
        self.answer = Answer()

    def send_response(self, status: int, _phrase: str) -> None:
        self.answer.status = status

    def send_header(self, name: str, value: str) -> None:
        if name.lower() != "content-length":
            self.answer.headers[name] = value

    def end_headers(self) -> None:
        """Do nothing: the server sends the headers."""


class CloudStorage:
    """The test double: serves one bucket on 127.0.0.1 during its `with` block."""

    def __init__(self, *, versioning: bool = False, location: str = "US") -> None:
        self.bucket = BUCKET
        self.requests: list[Request] = []
        self._lock = threading.RLock()
        self._script: list[tuple[str | None, str, Fault]] = []
        self._store = Objects()
        buckets.create_bucket(BUCKET, self._store)
        self._store.buckets[BUCKET]["versioning"] = {"enabled": versioning}
        self.location = location

    def __enter__(self) -> Self:
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.cloud = self
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.hang_up()
        self._server.server_close()
        self._thread.join()

    @property
    def location(self) -> str:
        """The location of the bucket, in capital letters as in the service's answers."""
        return str(self._store.buckets[BUCKET]["location"])

    @location.setter
    def location(self, location: str) -> None:
        self._store.buckets[BUCKET]["location"] = location.upper()

    @property
    def demanded(self) -> set[str]:
        """The permissions that requests have needed so far."""
        return self._store.demanded

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables with which the official client uses this double.

        The second one keeps the client from requesting the bucket's metadata in a background thread.
        """
        return {"STORAGE_EMULATOR_HOST": self.endpoint, "DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA": "true"}

    def script(self, *faults: Fault, method: str | None = None, path: str = "") -> None:
        """Apply the faults to the next requests, one each.

        Args:
            faults: In order of the requests.
            method: Only requests of this method count.
            path: Only requests whose decoded path contains this text count.
        """
        with self._lock:
            self._script += [(method, path, fault) for fault in faults]

    def forbid(self, *permissions: str) -> None:
        """Reject requests that need these permissions, such as `storage.objects.create`. Replaces the previous ones."""
        with self._lock:
            self._store.forbidden = frozenset(permissions)

    def object(self, key: str, generation: int | None = None) -> bytes:
        """Return the bytes of an object, or of an old version of it."""
        with self._lock:
            found = self._store.find(BUCKET, key, None if generation is None else str(generation))
        if found is None:
            raise KeyError(key)
        return found[1]

    def objects(self) -> dict[str, int]:
        """Return the generations of all objects by key."""
        with self._lock:
            return {key: int(found["generation"]) for key, found in self._store.objects.get(BUCKET, {}).items()}

    def buckets(self) -> list[str]:
        """Return the names of all buckets, sorted."""
        with self._lock:
            return sorted(self._store.buckets)

    def put(self, key: str, content: bytes, metadata: Mapping[str, str] | None = None) -> int:
        """Store an object without a request, replacing any old one; return its generation."""
        made = objects._make_object_resource(  # noqa: SLF001  (the emulator has no public way)
            self.endpoint, BUCKET, key, "application/octet-stream", len(content), {"metadata": dict(metadata or {})}
        )
        resource = objects._checksums(content, made)  # noqa: SLF001
        with self._lock:
            self._store.create_file(BUCKET, key, content, resource)
        return int(resource["generation"])

    def delete(self, key: str) -> None:
        """Delete an object without a request."""
        with self._lock:
            self._store.delete_file(BUCKET, key)

    def record(self, request: Request) -> Fault:
        """Record a request and return its fault. Called by the server."""
        with self._lock:
            self.requests.append(request)
            for entry in self._script:
                method, path, fault = entry
                if method in {None, request.method} and path in request.path:
                    self._script.remove(entry)
                    return fault
        return Fault()

    def answer(self, request: Request, exchange: _Exchange) -> Answer:
        """Handle a request. Called by the server. One at a time, so that no reader sees half a replacement."""
        with self._lock:
            self._store.request = request
            try:
                return self._act(request, exchange)
            except RefusedError as refusal:
                return refusal.answer(request)
            finally:
                self._store.request = None

    def _act(self, request: Request, exchange: _Exchange) -> Answer:
        path = urlsplit(exchange.path).path
        if (of_xml_api := _XML_OBJECT.fullmatch(path)) and request.method in {"GET", "HEAD"}:
            return self._get_by_xml_api(request, *map(unquote, of_xml_api.groups()))
        parts = re.sub(r"^(/upload|/download)?(/storage/v1)?/", "", path).split("/")
        parts = ["", *parts] if parts[0] == "b" else []
        if len(parts) > 2 and parts[2] not in self._store.buckets:
            raise RefusedError(404, "The specified bucket does not exist.")
        permission = _VERBS.get(len(parts), {}).get(request.method)
        if permission is not None and parts[3:4] in ([], ["o"]):
            self._store.demand(f"storage.{permission}")
        finished = self._store.finished.get(request.query.get("upload_id", ""))
        if finished is not None:
            return json_answer(finished)
        if len(parts) == 5 and parts[3] == "o" and request.method in _VERBS[5]:
            return self._act_on_object(request, exchange, parts[2], unquote(parts[4]))
        if len(parts) == 10 and parts[5] == "rewriteTo":
            return self._store.rewrite((parts[2], unquote(parts[4])), (parts[7], unquote(parts[9])), exchange.rfile)
        return self._emulate(request, exchange)

    def _get_by_xml_api(self, request: Request, bucket: str, name: str) -> Answer:
        self._store.demand("storage.objects.get")
        found = self._store.find(bucket, name, request.query.get("generation"))
        if found is None:
            raise RefusedError(404, f"No such object: {bucket}/{name}")
        resource, content = found
        answer = _media(request, resource, content)
        updated = dt.datetime.fromisoformat(resource["updated"])
        answer.headers["Last-Modified"] = format_datetime(updated.astimezone(dt.UTC), usegmt=True)
        return answer

    def _act_on_object(self, request: Request, exchange: _Exchange, bucket: str, name: str) -> Answer:
        generation = request.query.get("generation")
        found = self._store.find(bucket, name, generation)
        if found is None:
            raise RefusedError(404, f"No such object: {bucket}/{name}")
        resource, content = found
        self._store.check(resource, reading=request.method == "GET")
        if request.method == "PATCH":
            return self._emulate(request, exchange)
        if request.method == "GET":
            return _media(request, resource, content) if request.query.get("alt") == "media" else json_answer(resource)
        if generation is None or resource is self._store.objects.get(bucket, {}).get(name):
            self._store.delete_file(bucket, name)
        if generation is not None:
            # Deleting a generation by its number is final, with and without versioning.
            self._store.archived[bucket, name].pop(generation, None)
        return Answer(204)

    def _emulate(self, request: Request, exchange: _Exchange) -> Answer:
        Router(exchange).handle(request.method)
        answer = exchange.answer
        answer.body = exchange.wfile.getvalue()
        if request.method == "POST" and answer.status == 200 and re.search("/b/?$", urlsplit(exchange.path).path):
            answer.body = self._place_bucket(exchange, json.loads(answer.body)["name"])
        if answer.status == 308 and not self._store.get_resumable_byte_count(request.query["upload_id"]):
            del answer.headers["Range"]
        if answer.status >= 400:
            raise RefusedError(answer.status, json.loads(answer.body)["error"]["message"] if answer.body else None)
        if request.method == "GET" and re.search("/o/?$", urlsplit(exchange.path).path):
            return _list_page(request, json.loads(answer.body))
        return answer

    def _place_bucket(self, exchange: _Exchange, name: str) -> bytes:
        """Move a new bucket to the requested location, which the emulator ignores; return the bucket's resource."""
        created = self._store.buckets[name]
        exchange.rfile.seek(0)
        created["location"] = json.load(exchange.rfile).get("location", "US").upper()
        return json.dumps(created).encode()


def _list_page(request: Request, everything: Mapping[str, Any]) -> Answer:
    """Return one page of a listing, with the fields that the request names. The emulator returns everything."""
    # By name, and by generation within a name if old versions are listed.
    found = {f"{item['name']}\0{item['generation']:>20}": item for item in everything["items"]}
    found |= dict.fromkeys(everything["prefixes"])
    places = sorted(place for place in found if place > request.query.get("pageToken", ""))
    page = places[: min(int(request.query.get("maxResults") or LIST_PAGE), LIST_PAGE)]
    content = {
        "kind": everything["kind"],
        "items": [found[place] for place in page if found[place] is not None],
        "prefixes": [place for place in page if found[place] is None],
        **({"nextPageToken": page[-1]} if len(page) < len(places) else {}),
    }
    fields = re.sub(r"\(.*?\)", "", request.query.get("fields", ",".join(content))).split(",")
    return json_answer({name: value for name, value in content.items() if name in fields and value})


def _media(request: Request, resource: Mapping[str, Any], content: bytes) -> Answer:
    headers = {
        "Content-Type": resource["contentType"] or "application/octet-stream",
        "ETag": resource["etag"],
        "X-Goog-Generation": resource["generation"],
        "X-Goog-Metageneration": resource["metageneration"],
        # The hash of the whole object, also for a range.
        "X-Goog-Hash": f"crc32c={resource['crc32c']},md5={resource['md5Hash']}",
        "X-Goog-Storage-Class": resource["storageClass"],
        "X-Goog-Stored-Content-Encoding": "identity",
        "X-Goog-Stored-Content-Length": resource["size"],
    }
    span = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("Range", ""))
    if span is None or not any(span.groups()):
        return Answer(200, headers, content)
    size = len(content)
    start = int(span[1]) if span[1] else max(size - int(span[2]), 0)
    end = min(int(span[2]), size - 1) if span[1] and span[2] else size - 1
    if start >= size or end < start:
        raise RefusedError(416)
    headers["Content-Range"] = f"bytes {start}-{end}/{size}"
    return Answer(206, headers, content[start : end + 1])


def _damaged(upload: bytes) -> bytes:
    """Change the last byte of the content: of a chunk, or before the last boundary of a multipart upload."""
    end = upload.rfind(b"\r\n--") if upload.startswith(b"--") else len(upload)
    return upload[: end - 1] + bytes([upload[end - 1] ^ 0xFF]) + upload[end:]


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 128
    cloud: CloudStorage

    def __init__(self, *arguments: Any) -> None:
        self._connections: set[socket.socket] = set()
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """Close the connections that clients keep open, so that their threads end."""
        for connection in self._connections.copy():
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # Some tests break connections on purpose.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (as the base class names it)
        pass

    def _serve(self) -> None:
        cloud = self.server.cloud
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        target = urlsplit(self.path)
        request = Request(self.command, unquote(target.path), dict(parse_qsl(target.query)), self.headers, len(body))
        fault = cloud.record(request)
        if fault.before is not None:
            fault.before()
        if fault.corrupt and body:
            body = _damaged(body)
        answer = Answer()
        if fault.after or not (fault.reset or fault.status):
            answer = cloud.answer(request, _Exchange(self, cloud._store, body))  # noqa: SLF001  (its own handler)
        if fault.reset:
            self._reset()
            return
        if fault.status is not None:
            answer = RefusedError(fault.status, fault.message, fault.reason).answer(request)
        if fault.fields:
            answer.body = json.dumps(json.loads(answer.body) | dict(fault.fields)).encode()
        self._send(request, answer, fault)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815  (as the base class wants them)

    def _send(self, request: Request, answer: Answer, fault: Fault) -> None:
        body = answer.body
        if fault.corrupt and body and request.method == "GET":
            body = bytes([body[0] ^ 0xFF]) + body[1:]
        part = body[: fault.cut_after]
        self.close_connection = self.close_connection or len(part) < len(body)
        request.status, request.sent_bytes = answer.status, len(part)
        self.send_response(answer.status)
        for name, value in {**answer.headers, **fault.headers}.items():
            self.send_header(name, value)
        if answer.status not in {204, 304}:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if request.method != "HEAD":
            self.wfile.write(part)

    def _reset(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
