"""From one value to another: the general transition, ramps for range tests, warmup-stable-decay."""

from __future__ import annotations

from functools import partial

from jax.typing import ArrayLike

from lrjax import _checks
from lrjax.schedules import _numerics
from lrjax.schedules._numerics import Schedule, Shape

__all__ = ["constant", "exponential_ramp", "interpolate", "linear_ramp", "wsd"]


def constant(value: ArrayLike) -> Schedule:
    """The same value at every step.

    Args:
        value: the value.

    Returns:
        A schedule `count -> value`.

    Raises:
        ValueError: if `value` is not finite.
        TypeError: for an argument of the wrong type.

    Example:
        >>> float(constant(0.5)(1000))
        0.5
    """
    return partial(_constant, value=_checks.number("value", value))


@_numerics.closed_form
def _constant(count, value):
    return value


def interpolate(
    init_value: ArrayLike, end_value: ArrayLike, steps: int, *, shape: Shape = "linear"
) -> Schedule:
    r"""The general transition: from `init_value` to `end_value` in `steps` steps, then held.

    With the elapsed fraction :math:`x = \min(t, n)/n` and the shape :math:`s`:

    .. math:: v_t = v_0 + (v_n - v_0)\, s(x)

    where `"linear"` is :math:`s = x`, `"cosine"` :math:`(1 - \cos \pi x)/2`, `"1-sqrt"`
    :math:`\sqrt x`, and `"exponential"` the geometric :math:`v_t = v_0 (v_n/v_0)^x`.

    Args:
        init_value: value at count 0.
        end_value: value from count `steps` on.
        steps: length of the transition, in updates.
        shape: one of those names, or a function of the elapsed fraction, itself from 0 to 1.

    Returns:
        A schedule `count -> value`.

    Raises:
        ValueError: for fewer than one step, a value that is not finite, an unknown shape, or
            an exponential transition through 0.
        TypeError: for an argument of the wrong type.

    Example:
        >>> rate = interpolate(1.0, 0.0, 4, shape=lambda x: x**2)
        >>> [float(rate(count)) for count in range(6)]
        [1.0, 0.9375, 0.75, 0.4375, 0.0, 0.0]
    """
    _checks.number("init_value", init_value)
    _checks.number("end_value", end_value)
    if _numerics.check_shape("shape", shape) == "exponential":
        _check_positive(init_value=init_value, end_value=end_value)
    return partial(
        _interpolate,
        init_value=init_value,
        end_value=end_value,
        steps=_checks.integer("steps", steps, minimum=1),
        shape=shape,
    )


@_numerics.closed_form
def _interpolate(count, init_value, end_value, steps, shape):
    return _numerics.shaped(shape, init_value, end_value, *_numerics.fractions(count, 0, steps))


def _check_positive(**values: ArrayLike) -> None:
    for name, value in values.items():
        _checks.number(name, value, above=0)


def exponential_ramp(start: ArrayLike, end: ArrayLike, steps: int) -> Schedule:
    r"""A geometric ramp for range tests: the first update uses `start`, the last `end`.

    .. math:: v_t = v_0 \left(v_1 / v_0\right)^{t/(n-1)}

    Args:
        start: value of the first update, above 0.
        end: value of the last update, above 0.
        steps: number of updates.

    Returns:
        A schedule `count -> value`; it holds `end` afterwards.

    Raises:
        ValueError: for fewer than one step, or a value that is not above 0.
        TypeError: for an argument of the wrong type.

    Example:
        >>> ramp = exponential_ramp(1e-3, 10.0, 5)
        >>> [round(float(ramp(count)), 6) for count in range(6)]
        [0.001, 0.01, 0.1, 1.0, 10.0, 10.0]

    References:
        Smith, Cyclical Learning Rates for Training Neural Networks, 2015, arXiv 1506.01186.
    """
    _check_positive(start=start, end=end)
    return _ramp(start, end, steps, "exponential")


