"""The services that this platform knows. A new one is a file in `schemas/` and a line here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taxi_assets.tlc.schemas.fhv import FHV
from taxi_assets.tlc.schemas.fhvhv import FHVHV
from taxi_assets.tlc.schemas.green import GREEN
from taxi_assets.tlc.schemas.yellow import YELLOW

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taxi_assets.tlc.schema import Service

SERVICES: Mapping[str, Service] = {service.name: service for service in (YELLOW, GREEN, FHV, FHVHV)}
