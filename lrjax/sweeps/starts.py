"""How a run starts: parameters that can be trained, and moments that are given."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lrjax import _checks
from lrjax.transforms.groups import parameter_names
from lrjax.transforms.hyperparams import is_injected


def check_trainable(params: Any) -> None:
    """Parameters must be floats, of which there are gradients."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        is_number = isinstance(leaf, int | float | complex | np.ndarray | np.generic | jax.Array)
        if not is_number or not jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise _checks.KindError(
                "task.init must give parameters that are floats, got "
                f"{jax.typeof(leaf) if is_number else repr(leaf)} at {name}: what is not trained "
                "belongs in the model state."
            )


def with_moments(fresh: Any, given: Any) -> Any:
    """A fresh state with the moments of one that is given; schedules and hyperparameters stay."""
    try:
        return _keep_moments(fresh, given)
    except (AttributeError, ValueError) as error:
        wanted, found = _names(fresh), _names(given)
        raise ValueError(
            "initial's opt_state must be of the optimizer that the lanes make, which holds "
            f"{_few(wanted, found)}, got one that holds {_few(found, wanted)}."
        ) from error


def _keep_moments(fresh: Any, given: Any) -> Any:
    if is_injected(given) and not is_injected(fresh):
        given = given.inner_state

    def merge(new, old):
        if is_injected(new):
            inner = old.inner_state if is_injected(old) else old
            return new._replace(inner_state=_keep_moments(new.inner_state, inner))
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
