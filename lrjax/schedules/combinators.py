"""Schedules made of schedules."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import partial

import numpy as np
from jax.typing import ArrayLike

from lrjax import _checks
from lrjax._checks import MAX_COUNT
from lrjax.schedules import _growth, _numerics
from lrjax.schedules._numerics import Schedule
from lrjax.schedules.steps import check_between

__all__ = [
    "join",
    "per_epoch",
    "product",
    "repeat",
    "scale",
    "stretch",
    "with_cooldown",
    "with_warmup",
]


def join(schedules: Sequence[Schedule], boundaries: Sequence[int]) -> Schedule:
    """One schedule after another; each starts again at its own count 0.

    Args:
        schedules: the pieces, one more than there are boundaries.
        boundaries: counts at which the next piece takes over, in order.

    Returns:
        A schedule `count -> value`.

    Raises:
        ValueError: for boundaries that are negative, out of order or of the wrong number.
        TypeError: for an argument of the wrong type.

    Example:
        >>> from lrjax import constant, linear_decay
        >>> rate = join([constant(1.0), linear_decay(1.0, 2)], [2])
        >>> [float(rate(count)) for count in range(5)]
        [1.0, 1.0, 1.0, 0.5, 0.0]
    """
    schedules = _checks.each("schedules", schedules, _checks.function, fewest=1)
    return partial(
        _join,
        schedules=schedules,
        boundaries=check_between(boundaries, schedules, "schedules"),
    )


@_numerics.closed_form
def _join(count, schedules, boundaries):
    starts, lasts = (0, *boundaries), (*(end - 1 for end in boundaries), MAX_COUNT)
    # Every piece is evaluated everywhere, so each sees only counts of its own range: a value
    # that is not finite outside of it would spoil the gradient.
    clip = _numerics.namespace(count).clip
    values = [
        _numerics.evaluate(schedule, clip(count - np.int32(start), 0, max(last - start, 0)))
        for schedule, start, last in zip(schedules, starts, lasts, strict=True)
    ]
    return _numerics.latest(count, boundaries, values)


def with_warmup(schedule: Schedule, warmup_steps: int, *, init_value: ArrayLike = 0.0) -> Schedule:
    """A linear rise to the schedule's first value, then the schedule.

    Args:
        schedule: what follows the warmup, from its own count 0.
        warmup_steps: updates of the rise; 0 for none.
        init_value: value of the first update. At 0 that update changes nothing; a rise from
            `peak / (warmup_steps + 1)` wastes none.

    Returns:
        A schedule `count -> value`.

    Raises:
        ValueError: for a negative number of steps, or a value that is not finite.
        TypeError: for an argument of the wrong type.

    Example:
        >>> from lrjax import linear_decay
        >>> rate = with_warmup(linear_decay(1.0, 2), 2)
        >>> [float(rate(count)) for count in range(5)]
        [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    return partial(
        _with_warmup,
        schedule=_checks.function("schedule", schedule),
        warmup_steps=_checks.integer("warmup_steps", warmup_steps),
        init_value=_checks.number("init_value", init_value),
    )


@_numerics.closed_form
def _with_warmup(count, schedule, warmup_steps, init_value):
    since = _numerics.namespace(count).maximum(count - np.int32(warmup_steps), np.int32(0))
    value = _numerics.evaluate(schedule, since)
    if not warmup_steps:
        return value
    # During the rise the schedule stands at its count 0, which is where the rise ends.
    fractions = _numerics.fractions(count, 0, warmup_steps)
    rise = _numerics.shaped("linear", init_value, value, *fractions)
    return _numerics.latest(count, [warmup_steps], [rise, value])


def with_cooldown(
    schedule: Schedule, total_steps: int, cooldown_steps: int, *, end_value: ArrayLike = 0.0
) -> Schedule:
    r"""The schedule, drawn linearly to `end_value` over the last steps.

    .. math:: v_t = v_{end} + (s_t - v_{end}) \min\left(1, (T - t)/c\right)

    Args:
        schedule: what is cooled down.
        total_steps: the count T at which `end_value` is reached, and held.
        cooldown_steps: updates c of the cooldown.
        end_value: the last value.

    Returns:
        A schedule `count -> value`.

    Raises:
        ValueError: for fewer than one step, a cooldown longer than the run, or a value that is
            not finite.
        TypeError: for an argument of the wrong type.

    Example:
        >>> from lrjax import constant
        >>> rate = with_cooldown(constant(1.0), 4, 2)
        >>> [float(rate(count)) for count in range(6)]
        [1.0, 1.0, 1.0, 0.5, 0.0, 0.0]
    """
    total_steps = _checks.integer("total_steps", total_steps, minimum=1)
    cooldown_steps = _checks.integer("cooldown_steps", cooldown_steps, minimum=1)
    if cooldown_steps > total_steps:
        raise ValueError(
            f"cooldown_steps must be at most total_steps ({total_steps}), got {cooldown_steps!r}."
        )
    return partial(
        _with_cooldown,
        schedule=_checks.function("schedule", schedule),
        total_steps=total_steps,
        cooldown_steps=cooldown_steps,
        end_value=_checks.number("end_value", end_value),
    )


@_numerics.closed_form
def _with_cooldown(count, schedule, total_steps, cooldown_steps, end_value):
    fractions = _numerics.fractions(count, total_steps - cooldown_steps, total_steps)
    # Not beyond the end, where what is not finite would spoil the value and the gradient.
    within = _numerics.namespace(count).minimum(count, np.int32(total_steps - 1))
    value = _numerics.evaluate(schedule, within)
    return _numerics.shaped("linear", value, end_value, *fractions)


def scale(schedule: Schedule, factor: ArrayLike) -> Schedule:
    r"""The schedule times a factor.

    .. math:: v_t = f\, s_t

    Args:
        schedule: what is scaled.
        factor: f in the formula.

    Returns:
        A schedule `count -> value`.

    Raises:
        ValueError: for a factor that is not finite.
        TypeError: for a schedule that is not a function, or another argument of the wrong type.

    Example:
        >>> from lrjax import linear_decay
        >>> float(scale(linear_decay(1.0, 4), 0.5)(2))
        0.25
    """
    return partial(
        _scale,
        schedule=_checks.function("schedule", schedule),
        factor=_checks.number("factor", factor),
    )


@_numerics.closed_form
def _scale(count, schedule, factor):
    return _numerics.evaluate(schedule, count) * _numerics.as_float(factor)


def product(*schedules: Schedule) -> Schedule:
    r"""The product of schedules (PyTorch's `ChainedScheduler`).

    .. math:: v_t = \prod_i s^{(i)}_t

    Args:
        *schedules: one or more schedules.

    Returns:
        A schedule `count -> value`.

    Raises:
        ValueError: for no schedule.
        TypeError: for a schedule that is not a function, or another argument of the wrong type.

    Example:
        >>> from lrjax import constant, linear_decay
        >>> float(product(linear_decay(1.0, 4), constant(0.5))(2))
        0.25
    """
    factors = _checks.each("schedules", schedules, _checks.function, fewest=1)
    return partial(_product, schedules=factors)


@_numerics.closed_form
def _product(count, schedules):
    return math.prod(_numerics.evaluate(schedule, count) for schedule in schedules)


def stretch(schedule: Schedule, factor: float) -> Schedule:
    r"""The schedule at another speed: `schedule(floor(count / factor))`.

    The factor stands for the simplest fraction that is this float, 1.1 for 11/10 and `100 / 3` for
    100/3, and the division is one of integers: exact at every count. A fraction that takes more
    than 31 bits is rounded to one that does not.

    Args:
        schedule: what is stretched.
        factor: how many times longer it takes, at least 1e-4; below 1, it goes faster.

    Returns:
        A schedule `count -> value`.

    Raises:
        ValueError: for a factor outside of that range.
        TypeError: for an argument of the wrong type.

    Example:
        >>> from lrjax import linear_decay
        >>> [float(stretch(linear_decay(1.0, 4), 2)(count)) for count in range(5)]
        [1.0, 1.0, 0.75, 0.75, 0.5]
    """
    factor = _checks.static("factor", factor, at_least=1e-4, at_most=MAX_COUNT)
    ratio = _simplest_fraction(float(factor))
    return partial(
        _stretch,
        schedule=_checks.function("schedule", schedule),
        numerator=ratio.numerator,
        denominator=ratio.denominator,
    )


def _simplest_fraction(value: float) -> Fraction:
    """The one of the smallest terms that rounds to the value, or the nearest of 31 bits."""
    exact, found = Fraction(value), Fraction(round(value))
    for bits in range(31):
        fraction = exact.limit_denominator(2**bits)
        if not 0 < fraction.numerator <= MAX_COUNT:
            continue
        found = fraction
        if float(found) == value:
            break
    return found


@_numerics.closed_form
def _stretch(count, schedule, numerator, denominator):
    return _numerics.evaluate(schedule, _numerics.scaled(count, denominator, numerator))


def per_epoch(schedule: Schedule, steps_per_epoch: int) -> Schedule:
    r"""A schedule that is written in epochs, used per update: `stretch` by a whole number.

    .. math:: v_t = s\left(\lfloor t/n \rfloor\right)

    Args:
        schedule: what is written in epochs.
        steps_per_epoch: updates n of an epoch.

    Returns:
        A schedule `count -> value`.

    Raises:
        ValueError: for fewer than one step.
        TypeError: for a schedule that is not a function, or another argument of the wrong type.

    Example:
        >>> from lrjax import step_decay
        >>> rate = per_epoch(step_decay(1.0, 0.5, 1), 3)
        >>> [float(rate(count)) for count in range(7)]
        [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.25]
    """
    return stretch(schedule, _checks.integer("steps_per_epoch", steps_per_epoch, minimum=1))


def repeat(
    schedule: Schedule, cycle_steps: int, *, cycle_mult: float = 1, decay: ArrayLike = 1.0
) -> Schedule:
    r"""The schedule's first `cycle_steps` steps again and again.

    In cycle :math:`i`, whose length is :math:`n m^i`, and :math:`k` steps after its start:

    .. math:: v_t = d^i\, s\left(\lfloor k / m^i \rfloor\right)

    Args:
        schedule: what is repeated.
        cycle_steps: updates of the first cycle.
        cycle_mult: factor from one cycle's length to the next, at least 1; a longer cycle
            stretches the schedule; a fraction may round its steps a little early.
        decay: factor from one cycle's values to the next.

    Returns:
        A schedule `count -> value`.

    Raises:
        ValueError: for fewer than one step, a multiplier below 1, a negative `decay`, or a value
            that is not finite.
        TypeError: for an argument of the wrong type.

    Example:
        >>> from lrjax import linear_decay
        >>> rate = repeat(linear_decay(1.0, 2), 2, cycle_mult=2, decay=0.5)
        >>> [float(rate(count)) for count in range(7)]
        [1.0, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25]
    """
    return partial(
        _repeat,
        schedule=_checks.function("schedule", schedule),
        cycle_steps=_checks.integer("cycle_steps", cycle_steps, minimum=1),
        cycle_mult=_checks.static("cycle_mult", cycle_mult, at_least=1),
        decay=_checks.number("decay", decay, at_least=0),
    )


@_numerics.closed_form
def _repeat(count, schedule, cycle_steps, cycle_mult, decay):
    cycle = _growth.locate(count, cycle_steps, cycle_mult)
    # What is done of a longer cycle, in steps of the first one.
    if float(cycle_mult).is_integer():
        position, _ = _numerics.divide(count - cycle.first, cycle.growth)
    else:
        # Rounded up by as much as it may be rounded down, so that whole steps stay whole.
        xp = _numerics.namespace(count)
        steps = cycle.done / cycle.growth
        position = xp.floor(steps * (1 + 2 * xp.finfo(steps.dtype).eps)).astype(np.int32)
        position = xp.minimum(position, np.int32(cycle_steps - 1))
    return _numerics.evaluate(schedule, position) * _numerics.power(decay, cycle.number)
