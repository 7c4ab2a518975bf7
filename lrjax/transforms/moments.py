"""What an optimizer has gathered, kept where its schedules and hyperparameters start anew."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np

from lrjax.transforms.groups import name_of, unboxed
from lrjax.transforms.hyperparams import is_injected

__all__ = ["keep_moments"]


def keep_moments(opt_state: Any, previous: Any) -> Any:
    """A fresh optimizer's state with the moments of a previous one, to go on with other rates.

    A state holds hyperparameters and the counts of schedules besides the moments: with `previous`
    itself a new optimizer would go on with the old rate, and from the middle of its schedules.

    Args:
        opt_state: of the new optimizer, `optimizer.init(params)`: its hyperparameters and the
            counts of its schedules are taken.
        previous: of an optimizer with the same moments, in whatever chain, of lrjax or Optax, or
            the state of Flax's `nnx.Optimizer`.

    Returns:
        A state of the new optimizer.

    Raises:
        ValueError: if the two do not hold the same moments.

    Example:
        >>> import jax.numpy as jnp
        >>> from lrjax import get_hyperparams, linear_decay, sgd
        >>> params, grads = jnp.zeros(3), jnp.ones(3)
        >>> _, previous = sgd(0.1, 0.9).update(grads, sgd(0.1, 0.9).init(params), params)
        >>> optimizer = sgd(linear_decay(0.01, 10), 0.9)
        >>> state = keep_moments(optimizer.init(params), previous)
        >>> updates, state = optimizer.update(grads, state, params)
        >>> updates[0], get_hyperparams(state)["learning_rate"]  # -0.01 * (1 + 0.9)
        (Array(-0.019, dtype=float32), Array(0.01, dtype=float32))
    """
    return with_moments(opt_state, previous, "previous must hold the moments that opt_state holds")


def with_moments(fresh: Any, given: Any, expected: str) -> Any:
    """The fresh state with the given moments, or an error that says what was expected."""
    wanted, found = _moments(fresh), _moments(given)
    if [moment[:2] for moment in wanted] != [moment[:2] for moment in found]:
        raise ValueError(f"{expected}, {_few(wanted, found)}, got {_few(found, wanted)}.")
    leaves, structure = jax.tree.flatten(fresh)
    for to, of in zip(wanted, found, strict=True):
        leaves[to.place] = of.value
    return jax.tree.unflatten(structure, leaves)


class Moment(NamedTuple):
    """An array that an optimizer has gathered."""

    name: str
    shape: tuple[int, ...]
    value: Any
    place: int  # among the leaves of the state


def _moments(state: Any) -> list[Moment]:
    """The moments of a state in order, wherever in chains and injected states they lie."""
    gathered = jax.tree.leaves(_marked(state))
    leaves = jax.tree_util.tree_leaves_with_path(state)
    # In a tuple, because at a root nothing would tell a box from what is called `value`.
    paths = unboxed([(ROOT, *path) for path, _ in leaves])
    return [
        Moment(name_of(tuple(filter(_is_name, path))), np.shape(leaf), leaf, place)
        for place, (path, (_, leaf)) in enumerate(zip(paths, leaves, strict=True))
        if gathered[place]
    ]


ROOT = jax.tree_util.SequenceKey(0)


def _is_name(key: Any) -> bool:
    """Whether a key tells what is gathered, and not only where in chains and injected states."""
    is_place = isinstance(key, jax.tree_util.SequenceKey)
    return not is_place and getattr(key, "name", None) != "inner_state"


def _marked(state: Any) -> Any:
    """The state with True for every moment, False for hyperparameters and counts of schedules."""

    def is_node(node):
        return is_injected(node) or getattr(node, "_fields", None) == ("count",)

    def mark(node):
        if is_injected(node):
            own = jax.tree.map(lambda _: False, node._replace(inner_state=()))
            return own._replace(inner_state=_marked(node.inner_state))
        return jax.tree.map(lambda _: False, node) if is_node(node) else True

    return jax.tree.map(mark, state, is_leaf=is_node)


FEW = 4


def _few(moments: list[Moment], others: list[Moment]) -> str:
    """Some of the moments that are not among others."""
    known = {other[:2] for other in others}
    own = [f"{name}{[*shape]}" for name, shape, *_ in moments if (name, shape) not in known]
    rest = f" and {len(own) - FEW} more" if len(own) > FEW else ""
    return ", ".join(own[:FEW] or ["nothing else"]) + rest
