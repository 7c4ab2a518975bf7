"""Smith's rules, on curves smoothed without a lag."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from lrjax import _checks
from lrjax.suggestions.lanes import Lane
from lrjax.suggestions.results import Rates

__all__ = ["robust", "smith"]

MIN_POINTS, MAX_POINTS = 10, 2000
# How many standard errors of the smoothed loss are not chance: the lowest of some dozens of
# independent values lies about three below their mean.
SIGNIFICANT = 6.0


def robust(lane: Lane, width: float = 0.15) -> Rates:
    """Rates by Smith's rules from losses smoothed without a lag, or a reason."""
    basin = _basin(lane, width)
    if isinstance(basin, Rates):
        return basin
    decades, loss, bottom, drop, significant = basin
    # The middle of the basin and not its lowest point, which noise moves about.
    near = loss <= loss[bottom] + max(drop / 20, significant / 2)
    largest = 10 ** ((decades[_run(near, bottom, -1)] + decades[_run(near, bottom, 1)]) / 2)
    half = 10 ** decades[_run(loss <= loss[bottom] + drop / 2, bottom, -1)]
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
    basin = _basin(lane, width, metric)
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


def _basin(lane: Lane, width: float, metric: str | None = None) -> Basin | Rates:
    """The basin on the evaluation data if there is enough of it, else on the training data."""
    loss, eval_loss = lane.loss, lane.eval_loss
    if metric is not None:
        _checks.one_of("metric", metric, sorted(lane.metrics.keys() | lane.eval_metrics.keys()))
        loss = -lane.metrics.get(metric, np.full_like(lane.loss, np.nan))
        eval_loss = -lane.eval_metrics.get(metric, np.full_like(lane.eval_loss, np.nan))
    if np.isfinite(eval_loss).sum() < MIN_POINTS:
        return _basin_of(lane.rate, loss, width)
    basin = _basin_of(lane.eval_rate, eval_loss, width)
    # A fall may lie between evaluations, or before the first of a linear ramp.
    unseen = isinstance(basin, Rates) and basin.extend != "end"
    if unseen and np.isfinite(loss).any() and _largest_gap(lane, eval_loss) > 2 * width:
        return _basin_of(lane.rate, loss, width)
    return basin


def _largest_gap(lane: Lane, eval_loss: np.ndarray) -> float:
    """How far evaluations are apart, in decades, or the first from the first update."""
    known = np.isfinite(eval_loss) & (lane.eval_rate > 0)
    rates = np.append(lane.rate[lane.rate > 0][:1], lane.eval_rate[known])
    return np.diff(np.log10(rates)).max(initial=0)


