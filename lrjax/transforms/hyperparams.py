"""Read and set the hyperparameters that an optimizer's state holds."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from lrjax.transforms.arguments import numeric

__all__ = ["get_hyperparams", "set_hyperparams"]

_INJECTED = (optax.InjectStatefulHyperparamsState, optax.InjectHyperparamsState)


def get_hyperparams(opt_state: Any) -> dict[str, jax.Array]:
    """The hyperparameters that the last update used (before the first, those it will use).

    Looks through whatever wraps the injected transform: `chain`, `masked`, `partition`,
    `MultiSteps`, `apply_if_finite`, `vmap`, `jit`. Under `partition` a name is followed by its
    group, `learning_rate/head`; where one name occurs twice, as in a chain of two optimizers,
    by its place, `learning_rate/0`.

    Args:
        opt_state: a state of `inject`, or of Optax's `inject_hyperparams`.

    Returns:
        The values by name, in alphabetical order.

    Raises:
        ValueError: if the state holds no hyperparameters.

    Example:
        >>> import optax
        >>> from lrjax import sgd
        >>> optimizer = optax.chain(optax.clip(1.0), sgd(0.5))
        >>> {name: float(v) for name, v in get_hyperparams(optimizer.init(jnp.zeros(3))).items()}
        {'learning_rate': 0.5}
    """
    states = _states(opt_state)
    # Flax NNX wraps every array of a state in a Variable; its only leaf is the array.
    return {
        name: jax.tree.leaves(states[place].hyperparams[own])[0]
        for name, (place, own) in sorted(_places(opt_state).items())
    }


def set_hyperparams(opt_state: Any, /, **values: ArrayLike) -> Any:
    """A state with other values of some hyperparameters, from the next update on.

    Types and shapes stay (a number sets every lane of a vmapped state), so that nothing is
    compiled anew; it works inside `jit` too.

    Args:
        opt_state: a state of `inject`, or of Optax's `inject_hyperparams`.
        **values: the new values, by the names of `get_hyperparams`; a name with a group goes
            in as `**{"learning_rate/head": 0.1}`.

    Returns:
        The state with these values; the one given stays as it is.

    Raises:
        ValueError: for a hyperparameter that the state does not hold, or that follows a
            schedule, which would overwrite it; for a value that is not finite, of a shape that
            does not fit, or a fraction where the state holds an integer.
        TypeError: for a value that is not a number.

    Example:
        >>> from lrjax import sgd
        >>> state = set_hyperparams(sgd(0.5).init(jnp.zeros(3)), learning_rate=0.25)
        >>> float(get_hyperparams(state)["learning_rate"])
        0.25
    """
    states, places = _states(opt_state), _places(opt_state)
    hyperparams = [dict(state.hyperparams) for state in states]
    for name, value in values.items():
        if name not in places:
            raise ValueError(f"opt_state must hold {name!r} to set it, got only {sorted(places)}.")
        place, own = places[name]
        if own in getattr(states[place], "hyperparams_states", ()):
            raise ValueError(
                f"{name} must not follow a schedule, which would overwrite {value!r}: build the "
                "optimizer with a number, and carry this state's moments over by `keep_moments`."
            )
        hyperparams[place][own] = _like(name, value, hyperparams[place][own])
    return _replaced(opt_state, iter(hyperparams))


def _like(name: str, value: ArrayLike, old: Any) -> Any:
    """The value with the old one's type, shape and placement."""
    leaf = jax.tree.leaves(old)[0]
    shape, dtype, given = jnp.shape(leaf), leaf.dtype, jnp.shape(numeric(name, value))
    try:
        fits = jnp.broadcast_shapes(given, shape) == shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"{name} must fit the shape {shape}, got {value!r}.")
    if jnp.issubdtype(dtype, jnp.integer) and not _is_whole(value):
        raise ValueError(
            f"{name} must be a whole number, because the state holds it as {dtype}, got {value!r}: "
            "make the optimizer with a float."
        )
    return jax.tree.map(lambda array: _placed(value, array), old)


def _is_whole(value: ArrayLike) -> bool:
    known = not isinstance(value, jax.core.Tracer)
    whole = jnp.issubdtype(jnp.result_type(value), jnp.integer)
    return whole or (known and bool(np.all(np.asarray(value) % 1 == 0)))


def _placed(value: ArrayLike, like: Any) -> jax.Array:
    """A copy, because a donated state must not take the caller's array, where another one is."""
    copy = jnp.array(jnp.broadcast_to(jnp.asarray(value, like.dtype), like.shape))
    traced = isinstance(copy, jax.core.Tracer) or isinstance(like, jax.core.Tracer)
    placed = not traced and isinstance(like, jax.Array) and like.committed
    return jax.device_put(copy, like.sharding) if placed else copy


def is_injected(state: Any) -> bool:
    """Whether this is the state of an injected transform."""
    return isinstance(state, _INJECTED)


def injected_states(opt_state: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every injected state, with the groups that it lies in, outermost first."""
    for path, state in jax.tree_util.tree_leaves_with_path(opt_state, is_leaf=is_injected):
        if is_injected(state):
            groups = _groups(path)
            yield groups, state
            for inner_groups, inner in injected_states(state.inner_state):
                yield (*groups, *inner_groups), inner


def _groups(path: tuple) -> tuple[str, ...]:
    """The labels of `partition` on the way to a state."""
    return tuple(
        str(key.key)
        for before, key in itertools.pairwise(path)
        if getattr(before, "name", None) == "inner_states"
    )


def _states(opt_state: Any) -> list[Any]:
    return [state for _, state in injected_states(opt_state)]


def _places(opt_state: Any) -> dict[str, tuple[int, str]]:
    """Where each hyperparameter is: the number of its state, and its name there."""
    injected = list(injected_states(opt_state))
    found = [
        ("/".join((own, *groups)), (place, own))
        for place, (groups, state) in enumerate(injected)
        for own in state.hyperparams
    ]
    if not injected:
        raise ValueError(
            "opt_state must hold hyperparameters, got the state of an optimizer that was made "
            "without lrjax.inject or optax.inject_hyperparams. From Flax's nnx.Optimizer, give the "
            "optimizer itself or its opt_state, not what nnx.state makes of it."
        )
    total = Counter(name for name, _ in found)
    places: dict[str, tuple[int, str]] = {}
    for name, place in found:
        numbered = (f"{name}/{k}" for k in itertools.count())
        # A pattern may be a number, too.
        free = (label for label in numbered if label not in total and label not in places)
        places[next(free) if total[name] > 1 else name] = place
    return places


def _replaced(opt_state: Any, hyperparams: Iterator[dict[str, Any]]) -> Any:
    """The state with other hyperparameters, in the order of `injected_states`."""

    def replace(node):
        if not is_injected(node):
            return node
        node = node._replace(hyperparams=next(hyperparams))
        return node._replace(inner_state=_replaced(node.inner_state, hyperparams))

    return jax.tree.map(replace, opt_state, is_leaf=is_injected)
