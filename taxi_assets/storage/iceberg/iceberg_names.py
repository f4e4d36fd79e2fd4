"""Names of Iceberg tables and of their files. These do not need pyiceberg."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from taxi_assets.errors import CatalogConfigurationError

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


def new_folder(source: LakeTable) -> str:
    """Return a folder in the lake for the files of a new table, such as iceberg/green_trips-3f1c9a0b7d52.

    No other table has it, in this catalog or another one: a cleanup deletes all files of the folder that its own table
    does not need.
    """
    return f"{FOLDER}/{source.name}-{uuid.uuid4().hex[:12]}"


def key_in_lake(root: str, uri: str) -> str:
    """Return the key of a file or folder of an Iceberg table.

    Args:
        root: The URI of the lake, from `lake_root`.
        uri: The URI of the file or folder.

    Raises:
        CatalogConfigurationError: It is not in the lake.
    """
    if not uri.startswith(f"{root}/"):
        raise CatalogConfigurationError(
            f"The file {uri} of an Iceberg table is outside the lake {root}.",
            remedy="Set TAXI_LAKE to the lake in which the table was created, or drop the table from the catalog.",
        )
    return uri.removeprefix(f"{root}/").rstrip("/")


def lake_root(lake: Lake) -> str:
    """Return the URI of the lake, without a slash at the end."""
    root = lake.uri("x").removesuffix("/x")
    return root if "://" in root else f"file://{root}"
