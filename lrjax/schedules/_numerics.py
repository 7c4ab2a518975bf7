"""The arithmetic that every schedule shares: integers first, then float32.

A count is exact as an int32 and inexact as a float32 beyond 2**24. So what is done and
what is left of a stretch of steps are both taken from integers, and a value is measured
from the end that is nearer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from lrjax import _checks

Schedule = Callable[[ArrayLike], jax.Array]
Shape = str | Callable[[jax.Array], ArrayLike]


def as_count(count: ArrayLike) -> jax.Array:
    """The count as int32, held to the range from 0 to 2**31-1."""
    if not isinstance(count, jax.Array):
        count = np.asarray(count)
    if not jnp.issubdtype(count.dtype, jnp.integer):
        raise TypeError(f"count must be an integer or an array of integers, got {count!r}.")
    if count.dtype.itemsize > 4:
        count = count.clip(0, _checks.MAX_COUNT)
    return jnp.maximum(jnp.asarray(count, jnp.int32), 0)


def as_float(value: ArrayLike) -> jax.Array:
    """The value as a strongly typed float32, or float64 under x64.

    Strong, because a weak 0.999 would be rounded to 1 beside bfloat16 parameters.
    """
    return jnp.asarray(value, jnp.result_type(float))


def is_number(value: ArrayLike) -> bool:
    """Whether the value is known on the host, so that float64 can prepare it."""
    return not isinstance(value, jax.Array)


def power(base: ArrayLike, exponent: ArrayLike) -> jax.Array:
    """`base**exponent` for a base and an exponent of at least 0.

    As exp(exponent * log(base)), with the logarithm of a number taken in float64:
    in float32, 0.99994**1_000_000 would be 2 % off.
    """
    exponent = as_float(exponent)
    if is_number(base):
        if np.all(np.asarray(base) > 0):
            return jnp.exp(exponent * as_float(np.log(np.asarray(base, np.float64))))
    base = as_float(base)
    positive = base > 0
    result = jnp.exp(exponent * jnp.log(jnp.where(positive, base, 1.0)))
    return jnp.where(positive, result, jnp.where(exponent == 0, 1.0, 0.0))


def measure(start: ArrayLike, end: ArrayLike, risen: ArrayLike, left: ArrayLike) -> jax.Array:
    """From `start` to `end`, where the weights `risen` and `left` add up to 1.

    Measured from the nearer end: exact at both, and precise close to them.
    """
    start, end = as_float(start), as_float(end)
    return jnp.where(risen < left, start + (end - start) * risen, end + (start - end) * left)


def _linear(done, left):
    return done, left


def _cosine(done, left):
    # sin² and not (1 + cos) / 2, which cancels to 0 in the last steps of a long run.
    return jnp.sin(jnp.pi / 2 * done) ** 2, jnp.sin(jnp.pi / 2 * left) ** 2


def _one_minus_sqrt(done, left):
    root = jnp.sqrt(done)
    return root, left / (1 + root)


_SHAPES = {"linear": _linear, "cosine": _cosine, "1-sqrt": _one_minus_sqrt}
SHAPES = (*_SHAPES, "exponential")


def check_shape(name: str, shape: Shape) -> Shape:
    """The name of a shape, or a function of the elapsed fraction."""
    return shape if callable(shape) else _checks.one_of(name, shape, SHAPES)


def shaped(
    shape: Shape, start: ArrayLike, end: ArrayLike, done: jax.Array, left: jax.Array
) -> jax.Array:
    """From `start` to `end` along a shape, given the fractions done and left."""
    if shape == "exponential":
        host = is_number(start) and is_number(end)
        log_ratio = as_float(math.log(end / start)) if host else jnp.log(as_float(end / start))
        start, end = as_float(start), as_float(end)
        rise, fall = start * jnp.exp(done * log_ratio), end * jnp.exp(-left * log_ratio)
        return jnp.where(done < left, rise, fall)
    if callable(shape):
        risen = as_float(shape(done))
        return measure(start, end, risen, 1 - risen)
    return measure(start, end, *_SHAPES[shape](done, left))


def fractions(count: jax.Array, start: float, end: float) -> tuple[jax.Array, jax.Array]:
    """How much of the stretch from `start` to `end` is done, and how much is left."""
    return _fractions(count, [(start, end)])


def through(
    count: jax.Array, times: Sequence[float], values: Sequence[ArrayLike], shape: Shape
) -> jax.Array:
    """Along `values`, which are reached at the real-valued steps `times`.

    The first value holds before the first time and the last after the last. A stretch of
    no length is left out.
    """
    stretches = [k for k in range(len(times) - 1) if times[k + 1] > times[k]]
    if not stretches:
        return jnp.broadcast_to(as_float(values[-1]), count.shape)
    spans = [(times[k], times[k + 1]) for k in stretches]
    start = _pick(count, spans, [as_float(values[k]) for k in stretches])
    end = _pick(count, spans, [as_float(values[k + 1]) for k in stretches])
    return shaped(shape, start, end, *_fractions(count, spans))


def _fractions(count, spans):
    """The fractions done and left of the span that the count falls into."""
    first = _pick(count, spans, [jnp.int32(math.floor(start)) for start, _ in spans])
    last = _pick(count, spans, [jnp.int32(math.floor(end)) for _, end in spans])
    before = _pick(count, spans, [as_float(start % 1) for start, _ in spans])
    beyond = _pick(count, spans, [as_float(end % 1) for _, end in spans])
    length = _pick(count, spans, [as_float(end - start) for start, end in spans])
    done = as_float(count - first) - before
    left = as_float(last - count) + beyond
    return jnp.clip(done / length, 0, 1), jnp.clip(left / length, 0, 1)


def _pick(count, spans, options):
    """The option of the first span that ends at or after the count, else the last."""
    chosen = options[-1]
    for (_, end), option in reversed(list(zip(spans, options, strict=True))[:-1]):
        chosen = jnp.where(count <= math.floor(end), option, chosen)
    return chosen


class Cycle(NamedTuple):
    """Where a count stands among cycles that grow by a constant factor."""

    index: jax.Array  # i32: 0 for the first cycle
    first: jax.Array  # i32: the first count of the cycle
    done: jax.Array  # f32: steps since the cycle's real-valued start
    left: jax.Array  # f32: steps to its real-valued end
    length: jax.Array  # f32


def cycle_starts(steps: int, mult: float, num_cycles: int | None) -> np.ndarray:
    """The real-valued starts of the cycles, and the end of the last, f64[cycles + 1].

    Without `num_cycles`: of every cycle that starts before 2**31-1.
    """
    starts, length = [0.0], steps
    while len(starts) - 1 != num_cycles and starts[-1] <= _checks.MAX_COUNT:
        starts.append(starts[-1] + length)
        length *= mult
    return np.array(starts)


def locate(count: jax.Array, steps: int, mult: float, num_cycles: int | None = None) -> Cycle:
    """The cycle that the count falls into; the last one takes what lies behind it.

    Cycles of one length come from an integer division. Growing ones come from a table on
    the host, because floor(log(count)) is wrong just at some restarts.
    """
    if mult == 1:
        index, position = count // steps, count % steps
        if num_cycles is not None:
            index = jnp.minimum(index, num_cycles - 1)
            position = count - index * steps
        length = as_float(steps)
        left = as_float(steps - position)
        return Cycle(index, count - position, as_float(position), left, length)
    starts = cycle_starts(steps, mult, num_cycles)
    first, last = np.ceil(starts[:-1]), np.minimum(np.floor(starts[1:]), _checks.MAX_COUNT)
    index = jnp.searchsorted(jnp.asarray(first, jnp.int32), count, side="right") - 1
    index = index.astype(jnp.int32)

    def at(table, dtype):
        return jnp.asarray(table.astype(dtype))[index]

    real = jnp.result_type(float)
    begin = at(first, np.int32)
    done = as_float(count - begin) + at(first - starts[:-1], real)
    left = as_float(at(last, np.int32) - count) + at(starts[1:] - last, real)
    return Cycle(index, begin, done, left, at(np.diff(starts), real))
