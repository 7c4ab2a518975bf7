"""Piecewise annealing: cut the updates when a metric has stopped improving.

Not by Optax's own `contrib.reduce_on_plateau`: it holds scale and best value in the parameters'
type, so that in bfloat16 small improvements vanish; it knows no "max", for which a relative
threshold cannot be negated; below 0 its relative threshold takes a worse value for an improvement;
and its factor and thresholds cannot be traced.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from lrjax import _checks
from lrjax._dtypes import as_hyperparameter, cast_like
from lrjax.transforms.hyperparams import is_injected
from lrjax.transforms.injection import Transform, injects

__all__ = ["plateau"]


class Rule(NamedTuple):
    """When to cut and by how much, in the terms of one convention."""

    factor: ArrayLike
    limit: int  # checks without improvement, the last of which cuts
    cooldown: int  # checks after a cut that do not count
    sign: float  # 1 where smaller is better, else -1
    rtol: ArrayLike
    atol: ArrayLike
    min_scale: ArrayLike
    accumulation_size: int  # updates per check


class PlateauState(NamedTuple):
    """What is known of the metric; negated where larger is better."""

    best: jax.Array  # f32[]
    bad: jax.Array  # i32[], checks since the last improvement
    cooldown: jax.Array  # i32[], checks left that do not count
    seen: jax.Array  # i32[], updates since the last check
    mean: jax.Array  # f32[], of the metric over them


def plateau(
    factor: ArrayLike = 0.1,
    patience: int = 10,
    *,
    mode: str = "min",
    rtol: ArrayLike = 1e-4,
    atol: ArrayLike = 0.0,
    cooldown: int = 0,
    min_scale: ArrayLike = 0.0,
    accumulation_size: int = 1,
    convention: str = "torch",
) -> Transform:
    r"""Scale the updates down by a factor whenever a metric has stopped improving.

    Chain it after an optimizer and give every update the metric: `update(grads, state, params,
    value=loss)`. The metric is checked once every `accumulation_size` updates (say, an epoch's),
    as their mean; a cut holds from that update on. With m the metric and b its best so far, it
    improves where

    .. math:: m < b - (a + r |b|) \quad\text{(min)}, \qquad m > b + (a + r |b|)
        \quad\text{(max)}

    Args:
        factor: by which a cut multiplies the scale, which starts at 1.
        patience: consecutive checks without improvement to tolerate. With `"torch"` the next one
            cuts; with `"keras"` and `"optax"` the last of them does.
        mode: `"min"` where smaller is better, `"max"` where larger is.
        rtol: r, relative; PyTorch's `threshold`.
        atol: a, absolute; Keras's `min_delta` (with `rtol=0`).
        cooldown: checks after a cut that do not count. With `"keras"` the last counts again.
        min_scale: the smallest scale.
        accumulation_size: updates per check.
        convention: `"torch"`, `"keras"` or `"optax"`: whose `patience` and `cooldown` to follow.

    Returns:
        A gradient transformation; `get_hyperparams` reports the `scale`, and `set_hyperparams`
        resets it.

    Raises:
        ValueError: for a factor outside (0, 1], a negative number of checks or threshold, a
            `min_scale` outside [0, 1], an unknown mode or convention; at `update`, for a
            `value` that is not a scalar.
        TypeError: for a fractional number of checks; at `update`, without a `value`.

    Example:
        >>> from lrjax import get_hyperparams, sgd
        >>> optimizer = optax.chain(sgd(0.1), plateau(0.5, patience=1))
        >>> state = optimizer.init(jnp.zeros(3))
        >>> for loss in [3.0, 2.0, 2.0, 2.0]:
        ...     _, state = optimizer.update(jnp.ones(3), state, value=loss)
        >>> float(get_hyperparams(state)["scale"])
        0.5

    References:
        He et al., Deep Residual Learning for Image Recognition, 2015, arXiv 1512.03385.
    """
    _checks.one_of("mode", mode, ("min", "max"))
    extra_patience, extra_cooldown = _CONVENTIONS[
        _checks.one_of("convention", convention, _CONVENTIONS)
    ]
    patience = _checks.integer("patience", patience)
    rule = Rule(
        factor=_checks.number("factor", factor, above=0, at_most=1),
        limit=min(max(patience + extra_patience, 1), _checks.MAX_COUNT),
        cooldown=max(_checks.integer("cooldown", cooldown) + extra_cooldown, 0),
        sign=1.0 if mode == "min" else -1.0,
        rtol=_checks.number("rtol", rtol, at_least=0),
        atol=_checks.number("atol", atol, at_least=0),
        min_scale=_checks.number("min_scale", min_scale, at_least=0, at_most=1),
        accumulation_size=_checks.integer("accumulation_size", accumulation_size, minimum=1),
    )
    return Transform(_init, partial(_update, rule))


# What to add to patience and cooldown, so that `limit` checks cut and `cooldown` do not count.
_CONVENTIONS = {"torch": (1, 0), "keras": (0, -1), "optax": (0, 0)}


def _init(params: Any) -> optax.InjectStatefulHyperparamsState:
    del params
    # Arrays of their own, each of which may be donated.
    count, bad, cooldown, seen = (jnp.zeros((), jnp.int32) for _ in range(4))
    mean = as_hyperparameter(0.0)
    # The largest float, not infinity, from which a relative threshold cannot be taken.
    best = as_hyperparameter(jnp.finfo(mean.dtype).max)
    return optax.InjectStatefulHyperparamsState(
        count=count,
        hyperparams={"scale": as_hyperparameter(1.0)},
        hyperparams_states={},
        inner_state=PlateauState(best, bad, cooldown, seen, mean),
    )


def is_plateau(state: Any) -> bool:
    """Whether this is the state of a plateau, of lrjax or of Optax."""
    ours = is_injected(state) and isinstance(state.inner_state, PlateauState)
    return ours or isinstance(state, optax.contrib.ReduceLROnPlateauState)


def plateau_scales(opt_state: Any) -> list[jax.Array]:
    """The scale of every plateau in a state, whether lrjax's or Optax's."""
    found = filter(is_plateau, jax.tree.leaves(opt_state, is_leaf=is_plateau))
    return [state.hyperparams["scale"] if is_injected(state) else state.scale for state in found]


@injects
def _update(
    rule: Rule, updates: Any, state: Any, params: Any = None, *, value: ArrayLike, **_: Any
):
    del params
    if jnp.ndim(value):
        raise ValueError(f"value must be a scalar, got the shape {jnp.shape(value)}.")
    # A float32 scale beside bfloat16 updates, or a rule of another type, is meant.
    with jax.numpy_dtype_promotion("standard"):
        scale, inner_state = _observe(rule, state.hyperparams["scale"], state.inner_state, value)
        scaled = jax.tree.map(lambda update: scale * update, updates)
    return cast_like(scaled, updates), state._replace(
        count=optax.safe_increment(state.count),
        hyperparams={"scale": scale},
        inner_state=inner_state,
    )


def _observe(
    rule: Rule, scale: jax.Array, state: PlateauState, value: ArrayLike
) -> tuple[jax.Array, PlateauState]:
    """Take in a value of the metric and, if it is time, check their mean."""
    seen = state.seen + 1
    value = jnp.asarray(value, state.mean.dtype)
    mean = state.mean + (rule.sign * value - state.mean) / seen.astype(state.mean.dtype)
    due = seen == rule.accumulation_size

    improved = mean < state.best - (rule.atol + rule.rtol * jnp.abs(state.best))
    best = jnp.where(improved, mean, state.best)
    bad = jnp.where(improved | (state.cooldown > 0), 0, state.bad + 1)
    cut = bad >= rule.limit
    reduced = jnp.where(cut, jnp.maximum(scale * rule.factor, rule.min_scale), scale)
    cooldown = jnp.where(cut, rule.cooldown, jnp.maximum(state.cooldown - 1, 0))

    zero = jnp.zeros_like(seen)
    checked = PlateauState(best, jnp.where(cut, 0, bad), cooldown, zero, jnp.zeros_like(mean))
    waiting = state._replace(seen=seen, mean=mean)
    return jax.tree.map(partial(jnp.where, due), (reduced, checked), (scale, waiting))
