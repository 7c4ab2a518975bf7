"""Values that stay, and change at some counts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from jax.typing import ArrayLike

from lrjax import _checks
from lrjax.schedules import _numerics
from lrjax.schedules._numerics import Schedule

__all__ = ["multistep_decay", "piecewise_constant", "step_decay"]


def step_decay(init_value: ArrayLike, drop: ArrayLike, every: int, *, offset: int = 0) -> Schedule:
    r"""A drop by a constant factor at regular steps.

    .. math:: v_t = v_0\, d^{\lfloor (o + t)/n \rfloor}

    Args:
        init_value: value before the first drop.
        drop: factor of every drop.
        every: updates from one drop to the next.
        offset: updates by which the drops come earlier.

    Returns:
        A schedule `count -> value`.

    Raises:
        ValueError: for fewer than one step, a negative offset or drop, or a value that is not
            finite.
        TypeError: for an argument of the wrong type.

    Example:
        >>> rate = step_decay(1.0, 0.5, 2, offset=1)
        >>> [float(rate(count)) for count in range(5)]
        [1.0, 0.5, 0.5, 0.25, 0.25]
    """
    return partial(
        _step_decay,
        init_value=_checks.number("init_value", init_value),
        drop=_checks.number("drop", drop, at_least=0),
        every=_checks.integer("every", every, minimum=1),
        offset=_checks.integer("offset", offset),
    )


@_numerics.closed_form
def _step_decay(count, init_value, drop, every, offset):
    # count + offset may pass 2**31, so the offset's remainder is compared, not added.
    drops, part = _numerics.divide(count, every)
    early = (part >= every - offset % every).astype(np.int32)
    drops = _numerics.as_float(drops) + _numerics.as_float(early + np.int32(offset // every))
    return _numerics.as_float(init_value) * _numerics.power(drop, drops)


def multistep_decay(
    init_value: ArrayLike, milestones: Sequence[int], *, gamma: ArrayLike = 0.1
) -> Schedule:
    """A factor `gamma` from every milestone on; a milestone given twice counts twice.

    Args:
        init_value: value before the first milestone.
        milestones: counts at which the value changes, in order.
        gamma: the factor.

    Returns:
        A schedule `count -> value`.

    Raises:
        ValueError: for milestones that are negative or out of order, or a value that is not
            finite.
        TypeError: for an argument of the wrong type.

    Example:
        >>> rate = multistep_decay(1.0, [2, 3], gamma=0.5)
        >>> [float(rate(count)) for count in range(5)]
        [1.0, 1.0, 0.5, 0.25, 0.25]
    """
    return partial(
        _multistep_decay,
        init_value=_checks.number("init_value", init_value),
        milestones=check_boundaries("milestones", milestones),
        gamma=_checks.number("gamma", gamma, at_least=0),
    )


@_numerics.closed_form
def _multistep_decay(count, init_value, milestones, gamma):
    init_value, gamma = _numerics.wide(init_value), _numerics.wide(gamma)
    powers = [gamma**passed for passed in range(len(milestones) + 1)]
    values = [_numerics.as_float(init_value * power) for power in powers]
    return _values_from(count, values, milestones)


def check_boundaries(name: str, boundaries: Sequence[int]) -> tuple[int, ...]:
    """Counts in ascending order."""
    checked = _checks.each(name, boundaries, _checks.integer)
    if list(checked) != sorted(checked):
        raise ValueError(f"{name} must be in ascending order, got {boundaries!r}.")
    return checked


def check_between(boundaries: Sequence[int], pieces: Sequence[Any], what: str) -> tuple[int, ...]:
    """The counts between pieces, of which there is one more."""
    checked = check_boundaries("boundaries", boundaries)
    if len(checked) != len(pieces) - 1:
        raise ValueError(
            f"boundaries must be one fewer than the {len(pieces)} {what}, got {boundaries!r}."
        )
    return checked


def piecewise_constant(values: Sequence[ArrayLike], boundaries: Sequence[int]) -> Schedule:
    """One value after another: `values[k]` from count `boundaries[k-1]` on.

    Args:
        values: one more than there are boundaries.
        boundaries: counts at which the value changes, in order.

    Returns:
        A schedule `count -> value`.

    Raises:
        ValueError: for boundaries that are negative, out of order or of the wrong number, or
            a value that is not finite.
        TypeError: for an argument of the wrong type.

    Example:
        >>> rate = piecewise_constant([1.0, 0.5, 0.25], [2, 3])
        >>> [float(rate(count)) for count in range(5)]
        [1.0, 1.0, 0.5, 0.25, 0.25]
    """
    values = _checks.each("values", values, _checks.number, fewest=1)
    return partial(
        _piecewise_constant,
        values=values,
        boundaries=check_between(boundaries, values, "values"),
    )


@_numerics.closed_form
def _piecewise_constant(count, values, boundaries):
    return _values_from(count, [_numerics.as_float(value) for value in values], boundaries)


def _values_from(count, values, boundaries):
    """One of the values, by how many boundaries the count has reached."""
    if len(boundaries) <= 32:
        return _numerics.latest(count, boundaries, values)
    return _numerics.namespace(count, *values).stack(values)[_numerics.row(count, (0, *boundaries))]
