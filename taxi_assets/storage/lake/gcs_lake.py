"""The lake in a Cloud Storage bucket, on dagster-gcp's resource.

An object's version is its generation. Uploads name the generation they replace, so of two runs only one can win; who
wrote an object, and its sha256, stand in its metadata.
"""

import hashlib
import io
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, cast

import dagster as dg
from google.api_core import exceptions as api_errors
from google.cloud.storage.exceptions import DataCorruption
from google.cloud.storage.fileio import BlobReader
from google.cloud.storage.retry import DEFAULT_RETRY
from pydantic import Field

from taxi_assets.errors import LakeConfigurationError, LakeObjectDamagedError, LakeUnreachableError
from taxi_assets.google_auth import is_missing_bucket, translate_google_errors
from taxi_assets.resources.google import CloudStorageResource
from taxi_assets.storage.lake.base_lake import Lake, conflict_error, missing_error, validate_key
from taxi_assets.storage.lake.staging import private_folder

# Uploads above 8 MiB are resumable, and go out in pieces of this size; reads of a part fetch at least this much.
_UPLOAD_CHUNK_BYTES = 8 << 20
_READ_CHUNK_BYTES = 1 << 20
_SMALL = 1 << 16
_SHA256, _RUN = "taxi-sha256", "taxi-run"


class GcsLake(Lake):
    """A lake in a Cloud Storage bucket."""

    is_remote: ClassVar[bool] = True
    verifies_checksums: ClassVar[bool] = True  # crc32c with every upload and whole download, and at rest

    storage: dg.ResourceDependency[CloudStorageResource]
    bucket: str = Field(description="The bucket; it must exist.")
    prefix: str = Field(default="", description="What all keys begin with, without slashes around it.")
    timeout_seconds: float = Field(default=120, description="How long a request that fails for a while is retried.")

    def staging(self) -> AbstractContextManager[Path]:
        """A folder on this machine; what dead processes left is swept first."""
        home = Path(tempfile.gettempdir(), f"taxi-assets-{os.getuid()}")
        home.mkdir(mode=0o700, exist_ok=True)
        # Anybody can make a folder of this name where all may write.
        found = home.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            raise LakeConfigurationError(
                f"{home} is no folder of this account.", remedy="Remove it, or let TMPDIR name another place."
            )
        home.chmod(0o700)
        return private_folder(home)

    def publish(self, file: Path, key: str, *, replaces: str | None, run_id: str) -> None:
        """One upload, checked by crc32c, that takes effect at its end and only over the generation it replaces."""
        blob = self._blob(key)
        blob.chunk_size = _UPLOAD_CHUNK_BYTES
        with file.open("rb") as content:
            sha256 = hashlib.file_digest(content, "sha256").hexdigest()
        blob.metadata = {_SHA256: sha256, _RUN: run_id}
        with self._named_errors(f"{self.uri(key)} cannot be written"):
            try:
                blob.upload_from_filename(
                    str(file), checksum="crc32c", if_generation_match=int(replaces or 0), retry=self._retry
                )
            except api_errors.PreconditionFailed:
                # Ours all the same, when the answer to it was lost and the client asked again; or the same by another.
                if not self.has_digest(key, sha256=sha256):
                    raise conflict_error(self.uri(key)) from None
            except api_errors.NotFound as error:
                self._require_bucket(error)
                raise
        file.unlink()

    def version(self, key: str) -> str | None:
        """Its generation."""
        blob = self._find(key)
        return None if blob is None else str(blob.generation)

    def open(self, key: str, version: str | None = None) -> BinaryIO:
        """A small object whole and checked by crc32c; of a large one, the parts that are read."""
        blob = self._get(key, version)
        if blob.size <= _SMALL:
            with self._reading(key):
                return io.BytesIO(blob.download_as_bytes(checksum="crc32c", retry=self._retry))
        return cast("BinaryIO", _Reader(self, blob, key))

    @contextmanager
    def as_local_file(self, key: str, version: str | None = None) -> Iterator[Path]:
        """Downloaded, and checked by crc32c."""
        blob = self._get(key, version)
        with self.staging() as folder:
            path = folder / key.rpartition("/")[2]
            with self._reading(key):
                blob.download_to_filename(str(path), checksum="crc32c", retry=self._retry)
            yield path

    def size(self, key: str) -> int | None:
        """From its metadata."""
        blob = self._find(key)
        return None if blob is None else int(blob.size)

    def has_digest(self, key: str, *, sha256: str) -> bool:
        """From its metadata: Cloud Storage keeps the bytes that were uploaded with it."""
        blob = self._find(key)
        return blob is not None and (blob.metadata or {}).get(_SHA256) == sha256

    def delete(self, key: str) -> None:
        """Delete the live version."""
        with self._named_errors(f"{self.uri(key)} cannot be deleted"):
            try:
                self._blob(key).delete(retry=self._retry)
            except api_errors.NotFound as error:
                self._require_bucket(error)

    def uri(self, key: str) -> str:
        """Such as gs://bucket/prefix/clean/green_trips/2020-10.parquet."""
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
        """The object with its metadata, for requests about just this generation; None where there is none."""
        with self._named_errors(f"{self.uri(key)} cannot be read"):
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
    def _reading(self, key: str) -> Iterator[None]:
        with self._named_errors(f"{self.uri(key)} cannot be read"):
            try:
                yield
            except api_errors.NotFound as error:
                self._require_bucket(error)
                raise conflict_error(self.uri(key)) from None  # it was there a moment ago, in this generation
            except DataCorruption:
                raise LakeObjectDamagedError(
                    f"{self.uri(key)} did not arrive as it is stored: its crc32c is another one.",
                    remedy="Try again; something between here and Cloud Storage changes bytes.",
                ) from None

    # --- errors ------------------------------------------------------------------------------------------------------

    def _named_errors(self, label: str) -> AbstractContextManager[None]:
        return translate_google_errors(
            label,
            permanent=LakeConfigurationError,
            transient=LakeUnreachableError,
            remedy=lambda _: f"Grant it Storage Object Admin (roles/storage.objectAdmin) on the bucket {self.bucket}.",
        )

    def _require_bucket(self, error: api_errors.NotFound) -> None:
        if is_missing_bucket(error):
            raise LakeConfigurationError(
                f"There is no bucket {self.bucket}.",
                remedy="Make it (deploy/gcp does), or name another one in TAXI_LAKE.",
            ) from None


class _Reader(BlobReader):  # type: ignore[misc]  # the client has no types
    """Parts of one generation of an object, each by a request of its own; errors are the lake's."""

    def __init__(self, lake: GcsLake, blob: Any, key: str) -> None:
        super().__init__(blob, chunk_size=_READ_CHUNK_BYTES, retry=lake._retry)  # noqa: SLF001
        self._lake, self._key = lake, key

    def read(self, size: int = -1) -> bytes:
        with self._lake._reading(self._key):  # noqa: SLF001
            return cast("bytes", super().read(size))
