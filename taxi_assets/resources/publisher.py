"""The publisher as a Dagster resource: where raw files come from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from taxi_assets.errors import PublisherUnreachableError
from taxi_assets.tlc.sources import download
from taxi_assets.tlc.sources.publishers import BY_NAME, publisher_from
from taxi_assets.tlc.sources.validate_file import DEFAULT_LIMITS, Limits
from taxi_assets.tlc.sources.version_check import QUESTION_SECONDS, ask

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from taxi_assets.tlc.sources.download import Fetched, Unchanged
    from taxi_assets.tlc.sources.publishers import Publisher
    from taxi_assets.tlc.sources.source_record import Candidate, FileVersion, SourceRecord


class PublisherResource(dg.ConfigurableResource):  # type: ignore[type-arg]  # Dagster's own pattern
    """Who publishes the files."""

    source: str = Field(
        default="auto",
        description=f"{', '.join(BY_NAME)}, or a base that holds the files: a folder, file://, http(s):// or gs://.",
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
            return publisher_from(self.source)
        except ValueError as error:
            raise PublisherUnreachableError(
                f"The publisher cannot be asked: {error}", remedy="Bring its folder back, or change TAXI_SOURCE."
            ) from None

    def ask(
        self,
        what: str,
        candidates: Sequence[Candidate],
        *,
        known: FileVersion | None,
        seconds: float = QUESTION_SECONDS,
    ) -> FileVersion | None:
        """The version that is published now; see `tlc.ask.ask`."""
        return ask(what, candidates, known=known, seconds=seconds, google_key=self.google_key)

    def fetch(
        self, what: str, candidates: Sequence[Candidate], *, known: SourceRecord | None, into: Path
    ) -> Fetched | Unchanged:
        """Fetch what is not known already; see `tlc.download.fetch`."""
        return download.fetch(
            what,
            candidates,
            known=known,
            into=into,
            limits=Limits.of(self.max_file_bytes, self.max_expansion_ratio),
            log=dg.get_dagster_logger(),
            google_key=self.google_key,
        )
