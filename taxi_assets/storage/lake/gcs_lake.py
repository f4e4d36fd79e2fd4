"""A lake in a Cloud Storage bucket, accessed through the client of dagster-gcp's resource.

The version of an object is its generation. An upload names the generation that it replaces, so Cloud Storage rejects
all but one of several concurrent uploads. An object's metadata contains its SHA-256 digest and the run that wrote it.
"""

import base64
import hashlib
import io
import re
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, cast

import dagster as dg
import google_crc32c
from google.api_core import exceptions as api_errors
from google.cloud.storage.exceptions import DataCorruption
from google.cloud.storage.fileio import BlobReader
from google.cloud.storage.retry import DEFAULT_RETRY
from pydantic import Field

from taxi_assets.errors import LakeConfigurationError, LakeObjectDamagedError, LakeUnreachableError
from taxi_assets.google_auth import (
    WRITE_OBJECTS,
    describe_google_error,
    is_missing_bucket,
    storage_remedy,
    translate_google_errors,
)
from taxi_assets.resources.google import CloudStorageResource
from taxi_assets.storage.lake.base_lake import Lake, conflict_error, missing_error, validate_key
from taxi_assets.storage.lake.staging import temporary_folder

_UPLOAD_CHUNK_BYTES = 8 << 20
"""Larger files are uploaded in chunks of this size; an interrupted upload resumes with the last chunk."""
_READ_CHUNK_BYTES = 1 << 18
"""The smallest range read from a large object: less than a column of a row group of trips."""
_SMALL_OBJECT_BYTES = 1 << 16
"""An object of at most this size is read by one request."""
_DIGEST_CHUNK_BYTES = 1 << 20
_UPLOAD_ATTEMPTS = 3
"""How often a file is uploaded that is damaged on the way."""
# The error has no reason of its own ("invalid").
DAMAGED_UPLOAD = re.compile("doesn't match calculated (CRC32C|MD5)")
_CHECK_PROXIES = "Try again. If it happens again, check proxies between this machine and Cloud Storage."
_SHA256_KEY, _RUN_KEY = "taxi-sha256", "taxi-run"


