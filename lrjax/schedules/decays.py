"""Values that fall along a line or a curve, by time or by an inverse root."""

from __future__ import annotations

from functools import partial

import numpy as np
from jax.typing import ArrayLike

from lrjax import _checks
from lrjax.schedules import _numerics
from lrjax.schedules._numerics import Schedule
from lrjax.schedules.transitions import interpolate

__all__ = [
    "compound_time_decay",
    "cosine_decay",
    "exponential_decay",
    "inverse_sqrt_decay",
    "inverse_time_decay",
    "linear_decay",
    "noam",
    "polynomial_decay",
]


def linear_decay(
    init_value: ArrayLike, decay_steps: int, *, end_value: ArrayLike = 0.0
) -> Schedule:
    r"""A straight line to `end_value`: `interpolate` with the linear shape.

    .. math:: v_t = v_0 + (v_n - v_0) \min(t, n)/n

    Args:
        init_value: value at count 0.
        decay_steps: updates until `end_value`, which is then held.
        end_value: the last value.

    Returns:
        A schedule `count -> value`.

    Raises:
        ValueError: for fewer than one step, or a value that is not finite.
        TypeError: for an argument of the wrong type.

    Example:
        >>> rate = linear_decay(1.0, 4)
        >>> [float(rate(count)) for count in range(6)]
        [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    """
    return _fall(init_value, end_value, decay_steps, "linear")


def cosine_decay(
    init_value: ArrayLike, decay_steps: int, *, end_value: ArrayLike = 0.0
) -> Schedule:
    r"""Half a cosine wave to `end_value`: `interpolate` with the cosine shape.

    .. math:: v_t = v_n + \tfrac12 (v_0 - v_n) \left(1 + \cos(\pi \min(t, n)/n)\right)

    Args:
        init_value: value at count 0.
        decay_steps: updates until `end_value`, which is then held.
        end_value: the last value.

    Returns:
        A schedule `count -> value`.

    Raises:
        ValueError: for fewer than one step, or a value that is not finite.
        TypeError: for an argument of the wrong type.

    Example:
        >>> rate = cosine_decay(1.0, 4)
        >>> [round(float(rate(count)), 4) for count in range(6)]
        [1.0, 0.8536, 0.5, 0.1464, 0.0, 0.0]

    References:
        Loshchilov & Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts, 2016,
        arXiv 1608.03983.
    """
    return _fall(init_value, end_value, decay_steps, "cosine")


def _fall(init_value, end_value, decay_steps, shape):
    decay_steps = _checks.integer("decay_steps", decay_steps, minimum=1)
    return interpolate(init_value, end_value, decay_steps, shape=shape)


def polynomial_decay(
    init_value: ArrayLike,
    decay_steps: int,
    *,
    end_value: ArrayLike = 0.0,
    power: ArrayLike = 1.0,
) -> Schedule:
    r"""A power of what is left.

    .. math:: v_t = v_n + (v_0 - v_n) (1 - \min(t, n)/n)^p

    Args:
        init_value: value at count 0.
        decay_steps: updates until `end_value`, which is then held.
        end_value: the last value.
        power: the exponent, above 0.

    Returns:
        A schedule `count -> value`.

    Raises:
        ValueError: for fewer than one step, a power not above 0, or a value that is not finite.
        TypeError: for an argument of the wrong type.

    Example:
        >>> rate = polynomial_decay(1.0, 4, power=2)
        >>> [float(rate(count)) for count in range(5)]
        [1.0, 0.5625, 0.25, 0.0625, 0.0]
    """
    return partial(
        _polynomial_decay,
        init_value=_checks.number("init_value", init_value),
        decay_steps=_checks.integer("decay_steps", decay_steps, minimum=1),
        end_value=_checks.number("end_value", end_value),
        power=_checks.number("power", power, above=0),
    )


@_numerics.closed_form
def _polynomial_decay(count, init_value, decay_steps, end_value, power):
    done, left = _numerics.fractions(count, 0, decay_steps)
    xp, power = _numerics.namespace(left, power), _numerics.as_float(power)
    begins = done < left
    # What `left` has lost in rounding is still in `done`.
    lost = xp.where(begins, (1 - left) - done, 0)
    weight = xp.power(left, power) * (1 + power * lost / xp.where(begins, left, 1))
    small = -xp.expm1(power * xp.log1p(-xp.minimum(done, 0.5)))
    risen = xp.where(begins & (power * done < 1 / 8), small, 1 - weight)
    return _numerics.shaped("linear", init_value, end_value, risen, weight)


