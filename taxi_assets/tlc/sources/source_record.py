"""A trip file as its publisher offers it, and what is known of the one we hold."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, Field

from taxi_assets.tlc.file_format import FileFormat


@dataclass(frozen=True)
class SourceUrl:
    """One place where a file may be published.

    `url` is `http(s)://…`, `gs://…`, `file:///…`, or `sample:{service}/{month}` (generated, see `sample/`).
    """

    url: str = field(repr=False)  # may hold a password or a token
    publisher: str
    format: FileFormat


@dataclass(frozen=True)
class FileVersion:
    """A published file as its publisher describes it, without sending it."""

    url: str
    """Without secrets, as in `SourceRecord`."""
    publisher: str
    etag: str | None
    last_modified: str | None
    bytes: int | None

    @property
    def name(self) -> str:
        """What tells it from other versions at the same address: the best that the publisher gives."""
        if self.etag is not None:
            return self.etag.removeprefix("W/")
        return self.last_modified or (f"{self.bytes} bytes" if self.bytes is not None else "a version without a name")

    def is_same_as(self, other: FileVersion) -> bool:
        """Whether it is that version, by all that the publisher says of both."""
        if self.url != other.url:
            return False
        if self.etag is not None and other.etag is not None:
            return self.name == other.name
        if self.last_modified is not None and other.last_modified is not None:
            return self.last_modified == other.last_modified
        return self.bytes is None or other.bytes is None or self.bytes == other.bytes


class SourceRecord(BaseModel):
    """What is known of a raw file; kept as JSON beside it, because the event log may be lost or elsewhere."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    url: str = Field(description="Where it came from.")
    publisher: str = Field(description="Who published it: datatalksclub, tlc, sample, or the base that was set.")
    format: FileFormat = Field(description="csv.gz, csv or parquet.")
    bytes: int = Field(description="Its length as published.")
    sha256: str = Field(description="Digest of its bytes, in hex.")
    rows: int = Field(description="Data rows: non-blank lines less the header, or what the Parquet footer says.")
    etag: str | None = Field(default=None, description="The publisher's ETag, for revalidation.")
    last_modified: str | None = Field(default=None, description="The publisher's Last-Modified, for revalidation.")
    fetched_at: dt.datetime = Field(description="When these bytes were downloaded, in UTC.")
    generated: bool = Field(default=False, description="True for the generated sample: not TLC's records.")
