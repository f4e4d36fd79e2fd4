"""Values that describe a published file, its current version, and the copy in the lake."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, Field

from taxi_assets.tlc.file_format import TLC_DIALECT, CsvDialect, FileFormat


@dataclass(frozen=True)
class SourceUrl:
    """A URL where a file may be published: `http(s)://…`, `gs://…`, `file:///…` or `sample:{service}/{month}`."""

    url: str = field(repr=False)  # may contain a password or a token
    publisher: str
    format: FileFormat
    dialect: CsvDialect = TLC_DIALECT
    """How the text of a CSV file is written."""


@dataclass(frozen=True)
class FileVersion:
    """The version of a published file, from the headers or metadata that its publisher sends."""

    url: str
    """The URL without secrets, as in `SourceRecord`."""
    publisher: str
    etag: str | None
    last_modified: str | None
    bytes: int | None

    @property
    def name(self) -> str:
        """The most precise attribute that the publisher sends: ETag, Last-Modified or length."""
        if self.etag is not None:
            return self.etag.removeprefix("W/")
        return self.last_modified or (f"{self.bytes} bytes" if self.bytes is not None else "unknown version")

    def is_same_as(self, other: FileVersion) -> bool:
        """Return whether both are the same version of the file at the same URL.

        Compares the most precise attribute that both have: ETag, Last-Modified or length. Versions without a common
        attribute count as the same.
        """
        if self.url != other.url:
            return False
        if self.etag is not None and other.etag is not None:
            return self.name == other.name
        if self.last_modified is not None and other.last_modified is not None:
            return self.last_modified == other.last_modified
        return self.bytes is None or other.bytes is None or self.bytes == other.bytes


class SourceRecord(BaseModel):
    """The origin and digest of a raw file.

    The lake stores it as JSON next to the file, because Dagster's event log can be lost or stored elsewhere.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    url: str = Field(description="The URL it was downloaded from, without secrets.")
    publisher: str = Field(description="The publisher: datatalksclub, tlc, sample, or the location in TAXI_SOURCE.")
    format: FileFormat = Field(description="csv.gz, csv, parquet or zip.")
    bytes: int = Field(description="Length as published, in bytes.")
    sha256: str = Field(description="SHA-256 digest of the bytes, in hexadecimal.")
    rows: int = Field(description="Data rows: non-blank lines without the header, or the count in the Parquet footer.")
    etag: str | None = Field(default=None, description="The publisher's ETag, for revalidation.")
    last_modified: str | None = Field(default=None, description="The publisher's Last-Modified, for revalidation.")
    fetched_at: dt.datetime = Field(description="When these bytes were downloaded, in UTC.")
    generated: bool = Field(default=False, description="True for the synthetic sample, which is not TLC data.")