def exponential_decay(
    init_value: ArrayLike,
    decay_rate: ArrayLike,
    *,
    decay_steps: int = 1,
    staircase: bool = False,
    end_value: ArrayLike | None = None,
) -> Schedule:
    r"""Multiply by `decay_rate` every `decay_steps` updates, gradually or in steps.

    .. math:: v_t = v_0\, r^{t/n} \quad\text{or}\quad v_0\, r^{\lfloor t/n \rfloor}

    Args:
        init_value: value at count 0.
        decay_rate: the factor.
        decay_steps: updates from one factor to the next.
        staircase: whether the value changes only then.
        end_value: bound that the value does not cross, if given.

    Returns:
        A schedule `count -> value`.

    Raises:
        ValueError: for fewer than one step, a negative rate, or a value that is not finite.
        TypeError: for an argument of the wrong type.

    Example:
        >>> rate = exponential_decay(1.0, 0.25, decay_steps=2, end_value=0.1)
        >>> [float(rate(count)) for count in range(4)]
        [1.0, 0.5, 0.25, 0.125]
    """
    _checks.optional("end_value", end_value, _checks.number)
    return partial(
        _exponential_decay,
        init_value=_checks.number("init_value", init_value),
        decay_rate=_checks.number("decay_rate", decay_rate, at_least=0),
        decay_steps=_checks.integer("decay_steps", decay_steps, minimum=1),
        staircase=_checks.flag("staircase", staircase),
        end_value=end_value,
    )


@_numerics.closed_form
def _exponential_decay(count, init_value, decay_rate, decay_steps, staircase, end_value):
    periods = _periods(count, decay_steps, staircase)
    value = _numerics.as_float(init_value) * _numerics.power(decay_rate, periods)
    if end_value is None:
        return value
    xp = _numerics.namespace(value, end_value)
    end = _numerics.as_float(end_value)
    above = _numerics.as_float(init_value) >= end
    return xp.where(above, xp.maximum(value, end), xp.minimum(value, end))


def _periods(count, steps, staircase):
    """The number of periods of `steps` updates that have passed: whole ones, or all."""
    whole, part = map(_numerics.as_float, _numerics.divide(count, steps))
    return whole if staircase or steps == 1 else whole + part / steps


def inverse_time_decay(
    init_value: ArrayLike, decay_rate: ArrayLike, *, decay_steps: int = 1, staircase: bool = False
) -> Schedule:
    r"""The time-based decay of the textbooks and of Keras.

    .. math:: v_t = v_0 / (1 + r\, t/n)

    Args:
        init_value: value at count 0.
        decay_rate: how fast; at 1, the value has halved after `decay_steps`.
        decay_steps: the unit of time, in updates.
        staircase: whether to round the time down to whole units.

    Returns:
        A schedule `count -> value`.

    Raises:
        ValueError: for fewer than one step, a negative rate, or a value that is not finite.
        TypeError: for an argument of the wrong type.

    Example:
        >>> rate = inverse_time_decay(1.0, 1.0)
        >>> [round(float(rate(count)), 4) for count in range(4)]
        [1.0, 0.5, 0.3333, 0.25]
    """
    return partial(
        _inverse_time_decay,
        init_value=_checks.number("init_value", init_value),
        decay_rate=_checks.number("decay_rate", decay_rate, at_least=0),
        decay_steps=_checks.integer("decay_steps", decay_steps, minimum=1),
        staircase=_checks.flag("staircase", staircase),
    )


@_numerics.closed_form
def _inverse_time_decay(count, init_value, decay_rate, decay_steps, staircase):
    periods = _periods(count, decay_steps, staircase)
    return _numerics.as_float(init_value) / (1 + _numerics.as_float(decay_rate) * periods)


def compound_time_decay(init_value: ArrayLike, decay_rate: ArrayLike) -> Schedule:
    r"""What `lr *= 1 / (1 + decay_rate * t)` at every step t makes of a rate.

    .. math:: v_t = v_0 \prod_{k=1}^{t} \frac{1}{1 + r k}

    A pure function of the count: a few factors exactly, the others by the Euler-Maclaurin
    formula for the sum of their logarithms.

    Args:
        init_value: value at count 0.
        decay_rate: r in the formula.

    Returns:
        A schedule `count -> value`.

    Raises:
        ValueError: for a negative rate, or a value that is not finite.
        TypeError: for an argument of the wrong type.

    Example:
        >>> rate = compound_time_decay(1.0, 1.0)
        >>> [round(float(rate(count)), 4) for count in range(5)]
        [1.0, 0.5, 0.1667, 0.0417, 0.0083]
    """
    return partial(
        _compound_time_decay,
        init_value=_checks.number("init_value", init_value),
        decay_rate=_checks.number("decay_rate", decay_rate, at_least=0),
    )


@_numerics.closed_form
def _compound_time_decay(count, init_value, decay_rate):
    rate = _numerics.as_float(decay_rate)
    xp = _numerics.namespace(count, rate)
    exact = 8
    zero, start = _numerics.as_float(0), _numerics.as_float(exact)
    log_product = sum(xp.where(count >= k, xp.log1p(rate * k), zero) for k in range(1, exact + 1))
    end = _numerics.as_float(xp.maximum(count, np.int32(exact)))
    integral = _log1p_integral(rate, end) - _log1p_integral(rate, start)
    ends = (xp.log1p(rate * end) - xp.log1p(rate * start)) / 2
    slopes = _log1p_slopes(rate, end) - _log1p_slopes(rate, start)
    later = xp.where(count > exact, integral + ends + slopes, zero)
    return _numerics.as_float(init_value) * xp.exp(-(log_product + later))


