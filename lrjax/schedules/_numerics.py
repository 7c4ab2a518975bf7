"""The arithmetic that every schedule shares: integers first, then float32.

A count is exact as an int32 and inexact as a float32 beyond 2**24. So what is done and what is
left of a stretch of steps are both taken from integers, and a value is measured from the end
that is nearer.

The same functions run on NumPy as long as count and values are known on the host, which for a
single number is several times faster than dispatching every operation to a device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from lrjax import _checks
from lrjax._checks import MAX_COUNT

Schedule = Callable[[ArrayLike], jax.Array]
Shape = str | Callable[[jax.Array], ArrayLike]
Array = Any  # jax's or NumPy's, for which no common type exists


def namespace(*operands: Any) -> Any:
    """`jax.numpy` beside an array of JAX, else NumPy."""
    for operand in operands:
        if isinstance(operand, jax.Array):
            return jnp
    return np


def is_known(value: Any) -> bool:
    """Whether the value is known on the host, so that float64 can prepare it."""
    return not isinstance(value, jax.Array)


def as_count(count: Any) -> Array:
    """The count as int32, held to the range from 0 to 2**31-1."""
    if type(count) is int:
        return np.int32(min(max(count, 0), MAX_COUNT))
    if is_known(count):
        count = np.asarray(count)
    if count.dtype.kind not in "iu":
        raise _checks.KindError(f"count must be an integer or an array of integers, got {count!r}.")
    if count.dtype != np.int32:
        count = count.clip(0, min(MAX_COUNT, np.iinfo(count.dtype).max)).astype(np.int32)
    return namespace(count).maximum(count, np.int32(0))


def as_float(value: Any) -> Array:
    """The value as a strongly typed float32, or float64 under x64.

    Strong, because a weak 0.999 would be rounded to 1 beside bfloat16 parameters.
    """
    real = np.float64 if jax.config.read("jax_enable_x64") else np.float32
    return np.asarray(value, real)[()] if is_known(value) else jnp.asarray(value, real)


def wide(value: Any) -> Array:
    """The value as it is, or not narrower than a float32, to calculate with."""
    if isinstance(value, int | float):
        return value
    return np.asarray(value, np.float64)[()] if is_known(value) else as_float(value)


def as_jax(value: Array) -> jax.Array:
    """The value as an array of JAX."""
    # A compiled identity is the quickest way there, but is compiled for every shape.
    return _identity(value) if is_known(value) and not np.ndim(value) else jnp.asarray(value)


_identity = jax.jit(lambda value: value, inline=True)


def closed_form(function: Callable[..., Array]) -> Callable[..., jax.Array]:
    """Let a function of int32 counts take any counts, and return an array of JAX.

    It may give one value for all counts, and any kind of number.
    """

    @wraps(function)
    def schedule(count, **parameters):
        count = as_count(count)
        # NumPy would warn of the infinities that JAX gives in silence.
        with np.errstate(all="ignore"):
            value = as_float(function(count, **parameters))
        if np.ndim(value) < np.ndim(count):
            value = namespace(value).broadcast_to(value, count.shape)
        return as_jax(value)

    schedule.closed_form = function  # type: ignore[attr-defined]
    return schedule


def evaluate(schedule: Callable[..., Any], count: Array) -> Array:
    """A schedule inside of another: one of ours stays on the host where it can."""
    own = schedule if isinstance(schedule, partial) else partial(schedule)
    if hasattr(own.func, "closed_form"):
        return as_float(own.func.closed_form(count, **own.keywords))
    count = jnp.asarray(count)
    if not count.ndim:
        return as_float(schedule(count))
    # Those of other libraries need not take arrays: some fail, some are wrong for them.
    return as_float(jax.vmap(schedule)(count.ravel())).reshape(count.shape)


def divide(count: Array, steps: Array) -> tuple[Array, Array]:
    """How many times the steps fit into the count, and the count's remainder."""
    steps = np.int32(steps) if isinstance(steps, int) else steps
    # Neither is negative, so that truncation is as good as floor, and one operation.
    whole = count // steps if is_known(count) else jax.lax.div(count, steps)
    return whole, count - whole * steps


def scaled(count: Array, numerator: int, denominator: int) -> Array:
    """`floor(count * numerator / denominator)`, at most 2**31-1; both are below 2**31.

    Example:
        >>> int(scaled(np.int32(33), 10, 11)), int(scaled(jnp.int32(33), 10, 11))
        (30, 30)
    """
    if is_known(count):
        product = np.asarray(count, np.int64) * numerator // denominator
        return np.minimum(product, MAX_COUNT).astype(np.int32)
    whole, rest = divmod(numerator, denominator)
    part = _scaled_below_one(count, rest, denominator)
    if not whole:
        return part
    fits = count <= (MAX_COUNT - part) // np.int32(whole)
    return jnp.where(fits, count * np.int32(whole) + part, np.int32(MAX_COUNT))


def _scaled_below_one(count: jax.Array, numerator: int, denominator: int) -> jax.Array:
    """The same for a fraction below 1, in 32 bits, where the product may take 62."""
    high, low = count >> 16, count & np.int32(0xFFFF)
    step, left = divmod(numerator << 16, denominator)
    # The fractions' sum is below 2**17 and less than a quarter off, so that the estimate is right
    # or one too low; which of the two, the remainder tells, though it is known modulo 2**32 only.
    fractions = as_float(high) * as_float(left / denominator)
    fractions += as_float(low) * as_float(numerator / denominator) - as_float(0.25)
    estimate = high * np.int32(step) + jnp.floor(fractions).astype(np.int32)
    unsigned = np.uint32
    remainder = count.astype(unsigned) * unsigned(numerator)
    remainder -= estimate.astype(unsigned) * unsigned(denominator)
    return estimate + (remainder >= unsigned(denominator)).astype(np.int32)


