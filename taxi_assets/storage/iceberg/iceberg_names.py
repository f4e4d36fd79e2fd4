"""Names of Iceberg tables and of their files. These do not need pyiceberg."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from taxi_assets.storage.lake.base_lake import Lake
    from taxi_assets.storage.lake_tables import LakeTable

CATALOG = "taxi"
"""The catalog's name in pyiceberg's configuration, such as PYICEBERG_CATALOG__TAXI__WAREHOUSE."""

NAMESPACE = "taxi"
"""The namespace of all tables. It has the name of the schema in the warehouse."""

FOLDER = "iceberg"
"""The folder of all tables in the lake."""


def table_name(source: LakeTable) -> str:
    """Return the name of an Iceberg table in its catalog, such as taxi.green_trips."""
    return f"{NAMESPACE}.{source.name}"


def lake_root(lake: Lake) -> str:
    """Return the URI of the lake, without a slash at the end."""
    root = lake.uri("x").removesuffix("/x")
    return root if "://" in root else f"file://{root}"
