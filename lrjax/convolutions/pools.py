"""Poolings, as operations on what the elements of a window see."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from lrjax.convolutions.windows import MAX_TAPS, Window, pad, put_back, taps


def rule(pool: Callable, *_shapes: tuple[int, ...], **params: Any) -> Callable | None:
    """What a pooling becomes, or None where its windows are not covered."""
    found = window_of(**params)
    return None if found is None else functools.partial(pool, window=found)


def window_of(
    *, window_dimensions, window_strides, padding, base_dilation, window_dilation
) -> Window | None:
    """What a pooling's parameters say, if it is one whose windows are covered."""
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
    # Where windows overlap, XLA computes an element again for every place that it takes in one;
    # along one axis after another these are h + w instead of h * w.
    for part in [window] if window.disjoint else window.axes():
        x = _largest(x, part, x.shape)
    return x


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _largest(x, window, _):
    return functools.reduce(jnp.maximum, taps(x, window, -jnp.inf))


def _max_forward(x, window, _):
    return largest_and_where(x, window)


def _max_backward(window, shape, winners, grad):
    return (put_at(winners, grad, shape, window),)


_largest.defvjp(_max_forward, _max_backward)


def largest_and_where(x: jax.Array, window: Window) -> tuple[jax.Array, jax.Array]:
    """The largest element of every window, and the number that the first such has in it, i8.

    Example:
        >>> window = Window(size=(2,), strides=(2,), padding=((0, 0),), dilation=(1,))
        >>> largest_and_where(jnp.array([1.0, 1.0, 2.0, 3.0, 9.0]), window)
        (Array([1., 3.], dtype=float32), Array([0, 1], dtype=int8))
    """
    values, *others = taps(x, window, -jnp.inf)
    winners = jnp.zeros(values.shape, jnp.int8)
    for k, tap in enumerate(others, 1):
        winners = jnp.where(tap > values, jnp.int8(k), winners)
        values = jnp.maximum(values, tap)
    return values, winners


def put_at(
    winners: jax.Array, grad: jax.Array, shape: tuple[int, ...], window: Window
) -> jax.Array:
    """An array of a shape in which every window's winner has its gradient, and the rest 0.

    Example:
        >>> window = Window(size=(2,), strides=(2,), padding=((0, 0),), dilation=(1,))
        >>> put_at(jnp.int8([0, 1]), jnp.array([4.0, 5.0]), (5,), window)
        Array([4., 0., 0., 5., 0.], dtype=float32)
    """
    if not window.disjoint:
        places = range(math.prod(window.size))
        parts = [jnp.where(winners == k, grad, jnp.zeros_like(grad)) for k in places]
        return put_back(parts, shape, window)
    # One selection over all blocks: XLA does not vectorize a stack of selections in a loop.
    blocks = tuple(itertools.chain(*zip(winners.shape, window.size, strict=True)))
    inner = range(1, len(blocks), 2)
    numbers = jnp.zeros(blocks, jnp.int8)
    for axis, width in zip(inner, window.size, strict=True):
        if width > 1:
            apart = math.prod(blocks[axis + 2 :: 2])
            numbers += apart * lax.broadcasted_iota(jnp.int8, blocks, axis)
    winners, grad = (jnp.expand_dims(array, tuple(inner)) for array in (winners, grad))
    spread = jnp.where(winners == numbers, grad, jnp.zeros_like(grad))
    whole = [count * width for count, width in zip(blocks[::2], window.size, strict=True)]
    edges = [(0, full - part) for full, part in zip(shape, whole, strict=True)]
    return pad(spread.reshape(whole), edges)


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
