"""Ask the publisher which version of each month it has now.

Belongs here: one version check per month, and the errors of months whose check failed. Does not belong here: which
months are checked (`scan.py`), and the requests to the publisher (`tlc/sources/version_check.py`).
"""

from __future__ import annotations

import time
from functools import cached_property
from typing import TYPE_CHECKING

from taxi_assets.errors import PublisherRequestError, PublisherServerError

if TYPE_CHECKING:
    from taxi_assets.resources.publisher import PublisherResource
    from taxi_assets.tlc.month import Month
    from taxi_assets.tlc.schema import Service
    from taxi_assets.tlc.sources.publishers import Publisher
    from taxi_assets.tlc.sources.source_record import FileVersion


class PublishedVersions:
    """The versions that a publisher has now. It is asked at most once for each month."""

    def __init__(
        self, service: Service, publisher: PublisherResource, *, seconds_per_month: float, pause_seconds: float
    ) -> None:
        self.checked: dict[Month, FileVersion | None] = {}
        """The checked months; None for a month that is not published, or whose check failed."""
        self.errors: dict[Month, str] = {}
        """The months whose check failed, each with the error message."""
        self._service = service
        self._resource = publisher
        self._seconds_per_month = seconds_per_month
        self._pause_seconds = pause_seconds

    @cached_property
    def publisher(self) -> Publisher:
        """The publisher of the service; raises `PublisherUnreachableError` if its folder is gone."""
        return self._resource.publisher_of(self._service)

    def check(self, month: Month, *, known: FileVersion | None) -> FileVersion | None:
        """Return the version of a month that is published now.

        Args:
            month: The month to check. A second call for it returns the first result, without asking again.
            known: The version that is loaded, if any.

        Returns:
            The published version. None if the month is not published, or if the publisher answered with an error,
            which is then in `errors`.

        Raises:
            PublisherUnreachableError: No connection to the publisher is possible.
        """
        if month not in self.checked:
            if self.checked:
                time.sleep(self._pause_seconds)
            self.checked[month] = self._check(month, known)
        return self.checked[month]

    def _check(self, month: Month, known: FileVersion | None) -> FileVersion | None:
        sources = self.publisher.source_urls(self._service, month)
        label = f"{self._service.name} {month}"
        try:
            return self._resource.check_version(label, sources, known=known, seconds=self._seconds_per_month)
        except (PublisherRequestError, PublisherServerError) as error:
            self.errors[month] = str(error)
            return None
