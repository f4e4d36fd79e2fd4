"""The style that all charts share: colors, fonts and axes; and the conversion of a figure to PNG.

Colors are the palette of Okabe and Ito, and cividis: color-blind readers can distinguish them, also in gray scale.
The same figure gives the same bytes, whatever the time and the settings of the machine.
"""

from __future__ import annotations

import io
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib.style
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from matplotlib.axes import Axes

INK, MUTED, GRID, PAPER = "#1f2430", "#5c6470", "#e3e6ea", "#ffffff"
BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9"

_DOTS_PER_INCH = 150
_STYLE: Mapping[str, object] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.grid": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "savefig.facecolor": PAPER,
}
# Of a thumbnail for the event log.
_SMALL_WIDTH = 760
_SMALL_COLORS = 160


@dataclass(frozen=True)
class ChartImage:
    """A finished chart.

    Attributes:
        name: Its name, such as `trips_per_day`.
        alt: Its content in words, for readers who cannot see it.
        png: The PNG image.
    """

    name: str
    alt: str
    png: bytes

    @property
    def file(self) -> str:
        """Its file name, next to the page."""
        return f"{self.name}.png"

    def thumbnail(self) -> bytes:
        """Return a smaller PNG with fewer colors, for the metadata in the UI."""
        with Image.open(io.BytesIO(self.png)) as full:
            height = round(full.height * _SMALL_WIDTH / full.width)
            scaled = full.convert("RGB").resize((_SMALL_WIDTH, height), Image.Resampling.LANCZOS)
        few = scaled.quantize(_SMALL_COLORS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        return _encode_png(few, optimize=True)


@contextmanager
def chart_style() -> Iterator[None]:
    """Draw in this style, whatever matplotlib's settings on the machine are."""
    with matplotlib.style.context(["default", dict(_STYLE)]):
        yield


def new_figure(title: str, *, height: float, width: float = 9.6) -> Figure:
    """Return an empty figure with its title at the left; `height` and `width` are in inches."""
    figure = Figure(figsize=(width, height), dpi=_DOTS_PER_INCH, layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08))
    figure.suptitle(title, x=0.012, ha="left", fontsize=12, fontweight="bold")
    return figure


def show_grid(axes: Axes, axis: str) -> None:
    """Show thin grid lines along one axis ("x" or "y"), in place of the line of the axis."""
    axes.grid(visible=True, axis="y" if axis == "y" else "x")
    axes.spines["left" if axis == "y" else "bottom"].set_visible(False)


def to_png(figure: Figure) -> bytes:
    """Return the figure as PNG, without metadata such as the time or matplotlib's version."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]  # matplotlib has not typed it; savefig would draw twice
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]  # nor this
    return _encode_png(Image.fromarray(pixels).convert("RGB"), compress_level=6)


def _encode_png(image: Image.Image, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG", **options)
    return out.getvalue()
