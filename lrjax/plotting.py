"""Curves and schedules as matplotlib axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lrjax import _checks
from lrjax.curves import Curves
from lrjax.schedules import Schedule
from lrjax.suggestions import Suggestion

__all__ = ["plot_curves", "plot_schedule"]


def _pyplot() -> Any:
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError("plotting needs matplotlib: pip install 'lrjax[plot]'") from error
    return plt


def plot_curves(
    curves: Curves,
    quantity: str = "loss",
    *,
    suggestion: Suggestion | None = None,
    smooth: float | None = None,
    ax: Any = None,
) -> Any:
    """Draw one quantity over the learning rate, or over the updates where it does not rise.

    One line per lane, the mean over seeds, with a band of one standard deviation; training
    losses are smoothed without a lag. A line ends with a cross where its first seed diverged.

    Args:
        curves: what to draw.
        quantity: `"loss"`, `"eval_loss"`, the name of a metric, or `eval_` and its name.
        suggestion: of the same curves; marked by a circle at the suggested rate of every lane
            and a triangle at the largest usable one.
        smooth: standard deviation of the smoothing in steps; a fortieth of all if not given.
        ax: matplotlib axes to draw on; new ones if not given.

    Returns:
        The axes.

    Raises:
        ValueError: for an unknown quantity.
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
    ax = _pyplot().subplots(layout="constrained")[1] if ax is None else ax
    evaluated = quantity.startswith("eval_")
    values = _quantity(curves if evaluated else curves.smooth(smooth), quantity)
    x = _positions(curves)
    x = x[..., curves.eval_steps - 1] if evaluated else x
    seed = list(curves.axes).index("seed") if "seed" in curves.axes else None
    # A mean that ends where the first seed diverges: one of the survivors would jump.
    mean = values if seed is None else values.mean(seed)
    deviation = np.zeros_like(mean) if seed is None else values.std(seed)
    x = x if x.ndim == 1 or seed is None else x.take(0, seed)

    names = {name: axis for name, axis in curves.axes.items() if name != "seed"}
    lanes = list(np.ndindex(mean.shape[:-1]))
    markers = _markers(suggestion)
    for index, color in zip(lanes, _colors(len(lanes)), strict=True):
        label = ", ".join(
            f"{name.replace('_', ' ')} {axis[k]:.3g}"
            for (name, axis), k in zip(names.items(), index, strict=True)
        )
        where = x if x.ndim == 1 else x[index]
        _draw_lane(ax, where, mean[index], deviation[index], color, label)
        for marker, rates in markers:
            height = np.interp(rates[index], where, mean[index])
            ax.plot(rates[index], height, marker, color=color, mec="white", ms=9, zorder=5)

    rising = _rises(curves)
    geometric = rising and np.all(x > 0) and np.ptp(np.diff(np.log(x))) < np.ptp(np.diff(x))
    ax.set_xscale("log" if geometric else "linear")
    ax.set_xlabel("learning rate (per update)" if rising else "updates")
    ax.set_ylabel(_title(quantity))
    _limit(ax, mean)
    if names and len(lanes) > 1:
        _legend(ax, [name for name, _ in _MARKERS] if markers else [])
    ax.grid(alpha=0.25)
    return ax


def _quantity(curves: Curves, name: str) -> np.ndarray:
    quantities = {"loss": curves.loss, "eval_loss": curves.eval_loss, **curves.metrics}
    quantities |= {f"eval_{key}": values for key, values in curves.eval_metrics.items()}
    return quantities[_checks.one_of("quantity", name, tuple(quantities))]


def _title(quantity: str) -> str:
    kind, name = (
        ("held-out", quantity[5:]) if quantity.startswith("eval_") else ("training", quantity)
    )
    return f"{kind} {name.replace('_', ' ')}"


def _rises(curves: Curves) -> bool:
    """Whether the learning rate rises throughout, as in a range test."""
    return curves.learning_rate.ndim == 1 and bool(np.all(np.diff(curves.learning_rate) > 0))


def _positions(curves: Curves) -> np.ndarray:
    return curves.learning_rate if _rises(curves) else 1 + np.arange(curves.steps)


def _colors(count: int) -> Any:
    """Colours from dark to light that keep their order in grey and for colour-blind eyes."""
    return _pyplot().get_cmap("viridis")(np.linspace(0.0, 0.85, count))


def _draw_lane(ax, x, mean, deviation, color, label) -> None:
    ax.plot(x, mean, color=color, label=label, lw=1.8)
    if deviation.any():
        ax.fill_between(x, mean - deviation, mean + deviation, color=color, alpha=0.12, lw=0)
    finite = np.flatnonzero(np.isfinite(mean))
    if len(finite) > 0 and finite[-1] < len(mean) - 1:
        ax.plot(x[finite[-1]], mean[finite[-1]], "x", color=color, ms=7, zorder=4)


_MARKERS = (("suggested rate", "o"), ("largest usable rate", "^"))


def _markers(suggestion: Suggestion | None) -> list[tuple[str, np.ndarray]]:
    if suggestion is None:
        return []
    agreed = suggestion.consensus
    rates = (agreed.learning_rate, agreed.max_learning_rate)
    return [(marker, rate) for (_, marker), rate in zip(_MARKERS, rates, strict=True)]


def _limit(ax: Any, mean: np.ndarray) -> None:
    """Show where the loss began and where it fell to; how far it blew up tells nothing."""
    first = mean[..., : max(mean.shape[-1] // 5, 1)]
    if not np.isfinite(first).any():
        return
    low, high = np.nanmin(mean), np.nanmax(first)
    high = high if high > low else np.nanmax(mean)
    margin = 0.12 * (high - low) or 1.0
    ax.set_ylim(low - margin, high + 2 * margin)


def _legend(ax: Any, marked: list[str]) -> None:
    from matplotlib.lines import Line2D

    handles, labels = ax.get_legend_handles_labels()
    markers = dict(_MARKERS)
    handles += [Line2D([], [], ls="", marker=markers[name], color="0.3", ms=8) for name in marked]
    ax.legend(handles, labels + marked, fontsize="small", framealpha=0.9)


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
        ValueError: for less than one step.
        ImportError: if matplotlib is not installed.

    Example:
        >>> import matplotlib
        >>> matplotlib.use("Agg")
        >>> from lrjax import onecycle, onecycle_momentum
        >>> ax = plot_schedule(onecycle(1.0, 100), 100, momentum=onecycle_momentum(100))
        >>> ax.get_ylabel()
        'learning rate (per update)'
    """
    ax = _pyplot().subplots(layout="constrained")[1] if ax is None else ax
    steps = _checks.integer("steps", steps, minimum=1)
    rate_color, momentum_color = _colors(3)[:2]
    _draw_schedule(ax, schedule, steps, "learning rate (per update)", rate_color, label)
    ax.set_xlabel("updates done")
    ax.grid(alpha=0.25)
    if momentum is not None:
        _draw_schedule(ax.twinx(), momentum, steps, "momentum", momentum_color, None, ls="--")
    return ax


def _draw_schedule(ax: Any, schedule: Callable, steps, title, color, label, **style) -> None:
    counts = np.arange(steps)
    ax.plot(counts, np.asarray(schedule(counts)), color=color, label=label, lw=1.8, **style)
    ax.set_ylabel(title, color=color)
    ax.tick_params(axis="y", colors=color)
