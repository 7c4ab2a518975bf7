"""The points of a lane's curves, as the methods read them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from lrjax.curves import Curves


class Points(NamedTuple):
    """The curves of one lane, float64[steps] and float64[evals]."""

    rate: np.ndarray
    loss: np.ndarray
    metrics: dict[str, np.ndarray]
    eval_rate: np.ndarray
    eval_loss: np.ndarray
    eval_metrics: dict[str, np.ndarray]


def points_of(curves: Curves) -> list[Points]:
    """Every lane's points, up to where the sweep ended.

    Raises:
        ValueError: if the learning rates of a lane do not rise.
    """
    curves = curves.done()
    # Before the first update no rate has had any effect.
    evaluated = curves.eval_steps > 0
    rates = curves.rates()
    found = []
    for index in np.ndindex(curves.diverged_at.shape):
        updates, evaluations = _picked(index, slice(None)), _picked(index, evaluated)
        rate = updates(rates)
        points = Points(
            rate=rate,
            loss=updates(curves.loss),
            metrics={name: updates(values) for name, values in curves.metrics.items()},
            # The evaluation after n updates saw the rate of update n - 1 last.
            eval_rate=rate[curves.eval_steps[evaluated] - 1],
            eval_loss=evaluations(curves.eval_loss),
            eval_metrics={name: evaluations(v) for name, v in curves.eval_metrics.items()},
        )
        _check_rising(points)
        found.append(points)
    return found


def _picked(index: tuple[int, ...], which: slice | np.ndarray) -> Callable:
    return lambda array: np.asarray(array[index][which], np.float64)


def _check_rising(points: Points) -> None:
    # A sweep whose lanes have all diverged stops, and tells no more rates.
    rate = points.rate[np.isfinite(points.loss) | np.isfinite(points.rate)]
    if len(rate) < 2:
        return
    # A staircase is a range test too.
    if not (0 <= rate[0] < rate[-1] < np.inf and np.all(np.diff(rate) >= 0)):
        raise ValueError(
            "suggest needs the curves of a range test, whose learning_rate rises from 0 or more, "
            f"got {np.array2string(rate, precision=3, threshold=6, edgeitems=3)}."
        )
