"""How a run starts: parameters that can be trained, and moments that are given."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lrjax import _checks
from lrjax.tasks import Task
from lrjax.transforms.groups import name_of, parameter_names
from lrjax.transforms.moments import with_moments


def check_trainable(params: Any) -> None:
    """Parameters must be floats, of which there are gradients."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        is_number = isinstance(leaf, int | float | complex | np.ndarray | np.generic | jax.Array)
        if not is_number or not jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
            raise _checks.KindError(
                "task.init must give parameters that are floats, got "
                f"{jax.typeof(leaf) if is_number else repr(leaf)} at {name_of(path)}: what is not "
                "trained belongs in the model state."
            )


def explain(error: Exception, initial: tuple, task: Task, key: jax.Array) -> None:
    """Of an error in a task's loss, say so where `initial` has another model state than its own."""
    try:
        expected = jax.eval_shape(task.init, key)[1]
    except Exception:  # which need not work where `initial` is given
        return
    names, wanted = (
        set(parameter_names([path for path, _ in jax.tree_util.tree_leaves_with_path(tree)]))
        for tree in (initial[1], expected)
    )
    if names != wanted:
        raise ValueError(
            "initial must have a model state as task.init makes it, got one "
            f"without {sorted(wanted - names)} and with {sorted(names - wanted)}."
        ) from error


def with_initial(fresh: Any, opt_state: Any) -> Any:
    """The fresh state of a lane's optimizer, with the moments of `initial`'s."""
    expected = "initial's opt_state must hold the moments of the optimizer that the lanes make"
    return with_moments(fresh, opt_state, expected)
