"""Two axes of lanes as a heat map."""

from __future__ import annotations

from typing import Any

import numpy as np

from lrjax._texts import as_words, format_coordinate
from lrjax.curves import Curves
from lrjax.curves.axes import without_seed
from lrjax.curves.results import checked
from lrjax.plotting.curves import rises
from lrjax.plotting.style import given_or_new, literal
from lrjax.suggestions import Suggestion
from lrjax.suggestions.grids import QUANTITIES, grid_values

__all__ = ["plot_grid"]


def plot_grid(
    curves: Curves,
    quantity: str = "loss",
    *,
    suggestion: Suggestion | None = None,
    ax: Any = None,
) -> Any:
    """Draw one number per lane of a grid, such as weight decay x momentum, as a heat map.

    Rows are the first axis of the curves, columns the second; a frame marks the best cell. A
    cell without a number, because a seed diverged at once or no rate can be named, is hatched.

    Args:
        curves: with two axes of lanes, and perhaps seeds, over which the mean is taken.
        quantity: `"loss"` for the lowest of the training loss, smoothed without a lag;
            `"eval_loss"` for the lowest held-out loss; `"last_loss"` and `"last_eval_loss"` for
            those after the last update; `"max_learning_rate"` for the largest usable rate.
        suggestion: of the same curves, for the largest usable rates; `suggest(curves)` if not
            given.
        ax: matplotlib axes to draw on; new ones if not given.

    Returns:
        The axes.

    Raises:
        ValueError: for another number of axes, an unknown quantity, or a held-out loss that the
            curves do not have.
        ImportError: if matplotlib is not installed.

    Example:
        >>> import matplotlib
        >>> matplotlib.use("Agg")
        >>> curves = Curves(
        ...     axes={"weight_decay": np.float32([0, 1e-4]), "momentum": np.float32([0.9])},
        ...     learning_rate=np.geomspace(1e-4, 1, 50, dtype=np.float32),
        ...     loss=np.ones((2, 1, 50), np.float32))
        >>> ax = plot_grid(curves)
        >>> ax.get_xlabel(), ax.get_ylabel()
        ('momentum', 'weight decay')
    """
    axes = without_seed(checked(curves).axes)
    if len(axes) != 2:
        raise ValueError(
            f"curves must have two axes of lanes besides the seed, got {list(axes)} "
            "(curves.select picks one value of an axis)."
        )
    values = grid_values(curves, quantity, suggestion)
    ax = given_or_new(ax)
    (row, rows), (column, columns) = axes.items()
    lower = quantity != "max_learning_rate"
    # Dark is good, whichever direction that is.
    colors = (
        {"cmap": "viridis", "norm": "linear"} if lower else {"cmap": "viridis_r", "norm": "log"}
    )
    image = ax.imshow(values, aspect="auto", **colors)
    shade = image.norm(values)
    for index in np.ndindex(values.shape):
        if np.isfinite(values[index]):
            if len(columns) > CROWDED:
                continue
            light = (shade[index] > 0.6) == lower
            where = {"ha": "center", "va": "center", "fontsize": "small"}
            text = f"{values[index]:.3g}"
            ax.text(index[1], index[0], text, color="black" if light else "white", **where)
        else:
            _cell(ax, index, fill=False, hatch="///", ec="0.6", lw=0)
    if np.isfinite(values).any():
        best = np.nanargmin(values) if lower else np.nanargmax(values)
        _cell(ax, np.unravel_index(best, values.shape), fill=False, ec="#d55e00", lw=3)
    crowded = {"rotation": 45, "ha": "right"} if len(columns) > CROWDED else {}
    ax.set_xticks(range(len(columns)), [format_coordinate(v, 3) for v in columns], **crowded)
    ax.set_yticks(range(len(rows)), [format_coordinate(value, 3) for value in rows])
    ax.set_xlabel(literal(as_words(column)))
    ax.set_ylabel(literal(as_words(row)))
    ax.set_title(QUANTITIES[quantity], fontsize="medium")
    return ax


def grid_quantities(curves: Curves) -> list[str]:
    """What tells most: of range tests the lowest losses and the rates, else the last losses."""
    names = ["loss", "eval_loss"] if rises(curves) else ["last_loss", "last_eval_loss"]
    names = names if len(curves.eval_steps) else names[:1]
    return [*names, "max_learning_rate"] if rises(curves) else names


CROWDED = 6  # columns, beyond which numbers do not fit their cells


def _cell(ax: Any, index: Any, **style: Any) -> None:
    from matplotlib.patches import Rectangle

    ax.add_patch(Rectangle((index[1] - 0.5, index[0] - 0.5), 1, 1, **style))