def _log1p_slopes(rate: _numerics.Array, end: _numerics.Array) -> _numerics.Array:
    """The formula's terms in the 1st, 3rd and 5th derivative of log(1 + rate * k) at `end`."""
    slope = rate / (1 + rate * end)
    return slope / 12 - slope**3 / 360 + slope**5 / 1260


def _log1p_integral(rate: _numerics.Array, end: _numerics.Array) -> _numerics.Array:
    """The integral of log(1 + rate * k) over k from 0 to `end`."""
    x = rate * end
    # ((1+x) log(1+x) - x) / x, which cancels for small x: there as its power series.
    xp, small = _numerics.namespace(x), x <= 0.25
    # Each of the two away from where the other is taken, where it or its slope is not finite.
    large = xp.where(small, _numerics.as_float(1), x)
    direct = ((1 + large) * xp.log1p(large) - large) / large
    x = xp.where(small, x, _numerics.as_float(0))
    series = x * 0
    for j in range(12, 1, -1):
        series = series * x + (-1) ** j / (j * (j - 1))
    return end * xp.where(small, x * series, direct)


def inverse_sqrt_decay(
    peak_value: ArrayLike, *, warmup_steps: int = 0, timescale: int | None = None
) -> Schedule:
    r"""Linear warmup, then the inverse square root of the time.

    .. math:: v_t = v_{peak} \cdot \begin{cases} t/w & t < w \\ \sqrt{s/(t - w + s)} & t \ge w
        \end{cases}

    Args:
        peak_value: value at the end of the warmup.
        warmup_steps: updates of the linear rise from 0; 0 for none, or for `with_warmup` around
            it, which rises from any value.
        timescale: updates over which the value falls by a factor of the square root of 2; the
            warmup's length if not given, or 10,000 without a warmup.

    Returns:
        A schedule `count -> value`.

    Raises:
        ValueError: for a negative number of steps, or a value that is not finite.
        TypeError: for an argument of the wrong type.

    Example:
        >>> rate = inverse_sqrt_decay(1.0, warmup_steps=2)
        >>> [round(float(rate(count)), 4) for count in (0, 1, 2, 4, 8)]
        [0.0, 0.5, 1.0, 0.7071, 0.5]

    References:
        Zhai et al., Scaling Vision Transformers, 2021, arXiv 2106.04560.
    """
    warmup_steps = _checks.integer("warmup_steps", warmup_steps)
    if timescale is None:
        timescale = warmup_steps or 10_000
    return partial(
        _inverse_sqrt_decay,
        peak_value=_checks.number("peak_value", peak_value),
        warmup_steps=warmup_steps,
        timescale=_checks.integer("timescale", timescale, minimum=1),
    )


@_numerics.closed_form
def _inverse_sqrt_decay(count, peak_value, warmup_steps, timescale):
    xp = _numerics.namespace(count)
    since = _numerics.as_float(xp.maximum(count - np.int32(warmup_steps), np.int32(0)))
    weight = 1 / xp.sqrt(1 + since / timescale)
    if warmup_steps:
        rise, _ = _numerics.fractions(count, 0, warmup_steps)
        weight = _numerics.latest(count, [warmup_steps], [rise, weight])
    return _numerics.as_float(peak_value) * weight


def noam(model_size: int, warmup_steps: int, *, factor: ArrayLike = 1.0) -> Schedule:
    r"""The Transformer's schedule.

    .. math:: v_t = f\, d^{-1/2} \min\left((t+1)^{-1/2}, (t+1)\, w^{-3/2}\right)

    Args:
        model_size: width d of the model.
        warmup_steps: updates w of the linear rise.
        factor: f in the formula.

    Returns:
        A schedule `count -> value`.

    Raises:
        ValueError: for a size or a number of steps below 1, or a factor that is not finite.
        TypeError: for an argument of the wrong type.

    Example:
        >>> rate = noam(64, 4)
        >>> [round(float(rate(count)), 5) for count in (0, 3, 15)]
        [0.01562, 0.0625, 0.03125]

    References:
        Vaswani et al., Attention Is All You Need, 2017, arXiv 1706.03762.
    """
    return partial(
        _noam,
        model_size=_checks.integer("model_size", model_size, minimum=1),
        warmup_steps=_checks.integer("warmup_steps", warmup_steps, minimum=1),
        factor=_checks.number("factor", factor),
    )


@_numerics.closed_form
def _noam(count, model_size, warmup_steps, factor):
    updates = _numerics.as_float(count) + 1
    xp = _numerics.namespace(updates)
    shape = xp.minimum(1 / xp.sqrt(updates), updates * warmup_steps**-1.5)
    return _numerics.as_float(factor) * model_size**-0.5 * shape
