"""The publisher of raw files as a Dagster resource."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from taxi_assets.errors import PublisherUnreachableError
from taxi_assets.tlc.sources import download, version_check
from taxi_assets.tlc.sources.content_limits import DEFAULT_LIMITS, FileLimits
from taxi_assets.tlc.sources.publishers import PUBLISHERS, resolve_publisher, source_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from taxi_assets.tlc.schema import Service
    from taxi_assets.tlc.sources.download import DownloadedFile, UnchangedFile
    from taxi_assets.tlc.sources.publishers import Publisher
    from taxi_assets.tlc.sources.source_record import FileVersion, SourceRecord, SourceUrl


class PublisherResource(dg.ConfigurableResource):  # type: ignore[type-arg]  # Dagster documents this form, without a type argument
    """Downloads raw files from a publisher, and checks which versions it offers."""

    source: str = Field(
        default="auto",
        description=(
            f"The publisher: {', '.join(PUBLISHERS)}, or the location of your own files: "
            "a folder, file://, http(s):// or gs://."
        ),
    )
    service_sources: dict[str, str] = Field(
        default={}, description="The publishers of single services, by the name of the service, in the same form."
    )
    google_key: str | None = Field(
        default=None,
        repr=False,
        description=(
            "For gs://: the path of a service account's key file, or its content in base64. "
            "Unset: application default credentials."
        ),
    )

    max_file_bytes: int = Field(
        default=DEFAULT_LIMITS.max_bytes, description="The size of the largest file that is accepted, in bytes."
    )
    max_expansion_ratio: int = Field(
        default=DEFAULT_LIMITS.max_expansion_ratio,
        description="How many times its own size a compressed file may expand to.",
    )

    @property
    def publisher(self) -> Publisher:
        """The publisher that `source` names.

        Raises:
            PublisherUnreachableError: `source` cannot be resolved, for example because its folder no longer exists.
        """
        return _resolve(self.source, "TAXI_SOURCE")

    def publisher_of(self, service: Service) -> Publisher:
        """Return the publisher of a service; see `tlc.sources.publishers.source_of`.

        Raises:
            PublisherUnreachableError: It cannot be resolved, for example because its folder no longer exists.
        """
        return _resolve(source_of(service, self.source, self.service_sources), f"TAXI_SOURCE_{service.name.upper()}")

    def check_version(
        self,
        label: str,
        sources: Sequence[SourceUrl],
        *,
        known: FileVersion | None,
        seconds: float = version_check.VERSION_CHECK_SECONDS,
    ) -> FileVersion | None:
        """Return the version that is published now; see `tlc.sources.version_check.check_version`."""
        return version_check.check_version(label, sources, known=known, seconds=seconds, google_key=self.google_key)

    def download(
        self, label: str, sources: Sequence[SourceUrl], *, known: SourceRecord | None, output_dir: Path
    ) -> DownloadedFile | UnchangedFile:
        """Download a file unless it is unchanged; see `tlc.sources.download.download`."""
        return download.download(
            label,
            sources,
            known=known,
            output_dir=output_dir,
            limits=FileLimits.from_settings(self.max_file_bytes, self.max_expansion_ratio),
            log=dg.get_dagster_logger(),
            google_key=self.google_key,
        )


def _resolve(source: str, variable: str) -> Publisher:
    try:
        return resolve_publisher(source)
    except ValueError as error:
        raise PublisherUnreachableError(
            f"The publisher is not available: {error}", remedy=f"Restore its folder, or change {variable}."
        ) from None
