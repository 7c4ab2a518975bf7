"""Poolings, as operations on what the elements of a window see."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from lrjax.convolutions.windows import MAX_TAPS, Window, put_back, taps


def max_rule(shape: tuple[int, ...], _: tuple[int, ...], **params) -> Callable | None:
    """The largest of each window, with a gradient that is no select-and-scatter."""
    window = _window(**params)
    return window and functools.partial(max_pool, window=window)


def sum_rule(shape: tuple[int, ...], _: tuple[int, ...], **params) -> Callable | None:
    """The sum of each window."""
    window = _window(**params)
    return window and functools.partial(sum_pool, window=window)


def _window(
    *, window_dimensions, window_strides, padding, base_dilation, window_dilation
) -> Window | None:
    if max(base_dilation) > 1 or math.prod(window_dimensions) > MAX_TAPS:
        return None
    return Window(*map(tuple, (window_dimensions, window_strides, padding, window_dilation)))


def max_pool(x: jax.Array, window: Window) -> jax.Array:
    """The largest element of every window.

    The gradient goes to the first of equal ones, as that of XLA's own.

    Example:
        >>> window = Window(size=(2,), strides=(2,), padding=((0, 0),), dilation=(1,))
        >>> x = jnp.array([1.0, 1.0, 2.0, 3.0, 9.0])
        >>> max_pool(x, window), jax.grad(lambda x: max_pool(x, window).sum())(x)
        (Array([1., 3.], dtype=float32), Array([1., 0., 0., 1., 0.], dtype=float32))
    """
    # Of windows that overlap, XLA would compute all elements again for each place that they take in
    # one, which are fewer along one axis after another.
    for part in [window] if window.disjoint else window.axes():
        x = _largest(x, part)
    return x


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _largest(x, window):
    return functools.reduce(jnp.maximum, taps(x, window, -jnp.inf))


def _max_forward(x, window):
    return _largest(x, window), x


def _max_backward(window, x, grad):
    largest, *others = taps(x, window, -jnp.inf)
    winner = jnp.zeros(largest.shape, jnp.int8)
    for k, tap in enumerate(others, 1):
        winner = jnp.where(tap > largest, jnp.int8(k), winner)
        largest = jnp.maximum(largest, tap)
    # Not where they equal the largest: XLA may compute that again, and round it in another way.
    parts = [jnp.where(winner == k, grad, jnp.zeros_like(grad)) for k in range(len(others) + 1)]
    return (put_back(parts, x.shape, window),)


_largest.defvjp(_max_forward, _max_backward)


def sum_pool(x: jax.Array, window: Window) -> jax.Array:
    """The sum of every window.

    Example:
        >>> window = Window(size=(2,), strides=(2,), padding=((0, 0),), dilation=(1,))
        >>> sum_pool(jnp.array([1.0, 1.0, 2.0, 3.0, 9.0]), window)
        Array([2., 5.], dtype=float32)
    """
    if not window.disjoint:
        for part in window.axes():
            x = sum(taps(x, part), start=jnp.zeros((), x.dtype))
        return x
    counts = [length // width for length, width in zip(x.shape, window.size, strict=True)]
    whole = [count * width for count, width in zip(counts, window.size, strict=True)]
    blocks = lax.slice(x, (0,) * x.ndim, whole)
    blocks = blocks.reshape(*itertools.chain(*zip(counts, window.size, strict=True)))
    return blocks.sum(range(1, blocks.ndim, 2))
