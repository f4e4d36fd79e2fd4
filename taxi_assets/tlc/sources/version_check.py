"""Check whether a file is published, and in which version, without downloading it.

Does not belong here: how each kind of URL is read (`transports/`), and what follows from the version
(`automation/publication/`).
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from taxi_assets.tlc.sources.transports.base_transport import MissingFileError, RetrySettings, VersionRequest
from taxi_assets.tlc.sources.transports.schemes import transport_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taxi_assets.tlc.sources.source_record import FileVersion, SourceUrl

NO_RETRY = RetrySettings(attempts=1, connect_timeout=3, read_timeout=5)
"""Short timeouts and no retry: the sensor checks again at its next tick."""
VERSION_CHECK_SECONDS = 15.0
"""Time limit for all source URLs of a file together."""


def check_version(
    label: str,
    sources: Sequence[SourceUrl],
    *,
    known: FileVersion | None = None,
    retry: RetrySettings = NO_RETRY,
    seconds: float = VERSION_CHECK_SECONDS,
    google_key: str | None = None,
) -> FileVersion | None:
    """Return the published version of a file, from the first source URL that has it.

    Only a missing file leads to the next URL; any other error is raised.

    Args:
        label: Names the file in errors, such as "yellow 2021-01".
        sources: The URLs to try, in order of preference.
        known: The version of the file in the lake. It is returned if the publisher confirms that it is current.
        retry: Timeouts of a request; only `connect_timeout` and `read_timeout` are used.
        seconds: Time limit for all source URLs together.
        google_key: For Cloud Storage: a service account's key file, or its content in base64. By default, the
            application default credentials.

    Returns:
        The version, or None if none of the source URLs has the file.

    Raises:
        PublisherRequestError: A publisher refused the request.
        PublisherServerError: A publisher answered with a server error, or not within the time limit.
        PublisherUnreachableError: A publisher could not be reached at all.
    """
    deadline = time.monotonic() + seconds
    for source in sources:
        request = VersionRequest(
            label=label, source=source, known=known, retry=retry, google_key=google_key, deadline=deadline
        )
        with suppress(MissingFileError):
            return transport_for(source.url).check_version(request)
    return None
