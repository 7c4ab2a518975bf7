"""Values that come back: cyclical rates, and warm restarts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
from jax.typing import ArrayLike

from lrjax import _checks
from lrjax.schedules import _growth, _numerics
from lrjax.schedules._numerics import Schedule
from lrjax.schedules.decays import exponential_decay

__all__ = ["cyclical", "exp_range", "triangular", "triangular2", "warm_restarts"]


def cyclical(
    base_value: ArrayLike,
    peak_value: ArrayLike,
    steps_up: int,
    steps_down: int | None = None,
    *,
    scale_fn: Callable[[jax.Array], ArrayLike] | None = None,
    scale_mode: str = "cycle",
) -> Schedule:
    r"""The general cyclical schedule: a triangle from base to peak and back, for ever.

    With the position :math:`k = t \bmod (u + d)` within a cycle of :math:`u` steps up and
    :math:`d` steps down, and the scale :math:`s`:

    .. math:: v_t = v_{base} + (v_{peak} - v_{base})\, s \cdot
        \begin{cases} k/u & k \le u \\ (u + d - k)/d & k > u \end{cases}

    The conventions are those of PyTorch's `CyclicLR`, exact at every count.

    Args:
        base_value: value at the start of every cycle.
        peak_value: value after `steps_up` steps, where the scale is 1; below the base, the
            triangle hangs downwards (for a momentum).
        steps_up: updates from base to peak.
        steps_down: updates from peak to base; as many as up if not given.
        scale_fn: factor of the triangle's height, from the cycle's number (1, 2, …) or the
            count; 1 if not given.
        scale_mode: what `scale_fn` is given: `"cycle"` or `"iterations"`.

    Returns:
        A schedule `count -> value`.

    Raises:
        ValueError: for fewer than one step up or down, a value that is not finite, or an
            unknown mode.
        TypeError: for an argument of the wrong type.

    Example:
        >>> rate = cyclical(0.0, 1.0, 2, scale_fn=lambda cycle: 1 / cycle)
        >>> [float(rate(count)) for count in range(8)]
        [0.0, 0.5, 1.0, 0.5, 0.0, 0.25, 0.5, 0.25]

    References:
        Smith, Cyclical Learning Rates for Training Neural Networks, 2015, arXiv 1506.01186.
    """
    _checks.optional("scale_fn", scale_fn, _checks.function)
    steps_up = _checks.integer("steps_up", steps_up, minimum=1)
    steps_down = steps_up if steps_down is None else steps_down
    steps_down = _checks.integer("steps_down", steps_down, minimum=1)
    _checks.integer("steps_up + steps_down", steps_up + steps_down)
    return partial(
        _cyclical,
        base_value=_checks.number("base_value", base_value),
        peak_value=_checks.number("peak_value", peak_value),
        steps_up=steps_up,
        steps_down=steps_down,
        scale_fn=scale_fn,
        scale_mode=_checks.one_of("scale_mode", scale_mode, ("cycle", "iterations")),
    )


@_numerics.closed_form
def _cyclical(count, base_value, peak_value, steps_up, steps_down, scale_fn, scale_mode):
    period = steps_up + steps_down
    cycle, position = _numerics.divide(count, period)
    times = (0, steps_up, period)
    if scale_fn is None:  # measured from the nearer end, where a scale is one of the height
        values = (base_value, peak_value, base_value)
        return _numerics.through(position, times, values, "linear")
    height = _numerics.through(position, times, (0.0, 1.0, 0.0), "linear")
    scale = _numerics.evaluate(scale_fn, cycle + 1 if scale_mode == "cycle" else count)
    base, peak = _numerics.as_float(base_value), _numerics.as_float(peak_value)
    return base + (peak - base) * (height * scale)


def triangular(
    base_value: ArrayLike, peak_value: ArrayLike, steps_up: int, steps_down: int | None = None
) -> Schedule:
    r"""A triangle of constant height: `cyclical` without a scale.

    .. math:: v_t = v_{base} + (v_{peak} - v_{base}) \min\left(k/u, (u + d - k)/d\right),
        \quad k = t \bmod (u + d)

    Args:
        base_value: value at the start of every cycle.
        peak_value: value after `steps_up` steps; below the base, the
            triangle hangs downwards.
        steps_up: updates from base to peak.
        steps_down: updates from peak to base; as many as up if not given.

    Returns:
        A schedule `count -> value`.

    Raises:
        ValueError: for fewer than one step up or down, or a value that is not finite.
        TypeError: for an argument of the wrong type.

    Example:
        >>> rate = triangular(0.0, 1.0, 2)
        >>> [float(rate(count)) for count in range(6)]
        [0.0, 0.5, 1.0, 0.5, 0.0, 0.5]

    References:
        Smith, Cyclical Learning Rates for Training Neural Networks, 2015, arXiv 1506.01186.
    """
    return cyclical(base_value, peak_value, steps_up, steps_down)


def triangular2(
    base_value: ArrayLike, peak_value: ArrayLike, steps_up: int, steps_down: int | None = None
) -> Schedule:
    r"""A triangle whose height halves after every cycle: `cyclical` with `2**(1 - cycle)`.

    .. math:: v_t = v_{base} + (v_{peak} - v_{base})\, 2^{-\lfloor t/(u + d) \rfloor}
        \min\left(k/u, (u + d - k)/d\right), \quad k = t \bmod (u + d)

    Args:
        base_value: value at the start of every cycle.
        peak_value: value after `steps_up` steps of the first cycle.
        steps_up: updates from base to peak.
        steps_down: updates from peak to base; as many as up if not given.

    Returns:
        A schedule `count -> value`.

    Raises:
        ValueError: for fewer than one step up or down, or a value that is not finite.
        TypeError: for an argument of the wrong type.

    Example:
        >>> rate = triangular2(0.0, 1.0, 2)
        >>> [float(rate(count)) for count in range(8)]
        [0.0, 0.5, 1.0, 0.5, 0.0, 0.25, 0.5, 0.25]

    References:
        Smith, Cyclical Learning Rates for Training Neural Networks, 2015, arXiv 1506.01186.
    """
    return cyclical(base_value, peak_value, steps_up, steps_down, scale_fn=_halving)


@_numerics.closed_form
def _halving(cycle):
    # Below 2**-126 float32 has only subnormals, which accelerators flush to 0.
    xp = _numerics.namespace(cycle)
    return xp.ldexp(_numerics.as_float(1.0), -xp.minimum(cycle - 1, 126))


def exp_range(
    base_value: ArrayLike,
    peak_value: ArrayLike,
    steps_up: int,
    steps_down: int | None = None,
    *,
    gamma: ArrayLike,
) -> Schedule:
    r"""A triangle whose height shrinks at every step: `cyclical` with `gamma**count`.

    .. math:: v_t = v_{base} + (v_{peak} - v_{base})\, \gamma^t
        \min\left(k/u, (u + d - k)/d\right), \quad k = t \bmod (u + d)

    Args:
        base_value: value at the start of every cycle.
        peak_value: value after `steps_up` steps, before `gamma` is applied.
        steps_up: updates from base to peak.
        steps_down: updates from peak to base; as many as up if not given.
        gamma: factor of the height at every update, at least 0.

    Returns:
        A schedule `count -> value`.

    Raises:
        ValueError: for fewer than one step up or down, a negative gamma, or a value that is not
            finite.
        TypeError: for an argument of the wrong type.

    Example:
        >>> rate = exp_range(0.0, 1.0, 2, gamma=0.5)
        >>> [float(rate(count)) for count in range(5)]
        [0.0, 0.25, 0.25, 0.0625, 0.0]

    References:
        Smith, Cyclical Learning Rates for Training Neural Networks, 2015, arXiv 1506.01186.
    """
    _checks.number("gamma", gamma, at_least=0)
    shrinking = exponential_decay(1.0, gamma)
    return cyclical(
        base_value, peak_value, steps_up, steps_down, scale_fn=shrinking, scale_mode="iterations"
    )


def warm_restarts(
    peak_value: ArrayLike,
    cycle_steps: int,
    *,
    cycle_mult: float = 1,
    end_value: ArrayLike = 0.0,
    peak_decay: ArrayLike = 1.0,
    warmup_steps: int = 0,
    num_cycles: int | None = None,
) -> Schedule:
    r"""Cosine annealing with warm restarts (SGDR): starts high, falls, jumps back.

    In cycle :math:`i`, which lasts :math:`n_i = n_0 m^i` steps, :math:`k` steps after its start:

    .. math:: v_t = v_{end} + \tfrac12 (v_{peak} d^i - v_{end}) (1 + \cos \pi k / n_i)

    Args:
        peak_value: value at the start of the first cycle.
        cycle_steps: updates of the first cycle.
        cycle_mult: factor from one cycle's length to the next, at least 1. With a float the
            lengths are real-valued (as in Keras), and a restart comes at the next update.
        end_value: value at the end of every cycle.
        peak_decay: factor from one cycle's peak to the next.
        warmup_steps: the first updates of every cycle but the first, in which the value rises
            linearly from the end value to the cycle's peak; the fall takes the cycle's rest.
        num_cycles: number of cycles, after which `end_value` is held; for ever if not given.

    Returns:
        A schedule `count -> value`.

    Raises:
        ValueError: for fewer than one step, a multiplier below 1, a negative `peak_decay`, a
            warmup as long as the cycle, or a value that is not finite.
        TypeError: for an argument of the wrong type.

    Example:
        >>> rate = warm_restarts(1.0, 2, cycle_mult=2)
        >>> [round(float(rate(count)), 4) for count in range(7)]
        [1.0, 0.5, 1.0, 0.8536, 0.5, 0.1464, 1.0]

    References:
        Loshchilov & Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts, 2016,
        arXiv 1608.03983.
    """
    cycle_steps = _checks.integer("cycle_steps", cycle_steps, minimum=1)
    warmup_steps = _checks.integer("warmup_steps", warmup_steps)
    if warmup_steps >= cycle_steps:
        raise ValueError(
            f"warmup_steps must be less than cycle_steps ({cycle_steps}), got {warmup_steps!r}."
        )
    num_cycles = _checks.optional("num_cycles", num_cycles, _checks.integer, minimum=1)
    return partial(
        _warm_restarts,
        peak_value=_checks.number("peak_value", peak_value),
        cycle_steps=cycle_steps,
        cycle_mult=_checks.static("cycle_mult", cycle_mult, at_least=1),
        end_value=_checks.number("end_value", end_value),
        peak_decay=_checks.number("peak_decay", peak_decay, at_least=0),
        warmup_steps=warmup_steps,
        num_cycles=num_cycles,
    )


@_numerics.closed_form
def _warm_restarts(
    count, peak_value, cycle_steps, cycle_mult, end_value, peak_decay, warmup_steps, num_cycles
):
    cycle = _growth.locate(count, cycle_steps, cycle_mult, num_cycles)
    xp = _numerics.namespace(count, peak_value, end_value, peak_decay)
    peak = _numerics.as_float(peak_value) * _numerics.power(peak_decay, cycle.number)
    rise = _numerics.as_float(0)
    if warmup_steps:
        rise = xp.where(cycle.number > 0, _numerics.as_float(warmup_steps), rise)
    fall = cycle.length - rise
    done = xp.clip((cycle.done - rise) / fall, 0, 1)
    left = xp.clip(cycle.left / fall, 0, 1)
    value = _numerics.shaped("cosine", peak, end_value, done, left)
    if not warmup_steps:
        return value
    risen = xp.minimum(cycle.done / warmup_steps, 1)
    warming = _numerics.shaped("linear", end_value, peak, risen, 1 - risen)
    return xp.where(cycle.done < rise, warming, value)
