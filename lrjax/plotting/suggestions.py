"""Suggested rates, lane by lane."""

from __future__ import annotations

from typing import Any

import numpy as np

from lrjax._texts import as_words
from lrjax.curves.axes import seeds_last
from lrjax.plotting.style import given_or_new, lane_looks, lane_name
from lrjax.suggestions import Suggestion

__all__ = ["plot_suggestion"]


def plot_suggestion(suggestion: Suggestion, *, ax: Any = None) -> Any:
    """Draw what was suggested for every lane: the rate, the bounds of a cycle, and the seeds.

    A bar from the smallest to the largest rate of a cycle, a circle at the suggested rate, and
    a tick at what each seed alone suggests. A lane without a rate has its reason.

    Args:
        suggestion: from `suggest`.
        ax: matplotlib axes to draw on; new ones if not given.

    Returns:
        The axes.

    Raises:
        ImportError: if matplotlib is not installed.

    Example:
        >>> import matplotlib
        >>> matplotlib.use("Agg")
        >>> from lrjax import Curves, suggest
        >>> rates = np.geomspace(1e-5, 10, 200).astype(np.float32)
        >>> loss = 0.3 + 2 / (1 + rates / 0.01) + rates**2
        >>> plot_suggestion(suggest(Curves(learning_rate=rates, loss=loss))).get_xlabel()
        'learning rate'
    """
    ax = given_or_new(ax)
    from matplotlib.ticker import LogLocator, NullLocator

    agreed = suggestion.consensus
    styles = lane_looks(agreed.axes).styles
    seeds = seeds_last(suggestion.axes, suggestion.learning_rate)
    for k, (index, style) in enumerate(styles.items()):
        color = style["color"]
        bounds = [agreed.min_learning_rate[index], agreed.max_learning_rate[index]]
        ax.plot(bounds, [k, k], color=color, lw=5, alpha=0.4, solid_capstyle="butt")
        ax.plot(seeds[index], np.full(seeds.shape[-1], k), "|", color=color, ms=14, mew=1.2)
        ax.plot(agreed.learning_rate[index], k, "o", color=color, mec="white", ms=9)
        if agreed.reason[index]:
            where = ax.get_yaxis_transform()
            reason = as_words(agreed.reason[index])
            ax.text(0.5, k, reason, transform=where, ha="center", va="center", fontsize="small")
    ax.set_yticks(range(len(styles)), [lane_name(agreed.axes, index) for index in styles])
    ax.set_ylim(len(styles) - 0.5, -0.5)
    if np.isfinite(seeds).any():
        ax.set_xscale("log")
        # Plain numbers at 1, 2 and 5, for the rates seldom span a decade.
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("learning rate")
    ax.grid(alpha=0.25, axis="x")
    return ax
