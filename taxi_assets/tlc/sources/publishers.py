"""Publishers of trip files: the URLs at which each offers a month, and the values that `TAXI_SOURCE` accepts.

Belongs here: one small class per publisher. Does not belong here: downloading (`download.py`), and which services and
months exist.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit, urlunsplit
from urllib.request import url2pathname

from taxi_assets.addresses import parse_bucket_address
from taxi_assets.tlc.file_format import FileFormat
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.sources.source_record import SourceUrl

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taxi_assets.tlc.schema import Service

SAMPLE_ZONES_URL = "sample:taxi_zone_lookup"
"""The URL of the copy of TLC's zone table in this package."""

_TLC_URL = "https://d37ci6vzurychx.cloudfront.net"
_MIRROR_URL = "https://github.com/DataTalksClub/nyc-tlc-data/releases/download"
_MIRROR_FIRST, _MIRROR_LAST = Month(2019, 1), Month(2021, 7)
_ZONES_FILE = "taxi_zone_lookup.csv"


class Publisher(Protocol):
    """An organization or a location that publishes trip files."""

    @property
    def name(self) -> str:
        """The value of `TAXI_SOURCE` that selects it, without secrets."""

    def source_urls(self, service: Service, month: Month) -> list[SourceUrl]:
        """Return the URLs where the month's file may be, in order of preference. Empty: not published."""

    def zones(self) -> list[SourceUrl]:
        """Return the URLs where the taxi zone table may be, in order of preference."""


@dataclass(frozen=True)
class TlcPublisher:
    """The Taxi & Limousine Commission (TLC): every month since 2009, as Parquet."""

    name: str = "tlc"

    def source_urls(self, service: Service, month: Month) -> list[SourceUrl]:
        """Return the URL of the Parquet file. Services that TLC does not publish have none."""
        if service.file_name is not None:
            return []
        url = f"{_TLC_URL}/trip-data/{_file_name(service, month, FileFormat.PARQUET)}"
        return [SourceUrl(url, self.name, FileFormat.PARQUET)]

    def zones(self) -> list[SourceUrl]:
        """Return the URL of TLC's table."""
        return [SourceUrl(f"{_TLC_URL}/misc/{_ZONES_FILE}", self.name, FileFormat.CSV)]


@dataclass(frozen=True)
class DataTalksClubPublisher:
    """The mirror of the CSV files that TLC no longer publishes."""

    name: str = "datatalksclub"

    def has(self, month: Month) -> bool:
        """Return whether the mirror has the month."""
        return _MIRROR_FIRST <= month <= _MIRROR_LAST

    def source_urls(self, service: Service, month: Month) -> list[SourceUrl]:
        """Return the URL of the CSV file, also for months outside the mirror's range.

        The mirror itself then answers that it does not have the month.
        """
        if service.file_name is not None:
            return []
        url = f"{_MIRROR_URL}/{service.name}/{_file_name(service, month, FileFormat.CSV_GZ)}"
        return [SourceUrl(url, self.name, FileFormat.CSV_GZ)]

    def zones(self) -> list[SourceUrl]:
        """Return the URL of TLC's table: the mirror has none."""
        return TlcPublisher().zones()


@dataclass(frozen=True)
class AutoPublisher:
    """The mirror's CSV for the months that it has, and TLC's Parquet."""

    name: str = "auto"

    def source_urls(self, service: Service, month: Month) -> list[SourceUrl]:
        """Return the mirror's URL if it has the month, then TLC's URL."""
        mirror = DataTalksClubPublisher()
        mirrored = mirror.source_urls(service, month) if mirror.has(month) else []
        return mirrored + TlcPublisher().source_urls(service, month)

    def zones(self) -> list[SourceUrl]:
        """Return the URL of TLC's table."""
        return TlcPublisher().zones()


@dataclass(frozen=True)
class SyntheticPublisher:
    """The synthetic sample (`tlc/synthetic/`) and the zone table of this package. Needs no network."""

    name: str = "sample"

    def source_urls(self, service: Service, month: Month) -> list[SourceUrl]:
        """Return the URL that generates the month. Services without a synthetic sample have none."""
        from taxi_assets.tlc import synthetic  # noqa: PLC0415  (slow to import, and rarely needed)

        if service.name not in synthetic.services():
            return []
        return [SourceUrl(f"sample:{service.name}/{month}", self.name, synthetic.format_of(service.name))]

    def zones(self) -> list[SourceUrl]:
        """Return the URL of the table in this package."""
        return [SourceUrl(SAMPLE_ZONES_URL, self.name, FileFormat.CSV)]


