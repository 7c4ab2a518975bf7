"""Smith's rules, on curves smoothed without a lag."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lrjax import _checks
from lrjax.suggestions.lanes import Lane
from lrjax.suggestions.results import Rates

__all__ = ["robust", "smith"]

MIN_POINTS = 10


def robust(lane: Lane, width: float = 0.15) -> Rates:
    """Rates by Smith's rules from losses smoothed without a lag, or a reason."""
    basin = _basin(*_watched(lane), width)
    if isinstance(basin, Rates):
        return basin
    decades, smooth, bottom, drop, significant = basin
    # The middle of the basin and not its lowest point, which noise moves about.
    near = smooth <= smooth[bottom] + max(drop / 20, significant / 2)
    largest = 10 ** ((decades[_run(near, bottom, -1)] + decades[_run(near, bottom, 1)]) / 2)
    half = 10 ** decades[_run(smooth <= smooth[bottom] + drop / 2, bottom, -1)]
    return Rates(min(max(largest / 2, half), largest), largest / 10, largest)


def smith(lane: Lane, metric: str | None = None, cycles: int = 1, width: float = 0.15) -> Rates:
    """Smith's rules as he gives them, on the smoothed evaluation loss or a metric to maximize.

    The maximum is the rate at the extremum (2018, section 4.1). The minimum is a third of it
    for several cycles (2015, section 3.3), a tenth for a single one (2018, sections 4.1 and 5).
    The rate to train at is half of the maximum: the best is "within a factor of two of the
    largest one that converges" (2015, section 3.3). He reads the extremum off a plot; here it
    is refused for the same reasons as in `robust`.
    """
    divisor = 10 if _checks.integer("cycles", cycles, minimum=1) == 1 else 3
    basin = _basin(*_watched(lane, metric), width)
    if isinstance(basin, Rates):
        return basin
    largest = 10 ** basin.decades[basin.bottom]
    return Rates(largest / 2, largest / divisor, largest)


def _watched(lane: Lane, metric: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The rates, and what is to be low there: on the evaluation data if there is enough of it."""
    loss, eval_loss = lane.loss, lane.eval_loss
    if metric is not None:
        _checks.one_of("metric", metric, sorted(lane.metrics.keys() | lane.eval_metrics.keys()))
        loss = -lane.metrics.get(metric, np.full_like(lane.loss, np.nan))
        eval_loss = -lane.eval_metrics.get(metric, np.full_like(lane.eval_loss, np.nan))
    if np.isfinite(eval_loss).sum() >= MIN_POINTS:
        return lane.eval_rate, eval_loss
    return lane.rate, loss


class Basin(NamedTuple):
    """A smoothed curve that falls to a minimum and rises again, over decades of the rate."""

    decades: np.ndarray
    smooth: np.ndarray
    bottom: int
    drop: float
    significant: float


def _basin(rate: np.ndarray, loss: np.ndarray, width: float) -> Basin | Rates:
    """The basin of a loss, or the reason why it has none."""
    _checks.static("width", width, above=0)
    usable = np.isfinite(loss) & (rate > 0)
    if len(loss) >= MIN_POINTS and usable.sum() < len(loss) / 5:
        return Rates(reason="diverged_at_start")
    if usable.sum() < MIN_POINTS:
        return Rates(reason="too_few_points")
    diverged = not np.isfinite(loss[-1])
    decades, smooth, error = _smooth(np.log10(rate[usable]), loss[usable], width)

    bottom = int(np.argmin(smooth))
    # What the loss was before it fell; not the very highest, which may be a start's transient.
    level = np.percentile(smooth[: bottom + 1], 75)
    drop, rise = level - smooth[bottom], smooth[bottom:].max() - smooth[bottom]
    # A flat loss without any noise still has the rounding of float32.
    rounding = np.spacing(np.float32(np.median(np.abs(loss[usable]))))
    significant = SIGNIFICANT * error[bottom] + 4 * rounding
    if drop <= significant:
        risen_early = smooth[: len(smooth) // 5].max() - smooth[bottom] > max(rise / 5, significant)
        if risen_early:
            return Rates(reason="no_minimum_in_range", extend="start")
        return Rates(reason="not_learning")
    if not diverged and rise <= max(drop / 20, significant):
        return Rates(reason="no_minimum_in_range", extend="end")
    return Basin(decades, smooth, bottom, drop, significant)


# How many standard errors of the smoothed loss are not chance: the lowest of some dozens of
# independent values lies about three below their mean.
SIGNIFICANT = 6.0
MAX_POINTS = 500


def _smooth(
    decades: np.ndarray, loss: np.ndarray, width: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centred Gaussian averages over decades: where, the average, and its standard error."""
    group = -(-len(loss) // MAX_POINTS)
    # The second difference of a smooth curve is all noise; the median passes over a blow-up.
    noise = 1.4826 * np.median(np.abs(np.diff(loss, 2))) / np.sqrt(6 * group)
    decades, loss = _grouped(decades, group), _grouped(_without_blow_up(loss), group)
    widths = np.maximum(width, 1.5 * np.gradient(decades))
    weight = np.exp(-0.5 * ((decades - decades[:, None]) / widths[:, None]) ** 2)
    weight /= weight.sum(1, keepdims=True)
    return decades, weight @ loss, noise * np.sqrt((weight**2).sum(1))


def _grouped(values: np.ndarray, group: int) -> np.ndarray:
    """The means of so many values in a row each."""
    starts = np.arange(0, len(values), group)
    return np.add.reduceat(values, starts) / np.diff(np.append(starts, len(values)))


def _without_blow_up(loss: np.ndarray) -> np.ndarray:
    """The losses, cut off far above where they began: how far up they went tells nothing."""
    high = loss[: max(len(loss) // 4, 1)].max()
    return np.minimum(loss, high + (high - loss.min()))


def _run(holds: np.ndarray, start: int, step: int) -> int:
    """The last index, going from `start` by `step`, up to which the condition holds."""
    while 0 <= start + step < len(holds) and holds[start + step]:
        start += step
    return start
