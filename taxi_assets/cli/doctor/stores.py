"""Where trips come from and where their files are: the publisher, the lake, and the Google account for both.

Does not belong here: the warehouse (`warehouses.py`).
"""

from __future__ import annotations

import hashlib
import uuid
from contextlib import suppress
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
from taxi_assets.resources.publisher import PublisherResource
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.services.yellow import YELLOW
from taxi_assets.tlc.sources.publishers import BaseUrlPublisher
from taxi_assets.tlc.sources.version_check import check_version

if TYPE_CHECKING:
    from taxi_assets.cli.doctor.check_runner import CheckRunner
    from taxi_assets.settings import Settings
    from taxi_assets.storage.lake.base_lake import Lake

_PROBE = b"The doctor of taxi_assets was here, and removes this.\n"
_KNOWN = (YELLOW, (Month(2021, 1), Month(2023, 1)))
"""A service with months that TLC has long published; its mirror has the first of them only."""


def google_account(visit: CheckRunner) -> str:
    """Google gives it a token."""
    settings = visit.settings()
    if not _is_on_google(settings):
        return "none is needed: nothing is on Google Cloud"
    import google.auth  # noqa: PLC0415  (Google's clients take a while to load)
    from google.auth.transport.requests import Request  # noqa: PLC0415

    from taxi_assets.google_auth import SCOPES, load_credentials, translate_google_errors  # noqa: PLC0415

    with translate_google_errors(
        "Google gives no token", permanent=PermanentError, transient=TransientError, remedy=lambda _: ""
    ):
        key = _google_key(settings)
        account = load_credentials(key) if key else google.auth.default(SCOPES)[0]
        account.refresh(Request())
    by = "TAXI_GOOGLE_CREDENTIALS" if key else "application default credentials"
    return f"{getattr(account, 'service_account_email', 'a person')}, by {by}"


def _is_on_google(settings: Settings) -> bool:
    stores = isinstance(settings.lake, BucketAddress) or isinstance(settings.warehouse, BigQueryAddress)
    return stores or settings.source.lower().startswith("gs://")


def _google_key(settings: Settings) -> str | None:
    return None if settings.google_credentials is None else settings.google_credentials.get_secret_value()


# --- lake ------------------------------------------------------------------------------------------------------------


def lake(visit: CheckRunner) -> str:
    """An object can be written and removed."""
    settings = visit.settings()
    address = settings.lake
    if isinstance(address, BucketAddress):
        visit.require("Google account")
        where = "/".join(filter(None, [f"gs://{address.bucket}", address.prefix]))
        with dg.build_resources({"lake": build_lake(settings)}) as resources:  # the key is looked up
            _probe(resources.lake.model_copy(update={"patience_seconds": visit.seconds / 2}))
    else:
        where = str(address.folder)
        _probe(build_lake(settings))
    return f"{where}: an object was written, read and removed"


def _probe(lake: Lake) -> None:
    key = f"doctor-{uuid.uuid4().hex}"
    with lake.staging() as folder:
        file = folder / "probe"
        file.write_bytes(_PROBE)
        try:
            lake.publish(file, key, replaces=None, run_id="doctor")
            arrived = lake.has_digest(key, sha256=hashlib.sha256(_PROBE).hexdigest())
        except BaseException:
            with suppress(TaxiAssetsError, OSError):
                lake.delete(key)
            raise
    lake.delete(key)
    if not arrived:
        raise LakeConfigurationError(
            f"{lake.uri(key)} did not hold what was written to it.", remedy="Is its disk well?"
        )


# --- publisher -------------------------------------------------------------------------------------------------------


def publisher(visit: CheckRunner) -> str:
    """It can be asked for months that have long been published; a folder or server of one's own may have others."""
    settings = visit.settings()
    if settings.source.lower().startswith("gs://"):
        visit.require("Google account")
    by = PublisherResource(source=settings.source).publisher
    service, months = _KNOWN
    found = {
        month: check_version(
            f"{service.name} {month}", by.source_urls(service, month), google_key=_google_key(settings)
        )
        for month in months
    }
    there = [f"{service.name} {month}" for month, version in found.items() if version is not None]
    if there:
        return f"{by.name}: has {' and '.join(there)}"
    if not isinstance(by, BaseUrlPublisher):
        raise PublisherRequestError(
            f"{by.name} says that {service.name} {months[0]} is not published, which it has been for years.",
            remedy="Is there a proxy in between, or another server under its name?",
        )
    return f"{by.name}: answers, but has neither {service.name} {months[0]} nor {months[1]}; is it the right place?"
