"""What an optimizer has gathered, kept where its schedules and hyperparameters start anew."""

from __future__ import annotations

from typing import Any

import jax
import optax

from lrjax.transforms.groups import parameter_names
from lrjax.transforms.hyperparams import is_injected

__all__ = ["keep_moments"]


def keep_moments(opt_state: Any, previous: Any) -> Any:
    """A fresh optimizer's state with the moments of a previous one, to go on with other rates.

    A state holds hyperparameters and the counts of schedules besides the moments: with `previous`
    itself a new optimizer would go on with the old rate, and from the middle of its schedules.

    Args:
        opt_state: of the new optimizer, `optimizer.init(params)`: its hyperparameters and the
            counts of its schedules are taken.
        previous: of an optimizer with the same moments, of lrjax, Optax, or Flax's `nnx.Optimizer`.

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
    try:
        return _merged(fresh, given)
    except (AttributeError, ValueError) as error:
        wanted, found = _names(fresh), _names(given)
        raise ValueError(
            f"{expected}, {_few(wanted, found)}, got {_few(found, wanted)}."
        ) from error


def _merged(fresh: Any, given: Any) -> Any:
    if is_injected(given) and not is_injected(fresh):
        given = given.inner_state

    def merge(new, old):
        if is_injected(new):
            inner = old.inner_state if is_injected(old) else old
            return new._replace(inner_state=_merged(new.inner_state, inner))
        if not _has_no_moments(new):
            return _in_the_place_of(new, old)
        if not _has_no_moments(old):
            raise ValueError(f"{old} has moments")
        return new

    def is_leaf(node):
        is_moment = not isinstance(node, tuple | dict)
        return is_moment or is_injected(node) or _has_no_moments(node)

    return jax.tree.map(merge, fresh, given, is_leaf=is_leaf)


def _in_the_place_of(new: Any, old: Any) -> Any:
    """A moment in another's structure: `nnx.Optimizer` wraps its arrays in variables of its own."""
    # In a tuple, because at a root nothing would tell a box from what is called `value`.
    if _names((new,)) != _names((old,)):
        raise ValueError(f"{old} is another moment")
    return jax.tree.unflatten(jax.tree.structure(new), jax.tree.leaves(old))


def _names(tree: Any) -> list[str]:
    return parameter_names([path for path, _ in jax.tree_util.tree_leaves_with_path(tree)])


FEW = 4


def _few(names: list[str], others: list[str]) -> str:
    """Some of the names that are not among others."""
    own = [name for name in names if name not in others] or ["nothing else"]
    return ", ".join(own[:FEW]) + (f" and {len(own) - FEW} more" if len(own) > FEW else "")


def _has_no_moments(state: Any) -> bool:
    """Whether this is the state of a number, or the count of a schedule."""
    return isinstance(state, optax.EmptyState) or getattr(state, "_fields", None) == ("count",)
