"""The Cloud Storage double's objects: generations, preconditions, old versions, checksums, permissions and errors.

They follow the JSON API reference of objects, and the pages "Request preconditions", "Object Versioning", "IAM
permissions for JSON methods" and "HTTP status and error codes for JSON" of Google's Cloud Storage documentation.
"""

from __future__ import annotations

import base64
import json
import logging
import re
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import quote

# It ships no type information.
from gcp_storage_emulator.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Mapping
    from email.message import Message

ACCOUNT = "taxi-assets@taxi-tests.iam.gserviceaccount.com"

# The emulator logs each 404 as an error; the tests expect them.
for _name in ("gcp_storage_emulator", "api"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)

_ERRORS = {
    400: ("invalid", "Invalid argument."),
    401: ("authError", "Invalid Credentials"),
    403: ("forbidden", "Forbidden"),
    404: ("notFound", "Not Found"),
    409: ("conflict", "Conflict"),
    412: ("conditionNotMet", "At least one of the pre-conditions you specified did not hold."),
    416: ("requestedRangeNotSatisfiable", "Request range not satisfiable"),
    429: ("rateLimitExceeded", "The object exceeded the rate limit for object mutation operations."),
}
"""Reason and message by status. Every other status is answered with `backendError`."""


@dataclass
class Request:
    """A request as it was received, and how it was answered."""

    method: str
    path: str
    """The path, without the query and percent-decoded."""
    query: Mapping[str, str]
    headers: Message
    body_bytes: int
    status: int | None = None
    """The status of the answer; None if there was no answer."""
    sent_bytes: int = 0
    """The number of bytes of the answer's body."""


@dataclass
class Answer:
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class RefusedError(Exception):
    def __init__(self, status: int, message: str | None = None, reason: str | None = None) -> None:
        usual = _ERRORS.get(status, ("backendError", "We encountered an internal error. Please try again."))
        super().__init__(message or usual[1])
        self.status, self.reason = status, reason or usual[0]

    def answer(self, request: Request) -> Answer:
        message = str(self)
        if self.status == 304:
            return Answer(304)
        if request.query.get("alt") == "media":
            # The real service answers a download with the bare message.
            return Answer(self.status, {"Content-Type": "text/html; charset=UTF-8"}, message.encode())
        error: dict[str, str] = {"message": message, "domain": "global", "reason": self.reason}
        if self.status == 412:
            error |= {"locationType": "header", "location": "If-Match"}
        return json_answer({"error": {"code": self.status, "message": message, "errors": [error]}}, self.status)


def json_answer(content: object, status: int = 200) -> Answer:
    return Answer(status, {"Content-Type": "application/json; charset=UTF-8"}, json.dumps(content).encode())


