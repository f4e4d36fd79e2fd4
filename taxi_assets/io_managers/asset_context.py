"""Read the asset, its partitions and the attempt from the Dagster context of an IO manager.

An input's partitions are those that the partition mapping selects, never the partition of the run.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, get_args, get_origin
from urllib.parse import quote

import dagster as dg

from taxi_assets.automation.step_failures import CONCURRENT_UPDATE_RETRIES, as_failures
from taxi_assets.errors import AssetDefinitionError, AssetValueError
from taxi_assets.storage.partition_rows import Dimension, TablePartition
from taxi_assets.storage.table_values import INPUT_TYPES, is_input_type, type_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Context = dg.OutputContext | dg.InputContext

_LISTED_KEYS = 6


def asset_label(context: Context) -> str:
    """Return the asset, and the partition if there is exactly one, for messages: "mine/zones 2021-01"."""
    keys = partition_keys(context) or []
    return " ".join([context.asset_key.to_user_string(), *(keys if len(keys) == 1 else [])])


def partition_keys(context: Context) -> list[str] | None:
    """Return the asset's partitions that are written or read, in partition order; None if it is not partitioned."""
    if not context.has_asset_partitions:
        _require_no_partitions(context)
        return None
    keys = list(context.asset_partition_keys)
    if len(keys) < 2:
        return keys
    definition = context.asset_partitions_def
    if isinstance(definition, dg.TimeWindowPartitionsDefinition):
        return keys
    instance = None
    with suppress(dg.DagsterInvariantViolationError):  # a script without an instance: only dynamic partitions need one
        instance = context.instance if isinstance(context, dg.InputContext) else context.step_context.instance
    order = {key: place for place, key in enumerate(definition.get_partition_keys(dynamic_partitions_store=instance))}
    return sorted(keys, key=lambda key: order.get(key, len(order)))


def _require_no_partitions(context: Context) -> None:
    """Raise an error if a script loads an asset that is partitioned without the key of a partition."""
    if isinstance(context, dg.InputContext):
        try:
            context.asset_partitions_def  # noqa: B018  (raises an error if there is none)
        except dg.DagsterInvariantViolationError:
            return
        raise AssetDefinitionError(
            f"{context.asset_key.to_user_string()} is partitioned, but no partition is given.",
            remedy="Name one with the argument partition_key.",
        )


def list_keys(keys: Sequence[str]) -> str:
    """Return partition keys for a message: "2021-01, 2021-02 and 3 others"."""
    others = len(keys) - _LISTED_KEYS
    return ", ".join(keys[:_LISTED_KEYS]) + (f" and {others} others" if others > 0 else "")


def object_prefix_of(context: Context, partition_key: str | None = None) -> str:
    """Return the key of the asset's objects in the lake without the extension, such as "clean/green_trips/2021-01".

    Args:
        context: The context of the asset.
        partition_key: The partition; None if the asset is not partitioned.
    """
    if partition_key is None:
        return "/".join(context.asset_key.path)
    # A partition key may contain characters that have a meaning in paths. A name that begins with a dot is hidden.
    name = quote(partition_key, safe=" |:=,+@").replace("..", "%2E%2E")
    return "/".join([*context.asset_key.path, name[:1].replace(".", "%2E") + name[1:]])


def single_prefix_of(context: Context) -> str:
    """Return the prefix of an asset that is stored one partition at a time.

    Raises:
        AssetDefinitionError: The run or the input has several partitions.
    """
    keys = partition_keys(context)
    if keys is not None and len(keys) != 1:
        raise AssetDefinitionError(
            f"{context.asset_key.to_user_string()}: one partition is needed, but there are {len(keys)} "
            f"({list_keys(keys)}).",
            remedy="Annotate the input as dict[str, …]."
            if isinstance(context, dg.InputContext)
            else "Run one partition at a time: remove the asset's backfill_policy.",
        )
    return object_prefix_of(context, None if keys is None else keys[0])


def table_partitions(context: Context, metadata: Mapping[str, Any]) -> list[TablePartition] | None:
    """Return the partitions that are written or read, with the columns that tell them apart.

    Args:
        context: The context of the asset.
        metadata: The asset's definition metadata; `partition_expr` names the column, or one per dimension.

    Returns:
        The partitions in order; None if the asset is not partitioned.

    Raises:
        AssetDefinitionError: The metadata does not name a column for each dimension.
    """
    keys = partition_keys(context)
    if keys is None:
        return None
    return build_table_partitions(context.asset_key, metadata, context.asset_partitions_def, keys)


def build_table_partitions(
    asset: dg.AssetKey, metadata: Mapping[str, Any], definition: dg.PartitionsDefinition[Any], keys: Sequence[str]
) -> list[TablePartition]:
    """Return partitions of an asset with the columns that tell them apart, in the order of their keys.

    Args:
        asset: The asset.
        metadata: The asset's definition metadata; see `table_partitions`.
        definition: The asset's partitions definition.
        keys: The keys of the partitions.

    Raises:
        AssetDefinitionError: The metadata does not name a column for each dimension.
    """
    columns = partition_columns(asset, metadata, definition)
    return [_table_partition(key, columns, definition) for key in keys]


