"""The axes of lanes, among which that of the seeds stands anywhere."""

from __future__ import annotations

from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]


def coordinates(axes: Arrays, index: tuple[Any, ...]) -> dict[str, Any]:
    """A lane's coordinate along every axis.

    Example:
        >>> coordinates({"momentum": np.array([0.8, 0.9]), "seed": np.array([4])}, (1, 0))
        {'momentum': np.float64(0.9), 'seed': np.int64(4)}
    """
    return {name: values[k] for (name, values), k in zip(axes.items(), index, strict=True)}


def without_seed(axes: Arrays) -> Arrays:
    """The axes of lanes but `seed`."""
    return {name: values for name, values in axes.items() if name != "seed"}


def seeds_last(axes: Arrays, array: np.ndarray, trailing: int = 0) -> np.ndarray:
    """The array with its seed axis moved after the other lane axes, before `trailing` further axes.

    Without an axis `seed` there is one seed.

    Example:
        >>> axes = {"seed": np.arange(2), "momentum": np.arange(3)}
        >>> seeds_last(axes, np.ones((2, 3, 9)), trailing=1).shape
        (3, 2, 9)
        >>> seeds_last({}, np.float32(1)).shape
        (1,)
    """
    if "seed" not in axes:
        return np.expand_dims(array, np.ndim(array) - trailing)
    return np.moveaxis(array, list(axes).index("seed"), -1 - trailing)


def seeds_differ(axes: Arrays, *losses: np.ndarray) -> bool:
    """Whether any of the losses, steps last, is not the same at every seed.

    They are where lanes start from given parameters and draw no random numbers.

    Example:
        >>> axes = {"seed": np.arange(2)}
        >>> seeds_differ(axes, np.array([[3, 1], [3, 2]])), seeds_differ(axes, np.ones((2, 2)))
        (True, False)
    """
    by_seed = [seeds_last(axes, loss, trailing=1) for loss in losses]
    return not all(
        np.array_equal(e, np.broadcast_to(e[..., :1, :], e.shape), True) for e in by_seed
    )
