"""The axis of seeds, which stands anywhere among the axes of lanes."""

from __future__ import annotations

import numpy as np

Arrays = dict[str, np.ndarray]


def without_seed(axes: Arrays) -> Arrays:
    """The axes of lanes but `seed`."""
    return {name: values for name, values in axes.items() if name != "seed"}


def seeds_last(axes: Arrays, array: np.ndarray, trailing: int = 0) -> np.ndarray:
    """An array of lanes with their seeds behind the other axes, before so many that are no lanes'.

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