class Objects(Storage):  # type: ignore[misc]  # the emulator's store, untyped
    """The emulator's store with generations. Use it under the lock, and set `request` to the current request."""

    def __init__(self) -> None:
        super().__init__(use_memory_fs=True)
        self.request: Request | None = None
        self.forbidden: frozenset[str] = frozenset()
        self.demanded: set[str] = set()
        self.archived: dict[tuple[str, str], dict[str, tuple[dict[str, Any], bytes]]] = defaultdict(dict)
        self.finished: dict[str, dict[str, Any]] = {}
        self._generation = 0

    def demand(self, permission: str) -> None:
        """Reject the request if the permission is revoked."""
        if self.request is not None:
            self.demanded.add(permission)
        if self.request is not None and permission in self.forbidden:
            thing = "object" if permission.startswith("storage.objects.") else "bucket"
            thing = "bucket" if permission == "storage.objects.list" else thing
            message = (
                f"{ACCOUNT} does not have {permission} access to the Google Cloud Storage {thing}. "
                f"Permission '{permission}' denied on resource (or it may not exist)."
            )
            raise RefusedError(403, message)

    def check(self, resource: Mapping[str, Any] | None, *, reading: bool = False) -> None:
        """Reject the request if the object, or its absence (None), does not meet the request's preconditions."""
        query = self.request.query if self.request is not None else {}
        for kind in ("Generation", "Metageneration"):
            actual = "0" if resource is None else str(resource[kind.lower()])
            if query.get(f"if{kind}Match", actual) != actual:
                raise RefusedError(412)
            if query.get(f"if{kind}NotMatch") == actual:
                raise RefusedError(304 if reading else 412)

    def find(self, bucket: str, name: str, generation: str | None = None) -> tuple[dict[str, Any], bytes] | None:
        """Return the object and its bytes: the current version, or the given generation if it is still kept."""
        current = self.objects.get(bucket, {}).get(name)
        if current is not None and generation in {None, current["generation"]}:
            return current, self.get_file(bucket, name)
        return self.archived[bucket, name].get(generation or "")

    def create_file(
        self, bucket_name: str, file_name: str, content: bytes, file_obj: dict[str, Any], file_id: str | None = None
    ) -> None:
        """Store an object atomically as a new generation."""
        self._check_write(bucket_name, file_name)
        self._verify(file_obj)
        self._archive(bucket_name, file_name)
        self._generation = max(self._generation + 1, time.time_ns() // 1000)
        generation = str(self._generation)
        file_obj |= {
            "id": f"{bucket_name}/{file_name}/{generation}",
            "generation": generation,
            "metageneration": "1",
            "etag": base64.b64encode(generation.encode()).decode(),
            "size": str(len(content)),
            # The real service escapes slashes in the name; the emulator does not.
            "mediaLink": file_obj["mediaLink"].partition("/o/")[0]
            + f"/o/{quote(file_name, safe='')}?generation={generation}&alt=media",
        }
        super().create_file(bucket_name, file_name, content, file_obj, file_id)
        if file_id is not None:
            self.finished[file_id] = file_obj

    def rewrite(self, source: tuple[str, str], target: tuple[str, str], body: IO[bytes]) -> Answer:
        """Copy an object, or an old version of it. The metadata of the body replaces that of the source."""
        self.demand("storage.objects.create")
        self.demand("storage.objects.get")
        found = self.find(*source, None if self.request is None else self.request.query.get("sourceGeneration"))
        if found is None:
            raise RefusedError(404, f"No such object: {'/'.join(source)}")
        resource, content = found
        given = json.loads(body.read() or "null") or resource
        copied = {name: value for name, value in resource.items() if name not in {"metadata", "contentType"}}
        copied |= {name: given[name] for name in ("metadata", "contentType") if name in given}
        copied |= {"bucket": target[0], "name": target[1]}
        self.create_file(*target, content, copied)
        size = str(len(content))
        return json_answer(
            {
                "kind": "storage#rewriteResponse",
                "totalBytesRewritten": size,
                "objectSize": size,
                "done": True,
                "resource": copied,
            }
        )

    def create_resumable_upload(self, bucket_name: str, file_name: str, file_obj: dict[str, Any]) -> str:
        """Start a session, after checking the preconditions. They are checked again at its end."""
        self._check_write(bucket_name, file_name)
        return str(super().create_resumable_upload(bucket_name, file_name, file_obj))

    def add_to_resumable_upload(
        self, file_id: str, content: bytes, total_size: int | None = None, expected_start: int | None = None
    ) -> bytes | None:
        """Add a chunk, without the bytes that have arrived before: a client resends a chunk if its answer was lost."""
        received = self.get_resumable_byte_count(file_id)
        if expected_start is not None and expected_start < received:
            content, expected_start = content[received - expected_start :], received
        whole: bytes | None = super().add_to_resumable_upload(file_id, content, total_size, expected_start)
        return whole

    def delete_file(self, bucket_name: str, file_name: str) -> None:
        """Delete an object; a bucket with versioning keeps it as an old version."""
        self._archive(bucket_name, file_name)
        self._hard_delete_file(bucket_name, file_name)

    def _write_config_to_file(self) -> None:
        """Do nothing: the file is never read, and it would grow with each object."""

    def _list_live_candidates(self, bucket_name: str, prefix: str | None = None) -> list[tuple[str, dict[str, Any]]]:
        live: list[tuple[str, dict[str, Any]]] = super()._list_live_candidates(bucket_name, prefix)
        if self.request is None or self.request.query.get("versions", "").lower() != "true":
            return live
        old = [
            (name, resource)
            for (bucket, name), versions in self.archived.items()
            for resource, _ in versions.values()
            if bucket == bucket_name and name.startswith(prefix or "")
        ]
        return old + live

    def _check_write(self, bucket: str, name: str) -> None:
        current = self.objects.get(bucket, {}).get(name)
        if current is not None:
            self.demand("storage.objects.delete")
        self.check(current)

    def _verify(self, resource: Mapping[str, Any]) -> None:
        """Check the hashes in the header; the emulator has checked those in the metadata."""
        header = self.request.headers.get("X-Goog-Hash", "") if self.request is not None else ""
        for kind, provided in re.findall(r"(crc32c|md5)=([\w+/]+=*)", header):
            calculated = resource["crc32c" if kind == "crc32c" else "md5Hash"]
            if provided != calculated:
                label = "CRC32C" if kind == "crc32c" else "MD5 hash"
                raise RefusedError(
                    400, f'Provided {label} "{provided}" doesn\'t match calculated {label} "{calculated}".'
                )

    def _archive(self, bucket: str, name: str) -> None:
        found = self.find(bucket, name)
        if found is not None and self.buckets[bucket].get("versioning", {}).get("enabled"):
            self.archived[bucket, name][found[0]["generation"]] = found
