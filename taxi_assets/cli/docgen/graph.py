"""Describe the asset graph in Mermaid, which GitHub and the website draw."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    import dagster as dg

    from taxi_assets.dagster_compat import AssetGraph


def graph(definitions: dg.Definitions) -> str:
    """Return the graph with one box per asset. Indirect edges are left out, such as from clean trips to a report."""
    assets = definitions.resolve_asset_graph()
    nodes = sorted(assets.asset_nodes, key=lambda node: (node.group_name, node.key))
    lines = ["flowchart LR"]
    for group, members in groupby(nodes, key=lambda node: node.group_name):
        boxes = [f'    {_id(node.key)}["{node.key.to_user_string()}"]' for node in members]
        lines += [f"  subgraph {group}", *boxes, "  end"]
    for node in nodes:
        if node.parent_keys:
            lines.append(f"  {' & '.join(map(_id, sorted(_direct_parents(assets, node.key))))} --> {_id(node.key)}")
    return "\n".join([*lines, ""])


def _direct_parents(assets: AssetGraph, key: dg.AssetKey) -> AbstractSet[dg.AssetKey]:
    """Return the parents of an asset that are not ancestors of its other parents."""
    parents = assets.get(key).parent_keys
    return parents - {above for parent in parents for above in assets.get_ancestor_asset_keys(parent)}


def _id(key: dg.AssetKey) -> str:
    return "_".join(key.path)
