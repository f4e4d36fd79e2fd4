"""Who publishes trip files, and under which addresses: what `TAXI_SOURCE` means.

Belongs here: one small class per publisher that turns a service and a month into the addresses to try, and the words
that choose a publisher. Does not belong here: fetching (`download.py`), and which services and months exist at all.
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
    from taxi_assets.tlc.schema import Service

SAMPLE_ZONES_URL = "sample:taxi_zone_lookup"
"""The address of the copy of TLC's zone table in this package."""

_TLC_URL = "https://d37ci6vzurychx.cloudfront.net"
_MIRROR_URL = "https://github.com/DataTalksClub/nyc-tlc-data/releases/download"
_MIRROR_FIRST, _MIRROR_LAST = Month(2019, 1), Month(2021, 7)
_ZONES_FILE = "taxi_zone_lookup.csv"


class Publisher(Protocol):
    """Somebody who publishes trip files."""

    @property
    def name(self) -> str:
        """The word or base it was chosen by, without secrets."""

    def source_urls(self, service: Service, month: Month) -> list[SourceUrl]:
        """Where the month's file may be, in order of preference."""

    def zones(self) -> list[SourceUrl]:
        """Where the table of taxi zones may be, in order of preference."""


@dataclass(frozen=True)
class TlcPublisher:
    """The Taxi & Limousine Commission itself: Parquet, every month since 2009."""

    name: str = "tlc"

    def source_urls(self, service: Service, month: Month) -> list[SourceUrl]:
        """Its one Parquet file; none of a service that is not TLC's."""
        if service.file_name is not None:
            return []
        url = f"{_TLC_URL}/trip-data/{_file_name(service, month, FileFormat.PARQUET)}"
        return [SourceUrl(url, self.name, FileFormat.PARQUET)]

    def zones(self) -> list[SourceUrl]:
        """The official table."""
        return [SourceUrl(f"{_TLC_URL}/misc/{_ZONES_FILE}", self.name, FileFormat.CSV)]


@dataclass(frozen=True)
class DataTalksClubPublisher:
    """The mirror that keeps the CSV files TLC has withdrawn."""

    name: str = "datatalksclub"

    def has(self, month: Month) -> bool:
        """Whether the month is within its range."""
        return _MIRROR_FIRST <= month <= _MIRROR_LAST

    def source_urls(self, service: Service, month: Month) -> list[SourceUrl]:
        """Its one CSV; asked for outside its range as well, so that the answer is the publisher's own."""
        if service.file_name is not None:
            return []
        url = f"{_MIRROR_URL}/{service.name}/{_file_name(service, month, FileFormat.CSV_GZ)}"
        return [SourceUrl(url, self.name, FileFormat.CSV_GZ)]

    def zones(self) -> list[SourceUrl]:
        """The official table: the mirror has none."""
        return TlcPublisher().zones()


@dataclass(frozen=True)
class AutoPublisher:
    """The mirror's CSV where there is one, TLC's Parquet elsewhere."""

    name: str = "auto"

    def source_urls(self, service: Service, month: Month) -> list[SourceUrl]:
        """The mirror first, within its range; TLC always."""
        mirror = DataTalksClubPublisher()
        mirrored = mirror.source_urls(service, month) if mirror.has(month) else []
        return mirrored + TlcPublisher().source_urls(service, month)

    def zones(self) -> list[SourceUrl]:
        """The official table."""
        return TlcPublisher().zones()


@dataclass(frozen=True)
class SyntheticPublisher:
    """Generated months, offline (`sample/`), and the package's copy of the zone table."""

    name: str = "sample"

    def source_urls(self, service: Service, month: Month) -> list[SourceUrl]:
        """The month, to be generated; none for a service that is not."""
        from taxi_assets.tlc import synthetic  # noqa: PLC0415  (the generator is loaded only where it is asked for)

        if service.name not in synthetic.services():
            return []
        return [SourceUrl(f"sample:{service.name}/{month}", self.name, synthetic.format_of(service.name))]

    def zones(self) -> list[SourceUrl]:
        """The copy in the package."""
        return [SourceUrl(SAMPLE_ZONES_URL, self.name, FileFormat.CSV)]