def power(base: ArrayLike, exponent: Array) -> Array:
    """`base**exponent` for a base and an exponent of at least 0.

    As exp(exponent * log(base)), with the logarithm of a number taken in float64:
    in float32, 0.99994**1_000_000 would be 2 % off.
    """
    exponent = as_float(exponent)
    if is_known(base):
        precise = np.asarray(base, np.float64)
        if (precise == 1).all():
            return as_float(precise)
        if (precise > 0).all():
            return namespace(exponent).exp(exponent * as_float(np.log(precise)))
    xp, one = namespace(base, exponent), as_float(1)
    # The slope of x**0 at 0 would be 0 * 0**-1.
    zero = exponent == 0
    return xp.where(zero, one, xp.power(as_float(base), xp.where(zero, one, exponent)))


def log(value: ArrayLike) -> Array:
    """The logarithm, taken in float64 of a value that is known."""
    if is_known(value):
        return as_float(np.log(np.asarray(value, np.float64)))
    return jnp.log(as_float(value))


def _linear(done: Array, left: Array) -> tuple[Array, Array]:
    """Whether the start is the nearer end, and the weight of the farther one."""
    return done < left, namespace(done).minimum(done, left)


def _cosine(done, left):
    # sin² and not (1 + cos) / 2, which cancels to 0 in the last steps of a long run.
    starts, weight = _linear(done, left)
    return starts, namespace(weight).sin(math.pi / 2 * weight) ** 2


def _one_minus_sqrt(done, left):
    root = namespace(done).sqrt(done)
    return _linear(root, left / (1 + root))


_SHAPES = {"linear": _linear, "cosine": _cosine, "1-sqrt": _one_minus_sqrt}
SHAPES = (*_SHAPES, "exponential")


def check_shape(name: str, shape: Shape) -> Shape:
    """The name of a shape, or a function of the elapsed fraction."""
    return shape if callable(shape) else _checks.one_of(name, shape, SHAPES)


def shaped(shape: Shape, start: ArrayLike, end: ArrayLike, done: Array, left: Array) -> Array:
    """From `start` to `end` along a shape, given the fractions done and left.

    Measured from the end that is nearer: exact at both, and precise close to them.
    """
    if shape == "exponential":
        starts, weight = _linear(done, left)
        xp = namespace(start, end, weight)
        near = xp.where(starts, as_float(start), as_float(end))
        return near * xp.exp(xp.where(starts, weight, -weight) * (log(end) - log(start)))
    if callable(shape):
        risen = as_float(shape(jnp.asarray(done)))
        starts, weight = _linear(risen, 1 - risen)
    else:
        starts, weight = _SHAPES[shape](done, left)
    first, last = as_float(start), as_float(end)
    xp = namespace(first, last, starts, weight)
    return xp.where(starts, first + (last - first) * weight, last + (first - last) * weight)


def fractions(count: Array, start: float, end: float) -> tuple[Array, Array]:
    """How much of the stretch from `start` to `end` is done, and how much is left.

    The ends may be real-valued. A count outside of them is held to their whole parts.
    """
    first, last, length = math.floor(start), math.floor(end), as_float(end - start)
    xp = namespace(count)
    count = xp.minimum(count, np.int32(last))
    if first:
        count = xp.maximum(count, np.int32(first)) - np.int32(first)
    done, left = as_float(count), as_float(np.int32(last - first) - count)
    if start > first:
        done = done - as_float(start - first)
    if end > last:
        left = left + as_float(end - last)
    return done / length, left / length


def through(
    count: Array, times: Sequence[float], values: Sequence[ArrayLike], shape: Shape
) -> Array:
    """Along `values`, which are reached at the real-valued steps `times`.

    The first value holds before the first time and the last after the last. A stretch of
    no length is left out.
    """
    stretches = [k for k in range(len(times) - 1) if times[k + 1] > times[k]]
    if not stretches:
        return as_float(values[-1])
    begins = [math.floor(times[k]) + 1 for k in stretches[1:]]
    parts = zip(*(fractions(count, times[k], times[k + 1]) for k in stretches), strict=True)
    done, left = (latest(count, begins, part) for part in parts)
    start = latest(count, begins, [as_float(values[k]) for k in stretches])
    end = latest(count, begins, [as_float(values[k + 1]) for k in stretches])
    return shaped(shape, start, end, done, left)


def latest(count: Array, starts: Sequence[int], options: Sequence[Any]) -> Array:
    """The option whose start is the last that the count has reached; the first has none."""
    chosen, xp = options[0], namespace(count, *options)
    for start, option in zip(starts, options[1:], strict=True):
        chosen = xp.where(count >= np.int32(start), option, chosen)
    return chosen


def row(count: Array, starts: Sequence[int] | np.ndarray) -> Array:
    """The index of the last of the ascending starts that the count has reached, or -1."""
    table = np.asarray(starts, np.int32)
    if is_known(count):
        return np.searchsorted(table, count, side="right").astype(np.int32) - np.int32(1)
    # Unrolled, the search is several times faster than as a loop.
    found = jnp.searchsorted(jnp.asarray(table), count, side="right", method="scan_unrolled")
    return found.astype(np.int32) - 1