def linear_ramp(start: ArrayLike, end: ArrayLike, steps: int) -> Schedule:
    r"""A linear ramp for range tests: the first update uses `start`, the last `end`.

    .. math:: v_t = v_0 + (v_1 - v_0)\, t/(n-1)

    Args:
        start: value of the first update.
        end: value of the last update.
        steps: number of updates.

    Returns:
        A schedule `count -> value`; it holds `end` afterwards.

    Raises:
        ValueError: for fewer than one step, or a value that is not finite.
        TypeError: for an argument of the wrong type.

    Example:
        >>> ramp = linear_ramp(0.0, 1.0, 5)
        >>> [float(ramp(count)) for count in range(6)]
        [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]

    References:
        Smith, Cyclical Learning Rates for Training Neural Networks, 2015, arXiv 1506.01186.
    """
    _checks.number("start", start)
    _checks.number("end", end)
    return _ramp(start, end, steps, "linear")


def _ramp(start, end, steps, shape):
    # The last of n updates has n - 1 behind it; a ramp of one update uses its start.
    steps = _checks.integer("steps", steps, minimum=1)
    return interpolate(start, end, max(steps - 1, 1), shape=shape)


def wsd(
    peak_value: ArrayLike,
    *,
    warmup_steps: int,
    stable_steps: int,
    decay_steps: int,
    end_value: ArrayLike = 0.0,
    decay: str = "linear",
) -> Schedule:
    r"""Warmup, stable, decay (a trapezoid): rise from 0 to the peak, stay, fall to the end.

    With :math:`p` the elapsed fraction of the decay, the value falls from peak to end by
    `"linear"` :math:`1 - p`, `"cosine"` :math:`(1 + \cos \pi p)/2`, `"1-sqrt"`
    :math:`1 - \sqrt p`, or `"exponential"` :math:`2 \cdot 0.5^p - 1`, as Megatron has it.

    Args:
        peak_value: value of the stable phase.
        warmup_steps: updates of the linear rise from 0; 0 for none, or for `with_warmup` around
            it, which rises from any value.
        stable_steps: updates at the peak; 0 for none.
        decay_steps: updates of the fall; 0 for none, so that the peak is held.
        end_value: value that is reached after all three, and held.
        decay: the shape of the fall.

    Returns:
        A schedule `count -> value`.

    Raises:
        ValueError: for a negative number of steps, three zeros, a value that is not finite,
            or an unknown decay.
        TypeError: for an argument of the wrong type.

    Example:
        >>> rate = wsd(1.0, warmup_steps=2, stable_steps=2, decay_steps=4)
        >>> [float(rate(count)) for count in range(9)]
        [0.0, 0.5, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]

    References:
        Hu et al., MiniCPM, 2024, arXiv 2404.06395. Hägele et al., Scaling Laws and
        Compute-Optimal Training Beyond Fixed Training Durations, 2024, arXiv 2405.18392.
    """
    _checks.number("peak_value", peak_value)
    _checks.number("end_value", end_value)
    _checks.one_of("decay", decay, _numerics.SHAPES)
    lengths = {
        "warmup_steps": _checks.integer("warmup_steps", warmup_steps),
        "stable_steps": _checks.integer("stable_steps", stable_steps),
        "decay_steps": _checks.integer("decay_steps", decay_steps),
    }
    _checks.integer("warmup_steps + stable_steps + decay_steps", sum(lengths.values()), minimum=1)
    return partial(_wsd, peak_value=peak_value, **lengths, end_value=end_value, decay=decay)


@_numerics.closed_form
def _wsd(count, peak_value, warmup_steps, stable_steps, decay_steps, end_value, decay):
    fall = warmup_steps + stable_steps
    rise = _numerics.through(count, (0, warmup_steps), (0.0, peak_value), "linear")
    if not decay_steps:
        return rise
    done, left = _numerics.fractions(count, fall, fall + decay_steps)
    if decay == "exponential":
        # 2 * 0.5**p - 1 in terms of what is left, so that the tail keeps its digits.
        weight = _numerics.namespace(left).expm1(left * _numerics.log(2.0))
        falling = _numerics.shaped("linear", peak_value, end_value, 1 - weight, weight)
    else:
        falling = _numerics.shaped(decay, peak_value, end_value, done, left)
    return _numerics.latest(count, [fall], [rise, falling])
