"""The assets published/…_trips: the months as the publisher has them. They are external, and no run writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg

from taxi_assets import metadata

if TYPE_CHECKING:
    from taxi_assets.tlc.schema import Service

_DESCRIPTION = """The months of {title} at the publisher ({description}).

This asset is external: no run writes it. The sensor {name}_publication finds new and revised months. The check lists
months that are published but not loaded, revised but not reloaded, or loaded but not in the warehouse."""


def published_asset(service: Service) -> dg.AssetSpec:
    """Return the external asset of a service: the published months, which its raw files copy."""
    return dg.AssetSpec(
        key=["published", service.table],
        description=_DESCRIPTION.format(title=service.title, description=service.description, name=service.name),
        group_name=service.name,
        kinds={"csv", "parquet"},
        tags=metadata.asset_tags("published", service),
    )