@dataclass(frozen=True)
class BaseUrlPublisher:
    """A folder, web server or bucket with files under their published names."""

    name: str
    url: str = field(repr=False)
    """The location with its secrets, such as a password or a signature. Never shown."""

    def source_urls(self, service: Service, month: Month) -> list[SourceUrl]:
        """Return the URLs of the month as `.csv.gz`, `.csv`, `.parquet` and `.zip`; in a folder, also as parts.

        The URL of a folder of parts ends in a slash. Its parts are downloaded as a zip archive.
        """
        urls = {file_format: self._url_of(_file_name(service, month, file_format)) for file_format in FileFormat}
        files = [SourceUrl(url, self.name, file_format, service.dialect) for file_format, url in urls.items()]
        if not self._is_folder:
            return files
        return files + [
            SourceUrl(f"{urls[file_format]}/", self.name, FileFormat.ZIP, service.dialect)
            for file_format in (FileFormat.PARQUET, FileFormat.CSV)
        ]

    def zones(self) -> list[SourceUrl]:
        """Return the URL of its own table, then that of TLC's; a folder uses the table of this package instead."""
        own = SourceUrl(self._url_of(_ZONES_FILE), self.name, FileFormat.CSV)
        return [own, *(SyntheticPublisher() if self._is_folder else TlcPublisher()).zones()]

    @property
    def _is_folder(self) -> bool:
        return self.url.startswith("file:")

    def _url_of(self, name: str) -> str:
        parts = urlsplit(self.url)
        return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{name}", fragment=""))


PUBLISHERS: dict[str, Publisher] = {
    publisher.name: publisher
    for publisher in (AutoPublisher(), DataTalksClubPublisher(), TlcPublisher(), SyntheticPublisher())
}
"""By name: the publishers that `TAXI_SOURCE` selects by a name."""
_ACCEPTED_FORMS = (
    f"Use {', '.join(PUBLISHERS)}, a folder that exists, file:///..., http://..., https://... or gs://bucket/prefix."
)


_TLC_PUBLISHERS = {AutoPublisher.name, DataTalksClubPublisher.name, TlcPublisher.name}
"""Publishers that have TLC's files only."""


def source_of(service: Service, source: str, service_sources: Mapping[str, str]) -> str:
    """Return the source of a service's files, as `resolve_publisher` accepts it.

    Args:
        service: The service.
        source: The value of `TAXI_SOURCE`. The service's own publisher takes precedence over one that has TLC's files
            only; a location, or the sample, applies to all services.
        service_sources: The values of `TAXI_SOURCE_<SERVICE>` by service. They take precedence over both.
    """
    if service.name in service_sources:
        return service_sources[service.name]
    return service.publisher if service.publisher is not None and source in _TLC_PUBLISHERS else source


def resolve_publisher(source: str) -> Publisher:
    """Return the publisher that a value of `TAXI_SOURCE` selects.

    Args:
        source: A publisher's name, a folder or a URL. A name takes precedence over a folder with the same name: write
            `./sample` for the folder. A relative folder is resolved in the working directory.

    Raises:
        ValueError: The value is not accepted. The message lists the accepted values, and contains no secrets.
    """
    if source in PUBLISHERS:
        return PUBLISHERS[source]
    if source.startswith("file:"):
        return _file_base(source)
    if source.lower().startswith(("http://", "https://")):
        return _web_base(source)
    if source.lower().startswith("gs://"):
        return _bucket_base(source)
    if "://" in source:
        raise ValueError(f"URLs that begin with {source.partition('://')[0]}:// are not supported. {_ACCEPTED_FORMS}")
    if not source.strip():
        raise ValueError(f"It is empty. {_ACCEPTED_FORMS}")
    return _folder_base(source, Path.cwd() / Path(source).expanduser())


def public_url(url: str) -> str:
    """Return a URL without user, password, query and fragment, for records, logs and errors."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _file_name(service: Service, month: Month, file_format: FileFormat) -> str:
    prefix = f"{service.name}_tripdata_{month}" if service.file_name is None else service.file_name.format(month=month)
    return f"{prefix}.{file_format}"


def _folder_base(source: str, folder: Path) -> BaseUrlPublisher:
    if folder.is_dir():
        return BaseUrlPublisher(source, folder.resolve().as_uri())
    if folder.exists():
        raise ValueError(f"{source} is a file, not a folder. {_ACCEPTED_FORMS}")
    raise ValueError(f"There is no such publisher and no such folder: {source}. {_ACCEPTED_FORMS}")


def _file_base(source: str) -> BaseUrlPublisher:
    parts = urlsplit(source)
    path = url2pathname(parts.path)
    if parts.netloc not in {"", "localhost"} or not Path(path).is_absolute():
        raise ValueError(
            f"{public_url(source)} is not a folder of this machine: write file:///folder. {_ACCEPTED_FORMS}"
        )
    return _folder_base(source, Path(path))


def _bucket_base(source: str) -> BaseUrlPublisher:
    address = parse_bucket_address(source, _ACCEPTED_FORMS)
    return BaseUrlPublisher(source, f"gs://{'/'.join(filter(None, [address.bucket, address.prefix]))}")


def _web_base(source: str) -> BaseUrlPublisher:
    try:
        parts = urlsplit(source)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        # Not quoted: without a valid host, the end of the password is unknown.
        raise ValueError(f"It is not a valid http(s):// URL: its host or port cannot be read. {_ACCEPTED_FORMS}")
    return BaseUrlPublisher(public_url(source), source)
