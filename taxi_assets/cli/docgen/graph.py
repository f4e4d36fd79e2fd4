"""Draw the asset graph as SVG: one band per service, one column per step.

It does not use Graphviz, which must be installed separately, and whose output differs between versions.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import dagster as dg

    Places = dict[dg.AssetKey, tuple[int, int]]

_COLORS = {
    "published": "#eceff1",
    "raw": "#d7ccc8",
    "clean": "#c8e6c9",
    "quarantine": "#ffcdd2",
    "warehouse": "#bbdefb",
    "reports": "#e1bee7",
    "marts": "#ffe0b2",
    "quality": "#e1bee7",
    "reference": "#eceff1",
    "views": "#c8e6c9",
}
_WIDTH, _HEIGHT, _ACROSS, _DOWN, _MARGIN, _BETWEEN = 152, 28, 190, 38, 14, 14


def graph(definitions: dg.Definitions) -> str:
    """Return the SVG. Indirect edges are left out, such as the edge from clean trips to a report."""
    nodes = definitions.resolve_asset_graph().asset_nodes
    parents = {node.key: set(node.parent_keys) for node in nodes}
    groups = {node.key: node.group_name for node in nodes}
    places = _positions(parents, groups)
    edges = [(a, b) for b in sorted(parents) for a in sorted(_direct_parents(b, parents))]
    right, bottom = (max(place[i] for place in places.values()) for i in (0, 1))
    width, height = right + _WIDTH + _MARGIN, bottom + _HEIGHT + _MARGIN
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif"'
    return "\n".join(
        [
            f'{head} width="{width}" height="{height}" font-size="13">',
            "<title>The assets of taxi_assets and their dependencies</title>",
            f'<rect width="{width}" height="{height}" rx="8" fill="#ffffff"/>',
            '<g fill="none" stroke="#90a4ae">',
            *(_line(places[a], places[b], places.values()) for a, b in edges),
            '</g><g stroke="#607d8b" text-anchor="middle">',
            *(_box(key, places[key]) for key in sorted(places)),
            "</g></svg>",
            "",
        ]
    )


def _direct_parents(key: dg.AssetKey, parents: Mapping[dg.AssetKey, set[dg.AssetKey]]) -> set[dg.AssetKey]:
    """Return the parents of an asset that are not ancestors of its other parents."""
    indirect = {above for parent in parents[key] for above in _all_ancestors(parent, parents)}
    return parents[key] - indirect


def _all_ancestors(key: dg.AssetKey, parents: Mapping[dg.AssetKey, set[dg.AssetKey]]) -> set[dg.AssetKey]:
    return parents[key] | {above for parent in parents[key] for above in _all_ancestors(parent, parents)}


def _positions(parents: Mapping[dg.AssetKey, set[dg.AssetKey]], groups: Mapping[dg.AssetKey, str]) -> Places:
    """Return the upper left corner of each asset: services below each other, shared assets to the right or below."""

    def depth(key: dg.AssetKey) -> int:
        return 1 + max(map(depth, parents[key]), default=-1)

    def across(key: dg.AssetKey) -> int:
        return _MARGIN + _ACROSS * depth(key)

    places: Places = {}
    top = _MARGIN
    services = sorted({group for key, group in groups.items() if key.path[0] == "raw"})
    for service in services:
        for _, column in _by_depth((k for k, group in groups.items() if group == service), depth):
            main = [key for key in column if key.path[0] not in {"quarantine", "reports"}]
            for row, keys in enumerate([main, [key for key in column if key not in main]]):
                places.update({key: (across(key), top + row * _DOWN) for key in keys})
        top += 2 * _DOWN + _BETWEEN
    rest = sorted(key for key in groups if key not in places)
    aside = [key for key in rest if groups[key] == "marts"]
    last = max(depth(key) for key in groups if not parents[key] & set(aside)) + 1
    free = (top - _MARGIN - len(aside) * _DOWN) // 2
    places.update({key: (_MARGIN + _ACROSS * last, _MARGIN + free + i * _DOWN) for i, key in enumerate(aside)})
    below = [key for key in rest if key not in aside]
    # An asset without parents is placed directly to the left of its first child.
    for row, key in enumerate(below):
        before = min((depth(child) for child in parents if key in parents[child]), default=0) - 1
        place = last + 1 if parents[key] & set(aside) else max(depth(key), before)
        places[key] = (_MARGIN + _ACROSS * place, top + row * _DOWN)
    return places


def _by_depth(keys: Iterable[dg.AssetKey], depth: Callable[[dg.AssetKey], int]) -> list[tuple[int, list[dg.AssetKey]]]:
    columns: dict[int, list[dg.AssetKey]] = {}
    for key in sorted(keys):
        columns.setdefault(depth(key), []).append(key)
    return sorted(columns.items())


def _line(start: tuple[int, int], end: tuple[int, int], boxes: Iterable[tuple[int, int]]) -> str:
    """Return the line between two boxes: horizontal, with a curve before the second box.

    The line runs below the row of the first box if there are other boxes in its way.
    """
    x, y, to_x, to_y = start[0] + _WIDTH, start[1] + _HEIGHT // 2, end[0], end[1] + _HEIGHT // 2
    bend = to_x - (_ACROSS - _WIDTH)
    middle = (bend + to_x) // 2
    begin = f"M{x} {y}"
    if any(start[0] < box_x < end[0] and box_y == start[1] for box_x, box_y in boxes):
        below = start[1] + _HEIGHT + (_DOWN - _HEIGHT) // 2
        begin, y = f"M{x - _BETWEEN} {start[1] + _HEIGHT}V{below}", below
    return f'<path d="{begin}H{bend}C{middle} {y} {middle} {to_y} {to_x} {to_y}"/>'


def _box(key: dg.AssetKey, place: tuple[int, int]) -> str:
    (x, y), color = place, _COLORS.get(key.path[0], "#ffffff")
    return (
        f'<rect x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="5" fill="{color}"/>'
        f'<text x="{x + _WIDTH // 2}" y="{y + 18}" stroke="none" fill="#263238">{escape(key.to_user_string())}</text>'
    )
