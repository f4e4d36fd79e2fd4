"""The chart of docs/benchmarks.md: time and memory of cleaning a month. Equal results give equal bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.cleaning import LOWER_BOUND, OURS, PEER_LABELS
from taxi_assets.reports.chart_style import BLUE, INK, MUTED

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from matplotlib.axes import Axes

    from benchmarks.rounds import Result

_SHOWN = (OURS, *PEER_LABELS.values(), LOWER_BOUND)
_OTHERS = "#b8bec6"
_STYLE: Any = {"svg.hashsalt": "benchmarks", "font.family": "DejaVu Sans", "font.size": 9, "text.color": INK}


def draw(results: Mapping[str, Result], path: Path) -> None:
    """Draw one row of panels per size: wall seconds, CPU seconds, peak memory."""
    names = [name for name in ("clean-1.4M-csv.gz", "clean-7.7M-csv.gz", "clean-7.7M-parquet") if name in results]
    if not names:
        return
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(10, 2.3 * len(names)), layout="constrained")
        grid = figure.subplots(len(names), 3, squeeze=False)
        for panels, name in zip(grid, names, strict=True):
            result = results[name]
            shown = [peer for peer in _SHOWN if peer in result.peers]
            for axes, (label, unit) in zip(panels, (("wall", "s"), ("cpu", "CPU-s"), ("peak", "MB")), strict=True):
                # The parts of the lower bound are separate processes, so their memory cannot be added.
                peers = [peer for peer in shown if (label, peer) != ("peak", LOWER_BOUND)]
                _bars(axes, {peer: result.median(peer, label) for peer in peers}, unit)
            panels[0].set_title(result.title, loc="left", fontsize=9, fontweight="bold")
        figure.savefig(path, metadata={"Date": None})


def _bars(axes: Axes, values: Mapping[str, float], unit: str) -> None:
    names = [*values][::-1]
    bars = axes.barh(names, [values[name] for name in names], color=[BLUE if n == OURS else _OTHERS for n in names])
    axes.bar_label(
        bars, [f" {values[name]:,.{0 if values[name] >= 100 else 1}f}" for name in names], color=INK, fontsize=8
    )
    axes.set_xlabel(unit, color=MUTED)
    axes.margins(x=0.18)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.tick_params(length=0, labelbottom=False)