class GcsLake(Lake):
    """A lake in a Cloud Storage bucket."""

    kinds: ClassVar[frozenset[str]] = frozenset({"gcs"})
    is_remote: ClassVar[bool] = True
    verifies_checksums: ClassVar[bool] = True  # CRC32C: at rest, for every upload, and for downloads of whole objects

    storage: dg.ResourceDependency[CloudStorageResource]
    bucket: str = Field(description="Name of the bucket. It must exist.")
    prefix: str = Field(default="", description="Prefix of all object names, without slashes at its ends.")
    timeout_seconds: float = Field(default=120, description="How long to retry a failing request, in seconds.")

    def staging(self) -> AbstractContextManager[Path]:
        """Create a private folder in this machine's temporary folder; delete it when the context ends."""
        return temporary_folder()

    def publish(self, file: Path, key: str, *, replaces: str | None, run_id: str) -> None:
        """Upload the file.

        Cloud Storage verifies the checksum and the replaced generation before the new object becomes visible.
        """
        blob = self._blob(key)
        blob.chunk_size = _UPLOAD_CHUNK_BYTES
        sha256, blob.crc32c = _digests(file)
        blob.metadata = {_SHA256_KEY: sha256, _RUN_KEY: run_id}
        with self._translate_errors(f"{self.uri(key)} cannot be written"):
            try:
                self._upload(blob, file, int(replaces or 0))
            except api_errors.PreconditionFailed:
                # The client retries when a response is lost, and then finds its own object. Identical bytes from
                # another run are not a conflict either.
                if not self.has_digest(key, sha256=sha256):
                    raise conflict_error(self.uri(key)) from None
            except api_errors.NotFound as error:
                self._require_bucket(error)
                raise
        file.unlink()

    def _upload(self, blob: Any, file: Path, replaced_generation: int) -> None:
        """Upload a file. If it is damaged on the way, Cloud Storage stores nothing, and it is uploaded again."""
        for attempt in range(1, _UPLOAD_ATTEMPTS + 1):
            try:
                # Cloud Storage verifies the checksum in the object's metadata. With the client's option `checksum`, the
                # client would verify it once more afterwards, and delete any generation of the object if it differs.
                blob.upload_from_filename(
                    str(file), checksum=None, if_generation_match=replaced_generation, retry=self._retry
                )
            except api_errors.BadRequest as error:
                if not DAMAGED_UPLOAD.search(describe_google_error(error)):
                    raise
                if attempt == _UPLOAD_ATTEMPTS:
                    raise LakeUnreachableError(
                        f"gs://{self.bucket}/{blob.name} cannot be written: the file was damaged in transit "
                        f"{attempt} times ({describe_google_error(error)}).",
                        remedy=_CHECK_PROXIES,
                    ) from None
            else:
                return

    def copy_object(self, key: str, target: str, *, version: str, run_id: str) -> None:
        """Let Cloud Storage copy the object, with its content type and digest."""
        copied, source = self._blob(target), self._get(key, version)
        copied.content_type = source.content_type
        copied.metadata = {**(source.metadata or {}), _RUN_KEY: run_id}
        with self._translate_errors(f"{self.uri(target)} cannot be written"):
            try:
                token = None
                while True:  # the copy of a large object may take several requests
                    token, _, _ = copied.rewrite(source, token=token, retry=self._retry)
                    if token is None:
                        return
            except api_errors.NotFound as error:
                self._require_bucket(error)
                raise conflict_error(self.uri(key)) from None  # `_get` has just found this generation

    def version(self, key: str) -> str | None:
        """Return the generation of the object; None if there is no object."""
        blob = self._find(key)
        return None if blob is None else str(blob.generation)

    def sizes_in(self, folder: str) -> dict[str, int]:
        """List the live objects, in pages of 1,000."""
        prefix = f"{self._name(folder)}/"
        client = self.storage.get_client()
        with self._translate_errors(f"{self.uri(folder)} cannot be listed"):
            try:
                blobs = client.list_blobs(
                    self.bucket,
                    prefix=prefix,
                    delimiter="/",
                    fields="items(name,size),nextPageToken",
                    retry=self._retry,
                )
                sizes = {blob.name.removeprefix(prefix): blob.size for blob in blobs}
            except api_errors.NotFound as error:
                self._require_bucket(error)
                raise
        # An empty name is the mark of a folder that Google's console creates.
        return {f"{folder}/{name}": sizes[name] for name in sorted(sizes) if name and not name.startswith(".")}

    def snapshot(self, keys: Iterable[str]) -> str:  # noqa: ARG002  (nothing is copied)
        """Return the URI of the lake: clients of Cloud Storage compare the generation or ETag of what they read."""
        return f"gs://{'/'.join(filter(None, [self.bucket, self.prefix]))}"

    def open(self, key: str, version: str | None = None) -> BinaryIO:
        """Open the object.

        A small object is downloaded and verified. A large object is read in ranges, without verification.
        """
        blob = self._get(key, version)
        if blob.size <= _SMALL_OBJECT_BYTES:
            with self._translate_read_errors(key):
                return io.BytesIO(blob.download_as_bytes(checksum="crc32c", retry=self._retry))
        return cast("BinaryIO", _RangeReader(self, blob, key))

    @contextmanager
    def as_local_file(self, key: str, version: str | None = None) -> Iterator[Path]:
        """Download a verified copy of the object."""
        blob = self._get(key, version)
        with self.staging() as folder:
            path = folder / key.rpartition("/")[2]
            with self._translate_read_errors(key):
                blob.download_to_filename(str(path), checksum="crc32c", retry=self._retry)
            yield path

    def size(self, key: str) -> int | None:
        """Return the size in bytes from the object's metadata; None if there is no object."""
        blob = self._find(key)
        return None if blob is None else int(blob.size)

    def has_digest(self, key: str, *, sha256: str) -> bool:
        """Compare the digest in the object's metadata. The bytes are not read: Cloud Storage verifies them itself.

        An object that another tool has copied to the bucket, such as `gcloud storage rsync`, has no digest. It is read
        once, and gets its digest.
        """
        blob = self._find(key)
        return blob is not None and self._digest(blob, key) == sha256

    def digest(self, key: str, version: str) -> str:
        """Return the digest in the object's metadata; see `has_digest`."""
        return self._digest(self._get(key, version), key)

    def _digest(self, blob: Any, key: str) -> str:
        recorded = (blob.metadata or {}).get(_SHA256_KEY)
        if recorded is not None:
            return str(recorded)
        with self.as_local_file(key, str(blob.generation)) as file:
            found, _ = _digests(file)
        blob.metadata = {**(blob.metadata or {}), _SHA256_KEY: found}
        with self._translate_errors(f"{self.uri(key)} cannot be written"), suppress(api_errors.PreconditionFailed):
            blob.patch(
                if_generation_match=blob.generation, if_metageneration_match=blob.metageneration, retry=self._retry
            )
        return found

    def delete(self, key: str) -> None:
        """Delete the live generation of the object, if there is one."""
        with self._translate_errors(f"{self.uri(key)} cannot be deleted"):
            try:
                self._blob(key).delete(retry=self._retry)
            except api_errors.NotFound as error:
                self._require_bucket(error)

    def uri(self, key: str) -> str:
        """Return a URI such as gs://bucket/prefix/clean/green_trips/2020-10.parquet."""
        return f"gs://{self.bucket}/{self._name(key)}"

    # --- one object --------------------------------------------------------------------------------------------------

    @property
    def _retry(self) -> Any:
        return DEFAULT_RETRY.with_timeout(self.timeout_seconds)

    def _name(self, key: str) -> str:
        return "/".join(filter(None, [self.prefix, validate_key(key)]))

    def _blob(self, key: str, version: str | None = None) -> Any:
        bucket = self.storage.get_client().bucket(self.bucket)
        return bucket.blob(self._name(key), generation=version and int(version))

    def _find(self, key: str, version: str | None = None) -> Any:
        """Return a blob with its metadata, bound to its generation; None if there is no such object."""
        with self._translate_errors(f"{self.uri(key)} cannot be read"):
            blob = self._blob(key, version)
            try:
                blob.reload(retry=self._retry)
            except api_errors.NotFound as error:
                self._require_bucket(error)
                return None
            return blob

    def _get(self, key: str, version: str | None) -> Any:
        blob = self._find(key, version)
        if blob is not None:
            return blob
        if version is not None and self._find(key) is not None:
            raise conflict_error(self.uri(key))
        raise missing_error(self.uri(key))

    @contextmanager
    def _translate_read_errors(self, key: str) -> Iterator[None]:
        with self._translate_errors(f"{self.uri(key)} cannot be read"):
            try:
                yield
            except api_errors.NotFound as error:
                self._require_bucket(error)
                raise conflict_error(self.uri(key)) from None  # `_get` has just found this generation
            except DataCorruption:
                raise LakeObjectDamagedError(
                    f"{self.uri(key)} was corrupted in transit from Cloud Storage: its CRC32C checksum does not match.",
                    remedy=_CHECK_PROXIES,
                ) from None

    # --- errors ------------------------------------------------------------------------------------------------------

    def _translate_errors(self, label: str) -> AbstractContextManager[None]:
        return translate_google_errors(
            label,
            permanent=LakeConfigurationError,
            transient=LakeUnreachableError,
            remedy=lambda message: storage_remedy(message, self.bucket, objects_role=WRITE_OBJECTS),
        )

    def _require_bucket(self, error: api_errors.NotFound) -> None:
        if is_missing_bucket(error):
            raise LakeConfigurationError(
                f"The bucket {self.bucket} does not exist.",
                remedy="Create it (for example with deploy/gcp), or set TAXI_LAKE to another bucket.",
            ) from None


def _digests(file: Path) -> tuple[str, str]:
    """Return the SHA-256 digest of a file in hexadecimal digits, and its CRC32C checksum as Cloud Storage writes it."""
    sha256 = hashlib.sha256()
    crc32c: Any = google_crc32c.Checksum()  # type: ignore[no-untyped-call]  # it has no types
    with file.open("rb") as content:
        while chunk := content.read(_DIGEST_CHUNK_BYTES):
            sha256.update(chunk)
            crc32c.update(chunk)
    return sha256.hexdigest(), base64.b64encode(crc32c.digest()).decode()


class _RangeReader(BlobReader):  # type: ignore[misc]  # the client has no types
    """Reads ranges of one generation of an object, with the lake's errors."""

    def __init__(self, lake: GcsLake, blob: Any, key: str) -> None:
        super().__init__(blob, chunk_size=_READ_CHUNK_BYTES, retry=lake._retry)  # noqa: SLF001
        self._lake, self._key = lake, key

    def read(self, size: int = -1) -> bytes:
        with self._lake._translate_read_errors(self._key):  # noqa: SLF001
            return cast("bytes", super().read(size))