def _basin_of(rate: np.ndarray, loss: np.ndarray, width: float) -> Basin | Rates:
    """The basin of a loss, or the reason why it has none."""
    _checks.static("width", width, above=0)
    usable = np.isfinite(loss) & (rate > 0)
    diverged = not np.isfinite(loss[-1])
    early = diverged and len(loss) >= MIN_POINTS and usable.sum() < len(loss) / 5
    if usable.sum() < MIN_POINTS:
        return Rates(reason="diverged_at_start" if early else "too_few_points")
    curve = _smooth(np.log10(rate[usable]), loss[usable], width)
    decades, average, error, *_ = curve

    # The lowest loss that is sure: where points are few, one low loss makes a dip.
    bottom = int(np.argmin(average + error))
    # What the loss was before it fell; not the very highest, which may be a start's transient.
    level = np.percentile(average[: bottom + 1], 75)
    drop, rise = level - average[bottom], average[bottom:].max() - average[bottom]
    # A flat loss without any noise still has the rounding of float32.
    rounding = np.spacing(np.float32(np.median(np.abs(loss[usable]))))
    significant = SIGNIFICANT * error[bottom] + 4 * rounding
    if drop <= significant:
        if early:
            return Rates(reason="diverged_at_start")
        untrained, fifth = loss[np.isfinite(loss) & (rate == 0)], -(-len(average) // 5)
        # Not above the lowest, which is below any level by its noise.
        later = np.median(average[fifth : bottom + 1]) if bottom > fifth else average[bottom]
        begun = np.append(untrained, average[:fifth]).max() - later
        if begun > max(rise / 5, significant):
            return Rates(reason="no_minimum_in_range", extend="start")
        too_wide = curve.width[bottom] > TOO_WIDE * width
        return Rates(reason="too_few_points" if too_wide else "not_learning")
    if not diverged and rise <= max(drop / 20, significant):
        return Rates(reason="no_minimum_in_range", extend="end")
    # An average moves a minimum away from the steeper side, a fit does not.
    near = np.abs(decades - decades[bottom]) <= curve.width[bottom]
    bottom = int(np.argmin(np.where(near, curve.fit, np.inf)))
    return Basin(decades, curve.fit, bottom, drop, significant)


TOO_WIDE = 4  # times the width that was asked for, an average hides what there is


class Smooth(NamedTuple):
    """A loss on an even grid of decades, smoothed in two ways."""

    decades: np.ndarray
    average: np.ndarray
    error: np.ndarray  # of the average
    fit: np.ndarray
    width: np.ndarray  # of the average, in decades


def _smooth(decades: np.ndarray, loss: np.ndarray, width: float) -> Smooth:
    """Centred Gaussian averages, which tell what is sure, and parabolas, which tell where it is.

    A grid of decades and not of steps, so that linear and exponential ramps are read alike.
    """
    decades, loss = _thinned(decades), _thinned(_without_blow_up(decades, loss))
    kernels = _kernels(tuple(decades.tolist()), width)
    average = kernels.average @ loss
    # The second difference of a smooth curve is all noise: normal, its mean size is sqrt(12 / pi).
    scatter = kernels.nearby @ np.abs(np.diff(loss, 2))
    persistence = _persistence(loss - np.interp(decades, kernels.grid, average))
    noise = scatter / np.sqrt(12 / np.pi) * persistence
    error = noise * np.sqrt((kernels.average**2).sum(1))
    return Smooth(kernels.grid, average, error, kernels.parabolas @ loss, kernels.widths)


class Kernels(NamedTuple):
    """The weights of the points in what is told at each place of a grid."""

    grid: np.ndarray  # places, in decades
    widths: np.ndarray  # of the averages
    average: np.ndarray  # [places, points]
    nearby: np.ndarray  # likewise, of the second differences in an estimate of the noise
    parabolas: np.ndarray


@functools.lru_cache(maxsize=4)  # most lanes of a sweep have the same rates
def _kernels(decades: tuple[float, ...], width: float) -> Kernels:
    points = np.array(decades)
    places = min(2 + int(np.ptp(points) / (width / 3)), MAX_POINTS)
    grid = np.linspace(points[0], points[-1], places)
    apart = np.interp(grid, points, np.gradient(points))
    widths = np.maximum(width, 1.5 * apart)
    # The noise is that of lower rates: what follows a minimum may be chaos.
    nearby = _gaussian(grid, points[1:-1], 6 * widths)
    nearby *= points[1:-1] <= np.maximum(grid, points[MIN_POINTS - 1])[:, None]
    return Kernels(
        grid,
        widths,
        _gaussian(grid, points, widths),
        nearby / nearby.sum(1, keepdims=True),
        _parabolas(grid, points, np.maximum(width, apart)),
    )


def _parabolas(at: np.ndarray, points: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """The weights of the points in a parabola's value at each place, fitted to what is around it.

    With these weights w of the points x, the value is the intercept of a least-squares fit by 1,
    x and x^2, whose weights are Gaussian (a local regression, as LOESS).
    """
    x = (points - at[:, None]) / widths[:, None]
    gaussian = _gaussian(at, points, widths)
    powers = np.stack([np.ones_like(x), x, x**2, x**3, x**4], -1)
    sums = np.einsum("ap,apk->ak", gaussian, powers)
    # Where fewer than three points are near, the flattest parabola.
    moments = sums[:, np.add.outer(range(3), range(3))] + 1e-9 * np.eye(3)
    intercept = np.linalg.solve(moments, np.broadcast_to(np.eye(3, 1), (len(at), 3, 1)))
    return gaussian * (powers[..., :3] @ intercept)[..., 0]


def _gaussian(at: np.ndarray, points: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """The weights of the points in an average around each place."""
    weight = np.exp(-0.5 * ((points - at[:, None]) / widths[:, None]) ** 2)
    return weight / weight.sum(1, keepdims=True)


def _persistence(residual: np.ndarray) -> float:
    """The factor by which a mean errs more where neighbours err alike.

    For noise of the first order, with the correlation r of neighbours, it is
    sqrt((1 + r) / (1 - r)); and second differences see sqrt((1 - r) (1 - r / 3)) of that noise.
    Here r follows from how often the signs
    of neighbours agree; beyond 0.3 it is the smoothing that bends, not the noise that persists.
    """
    above = residual > np.median(residual)
    agree = np.mean(above[1:] == above[:-1])
    r = np.clip(np.sin(np.pi * (agree - 0.5)), 0, 0.3)
    return np.sqrt((1 + r) / (1 - r) / ((1 - r) * (1 - r / 3)))


def _thinned(values: np.ndarray) -> np.ndarray:
    """The means of so many values in a row each that a long curve becomes a short one."""
    group = -(-len(values) // MAX_POINTS)
    starts = np.arange(0, len(values), group)
    return np.add.reduceat(values, starts) / np.diff(np.append(starts, len(values)))


def _without_blow_up(decades: np.ndarray, loss: np.ndarray) -> np.ndarray:
    """The losses, cut off far above where they began: how far up they went tells nothing."""
    high = loss[decades <= decades[0] + np.ptp(decades) / 4].max()
    return np.minimum(loss, high + (high - loss.min()))


def _run(holds: np.ndarray, start: int, step: int) -> int:
    """The last index, going from `start` by `step`, up to which the condition holds."""
    while 0 <= start + step < len(holds) and holds[start + step]:
        start += step
    return start
