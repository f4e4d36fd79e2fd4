"""Find the Parquet files of an asset in the lake: one per partition, or one for the whole asset."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet

from taxi_assets.errors import LakeObjectDamagedError
from taxi_assets.storage.parquet_rows import read_owner, unify_schemas

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taxi_assets.storage.lake.base_lake import Lake

_SUFFIX = ".parquet"
# In a bucket, each footer takes a few requests, which spend most of their time waiting.
_READ_THREADS = 8


def partition_files(lake: Lake, asset: str) -> dict[str, str]:
    """Return the key of each Parquet object in the folder of an asset, by its partition key."""
    keys = [key for key in list(lake.sizes_in(asset)) if key.endswith(_SUFFIX)]
    return {unquote(key.removeprefix(f"{asset}/").removesuffix(_SUFFIX)): key for key in keys}


def whole_file(asset: str) -> str:
    """Return the key of the Parquet object of an asset without partitions."""
    return f"{asset}{_SUFFIX}"


def is_stored_by(lake: Lake, key: str, asset: str) -> bool:
    """Return whether an object exists that `lake_parquet` has stored for an asset."""
    if lake.version(key) is None:
        return False
    with lake.open(key) as file:
        return read_owner(file) == asset


def read_schema(lake: Lake, keys: Sequence[str]) -> pa.Schema:
    """Return the columns of all objects together, from their footers.

    Raises:
        LakeObjectDamagedError: An object is not a Parquet file.
        AssetDefinitionError: Objects have the same column with types that cannot be combined.
    """

    def read(key: str) -> Any:
        with lake.open(key) as file:
            try:
                return pyarrow.parquet.read_schema(file)
            except (pa.ArrowException, OSError, ValueError) as error:
                raise LakeObjectDamagedError(
                    f"{lake.uri(key)} is not a Parquet file.", remedy="Materialize the partition again."
                ) from error

    with ThreadPoolExecutor(_READ_THREADS) as pool:
        return unify_schemas(dict(zip(keys, pool.map(read, keys), strict=True)))
