"""Random search: lanes whose hyperparameters are drawn from distributions."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from lrjax import _checks

__all__ = ["choice", "log_uniform", "random_lanes", "uniform"]

Distribution = Callable[[jax.Array, int], jax.Array]


def random_lanes(
    key: jax.Array, n: int, **distributions: Distribution | float
) -> list[dict[str, float]]:
    """Lanes for a sweep with hyperparameters drawn at random, independently of one another.

    With the same number of runs, random points cover every single hyperparameter better than a
    grid does. What is drawn for one name does not depend on the others.

    Args:
        key: a key of `jax.random`.
        n: how many lanes.
        **distributions: by hyperparameter: `log_uniform(…)`, `uniform(…)`, `choice(…)`, any
            function `(key, n) -> [n]`, or a number for all lanes.

    Returns:
        A list of dicts, as `sweep` and `range_test` take it for `lanes`.

    Raises:
        ValueError: for fewer than one lane, no distribution, or one that gives other than n
            values.
        TypeError: for a distribution that is neither a function nor a number.

    Example:
        >>> lanes = random_lanes(
        ...     jax.random.key(0), 3, weight_decay=log_uniform(1e-6, 1e-2), momentum=0.9)
        >>> [sorted(lane) for lane in lanes]
        [['momentum', 'weight_decay'], ['momentum', 'weight_decay'], ['momentum', 'weight_decay']]

    References:
        Bergstra & Bengio, Random Search for Hyper-Parameter Optimization, JMLR 13, 2012.
    """
    _checks.integer("n", n, minimum=1)
    if not distributions:
        raise ValueError("distributions must name at least one hyperparameter, got none.")
    columns = {
        name: _drawn(name, distribution, jax.random.fold_in(key, zlib.crc32(name.encode())), n)
        for name, distribution in distributions.items()
    }
    return [
        dict(zip(columns, map(float, row), strict=True))
        for row in zip(*columns.values(), strict=True)
    ]


def _drawn(name: str, distribution: Distribution | float, key: jax.Array, n: int) -> np.ndarray:
    if not callable(distribution):
        return np.full(n, _checks.static(name, distribution))
    values = np.asarray(distribution(key, n))
    if values.shape != (n,):
        raise ValueError(f"{name} must give {n} values, got the shape {values.shape}.")
    return values


def log_uniform(low: float, high: float) -> Distribution:
    """A distribution that is uniform in the logarithm: every decade is as likely.

    Args:
        low: the smallest value, above 0.
        high: the largest.

    Returns:
        A function `(key, n) -> f32[n]`, for `random_lanes`.

    Raises:
        ValueError: unless 0 < low < high.

    Example:
        >>> values = log_uniform(1e-6, 1e-2)(jax.random.key(0), 1000)
        >>> bool(400 < jnp.sum(values < 1e-4) < 600)
        True
    """
    _check_range(low, high, above=0)
    return functools.partial(_log_uniform, low=low, high=high)


def _log_uniform(key, n, low, high):
    return jnp.exp(_uniform(key, n, np.log(low), np.log(high)))


def uniform(low: float, high: float) -> Distribution:
    """A distribution that is uniform between two values.

    Args:
        low: the smallest value.
        high: the largest.

    Returns:
        A function `(key, n) -> f32[n]`, for `random_lanes`.

    Raises:
        ValueError: unless low < high.

    Example:
        >>> values = uniform(0.85, 0.95)(jax.random.key(0), 1000)
        >>> bool(jnp.all((0.85 <= values) & (values <= 0.95)))
        True
    """
    _check_range(low, high)
    return functools.partial(_uniform, low=low, high=high)


def _uniform(key, n, low, high):
    return jax.random.uniform(key, (n,), minval=low, maxval=high)


def _check_range(low: float, high: float, **bounds: float) -> None:
    _checks.static("low", low, **bounds)
    _checks.static("high", high)
    if not low < high:
        raise ValueError(f"low must be below high ({high!r}), got {low!r}.")


def choice(values: Sequence[float]) -> Distribution:
    """A distribution of a few values, each as likely.

    Args:
        values: the values.

    Returns:
        A function `(key, n) -> f32[n]`, for `random_lanes`.

    Raises:
        ValueError: for no values, or one that is not finite.

    Example:
        >>> values = choice([0.9, 0.95, 0.99])(jax.random.key(0), 1000)
        >>> len(set(values.tolist()))
        3
    """
    values = _checks.each("values", values, _checks.static, fewest=1)
    return functools.partial(_choice, values=values)


def _choice(key, n, values):
    return jax.random.choice(key, jnp.asarray(values, jnp.result_type(float)), (n,))
