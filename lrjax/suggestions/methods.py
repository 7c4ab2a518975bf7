"""All methods by name, and `suggest`, which reads every lane by one of them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from lrjax import _checks
from lrjax.curves import Curves
from lrjax.curves.axes import seeds_differ, seeds_last
from lrjax.curves.results import checked
from lrjax.suggestions import basins, peers
from lrjax.suggestions.points import Points, points_of
from lrjax.suggestions.results import Rates, Suggestion, over_named

METHODS: dict[str, Callable[..., Rates]] = {
    "robust": basins.robust,
    "smith": basins.smith,
    "valley": peers.valley,
    "steep": peers.steep,
    "minimum": peers.minimum,
    "slide": peers.slide,
    "lightning": peers.lightning,
    "torch_lr_finder": peers.torch_lr_finder,
    "ignite": peers.ignite,
    "surmenok": peers.surmenok,
}


def suggest(curves: Curves, method: str = "robust", **options: Any) -> Suggestion:
    """Learning rates from the curves of a range test, for every lane.

    `"robust"`, the default, fits the losses without a lag, by a parabola around every rate in
    decades, so that neither the number of steps nor the range, the scale or the sign of the loss
    moves it. It reads the evaluation loss if there are at least 10 evaluations, and the training
    loss where those are far apart and show no fall. Following Smith:

    - `max_learning_rate` is where the loss is lowest, the largest usable rate (2018, section 4.1),
      or the middle of where it is about as low;
    - `learning_rate` is half of it ("within a factor of two of the largest one that
      converges", 2015, section 3.3), but no less than where half of the drop is done;
    - `min_learning_rate` is a tenth of the maximum (2018, section 5).

    These rules were found for SGD, and for rates that rise and fall. For a constant rate a third to
    a tenth of the suggestion may do better; for Lion, LAMB or Muon, whose updates do not shrink
    with the gradient, a tenth to a thirtieth (benchmarks/optimizers.py).

    The others give exactly what their source gives for the same losses y at the rates r,
    unsmoothed and NaN included; where the source fails or refuses, there is a reason instead. Only
    `"smith"` gives a minimum and a maximum, smooths, and looks at evaluations.

    - `"smith"`: the maximum is r at the extremum of the evaluation loss, or of a metric; the
      rate half of it, the minimum a tenth, or a third for several cycles (2015, section 3.3;
      2018, sections 4.1 and 5).
    - `"valley"`: half-way down the longest strictly falling subsequence of y (fastai 2.8).
    - `"steep"`: r[argmin diff(y) / diff(log(r))] (fastai 2.8).
    - `"minimum"`: r[argmin y] / 10 (fastai 2.8).
    - `"slide"`: from the end down to where the slopes of y at both ends of an interval differ
      by at most a threshold, r at its left end (fastai 2.8).
    - `"lightning"`: r[argmin dy/dr], of the finite y (Lightning 2.6, `suggestion`).
    - `"torch_lr_finder"`: r[argmin dy/dstep] (torch-lr-finder 0.2, `plot`).
    - `"ignite"`: r[argmin dy/dstep], before the lowest y (Ignite 0.5, `lr_suggestion`).
    - `"surmenok"`: r[argmin (y - y of `sma` steps ago)] (keras_lr_finder, `get_best_lr`).

    Args:
        curves: of a range test: the learning rate rises, from 0 or more.
        method: one of the names above.
        **options: the method's own.
            `robust`: `width`, the standard deviation of the smoothing in decades, 0.15.
            `smith`: likewise; `metric`, the name of one whose highest value is sought in place
            of the lowest loss; `cycles`, how many there will be, 1.
            `valley`, `steep`, `minimum`, `slide`: `trim`, whether to leave out the first tenth
            of the steps, the last five and all from the first NaN on, as `lr_find` does, True.
            `slide` also: `lr_diff`, the interval in steps, 15; `thresh`, 0.005;
            `adjust_value`, which multiplies the rate, 1.0.
            `lightning`: `skip_begin` and `skip_end`, 10 and 1.
            `torch_lr_finder`: `skip_start` and `skip_end`, 10 and 5.
            `surmenok`: `sma` in steps, 5; `skip_begin` and `skip_end`, 10 and 5.

    Returns:
        The rates of every lane, and with `.consensus` one for all seeds.

    Raises:
        ValueError: for an unknown method, a bad option, or a learning rate that does not rise.
        TypeError: for an option that the method does not have.

    Example:
        >>> rates = np.geomspace(1e-5, 10, 200).astype(np.float32)
        >>> loss = 0.3 + 2 / (1 + rates / 0.01) + rates**2
        >>> suggest(Curves(learning_rate=rates, loss=loss))
        Suggestion by 'robust'
          learning rate 0.0919, cycle from 0.0184 to 0.184
        >>> suggest(Curves(learning_rate=rates, loss=loss), "torch_lr_finder", skip_end=1)
        Suggestion by 'torch_lr_finder'
          learning rate 0.00966

    References:
        Smith, Cyclical Learning Rates for Training Neural Networks, 2015, arXiv 1506.01186.
        Smith, A disciplined approach to neural network hyper-parameters, 2018,
        arXiv 1803.09820.
    """
    checked(curves)
    rule = functools.partial(METHODS[_checks.one_of("method", method, METHODS)], **options)
    # Losses that overflow are data: their slopes are what the sources make of them.
    with np.errstate(all="ignore"):
        lanes = [_read(points, rule) for points in points_of(curves)]
    shape = curves.diverged_at.shape
    columns = {
        name: np.array(column).reshape(shape)
        for name, column in zip(Rates._fields, zip(*lanes, strict=True), strict=True)
    }
    decades = np.log10(seeds_last(curves.axes, columns["learning_rate"]))
    spread = over_named(_deviation, decades)
    if not seeds_differ(curves.axes, curves.loss, curves.eval_loss):
        spread = np.full_like(spread, np.nan)
    return Suggestion(axes=curves.axes, method=method, spread=spread, **columns)


def _read(points: Points, rule: Callable[[Points], Rates]) -> Rates:
    """What a method reads from a lane, unless there is nothing to read."""
    if len(points.loss) < 2:
        return Rates(reason="too_few_points")
    if not np.isfinite(points.loss).any():
        return Rates(reason="diverged_at_start")
    rates = rule(points)
    # A ramp may begin at 0, which is not a rate to train at.
    if not rates.reason and not rates.learning_rate > 0:
        return Rates(reason="no_minimum_in_range", extend="start")
    return rates


def _deviation(decades: np.ndarray) -> float:
    return np.std(decades, ddof=1) if len(decades) > 1 else np.nan
