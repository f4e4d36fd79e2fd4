"""Read `sample:` URLs: months of the synthetic sample, which are generated when a run downloads them.

Does not belong here: how the months are generated (`tlc/synthetic/`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from taxi_assets.tlc.month import Month
from taxi_assets.tlc.sources.publishers import SAMPLE_ZONES_URL
from taxi_assets.tlc.sources.source_record import FileVersion
from taxi_assets.tlc.sources.transports.base_transport import DownloadResult, NotModified, digest_file
from taxi_assets.tlc.sources.transports.folder_transport import copy_file

if TYPE_CHECKING:
    from taxi_assets.tlc.sources.transports.base_transport import DownloadRequest, VersionRequest


class SyntheticTransport:
    """Generates months of the synthetic sample, and copies the zone table of this package.

    The ETag is the generator's version.
    """

    def download(self, request: DownloadRequest) -> DownloadResult | NotModified:
        """Generate the month of the synthetic sample; see `Transport.download`."""
        from taxi_assets.tlc import synthetic  # noqa: PLC0415  (slow to import, and rarely needed)

        if request.source.url == SAMPLE_ZONES_URL:
            return copy_file(request, synthetic.zones_path())
        if request.known_at_url is not None and request.known_at_url.etag == synthetic.etag():
            return NotModified(request.known_at_url)
        service, month = request.source.url.removeprefix("sample:").split("/")
        synthetic.write_month(service, Month.parse(month), request.path)
        return DownloadResult(request.path.stat().st_size, digest_file(request.path), synthetic.etag(), generated=True)

    def check_version(self, request: VersionRequest) -> FileVersion:
        """Return the generator's version: every month of the synthetic sample is always available."""
        from taxi_assets.tlc import synthetic  # noqa: PLC0415  (slow to import, and rarely needed)

        return FileVersion(
            url=request.url, publisher=request.source.publisher, etag=synthetic.etag(), last_modified=None, bytes=None
        )
