"""Schedules for optimizers that take numbers only, where a sweep has schedules to give."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from lrjax.transforms.arguments import accepted
from lrjax.transforms.hyperparams import injected_states, is_injected
from lrjax.transforms.injection import Transform, inject, is_injecting, is_transform


def with_schedules(factory: Callable, **hyperparams: Any) -> Any:
    """What a factory makes of schedules; of one that asks for numbers, `inject` of it.

    Some refuse schedules at once; others, as `optax.adam` for `b1`, fail only when they calculate
    with them, which is tried from shapes at `init`.

    Example:
        >>> import optax
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
    return _deferred(partial(_plain_if_able, plain, injected))


def readable(factory: Callable, **hyperparams: Any) -> Any:
    """The same, by `inject` where its hyperparameters could not be read otherwise.

    Example:
        >>> import optax
        >>> from lrjax import get_hyperparams, linear_decay
        >>> optimizer = readable(optax.sgd, learning_rate=linear_decay(1.0, 4))
        >>> float(get_hyperparams(optimizer.init(jnp.zeros(3)))["learning_rate"])
        1.0
    """
    found = with_schedules(factory, **hyperparams)
    if is_injecting(found):
        return found
    try:
        injected = inject(factory, **hyperparams)
    except TypeError:
        return found
    return _deferred(partial(_injected_unless_told, found, injected))


def _plain_if_able(
    plain: Any, injected: Callable[[], Transform], tree: Any, state: Any = None
) -> Any:
    # Of an injected state nothing follows: the factory may inject, too.
    told = state is not None and not is_injected(state)
    return plain if told or _can_update(plain, tree) else injected()


def _injected_unless_told(found: Any, injected: Transform, tree: Any, state: Any = None) -> Any:
    tells = any(injected_states(jax.eval_shape(found.init, tree)))
    return found if tells or not _can_update(injected, tree) else injected


def _deferred(choose: Callable[..., Any]) -> Transform:
    """What is chosen for a tree of parameters, or of gradients, which look alike, and a state.

    It is chosen anew at every call, from shapes: a transform has nowhere to keep it.
    """
    return Transform(partial(_init_chosen, choose), partial(_update_chosen, choose))


def _init_chosen(choose: Callable, params: Any) -> Any:
    return choose(params).init(params)


def _update_chosen(choose: Callable, updates: Any, state: Any, params: Any = None, **extra: Any):
    chosen = choose(updates, state)
    return chosen.update(updates, state, params, **accepted(chosen, extra))


def _can_update(transform: Any, params: Any) -> bool:
    """Told from shapes alone."""

    def update(params):
        known = {"value": jnp.zeros(()), "grad": params, "value_fn": lambda _: jnp.zeros(())}
        extra = accepted(transform, known)
        return transform.update(params, transform.init(params), params, **extra)

    try:
        jax.eval_shape(update, params)
    except TypeError:
        return False
    return True
