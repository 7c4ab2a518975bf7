"""A schedule over its updates."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from lrjax import _checks
from lrjax.plotting.style import given_or_new, lane_colors
from lrjax.schedules import Schedule

__all__ = ["plot_schedule"]


def plot_schedule(
    schedule: Schedule,
    steps: int,
    *,
    momentum: Schedule | None = None,
    label: str | None = None,
    ax: Any = None,
) -> Any:
    """Draw a schedule over its updates, with the momentum beside it on an axis of its own.

    Args:
        schedule: of the learning rate.
        steps: number of updates to draw.
        momentum: of the momentum, if any.
        label: of the line.
        ax: matplotlib axes to draw on; new ones if not given.

    Returns:
        The axes of the learning rate.

    Raises:
        ValueError: for fewer than one step.
        TypeError: for a schedule that is not a function.
        ImportError: if matplotlib is not installed.

    Example:
        >>> import matplotlib
        >>> matplotlib.use("Agg")
        >>> from lrjax import onecycle, onecycle_momentum
        >>> ax = plot_schedule(onecycle(1.0, 100), 100, momentum=onecycle_momentum(100))
        >>> ax.get_ylabel()
        'learning rate (per update)'
    """
    _checks.function("schedule", schedule)
    _checks.optional("momentum", momentum, _checks.function)
    ax = given_or_new(ax)
    counts = np.arange(_checks.integer("steps", steps, minimum=1))
    rate_color, momentum_color = lane_colors(3)[:2]
    _draw(ax, counts, schedule, "learning rate (per update)", rate_color, label=label)
    ax.set_xlabel("updates done")
    ax.grid(alpha=0.25)
    if momentum is not None:
        _draw(ax.twinx(), counts, momentum, "momentum", momentum_color, ls="--")
    return ax


def _draw(ax: Any, counts: np.ndarray, schedule: Schedule, title: str, color, **style) -> None:
    # By `vmap`, because a schedule from elsewhere may take no more than one count.
    ax.plot(counts, np.asarray(jax.vmap(schedule)(counts)), color=color, lw=1.8, **style)
    ax.set_ylabel(title, color=color)
    ax.tick_params(axis="y", colors=color)
