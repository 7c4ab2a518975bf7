"""Schedules for optimizers that take numbers only, where a sweep has schedules to give."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

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
    return _either(plain, injected)


def readable(factory: Callable, **hyperparams: Any) -> Any:
    """The same by `inject` wherever that can be, so that its hyperparameters can be read.

    Example:
        >>> from lrjax import get_hyperparams
        >>> optimizer = readable(optax.adam, learning_rate=optax.linear_schedule(1.0, 0.0, 4))
        >>> float(get_hyperparams(optimizer.init(jnp.zeros(3)))["learning_rate"])
        1.0
    """
    other = partial(with_schedules, factory, **hyperparams)
    found = other()
    if is_injecting(found):
        return found
    try:
        return _either(inject(factory, **hyperparams), other)
    except TypeError:
        return found


class Either(NamedTuple):
    """A transform that may fail on some parameters, and what makes another then."""

    first: Any
    second: Callable[[], Transform]

    def chosen(self, tree: Any) -> Any:
        """The one for a tree of parameters, or of gradients, which look alike."""
        return optax.with_extra_args_support(
            self.first if _can_update(self.first, tree) else self.second()
        )


def _either(first: Any, second: Callable[[], Transform]) -> Transform:
    either = Either(first, second)
    return Transform(partial(_init_either, either), partial(_update_either, either))


def _init_either(either: Either, params: Any) -> Any:
    return either.chosen(params).init(params)


def _update_either(either: Either, updates: Any, state: Any, params: Any = None, **extra_args: Any):
    return either.chosen(updates).update(updates, state, params, **extra_args)


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
