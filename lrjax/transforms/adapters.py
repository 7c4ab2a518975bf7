"""Schedules for optimizers that take numbers only, where a sweep has schedules to give."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lrjax.transforms.hyperparams import is_injected
from lrjax.transforms.injection import Transform, inject, is_injecting, is_transform


def with_schedules(factory: Callable, **hyperparams: Any) -> Any:
    """What a factory makes of schedules; of one that asks for numbers, `inject` of it.

    Some refuse schedules at once; others, as `optax.adam` for `b1`, fail only when they calculate
    with them, which is tried from shapes at `init`.

    Example:
        >>> fall = optax.linear_schedule(1.0, 0.0, 4)
        >>> optimizer = with_schedules(optax.adam, learning_rate=fall, b1=fall)
        >>> type(optimizer.init(jnp.zeros(3))).__name__
        'InjectStatefulHyperparamsState'
    """
    injected = partial(inject, factory, **hyperparams)
    try:
        plain = factory(**hyperparams)
    except TypeError:
        return injected()
    if not is_transform(plain):
        return injected()
    if is_injecting(plain):
        return plain
    either = Either(plain, injected)
    return Transform(partial(_init_either, either), partial(_update_either, either))


class Either(NamedTuple):
    """What a factory makes of schedules, and what makes the same by `inject`."""

    plain: Any
    injected: Callable[[], Transform]


def _init_either(either: Either, params: Any) -> Any:
    return (either.plain if _can_update(either.plain, params) else either.injected()).init(params)


def _update_either(either: Either, updates: Any, state: Any, params: Any = None, **extra_args: Any):
    # As `init` chose; whether the factory injects, too, is not told by the state.
    by_injection = is_injected(state) and not _can_update(either.plain, updates)
    chosen = either.injected() if by_injection else optax.with_extra_args_support(either.plain)
    return chosen.update(updates, state, params, **extra_args)


def _can_update(transform: Any, params: Any) -> bool:
    """Told from shapes alone."""
    transform = optax.with_extra_args_support(transform)

    def update(params):
        value = jnp.zeros(())
        return transform.update(params, transform.init(params), params, value=value, grad=params)

    try:
        jax.eval_shape(update, params)
    except TypeError:
        return False
    return True
