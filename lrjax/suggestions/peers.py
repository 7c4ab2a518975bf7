"""What the learning-rate finders of other libraries suggest, each by its own rule.

They read the training loss as it is and know nothing of lanes or noise: in place of what they
raise or leave out there is a reason. NaN is the smallest of all to `argmin`, as it is to theirs.
"""

from __future__ import annotations

import numpy as np

from lrjax import _checks
from lrjax.suggestions.points import Points
from lrjax.suggestions.results import Rates

TOO_FEW = Rates(reason="too_few_points")


def minimum(points: Points, trim: bool = True) -> Rates:
    """Fastai's `minimum`: a tenth of the rate at the lowest loss."""
    rate, loss = _fastai(points, trim)
    return Rates(rate[np.argmin(loss)] / 10) if len(loss) else TOO_FEW


def steep(points: Points, trim: bool = True) -> Rates:
    """Fastai's `steep`: where the forward difference over the rate's logarithm is lowest."""
    rate, loss = _fastai(points, trim)
    if len(loss) < 2:
        return TOO_FEW
    slopes = np.diff(loss) / np.diff(np.log(rate.astype(np.float32)))
    return Rates(rate[np.argmin(slopes)])


def valley(points: Points, trim: bool = True) -> Rates:
    """Fastai's `valley`: half-way, in steps, down the longest fall.

    The fall is the longest strictly falling subsequence, with gaps. As in fastai, its start is its
    end minus its length, which ignores the gaps and is one too small; a negative start counts from
    the end of the curve.
    """
    rate, loss = _fastai(points, trim)
    if not len(loss):
        return TOO_FEW
    falls = np.ones(len(loss), int)  # the longest fall that ends here
    for k in range(1, len(loss)):
        falls[k] += falls[:k].max(initial=0, where=loss[:k] > loss[k])
    end = int(np.argmax(falls))
    start = end - falls[end] if falls[end] > 1 else 0
    third = (end - start) / 3
    return Rates(rate[start + int(third) + int(third / 2)])


def slide(
    points: Points,
    lr_diff: int = 15,
    thresh: float = 0.005,
    adjust_value: float = 1.0,
    trim: bool = True,
) -> Rates:
    """Fastai's `slide`: an interval of `lr_diff` steps slides down from the end.

    It stops where the slopes at its ends differ by no more than `thresh`; times `adjust_value`.
    With too few points for the interval fastai raises an IndexError.
    """
    _checks.integer("lr_diff", lr_diff, minimum=1)
    _checks.static("thresh", thresh, at_least=0)
    _checks.static("adjust_value", adjust_value, above=0)
    rate, loss = _fastai(points, trim)
    if len(loss) <= lr_diff:
        return TOO_FEW
    slopes = np.gradient(loss)
    left = found = len(loss) - 1 - lr_diff
    while left >= 0 and abs(slopes[left + lr_diff] - slopes[left]) > thresh:
        found = left
        left -= 1
    return Rates(rate[found] * adjust_value)


def lightning(points: Points, skip_begin: int = 10, skip_end: int = 1) -> Rates:
    """Lightning's: where the slope over the rate itself is lowest, of the finite losses.

    With fewer than two of them Lightning gives None. `skip_end=0` leaves none there, and here.
    """
    rate, loss = _kept(points, skip_begin, skip_end)
    finite = np.isfinite(loss)
    rate, loss = rate[finite], loss[finite].astype(np.float32)
    if len(loss) < 2 or skip_end == 0:
        return TOO_FEW
    return Rates(rate[np.argmin(np.gradient(loss, rate.astype(np.float32)))])


def torch_lr_finder(points: Points, skip_start: int = 10, skip_end: int = 5) -> Rates:
    """torch-lr-finder's: where the slope per step is lowest.

    With fewer than two points left it fails to plot a suggestion.
    """
    rate, loss = _kept(points, skip_start, skip_end, names=("skip_start", "skip_end"))
    return Rates(rate[np.argmin(np.gradient(loss))]) if len(loss) > 1 else TOO_FEW


def ignite(points: Points) -> Rates:
    """Ignite's: where the slope per step is lowest, before the lowest loss.

    With fewer than two points before it Ignite raises "unexpected curve shape": here nothing is
    learned if no loss differs from the first, and else the range begins too high.
    """
    if len(points.loss) < 3:
        return TOO_FEW
    fall = points.loss[: np.argmin(points.loss) + 1].astype(np.float32)
    if len(fall) > 2:
        return Rates(points.rate[np.argmin((fall[2:] - fall[:-2]) / 2) + 1])
    if np.all(points.loss == points.loss[0]):
        return Rates(reason="not_learning")
    return Rates(reason="no_minimum_in_range", extend="start")


def surmenok(points: Points, sma: int = 5, skip_begin: int = 10, skip_end: int = 5) -> Rates:
    """keras_lr_finder's, by Surmenok: where the loss has fallen most in the `sma` steps before.

    With no points left it raises; `skip_end=0` leaves none there, and here all.
    """
    _checks.integer("sma", sma, minimum=1)
    change = np.zeros_like(points.loss)
    change[sma:] = (points.loss[sma:] - points.loss[:-sma]) / sma
    rate, change = _kept(points._replace(loss=change), skip_begin, skip_end)
    return Rates(rate[np.argmin(change)]) if len(change) else TOO_FEW


def _fastai(points: Points, trim: bool) -> tuple[np.ndarray, np.ndarray]:
    """In float32, as fastai's tensors; its `lr_find` trims the ends, and all from a NaN on."""
    if not _checks.flag("trim", trim):
        return points.rate, points.loss.astype(np.float32)
    rate, loss = _kept(points, len(points.loss) // 10, 5)
    nans = np.flatnonzero(np.isnan(loss))
    known = slice(nans[0] if len(nans) else None)
    return rate[known], loss[known].astype(np.float32)


def _kept(
    points: Points, begin: int, end: int, names: tuple[str, str] = ("skip_begin", "skip_end")
) -> tuple[np.ndarray, np.ndarray]:
    """The rates and losses without so many points at either side."""
    for name, value in zip(names, (begin, end), strict=True):
        _checks.integer(name, value)
    kept = slice(begin, max(len(points.loss) - end, 0))
    return points.rate[kept], points.loss[kept]