def partition_columns(
    asset: dg.AssetKey, metadata: Mapping[str, Any], definition: dg.PartitionsDefinition[Any]
) -> dict[str, str]:
    """Return the column of each dimension of a partitioned asset, by the name of the dimension.

    The only dimension of an asset that is not multi-partitioned has the name "".

    Raises:
        AssetDefinitionError: The metadata `partition_expr` does not name a column for each dimension.
    """
    given = metadata.get("partition_expr")
    given = getattr(given, "value", given)
    if isinstance(given, str) and not given.isidentifier():
        raise AssetDefinitionError(
            f"{asset.to_user_string()}: its metadata partition_expr is {given!r}, which is not the name of a column.",
            remedy="Name a column of the rows. If it needs an expression, compute the column in the asset.",
        )
    names = [""]
    columns: Any = {"": given}
    example = '"partition_expr": "pickup_date"'
    if isinstance(definition, dg.MultiPartitionsDefinition):
        names = [dimension.name for dimension in definition.partitions_defs]
        columns = given if isinstance(given, dict) else {}
        example = '"partition_expr": {' + ", ".join(f'"{name}": "…"' for name in names) + "}"
    if any(not isinstance(columns.get(name), str) or not columns[name].isidentifier() for name in names):
        raise AssetDefinitionError(
            f"{asset.to_user_string()} is partitioned, but its metadata does not name "
            f"{'a column for each dimension' if len(names) > 1 else 'the column'} that assigns rows to partitions.",
            remedy=f"Add it to the asset: metadata={{{example}}}.",
        )
    return {name: columns[name] for name in names}


def _table_partition(key: str, columns: Mapping[str, str], definition: Any) -> TablePartition:
    if not isinstance(definition, dg.MultiPartitionsDefinition):
        return TablePartition(key, [_dimension(columns[""], key, definition)])
    by_dimension = (
        getattr(key, "keys_by_dimension", None) or definition.get_partition_key_from_str(key).keys_by_dimension
    )
    return TablePartition(
        str(key),
        [
            _dimension(columns[dimension.name], by_dimension[dimension.name], dimension.partitions_def)
            for dimension in definition.partitions_defs
        ],
    )


def _dimension(column: str, key: str, definition: Any) -> Dimension:
    if not isinstance(definition, dg.TimeWindowPartitionsDefinition):
        return Dimension(column, key)
    return Dimension(column, key, definition.time_window_for_partition_key(key))


# --- inputs -----------------------------------------------------------------------------------------------------------


def requested_type(context: dg.InputContext) -> tuple[Any, bool]:
    """Return the type in which an input asks for rows, and whether it wants them by partition (`dict[str, T]`).

    Without an annotation, the type is `pandas.DataFrame`.

    Raises:
        AssetDefinitionError: The input wants partitions of an asset that has none.
    """
    type_ = context.dagster_type.typing_type
    by_partition = get_origin(type_) is dict
    if by_partition and not context.has_asset_partitions:
        raise AssetDefinitionError(
            f"{context.asset_key.to_user_string()} is not partitioned, so it cannot be loaded as {type_name(type_)}.",
            remedy="Annotate the input with the type of its rows.",
        )
    if by_partition:
        type_ = get_args(type_)[1]
    if type_ is Any:
        import pandas as pd  # noqa: PLC0415  (0.3 s)

        type_ = pd.DataFrame
    return type_, by_partition


def require_input_type(context: dg.InputContext, type_: Any) -> None:
    """Raise an error if an input asks for a type that cannot be loaded.

    Args:
        context: The context of the input.
        type_: The type.

    Raises:
        AssetDefinitionError: The type cannot be loaded.
    """
    if not is_input_type(type_):
        raise AssetDefinitionError(
            f"{context.asset_key.to_user_string()} cannot be loaded as {type_name(type_)}.",
            remedy=f"Annotate the input with one of: {', '.join(INPUT_TYPES)}; or with dict[str, …] of "
            "one of them, to get each partition.",
        )


def allows_missing_partitions(context: dg.InputContext) -> bool:
    """Return whether the input's metadata has `allow_missing_partitions: true`."""
    value = (context.definition_metadata or {}).get("allow_missing_partitions", False)
    return bool(getattr(value, "value", value))


def retry_number_of(context: Context) -> int:
    """Return how many attempts of the step have failed.

    Without a step, as when a script loads an asset, return the maximum, so that no retry is requested.
    """
    try:
        return context.step_context.previous_attempt_count
    except dg.DagsterInvariantViolationError:
        return CONCURRENT_UPDATE_RETRIES


@contextmanager
def asset_failures(context: Context) -> Iterator[None]:
    """Convert errors of this package to failures of the step, as `as_failures` does; name the asset in them."""
    with as_failures(retry_number=retry_number_of(context)):
        if not context.has_asset_key:
            raise AssetDefinitionError(
                "The IO managers of this platform store and load assets only, not values of ops.",
                remedy="Give the op another IO manager, such as dagster.FilesystemIOManager.",
            )
        label = asset_label(context)
        try:
            yield
        except (AssetDefinitionError, AssetValueError) as error:
            if error.problem.startswith(context.asset_key.to_user_string()):
                raise
            raise type(error)(f"{label}: {error.problem}", remedy=error.remedy) from error


def add_new_metadata(context: dg.OutputContext, metadata: Mapping[str, Any]) -> None:
    """Add metadata to the materialization, except keys that the asset itself has given."""
    context.add_output_metadata({key: value for key, value in metadata.items() if key not in context.output_metadata})
