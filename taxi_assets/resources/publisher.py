"""The publisher as a Dagster resource: where raw files come from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from taxi_assets.errors import PublisherUnreachableError
from taxi_assets.tlc.sources import download
from taxi_assets.tlc.sources.publishers import PUBLISHERS, resolve_publisher
from taxi_assets.tlc.sources.validate_file import DEFAULT_LIMITS, FileLimits
from taxi_assets.tlc.sources.version_check import VERSION_CHECK_SECONDS, check_version

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from taxi_assets.tlc.sources.download import DownloadedFile, UnchangedFile
    from taxi_assets.tlc.sources.publishers import Publisher
    from taxi_assets.tlc.sources.source_record import FileVersion, SourceRecord, SourceUrl


class PublisherResource(dg.ConfigurableResource):  # type: ignore[type-arg]  # Dagster's own pattern
    """Who publishes the files."""

    source: str = Field(
        default="auto",
        description=f"{', '.join(PUBLISHERS)}, or a base that holds the files: a folder, file://, http(s):// or gs://.",
    )
    google_key: str | None = Field(
        default=None,
        repr=False,
        description="For gs://: a service account's key file, or its content in base64; none: application default.",
    )

    max_file_bytes: int = Field(default=DEFAULT_LIMITS.max_bytes, description="The largest file that is taken.")
    max_expansion_ratio: int = Field(
        default=DEFAULT_LIMITS.max_expansion_ratio, description="How many times its size a file may expand to."
    )

    @property
    def publisher(self) -> Publisher:
        """Its addresses; raises `PublisherUnreachableError` where its folder has gone since the settings were read."""
        try:
            return resolve_publisher(self.source)
        except ValueError as error:
            raise PublisherUnreachableError(
                f"The publisher cannot be asked: {error}", remedy="Bring its folder back, or change TAXI_SOURCE."
            ) from None

    def check_version(
        self,
        label: str,
        sources: Sequence[SourceUrl],
        *,
        known: FileVersion | None,
        seconds: float = VERSION_CHECK_SECONDS,
    ) -> FileVersion | None:
        """The version that is published now; see `tlc.ask.ask`."""
        return check_version(label, sources, known=known, seconds=seconds, google_key=self.google_key)

    def download(
        self, label: str, sources: Sequence[SourceUrl], *, known: SourceRecord | None, output_dir: Path
    ) -> DownloadedFile | UnchangedFile:
        """Fetch what is not known already; see `tlc.download.fetch`."""
        return download.download(
            label,
            sources,
            known=known,
            output_dir=output_dir,
            limits=FileLimits.of(self.max_file_bytes, self.max_expansion_ratio),
            log=dg.get_dagster_logger(),
            google_key=self.google_key,
        )
