"""Windows that slide over an array: what each of their elements sees."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

# Each element of a window is an operation of its own, so that more take long to compile.
MAX_TAPS = 128


class Window(NamedTuple):
    """A window's size and how it is laid over an array: one entry for every axis."""

    size: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]

    @property
    def disjoint(self) -> bool:
        """Whether it tiles the array, up to a rest at the end of an axis."""
        tiles = self.strides == self.size and max(self.dilation) == 1
        return tiles and not any(map(any, self.padding))

    def only(self, axis: int) -> Window:
        """The same along one axis, and nothing along the others."""
        size, strides, padding, dilation = self
        return Window(
            only(size, axis, 1),
            only(strides, axis, 1),
            only(padding, axis, (0, 0)),
            only(dilation, axis, 1),
        )

    def axes(self) -> list[Window]:
        """Windows along one axis each, the last one first, that together see what this one does."""
        along = map(self.only, reversed(range(len(self.size))))
        still = self.only(len(self.size))  # along no axis
        return [window for window in along if window != still]


def only(entries: tuple, axis: int, nothing: Any) -> tuple:
    """One axis's entry, and nothing for the others."""
    return tuple(entry if k == axis else nothing for k, entry in enumerate(entries))


def pad(
    x: jax.Array,
    padding: Sequence[tuple[int, int]],
    steps: Sequence[int] | None = None,
    value: float = 0.0,
) -> jax.Array:
    """Set elements `steps` apart and pad; a padding below 0 cuts off."""
    steps = steps or (1,) * x.ndim
    edges = [(low, high, step - 1) for (low, high), step in zip(padding, steps, strict=True)]
    return lax.pad(x, jnp.array(value, x.dtype), edges) if any(map(any, edges)) else x


def taps(x: jax.Array, window: Window, value: float = 0.0) -> list[jax.Array]:
    """What each element of a window sees of an array, padded with a value; in row-major order.

    Example:
        >>> window = Window(size=(2,), strides=(2,), padding=((0, 1),), dilation=(1,))
        >>> taps(jnp.array([1.0, 2.0, 3.0]), window)
        [Array([1., 3.], dtype=float32), Array([2., 0.], dtype=float32)]
    """
    x = pad(x, window.padding, value=value)
    ends = [(width - 1) * apart for width, apart in zip(window.size, window.dilation, strict=True)]

    def tap(place):
        start = [at * apart for at, apart in zip(place, window.dilation, strict=True)]
        stop = [length - end + at for length, end, at in zip(x.shape, ends, start, strict=True)]
        return lax.slice(x, start, stop, window.strides)

    return [tap(place) for place in itertools.product(*map(range, window.size))]


def put_back(parts: list[jax.Array], shape: tuple[int, ...], window: Window) -> jax.Array:
    """The transpose of `taps`: each part added up where it was seen, in an array of a shape.

    Example:
        >>> window = Window(size=(2,), strides=(1,), padding=((0, 0),), dilation=(1,))
        >>> put_back([jnp.ones(2), jnp.ones(2)], (3,), window)
        Array([1., 2., 1.], dtype=float32)
    """
    if window.disjoint:
        for axis, width in reversed(list(enumerate(window.size))):
            parts = [_interleaved(parts[k : k + width], axis) for k in range(0, len(parts), width)]
        (whole,) = parts
        return pad(whole, [(0, full - part) for full, part in zip(shape, whole.shape, strict=True)])
    places = itertools.product(*map(range, window.size))
    return sum(
        (_put_at(place, part, shape, window) for place, part in zip(places, parts, strict=True)),
        start=jnp.zeros((), parts[0].dtype),
    )


def _interleaved(parts: list[jax.Array], axis: int) -> jax.Array:
    """One array whose elements along an axis come from each part in turn."""
    if len(parts) == 1:
        return parts[0]
    shape = parts[0].shape
    whole = jnp.stack(parts, axis + 1)
    return whole.reshape(*shape[:axis], len(parts) * shape[axis], *shape[axis + 1 :])


def _put_at(
    place: tuple[int, ...], part: jax.Array, shape: tuple[int, ...], window: Window
) -> jax.Array:
    _, strides, padding, dilation = window
    edges = []
    for at, apart, stride, (low, _), count, length in zip(
        place, dilation, strides, padding, part.shape, shape, strict=True
    ):
        before = at * apart - low
        edges.append((before, length - before - (count - 1) * stride - 1))
    return pad(part, edges, strides)
