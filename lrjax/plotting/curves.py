"""Curves over the learning rate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from lrjax import _checks
from lrjax._texts import as_words
from lrjax.curves import Curves
from lrjax.curves.axes import seeds_last, without_seed
from lrjax.curves.results import checked
from lrjax.plotting.style import (
    MAX_ENTRIES,
    Looks,
    Style,
    blank_figure,
    given_or_new,
    lane_looks,
    lane_name,
    literal,
    rows_and_columns,
    subplots,
)
from lrjax.suggestions import Suggestion

__all__ = ["plot_curves"]


def plot_curves(
    curves: Curves,
    quantity: str | Sequence[str] = "loss",
    *,
    suggestion: Suggestion | None = None,
    smooth: float | None = None,
    ax: Any = None,
) -> Any:
    """Draw a quantity over the learning rate, or over the updates where it does not rise.

    One line per lane, with a band of one standard deviation: the mean over the seeds that last
    at least half as long as the longest, to where the first of these diverges. A cross marks
    where a seed diverged. Training losses are smoothed without a lag.
    With several quantities, the lines of all but the first carry points.

    Args:
        curves: what to draw.
        quantity: `"loss"`, `"eval_loss"`, the name of a metric, `eval_` and its name, or a list
            of these that belong on one axis, as `["loss", "eval_loss"]`.
        suggestion: of the same curves; marks on every lane the suggested rate by a circle, and
            the smallest and largest of a cycle by triangles that point down and up.
        smooth: standard deviation of the smoothing in steps; a fortieth of all if not given.
        ax: matplotlib axes to draw on; new ones if not given.

    Returns:
        The axes.

    Raises:
        ValueError: for an unknown quantity, or none.
        ImportError: if matplotlib is not installed.

    Example:
        >>> import matplotlib
        >>> matplotlib.use("Agg")
        >>> rates = np.geomspace(1e-4, 1, 50).astype(np.float32)
        >>> curves = Curves(
        ...     axes={"weight_decay": np.float32([0, 1e-4])},
        ...     learning_rate=rates,
        ...     loss=np.stack([1 + rates, 2 + rates]))
        >>> ax = plot_curves(curves)
        >>> ax.get_xscale(), len(ax.lines)
        ('log', 2)
    """
    checked(curves)
    names = [quantity] if isinstance(quantity, str) else quantity
    names = _checks.sequence("quantity", names, fewest=1)
    known = quantities(curves)
    for name in names:
        _checks.one_of("quantity", name, known)
    titles = [literal(known[name].title) for name in names]
    drawn = [_over_seeds(curves, name, smooth) for name in names]
    ax = given_or_new(ax)
    axes = without_seed(curves.axes)
    looks, markers = lane_looks(axes), _markers(suggestion)
    size = 9 if len(looks.styles) <= MAX_ENTRIES else 5
    rising = rises(curves)
    ax.set_xscale("log" if rising and _is_geometric(curves.learning_rate) else "linear")
    place = np.log if ax.get_xscale() == "log" else np.asarray  # along the axis
    for index, style in looks.styles.items():
        first, *others = [lines.lane(index) for lines in drawn]
        _draw_lane(ax, first, lw=1.8, label=lane_name(axes, index), **style)
        for other in others:
            _draw_lane(ax, other, lw=1.0, marker=".", **style)
        for marker, rates in markers.values():
            height, color = _height(rates[index], first, place), style["color"]
            ax.plot(rates[index], height, marker, color=color, mec="white", ms=size, zorder=5)

    ax.set_xlabel("learning rate (per update)" if rising else "updates")
    ax.set_ylabel(" and ".join(titles))
    _limit(ax, drawn)
    for index, style in looks.styles.items():
        for lines in drawn:
            _cross_ends(ax, lines.lane(index), style["color"])
    _legend(ax, looks, titles, markers)
    ax.grid(alpha=0.25)
    return ax


def panels(
    curves: Curves, suggestion: Suggestion | None = None, names: Sequence[str] | None = None
) -> Any:
    """A figure of several quantities, or all: training beside held-out, with one legend."""
    names = list(quantities(curves)) if names is None else names
    rows, columns = rows_and_columns(len(names))
    figure = blank_figure(5.2 * columns + 0.4, 3.6 * rows + 0.3)
    legend = None
    for name, ax in zip(names, subplots(figure, len(names)), strict=True):
        legend = plot_curves(curves, name, suggestion=suggestion, ax=ax).get_legend()
        if legend:
            legend.remove()
    if legend:
        labels = [text.get_text() for text in legend.get_texts()]
        figure.legend(legend.legend_handles, labels, loc="outside lower center", ncols=columns * 2)
    return figure


class Quantity(NamedTuple):
    """The loss or a metric, in training or on held-out data: f32[*axes, steps or evals]."""

    values: np.ndarray
    held_out: bool
    title: str


def quantities(curves: Curves) -> dict[str, Quantity]:
    """All that can be drawn, by name: each as measured in training, then on held-out data."""
    metrics = dict.fromkeys([*curves.metrics, *curves.eval_metrics])
    pairs = [
        ("loss", curves.loss, curves.eval_loss if len(curves.eval_steps) else None),
        *((name, curves.metrics.get(name), curves.eval_metrics.get(name)) for name in metrics),
    ]
    found: dict[str, Quantity] = {}
    for name, training, held_out in pairs:
        while {name, f"eval_{name}"} & found.keys():  # such as a metric that is called "loss"
            name = f"metric_{name}"
        if training is not None:
            found[name] = Quantity(training, False, f"training {as_words(name)}")
        if held_out is not None:
            found[f"eval_{name}"] = Quantity(held_out, True, f"held-out {as_words(name)}")
    return found


class Lines(NamedTuple):
    """One quantity of all lanes, over their seeds.

    Attributes:
        x: positions, f32[points].
        mean: f32[*axes, points].
        deviation: likewise.
        sound: where the loss was no higher than at the start, bool[*axes, points].
        seeds: every seed for itself, f32[*axes, seeds, points].
    """

    x: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray
    sound: np.ndarray
    seeds: np.ndarray

    def lane(self, index: tuple[int, ...]) -> Lines:
        """Those of one lane."""
        return Lines(*(array if array.ndim == 1 else array[index] for array in self))


def _over_seeds(curves: Curves, name: str, smooth: float | None) -> Lines:
    smoothed = curves.smooth(smooth)
    values, evaluated, _ = quantities(smoothed)[name]
    x = curves.learning_rate if rises(curves) else 1 + np.arange(curves.steps)
    x = x[..., np.maximum(curves.eval_steps - 1, 0)] if evaluated else x
    losses = smoothed.eval_loss if evaluated else smoothed.loss
    first = losses[..., : max(losses.shape[-1] // 5, 1)]
    sound = losses <= np.fmax.reduce(first, axis=None)
    # What comes after an interruption is not a divergence.
    steps = curves.eval_steps if evaluated else 1 + np.arange(curves.steps)
    done = np.count_nonzero(steps <= curves.steps_done)
    x, values, sound = (array[..., :done] for array in (x, values, sound))
    seeds, sound = (seeds_last(curves.axes, array, trailing=1) for array in (values, sound))
    lasting = _lasting(seeds_last(curves.axes, curves.diverged_at))[..., None]
    mean = np.mean(seeds, -2, where=lasting)
    return Lines(x, mean, np.std(seeds, -2, where=lasting), (sound | ~lasting).all(-2), seeds)


def _lasting(diverged_at: np.ndarray) -> np.ndarray:
    """Which seeds are in the mean: those that last at least half as long as the longest.

    One that diverges far too early would end the line of all; a mean of what survives jumps.
    """
    return diverged_at >= diverged_at.max(-1, keepdims=True) / 2


def rises(curves: Curves) -> bool:
    """Whether the lanes can be drawn over one rising learning rate."""
    return curves.learning_rate.ndim == 1 and curves.is_range_test


def _is_geometric(rates: np.ndarray) -> bool:
    """Whether the steps are closer to equal in the logarithm than in the rate itself."""
    return rates[0] > 0 and bool(np.ptp(np.diff(np.log(rates))) < np.ptp(np.diff(rates)))


def _draw_lane(ax: Any, line: Lines, **style: Any) -> None:
    if np.isfinite(line.mean).sum() == 1:
        style["marker"] = "o"  # a line through one point shows nothing
    ax.plot(line.x, line.mean, **style)
    color = style["color"]
    if (line.deviation > 0).any():
        low, high = line.mean - line.deviation, line.mean + line.deviation
        ax.fill_between(line.x, low, high, color=color, alpha=0.12, lw=0)


def _cross_ends(ax: Any, line: Lines, color: Any) -> None:
    """A cross at the last value of every seed that diverged, or at the edge of what is shown."""
    low, high = ax.get_ylim()
    for values in line.seeds:
        finite = np.flatnonzero(np.isfinite(values))
        end = finite[-1] if len(finite) else len(values)
        if end < len(values) - 1:
            style = {"color": color, "ms": 6, "mew": 1.6, "zorder": 4, "clip_on": False}
            ax.plot(line.x[end], np.clip(values[end], low, high), "x", **style)


MARKERS = (
    ("suggested rate", "o", "learning_rate"),
    ("smallest of a cycle", "v", "min_learning_rate"),
    ("largest usable rate", "^", "max_learning_rate"),
)


def _markers(suggestion: Suggestion | None) -> dict[str, tuple[str, np.ndarray]]:
    """By name, the marker and the rates of every lane, where there are any."""
    if suggestion is None:
        return {}
    agreed = suggestion.consensus
    rates = [(name, (marker, getattr(agreed, field))) for name, marker, field in MARKERS]
    return {name: entry for name, entry in rates if np.isfinite(entry[1]).any()}


def _height(rate: float, line: Lines, place: Callable) -> float:
    """The height of a line at a rate; of its last point, for a rate beyond it."""
    finite = np.isfinite(line.mean)
    if not finite.any():
        return np.nan
    return np.interp(place(rate), place(line.x[finite]), line.mean[finite])


def _limit(ax: Any, drawn: list[Lines]) -> None:
    """Show where the quantity went to before the loss rose; how far it blew up tells nothing."""
    shown = np.concatenate([lines.mean[lines.sound & np.isfinite(lines.mean)] for lines in drawn])
    if not len(shown):
        return
    low, high = shown.min(), shown.max()
    margin = 0.12 * (high - low) or 1.0
    ax.set_ylim(low - margin, high + 2 * margin)


def _legend(ax: Any, looks: Looks, titles: Sequence[str], markers: dict) -> None:
    from matplotlib.lines import Line2D

    entries: list[tuple[str, Style]] = list(looks.entries)
    if len(titles) > 1:
        entries += [(titles[0], {"color": "0.3"})]
        entries += [(title, {"color": "0.3", "marker": "."}) for title in titles[1:]]
    entries += [
        (name, {"color": "0.3", "ls": "", "marker": marker, "ms": 7})
        for name, (marker, _) in markers.items()
    ]
    if entries:
        labels, styles = zip(*entries, strict=True)
        handles = [Line2D([], [], **style) for style in styles]
        beside = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}
        where = {"framealpha": 0.9} if len(entries) <= MAX_ENTRIES else beside
        ax.legend(handles, labels, fontsize="small", **where)
