"""The transport for each URL scheme."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from taxi_assets.tlc.sources.transports.folder_transport import FolderTransport
from taxi_assets.tlc.sources.transports.synthetic_transport import SyntheticTransport

if TYPE_CHECKING:
    from collections.abc import Callable

    from taxi_assets.tlc.sources.transports.base_transport import Transport


def transport_for(url: str) -> Transport:
    """Return the transport that reads a URL.

    Raises:
        KeyError: No transport reads URLs of this scheme. Publishers offer no such URLs.
    """
    return _TRANSPORTS[urlsplit(url).scheme]()


def _http_transport() -> Transport:
    from taxi_assets.tlc.sources.transports.http_transport import HttpTransport  # noqa: PLC0415  (requests takes 0.1 s to import)

    return HttpTransport()


def _gcs_transport() -> Transport:
    from taxi_assets.tlc.sources.transports.gcs_transport import GcsTransport  # noqa: PLC0415  (Google's clients are slow to import)

    return GcsTransport()


_TRANSPORTS: dict[str, Callable[[], Transport]] = {
    "http": _http_transport,
    "https": _http_transport,
    "file": FolderTransport,
    "gs": _gcs_transport,
    "sample": SyntheticTransport,
}
"""By URL scheme: the transport's class, or a function that imports it when it is first needed."""
