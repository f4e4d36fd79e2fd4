"""Attributes of assets that depend on the deployment: owners, and where and in what the assets are stored.

The asset graph is the same in every deployment. These attributes are added to it once, when it is complete.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg

from taxi_assets import metadata
from taxi_assets.assets.views import VIEWS
from taxi_assets.storage.lake_tables import VIEWS_KEY

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from taxi_assets.storage.lake.base_lake import Lake
    from taxi_assets.storage.warehouse.base_warehouse import Warehouse

_PUBLISHED, _ICEBERG = "published", "iceberg"
_IN_LAKE = {"raw", "clean", "quarantine", "reports", "revisions"}
"""The first parts of the keys of assets in the lake. Their objects have the asset key as prefix."""


def with_deployment_attributes(
    assets: Iterable[dg.AssetsDefinition | dg.AssetSpec],
    *,
    lake: Lake,
    warehouse: Warehouse,
    owners: Sequence[str],
) -> Sequence[dg.AssetsDefinition | dg.AssetSpec]:
    """Return the assets with their owners, their address, the kind of their store, and their layer.

    An asset in the lake has the metadata `dagster/uri`; a table `dagster/table_name` and `dagster/storage_kind`. An
    asset of the publisher has no address, and that of an Iceberg table is known only after it has been created. The
    layer is a kind too, because boxes of the UI's graph show only kinds and the last part of the key, which all assets
    of a service share.

    Args:
        assets: The assets of the platform.
        lake: The lake of the deployment. Nothing in it is opened.
        warehouse: The warehouse of the deployment. Nothing in it is opened.
        owners: Email addresses, and teams such as "team:taxi-data".
    """

    def add(spec: dg.AssetSpec) -> dg.AssetSpec:
        location: dict[str, str]
        if spec.key.path[0] == _PUBLISHED:
            location, kinds = {}, frozenset[str]()
        elif spec.key.path[0] == _ICEBERG:
            location, kinds = {}, lake.kinds
        elif spec.key == VIEWS:
            location, kinds = metadata.lake_uri(lake.uri(VIEWS_KEY)), lake.kinds
        elif spec.key.path[0] in _IN_LAKE:
            location, kinds = metadata.lake_uri(lake.uri("/".join(spec.key.path))), lake.kinds
        else:
            location, kinds = metadata.table_location(warehouse, spec.key.path[-1]), frozenset({warehouse.kind})
        layer = {spec.tags["layer"]} if "service" in spec.tags else set()
        return spec.replace_attributes(
            owners=owners, metadata={**spec.metadata, **location}, kinds={*spec.kinds, *kinds, *layer}
        )

    return dg.map_asset_specs(add, assets)