@dataclass(frozen=True)
class BaseUrlPublisher:
    """A folder, on disk, on a web server or in a bucket, that holds files under the published names."""

    name: str
    url: str = field(repr=False)
    """Its address with whatever opens it, a password or a signature: never to be shown."""

    def source_urls(self, service: Service, month: Month) -> list[SourceUrl]:
        """The month as `.csv.gz`, `.csv`, `.parquet`."""
        return [SourceUrl(self._inside(_file_name(service, month, ending)), self.name, ending) for ending in FileFormat]

    def zones(self) -> list[SourceUrl]:
        """Its own table, else the official one; a folder on disk stays offline."""
        own = SourceUrl(self._inside(_ZONES_FILE), self.name, FileFormat.CSV)
        return [own, *(SyntheticPublisher() if self.url.startswith("file:") else TlcPublisher()).zones()]

    def _inside(self, name: str) -> str:
        parts = urlsplit(self.url)
        return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{name}", fragment=""))


PUBLISHERS: dict[str, Publisher] = {
    publisher.name: publisher
    for publisher in (AutoPublisher(), DataTalksClubPublisher(), TlcPublisher(), SyntheticPublisher())
}
"""The publishers that have a word for `TAXI_SOURCE`: their names."""
_ACCEPTED = f"Accepted are {', '.join(PUBLISHERS)}, a folder that exists, file:///..., http://..., https://... or gs://bucket/prefix."


def resolve_publisher(source: str) -> Publisher:
    """The publisher a word or base stands for; a word wins over a folder of its name (write `./sample` for that one).

    A relative folder is looked up in the working directory.
    Raises `ValueError`, saying what is accepted, for anything else.
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
        raise ValueError(f"Nothing is known of addresses that begin with {source.partition('://')[0]}://. {_ACCEPTED}")
    if not source.strip():
        raise ValueError(f"It is empty. {_ACCEPTED}")
    return _folder_base(source, Path.cwd() / Path(source).expanduser())


def public_url(url: str) -> str:
    """The URL as it may be recorded, logged and quoted: without user, password, query and fragment."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _file_name(service: Service, month: Month, ending: FileFormat) -> str:
    prefix = f"{service.name}_tripdata_{month}" if service.file_name is None else service.file_name.format(month=month)
    return f"{prefix}.{ending}"


def _folder_base(source: str, folder: Path) -> BaseUrlPublisher:
    if folder.is_dir():
        return BaseUrlPublisher(source, folder.resolve().as_uri())
    if folder.exists():
        raise ValueError(f"{source} is a file, not a folder. {_ACCEPTED}")
    raise ValueError(f"There is no such word and no such folder: {source}. {_ACCEPTED}")


def _file_base(source: str) -> BaseUrlPublisher:
    parts = urlsplit(source)
    path = url2pathname(parts.path)
    if parts.netloc not in {"", "localhost"} or not Path(path).is_absolute():
        raise ValueError(f"{public_url(source)} names no folder of this machine: write file:///folder. {_ACCEPTED}")
    return _folder_base(source, Path(path))


def _bucket_base(source: str) -> BaseUrlPublisher:
    address = parse_bucket_address(source, _ACCEPTED)
    return BaseUrlPublisher(source, f"gs://{'/'.join(filter(None, [address.bucket, address.prefix]))}")


def _web_base(source: str) -> BaseUrlPublisher:
    try:
        parts = urlsplit(source)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        # Not quoted: where its host ends cannot be told, so neither can where its password does.
        raise ValueError(f"That is no usable http(s):// address: its host or port cannot be read. {_ACCEPTED}")
    return BaseUrlPublisher(public_url(source), source)
