"""The asset catalogue: every asset and every check of the definitions, as Markdown."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from taxi_assets.cli.docgen import table

if TYPE_CHECKING:
    import dagster as dg

    from taxi_assets.dagster_compat import AssetGraph, AssetNode

_HEAD = """# Asset catalogue

Written by `make docs` from the definitions; do not edit. Dagster's UI has the same with columns, previews and figures
for each month; the columns are in the [data dictionary](data-dictionary.md).

![The assets, and what is made of what](images/graph.svg)
"""


def catalogue(definitions: dg.Definitions) -> str:
    """The whole document."""
    graph = definitions.resolve_asset_graph()
    order = {key: place for place, key in enumerate(graph.toposorted_asset_keys)}
    nodes = sorted(graph.asset_nodes, key=lambda node: (node.group_name, order[node.key]))
    parts = [_HEAD]
    for group, members in groupby(nodes, key=lambda node: node.group_name):
        rows = [_asset(graph, node) for node in members]
        parts += [f"## {group}\n", table(["asset", "what it is", "made of", "months", "checks"], rows), ""]
    return "\n".join([*parts, _checks(graph)])


def _asset(graph: AssetGraph, node: AssetNode) -> tuple[str, ...]:
    checks = sorted(key.name for key in graph.asset_check_keys if key.asset_key == node.key)
    return (
        _code(node.key),
        (node.description or "").split("\n\n")[0].replace("\n", " "),
        ", ".join(_code(key) for key in sorted(node.parent_keys)),
        f"from {node.partitions_def.get_first_partition_key()}" if node.partitions_def else "",
        ", ".join(f"`{name}`" for name in checks),
    )


def _checks(graph: AssetGraph) -> str:
    nodes = {key.name: graph.get(key) for key in sorted(graph.asset_check_keys)}
    on = {name: sorted({k.asset_key.path[0] for k in graph.asset_check_keys if k.name == name}) for name in nodes}
    rows = [
        (f"`{name}`", ", ".join(on[name]), node.description or "", "yes" if node.blocking else "")
        for name, node in sorted(nodes.items())
    ]
    head = "## Checks\n\nOne that blocks keeps what is downstream from being made of a month that has failed it.\n"
    return "\n".join([head, table(["check", "on", "what holds", "blocks"], rows), ""])


def _code(key: dg.AssetKey) -> str:
    return f"`{key.to_user_string()}`"
