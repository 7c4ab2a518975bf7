"""What an optimizer has gathered, kept where its schedules and hyperparameters start anew."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lrjax._dtypes import is_key
from lrjax.transforms.groups import name_of, unboxed
from lrjax.transforms.hyperparams import is_injected
from lrjax.transforms.plateaus import is_plateau

__all__ = ["keep_moments"]


def keep_moments(opt_state: Any, previous: Any) -> Any:
    """Carry an optimizer's moments over to a new one, to continue with other rates.

    A state holds hyperparameters and the counts of schedules besides the moments: with `previous`
    itself a new optimizer would go on with the old rate, and from the middle of its schedules.

    Args:
        opt_state: the new optimizer's state, `optimizer.init(params)`; its hyperparameters, the
            counts of its schedules, and its plateaus are kept.
        previous: the state of an optimizer with the same moments, of lrjax or Optax, wherever
            they lie in its chain, or the `opt_state` of Flax's `nnx.Optimizer`.

    Returns:
        A state of the new optimizer.

    Raises:
        ValueError: if the two do not hold moments of the same kinds, names and shapes.

    Example:
        >>> from lrjax import get_hyperparams, linear_decay, sgd
        >>> params, grads = jnp.zeros(3), jnp.ones(3)
        >>> _, previous = sgd(0.1, 0.9).update(grads, sgd(0.1, 0.9).init(params), params)
        >>> optimizer = sgd(linear_decay(0.01, 10), 0.9)
        >>> state = keep_moments(optimizer.init(params), previous)
        >>> updates, state = optimizer.update(grads, state, params)
        >>> updates[0], get_hyperparams(state)["learning_rate"]  # -0.01 * (1 + 0.9)
        (Array(-0.019, dtype=float32), Array(0.01, dtype=float32))
    """
    return with_moments(opt_state, previous, "previous must hold the same moments as opt_state")


def with_moments(fresh: Any, given: Any, expected: str) -> Any:
    """The fresh state with the given moments, or an error that begins with what was expected."""
    wanted, found = _moments(fresh), _moments(given)
    if [moment.kind for moment in wanted] != [moment.kind for moment in found]:
        raise ValueError(f"{expected}: expected {_few(wanted, found)}, got {_few(found, wanted)}.")
    leaves, structure = jax.tree.flatten(fresh)
    for to, of in zip(wanted, found, strict=True):
        leaves[to.place] = of.value if is_key(of.value) else jnp.asarray(of.value, to.value.dtype)
    return jax.tree.unflatten(structure, leaves)


class Moment(NamedTuple):
    """An array that an optimizer has gathered."""

    kind: str  # whose state it is in, its name there, and its shape
    value: Any
    place: int  # among the leaves of the state


def _moments(state: Any) -> list[Moment]:
    """The moments of a state in order, wherever in chains and injected states they lie."""
    owners = jax.tree.leaves(_owned(state))
    leaves = jax.tree_util.tree_leaves_with_path(state)
    # In a tuple, because at a root nothing would tell a box from what is called `value`.
    paths = unboxed([(ROOT, *path) for path, _ in leaves])
    names = [name_of(tuple(filter(_is_name, path))) for path in paths]
    return [
        Moment(f"{owner}: {name}{[*np.shape(leaf)]}", leaf, place)
        for place, (owner, name, (_, leaf)) in enumerate(zip(owners, names, leaves, strict=True))
        if owner
    ]


ROOT = jax.tree_util.SequenceKey(0)


def _is_name(key: Any) -> bool:
    """Whether a key tells what is gathered, and not only where in chains and injected states."""
    is_place = isinstance(key, jax.tree_util.SequenceKey)
    return not is_place and getattr(key, "name", None) != "inner_state"


def _owned(state: Any, owner: str = "state") -> Any:
    """In the place of every array the kind of state it is in, empty for what is no moment."""

    def is_state(node):
        return isinstance(node, tuple) and hasattr(node, "_fields")

    def own(node):
        if not is_state(node):
            return owner
        parts = node._asdict()
        if is_plateau(node) or node._fields == ("count",):
            kept = {}
        elif is_injected(node):
            kept = {"inner_state": _owned(node.inner_state)}
        else:
            kept = {name: _owned(part, type(node).__name__) for name, part in parts.items()}
        return node._replace(**jax.tree.map(lambda _: "", parts) | kept)

    return jax.tree.map(own, state, is_leaf=is_state)


FEW = 4


def _few(moments: list[Moment], others: list[Moment]) -> str:
    """Some of the moments that are not among others."""
    known = {other.kind for other in others}
    own = [moment.kind for moment in moments if moment.kind not in known]
    if not own:
        return "no others" if len(moments) != len(others) else "the same in another order"
    return ", ".join(own[:FEW]) + (f" and {len(own) - FEW} more" if len(own) > FEW else "")
