"""published/…_trips: the months at their publisher. Nothing of ours; the chain begins here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg

from taxi_assets import metadata

if TYPE_CHECKING:
    from taxi_assets.tlc.schema import Service

_DESCRIPTION = """The months of {title} as their publisher has them ({description}).

Nobody here makes them: the sensor {name}_publication notices what is new or revised, and the check says which months
are published but not loaded, or loaded but not in the warehouse."""


def published_asset(service: Service) -> dg.AssetSpec:
    """What a service's raw files are copies of."""
    return dg.AssetSpec(
        key=["published", service.table],
        description=_DESCRIPTION.format(title=service.title, description=service.description, name=service.name),
        group_name=service.name,
        owners=metadata.OWNERS,
        kinds={"published", "file"},
        tags=metadata.asset_tags(service),
    )
