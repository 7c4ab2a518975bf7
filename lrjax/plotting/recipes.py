"""The stages of a recipe on one page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lrjax._texts import as_words
from lrjax.curves import Curves
from lrjax.plotting.curves import plot_curves, rises
from lrjax.plotting.grids import plot_grid
from lrjax.plotting.schedules import plot_schedule
from lrjax.plotting.style import blank_figure, require_matplotlib, rows_and_columns, subplots
from lrjax.recipes import Recipe
from lrjax.suggestions import suggest

__all__ = ["plot_recipe"]


def plot_recipe(recipe: Recipe, *, axes: Sequence[Any] | None = None) -> list[Any]:
    """Draw what a recipe rests on, stage by stage, and its plan.

    Range tests show the held-out loss over the learning rate and what it suggests; the short
    runs the last held-out loss of every peak and momentum, the lowest framed and the one taken
    circled; the plan the learning rate and the momentum over the updates.

    Args:
        recipe: from `smith_recipe`.
        axes: matplotlib axes to draw on, one per stage and one more for the plan if the recipe
            names a rate; new ones if not given.

    Returns:
        The axes.

    Raises:
        ValueError: for another number of axes.
        ImportError: if matplotlib is not installed.

    Example:
        >>> import matplotlib
        >>> matplotlib.use("Agg")
        >>> recipe = Recipe(
        ...     max_learning_rate=0.3, weight_decay=1e-4, momentum=0.95,
        ...     min_momentum=0.85, total_steps=100)
        >>> [ax.get_title() for ax in plot_recipe(recipe)]
        ['plan: weight decay 0.0001']
    """
    count = _count(recipe)
    if axes is None:
        require_matplotlib()
        import matplotlib.pyplot as plt

        axes = subplots(plt.figure(figsize=_size(count), layout="constrained"), count)
    flat = np.ravel(np.asarray(axes, object))
    if len(flat) != count:
        raise ValueError(f"axes must be {count}, one per stage and plan, got {len(flat)}.")
    for ax, (stage, curves) in zip(flat, recipe.evidence.items(), strict=False):
        _draw_stage(ax, curves, recipe)
        ax.set_title(f"{as_words(stage)}: {ax.get_title()}".removesuffix(": "), fontsize="medium")
    if not recipe.reason:
        _draw_plan(flat[-1], recipe)
    return list(flat)


def recipe_page(recipe: Recipe) -> Any:
    """The same as a figure to save."""
    count = _count(recipe)
    figure = blank_figure(*_size(count))
    plot_recipe(recipe, axes=subplots(figure, count))
    return figure


def _count(recipe: Recipe) -> int:
    return len(recipe.evidence) + (not recipe.reason)


def _size(count: int) -> tuple[float, float]:
    rows, columns = rows_and_columns(count)
    return 5.4 * columns, 3.9 * rows


def _draw_stage(ax: Any, curves: Curves, recipe: Recipe) -> None:
    if rises(curves):
        plot_curves(curves, "eval_loss", suggestion=suggest(curves), ax=ax)
    elif "momentum" not in curves.axes:
        plot_curves(curves, "eval_loss", ax=ax)
    else:
        plot_grid(curves, "last_eval_loss", ax=ax)
        taken = {"max_learning_rate": recipe.max_learning_rate, "momentum": recipe.momentum}
        rows, columns = (
            np.flatnonzero(np.isclose(curves.axes[name], np.nan if value is None else value))
            for name, value in taken.items()
        )
        if len(rows) and len(columns):  # else it was another stage that had the lane taken
            ax.plot(columns, rows, "o", mfc="none", mec="#d55e00", ms=34, mew=2)


def _draw_plan(ax: Any, recipe: Recipe) -> None:
    rate, momentum = recipe.schedules()
    plot_schedule(rate, recipe.total_steps, momentum=momentum, ax=ax)
    decay = "" if recipe.weight_decay is None else f": weight decay {recipe.weight_decay:.3g}"
    ax.set_title(f"plan{decay}", fontsize="medium")
