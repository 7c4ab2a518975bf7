"""What all pictures share: matplotlib where it is needed, colours, and names for people."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lrjax._texts import as_words, format_coordinate
from lrjax.curves.axes import coordinates

# In a grey print the pattern tells lines apart whose colours have become alike.
DASHES: tuple[Any, ...] = (
    "-",
    (0, (6, 1.5)),
    (0, (3, 1, 1, 1)),
    (0, (1.2, 1.2)),
    (0, (7, 1.5, 1, 1.5, 1, 1.5)),
)
MAX_ENTRIES = 8  # per legend and axis: colours have an order, so that some stand for all

Style = dict[str, Any]


def require_matplotlib() -> Any:
    """Matplotlib, or an ImportError that says how to get it."""
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError("plotting needs matplotlib: pip install 'lrjax[plot]'") from error
    return matplotlib


def given_or_new(ax: Any) -> Any:
    """The axes given, or new ones in a figure of their own."""
    if ax is not None:
        return ax
    require_matplotlib()
    import matplotlib.pyplot as plt

    return plt.subplots(layout="constrained")[1]


def blank_figure(width: float, height: float) -> Any:
    """A figure to save, which no window knows of."""
    require_matplotlib()
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


COLUMNS = 2  # of a page


def rows_and_columns(count: int) -> tuple[int, int]:
    """How so many axes are laid out on a page."""
    return math.ceil(count / COLUMNS), min(count, COLUMNS)


def subplots(figure: Any, count: int) -> list[Any]:
    """So many axes, row after row."""
    shape = rows_and_columns(count)
    return [figure.add_subplot(*shape, k + 1) for k in range(count)]


def save(figure: Any, path: Path) -> Path:
    """Write a picture, whose format its suffix names; without one, PNG."""
    path = path if path.suffix else path.with_suffix(".png")
    figure.savefig(path, dpi=150)
    return path


def lane_colors(count: int) -> Any:
    """Colours from dark to light that keep their order in grey and for colour-blind eyes."""
    return require_matplotlib().colormaps["viridis"](np.linspace(0.0, 0.82, count))


def literal(text: str) -> str:
    """A text that matplotlib takes for no formula."""
    return text.replace("$", r"\$")


def lane_name(axes: dict[str, np.ndarray], index: tuple[int, ...]) -> str:
    """Such as `weight decay 0.001, momentum 0.9`."""
    return ", ".join(
        f"{literal(as_words(name))} {format_coordinate(value, 3)}"
        for name, value in coordinates(axes, index).items()
    )


class Looks(NamedTuple):
    """How lanes are drawn.

    Attributes:
        styles: by a lane's index.
        entries: what a legend says of them; nothing where there is only one lane.
    """

    styles: dict[tuple[int, ...], Style]
    entries: list[tuple[str, Style]]


def lane_looks(axes: dict[str, np.ndarray]) -> Looks:
    """Colours along the first axes, dashes along the last; along an only axis, both."""
    split = max(len(axes) - 1, 1)
    outer, inner = dict(list(axes.items())[:split]), dict(list(axes.items())[split:])
    rows = _indices(outer)
    colors = dict(zip(rows, lane_colors(len(rows)), strict=True))
    styles: dict[tuple[int, ...], Style] = {
        lane: {"color": colors[lane[:split]], "ls": _dash(lane[-1] if lane else 0)}
        for lane in _indices(axes)
    }
    by_row = [(lane_name(outer, row), {"color": colors[row]}) for row in rows]
    if not inner:
        by_row = [(name, styles[row]) for (name, _), row in zip(by_row, rows, strict=True)]
    by_column = [
        (lane_name(inner, lane), {"color": "0.3", "ls": _dash(lane[0])})
        for lane in (_indices(inner) if inner else [])
    ]
    return Looks(styles, _some(by_row) + _some(by_column))


def _dash(k: int) -> Any:
    return DASHES[k % len(DASHES)]


def _indices(axes: dict[str, np.ndarray]) -> list[tuple[int, ...]]:
    return list(np.ndindex(*map(len, axes.values())))


def _some(entries: list) -> list:
    """No more than a legend has room for, and none where there is nothing to tell apart."""
    return entries[:: math.ceil(len(entries) / MAX_ENTRIES)] if len(entries) > 1 else []
