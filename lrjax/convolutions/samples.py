"""Samples in parts that stay in a core's cache, one part after another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from lrjax._dtypes import wider

# Bytes that stay in a core's cache from when they are written until they are read.
CACHE_BYTES = 2**21


def parts(samples: int, size: float) -> int:
    """The fewest equal parts of the samples, of `size` bytes in all, that each fit the cache.

    Example:
        >>> parts(12, 1.5 * CACHE_BYTES), parts(12, 3.5 * CACHE_BYTES)
        (2, 4)
    """
    counts = (n for n in range(1, samples) if samples % n == 0 and size <= n * CACHE_BYTES)
    return next(counts, samples)


def part_by_part(function: Callable, count: int, *arrays: jax.Array) -> tuple[Any, Any]:
    """A function of samples, `(*arrays) -> (summed, joined)`, for one part after another.

    Args:
        function: two trees of arrays: what is added up over the samples, and what there is of
            each sample, along the first axis.
        count: how many parts, which divides the samples.
        arrays: with the samples along their first axis.

    Example:
        >>> x = jnp.arange(6.0)
        >>> total, squares = part_by_part(lambda x: (x.sum(), x**2), 3, x)
        >>> float(total), squares.tolist()
        (15.0, [0.0, 1.0, 4.0, 9.0, 16.0, 25.0])
    """
    if count == 1:
        return function(*arrays)
    split = [array.reshape(count, -1, *array.shape[1:]) for array in arrays]
    shapes, _ = jax.eval_shape(function, *(array[0] for array in split))

    def add(total, part):
        summed, each = function(*part)
        total = jax.tree.map(lambda so_far, new: so_far + new.astype(so_far.dtype), total, summed)
        return total, each

    total = jax.tree.map(
        lambda shape: jnp.zeros(shape.shape, wider(shape.dtype, jnp.float32)), shapes
    )
    total, joined = lax.scan(add, total, split)
    return (
        jax.tree.map(lambda array, shape: array.astype(shape.dtype), total, shapes),
        jax.tree.map(lambda array: array.reshape(-1, *array.shape[2:]), joined),
    )
