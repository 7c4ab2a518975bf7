"""Smith's rules, on curves smoothed without a lag."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from lrjax import _checks
from lrjax.suggestions.fits import MIN_POINTS, smooth
from lrjax.suggestions.points import Points
from lrjax.suggestions.results import Rates

# How many standard errors of the smoothed loss are not chance: the lowest of some dozens of
# independent values lies about three below their mean.
SIGNIFICANT = 6.0
# Chosen on the made-up curves of benchmarks/suggestions.py, whose header says on which of them.
FLOOR = 1 / 20  # of the drop: the losses that belong to the bottom, and what is not a rise from it
START = 75  # the percentile, of the losses up to the bottom, that is taken for their start
BEGUN = 1 / 5  # of the rise: how much of a fall the first losses show that the range cuts off
EARLY = 1 / 5  # of the points: a loss that ends before has diverged at the start
AHEAD = 3  # the first rate counts as at most so many times below the second
TOO_WIDE = 4  # times the width that was asked for, an average hides what there is


def robust(points: Points, width: float = 0.15) -> Rates:
    """Rates by Smith's rules from losses smoothed without a lag, or a reason."""
    basin = _basin(points, width)
    if isinstance(basin, Rates):
        return basin
    decades, loss, bottom, drop, significant = basin
    # The middle of the basin and not its lowest point, which noise moves about.
    near = loss <= loss[bottom] + max(FLOOR * drop, significant / 2)
    largest = 10 ** ((decades[_run(near, bottom, -1)] + decades[_run(near, bottom, 1)]) / 2)
    half = 10 ** decades[_run(loss <= loss[bottom] + drop / 2, bottom, -1)]
    return Rates(min(max(largest / 2, half), largest), largest / 10, largest)


def smith(points: Points, metric: str | None = None, cycles: int = 1, width: float = 0.15) -> Rates:
    """Smith's rules as he gives them, on the smoothed evaluation loss or a metric to maximize.

    The maximum is the rate at the extremum (2018, section 4.1). The minimum is a third of it
    for several cycles (2015, section 3.3), a tenth for a single one (2018, sections 4.1 and 5).
    The rate to train at is half of the maximum: the best is "within a factor of two of the
    largest one that converges" (2015, section 3.3). He reads the extremum off a plot; here it
    is refused for the same reasons as in `robust`.
    """
    divisor = 10 if _checks.integer("cycles", cycles, minimum=1) == 1 else 3
    basin = _basin(points, width, metric)
    if isinstance(basin, Rates):
        return basin
    largest = 10 ** basin.decades[basin.bottom]
    return Rates(largest / 2, largest / divisor, largest)


class Basin(NamedTuple):
    """A smoothed loss that falls to a minimum and rises again, over decades of the rate."""

    decades: np.ndarray
    loss: np.ndarray
    bottom: int
    drop: float
    significant: float


def _basin(points: Points, width: float, metric: str | None = None) -> Basin | Rates:
    """The basin on the evaluation data if there is enough of it, else on the training data."""
    loss, eval_loss = points.loss, points.eval_loss
    if metric is not None:
        _checks.one_of("metric", metric, sorted(points.metrics.keys() | points.eval_metrics.keys()))
        loss = -points.metrics.get(metric, np.full_like(points.loss, np.nan))
        eval_loss = -points.eval_metrics.get(metric, np.full_like(points.eval_loss, np.nan))
    if np.isfinite(eval_loss).sum() < MIN_POINTS:
        return _basin_of(points.rate, loss, width)
    basin = _basin_of(points.eval_rate, eval_loss, width)
    # A fall may lie between evaluations, or before the first of a linear ramp.
    unseen = isinstance(basin, Rates) and basin.extend != "end"
    if unseen and np.isfinite(loss).any() and _largest_gap(points, eval_loss) > 2 * width:
        return _basin_of(points.rate, loss, width)
    return basin


def _largest_gap(points: Points, eval_loss: np.ndarray) -> float:
    """How far evaluations are apart, in decades, or the first from the first update."""
    known = np.isfinite(eval_loss) & (points.eval_rate > 0)
    rates = np.append(points.rate[points.rate > 0][:1], points.eval_rate[known])
    return np.diff(np.log10(rates)).max(initial=0)


def _basin_of(rate: np.ndarray, loss: np.ndarray, width: float) -> Basin | Rates:
    """The basin of a loss over the rate, or the reason why it has none.

    A linear ramp's first rate, 0 or next to nothing, is decades below the others. Its loss may be
    the transient of a start, and counts only where the others show no fall.
    """
    _checks.static("width", width, above=0)
    others = rate > rate[0]
    second = rate[others].min(initial=np.inf)
    decades = np.log10(np.maximum(rate, second / AHEAD))
    if rate[0] < second / AHEAD:
        basin = _basin_on(decades[others], loss[others], width)
        if isinstance(basin, Basin) or basin.extend == "end":
            return basin
    return _basin_on(decades, loss, width)


def _basin_on(decades: np.ndarray, loss: np.ndarray, width: float) -> Basin | Rates:
    """The basin of a loss over decades of the rate, or the reason why it has none."""
    usable = np.isfinite(loss) & np.isfinite(decades)
    diverged = not len(loss) or not np.isfinite(loss[-1])
    early = diverged and len(loss) >= MIN_POINTS and usable.sum() < EARLY * len(loss)
    if usable.sum() < MIN_POINTS:
        return Rates(reason="diverged_at_start" if early else "too_few_points")
    curve = smooth(decades[usable], loss[usable], width)
    decades, average = curve.decades, curve.average

    # The lowest loss that is sure: where points are few, one low loss makes a dip.
    bottom = int(np.argmin(average + curve.error))
    # What the loss was before it fell; not the very highest, which may be a start's transient.
    level = np.percentile(average[: bottom + 1], START)
    drop, rise = level - average[bottom], average[bottom:].max() - average[bottom]
    # A flat loss without any noise still has the rounding of float32.
    rounding = np.spacing(np.float32(np.median(np.abs(loss[usable]))))
    significant = SIGNIFICANT * curve.error[bottom] + 4 * rounding
    if drop <= significant:
        if early:
            return Rates(reason="diverged_at_start")
        if _begun(average, bottom) > max(BEGUN * rise, significant):
            return Rates(reason="no_minimum_in_range", extend="start")
        too_wide = curve.width[bottom] > TOO_WIDE * width
        return Rates(reason="too_few_points" if too_wide else "not_learning")
    if not diverged and rise <= max(FLOOR * drop, significant):
        return Rates(reason="no_minimum_in_range", extend="end")
    # An average moves a minimum away from the steeper side, a fit does not.
    near = np.abs(decades - decades[bottom]) <= curve.width[bottom]
    bottom = int(np.argmin(np.where(near, curve.fit, np.inf)))
    return Basin(decades, curve.fit, bottom, drop, significant)


def _begun(average: np.ndarray, bottom: int) -> float:
    """How far the loss falls in the first fifth of the range, where it should be level."""
    fifth = math.ceil(len(average) / 5)
    # Not above the lowest, which is below any level by its noise.
    later = np.median(average[fifth : bottom + 1]) if bottom > fifth else average[bottom]
    return average[:fifth].max() - later


def _run(holds: np.ndarray, start: int, step: int) -> int:
    """The last index, going from `start` by `step`, up to which the condition holds."""
    while 0 <= start + step < len(holds) and holds[start + step]:
        start += step
    return start
