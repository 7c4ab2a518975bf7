"""Losses smoothed without a lag, on an even grid of decades of the rate."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np

MIN_POINTS, MAX_POINTS = 10, 2000

# Chosen on the made-up curves of benchmarks/suggestions.py, whose header says on which of them.
PLACES = 3  # of the grid, for every width
SPACING = 1.5  # an average is at least as wide as so many distances between points
AROUND = 6  # widths from which the noise at a place is estimated
PERSISTENT = 0.3  # beyond this correlation of neighbours it is the smoothing that bends


class Smooth(NamedTuple):
    """A loss on an even grid of decades, smoothed in two ways."""

    decades: np.ndarray
    average: np.ndarray
    error: np.ndarray  # of the average
    fit: np.ndarray
    width: np.ndarray  # of the average, in decades


def smooth(decades: np.ndarray, loss: np.ndarray, width: float) -> Smooth:
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
    """The weights of the points in each value on a grid."""

    grid: np.ndarray  # places, in decades
    widths: np.ndarray  # of the averages
    average: np.ndarray  # [places, points]
    nearby: np.ndarray  # likewise, of the second differences in an estimate of the noise
    parabolas: np.ndarray


@functools.lru_cache(maxsize=4)  # most lanes of a sweep have the same rates
def _kernels(decades: tuple[float, ...], width: float) -> Kernels:
    points = np.array(decades)
    places = min(2 + int(np.ptp(points) / (width / PLACES)), MAX_POINTS)
    grid = np.linspace(points[0], points[-1], places)
    apart = np.interp(grid, points, np.gradient(points))
    widths = np.maximum(width, SPACING * apart)
    # The noise is that of lower rates: what follows a minimum may be chaos.
    nearby = _gaussian(grid, points[1:-1], AROUND * widths)
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
    Here r follows from how often the signs of neighbours agree.
    """
    # Losses that were cut off have a residual of 0 and some rounding, which has no sign.
    above = residual > np.median(residual) + 1e-9 * np.ptp(residual)
    agree = np.mean(above[1:] == above[:-1])
    r = np.clip(np.sin(np.pi * (agree - 0.5)), 0, PERSISTENT)
    return np.sqrt((1 + r) / (1 - r) / ((1 - r) * (1 - r / 3)))


def _thinned(values: np.ndarray) -> np.ndarray:
    """The means of so many values in a row each that a long curve becomes a short one."""
    group = math.ceil(len(values) / MAX_POINTS)
    starts = np.arange(0, len(values), group)
    return np.add.reduceat(values, starts) / np.diff(np.append(starts, len(values)))


def _without_blow_up(decades: np.ndarray, loss: np.ndarray) -> np.ndarray:
    """The losses, cut off far above where they began: how far up they went tells nothing."""
    high = loss[decades <= decades[0] + np.ptp(decades) / 4].max()
    return np.minimum(loss, high + (high - loss.min()))
