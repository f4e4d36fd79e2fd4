"""Check the publisher, the lake, and the Google account that both may need.

Does not belong here: the warehouse (`warehouses.py`).
"""

from __future__ import annotations

import hashlib
import uuid
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import dagster as dg

from taxi_assets.addresses import BigQueryAddress, BucketAddress
from taxi_assets.build import build_lake
from taxi_assets.errors import (
    LakeConfigurationError,
    PermanentError,
    PublisherRequestError,
    TaxiAssetsError,
    TransientError,
)
from taxi_assets.partitions import monthly_partitions
from taxi_assets.resources.publisher import PublisherResource
from taxi_assets.storage.lake.revisions import pinned_months
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.services.registry import SERVICES
from taxi_assets.tlc.services.yellow import YELLOW
from taxi_assets.tlc.sources.publishers import BaseUrlPublisher, source_of
from taxi_assets.tlc.sources.version_check import check_version

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from taxi_assets.cli.doctor.check_runner import CheckRunner
    from taxi_assets.settings import Settings
    from taxi_assets.storage.lake.base_lake import Lake
    from taxi_assets.tlc.schema import Service

_PROBE = b"A test object of `make doctor`, which deletes it.\n"
_KNOWN_MONTHS = (YELLOW, [Month(2021, 1), Month(2023, 1)])
"""A service, with months that TLC published years ago; the mirror has only the first of them."""


def google_account(checks: CheckRunner) -> str:
    """Check that Google issues a token for the account; return the account."""
    settings = checks.settings()
    if not _is_on_google(settings):
        return "not needed: no store is on Google Cloud"
    import google.auth  # noqa: PLC0415  (Google's clients take a while to load)
    from google.auth.transport.requests import Request  # noqa: PLC0415

    from taxi_assets.google_auth import SCOPES, load_credentials, translate_google_errors  # noqa: PLC0415

    with translate_google_errors(
        "Google issues no token", permanent=PermanentError, transient=TransientError, remedy=lambda _: ""
    ):
        key = _google_key(settings)
        account = load_credentials(key) if key else google.auth.default(SCOPES)[0]
        account.refresh(Request())
    by = "TAXI_GOOGLE_CREDENTIALS" if key else "application default credentials"
    return f"{getattr(account, 'service_account_email', 'a person')}, by {by}"


def _is_on_google(settings: Settings) -> bool:
    stores = isinstance(settings.lake, BucketAddress) or isinstance(settings.warehouse, BigQueryAddress)
    return stores or any(source.lower().startswith("gs://") for source in _services_by_source(settings))


def _google_key(settings: Settings) -> str | None:
    return None if settings.google_credentials is None else settings.google_credentials.get_secret_value()


# --- lake ------------------------------------------------------------------------------------------------------------


def lake(checks: CheckRunner) -> str:
    """Check that an object can be written, read and deleted."""
    settings = checks.settings()
    address = settings.lake
    if isinstance(address, BucketAddress):
        checks.require("Google account")
        where = "/".join(filter(None, [f"gs://{address.bucket}", address.prefix]))
        with dg.build_resources({"lake": build_lake(settings)}) as resources:  # resolves the variable of the key
            _probe(resources.lake.model_copy(update={"timeout_seconds": checks.timeout_seconds / 2}))
    else:
        where = str(address.folder)
        _probe(build_lake(settings))
    return f"{where}: an object was written, read and deleted"


def pinned(checks: CheckRunner) -> str:
    """Return the months that are pinned to a revision of their file, as the lake says."""
    settings = checks.settings()
    checks.require("lake")
    with dg.build_resources({"lake": build_lake(settings)}) as resources:
        found = [
            f"{service.name} {month} ({sha256[:12]})"
            for service in SERVICES.values()
            for month, sha256 in pinned_months(resources.lake, service).items()
        ]
    return f"{', '.join(found)}; automation leaves them alone" if found else "none"


def _probe(lake: Lake) -> None:
    with probe_object(lake, _PROBE) as key:
        arrived = lake.has_digest(key, sha256=hashlib.sha256(_PROBE).hexdigest())
    if not arrived:
        raise LakeConfigurationError(
            f"{lake.uri(key)} did not contain the bytes that were written.", remedy="Check the disk."
        )


@contextmanager
def probe_object(lake: Lake, content: bytes) -> Iterator[str]:
    """Store an object under a new key, yield the key, and delete the object at the end."""
    key = f"doctor-{uuid.uuid4().hex}"
    with lake.staging() as folder:
        file = folder / "probe"
        file.write_bytes(content)
        try:
            lake.publish(file, key, replaces=None, run_id="doctor")
            yield key
        except BaseException:
            with suppress(TaxiAssetsError, OSError):
                lake.delete(key)
            raise
    lake.delete(key)


# --- publisher -------------------------------------------------------------------------------------------------------


def publisher(checks: CheckRunner) -> str:
    """Check that every publisher answers; a custom folder may lack the months that are asked for."""
    settings = checks.settings()
    by_source = _services_by_source(settings)
    if any(source.lower().startswith("gs://") for source in by_source):
        checks.require("Google account")
    return "; ".join(_check_publisher(settings, source, services) for source, services in by_source.items())


def _services_by_source(settings: Settings) -> dict[str, list[Service]]:
    """Return the services by the source of their files; that of TAXI_SOURCE first, which also has the taxi zones."""
    by_source: dict[str, list[Service]] = {settings.source: []}
    for service in SERVICES.values():
        by_source.setdefault(source_of(service, settings.source, settings.service_sources), []).append(service)
    return by_source


def _check_publisher(settings: Settings, source: str, services: Sequence[Service]) -> str:
    """Check that a publisher answers for months that it published years ago, and that a folder has a month."""
    found = PublisherResource(source=source).publisher
    if isinstance(found, BaseUrlPublisher) and found.url.startswith("file:"):
        return f"{found.name}: has {_months_in_folder(found, services or [*SERVICES.values()])}"
    service, months = _KNOWN_MONTHS
    if services and service not in services:
        service, months = services[0], [services[0].first_month]
    versions = {
        month: check_version(
            f"{service.name} {month}", found.source_urls(service, month), google_key=_google_key(settings)
        )
        for month in months
    }
    published = [f"{service.name} {month}" for month, version in versions.items() if version is not None]
    if published:
        return f"{found.name}: has {' and '.join(published)}"
    if not isinstance(found, BaseUrlPublisher):
        raise PublisherRequestError(
            f"{found.name} answers that {service.name} {months[0]} is not published, but it was published years ago.",
            remedy="Check for a proxy, or another server under its name.",
        )
    missing = f"neither {service.name} {months[0]} nor {months[1]}" if months[1:] else f"no {service.name} {months[0]}"
    return f"{found.name}: answers, but has {missing}; it may have other months"


def _months_in_folder(folder: BaseUrlPublisher, services: Sequence[Service]) -> str:
    """Return how many months of each service a folder has.

    Raises:
        PublisherRequestError: It has none.
    """
    counts = {
        service.name: sum(
            check_version(f"{service.name} {month}", folder.source_urls(service, Month.parse(month))) is not None
            for month in monthly_partitions(service).get_partition_keys()
        )
        for service in services
    }
    if not any(counts.values()):
        raise PublisherRequestError(
            f"{folder.name} has no month of {' or '.join(counts)}.",
            remedy=f"Check the path. Files have TLC's names, such as {services[0].name}_tripdata_2021-01.parquet.",
        )
    return ", ".join(f"{count} month{'' if count == 1 else 's'} of {name}" for name, count in counts.items() if count)
