"""Types: hyperparameters are float32 whatever they meet, and all else keeps its own."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


def as_hyperparameter(value: ArrayLike) -> jax.Array:
    """A copy in float32 (under x64 float64): a donated state must not take the caller's array."""
    return jnp.array(value, jnp.result_type(float))


def cast_like(tree: Any, like: Any) -> Any:
    """A tree with the types of another."""
    return jax.tree.map(lambda new, old: jnp.asarray(new, jnp.asarray(old).dtype), tree, like)


def widen_floats(tree: Any) -> Any:
    """The same tree with no float narrower than a hyperparameter."""

    def widen(leaf):
        array = jnp.asarray(leaf)
        if not jnp.issubdtype(array.dtype, jnp.inexact):
            return leaf
        return array.astype(wider(array.dtype))

    return jax.tree.map(widen, tree)


def wider(one: Any, other: Any = float) -> Any:
    """Their promoted type; that of the other for an 8-bit float, which JAX does not promote."""
    one, other = jnp.result_type(one), jnp.result_type(other)
    if _is_narrow(one):
        return other
    if _is_narrow(other):
        return one
    with jax.numpy_dtype_promotion("standard"):
        return jnp.promote_types(one, other)


def _is_narrow(dtype: Any) -> bool:
    return dtype.itemsize == 1 and jnp.issubdtype(dtype, jnp.floating)


def cast_updates(new: Any, grads: Any, params: Any) -> Any:
    """Updates of the gradients' types, or the parameters' where these have more digits."""
    if jax.tree.structure(params) != jax.tree.structure(grads):  # type: ignore[operator]
        return cast_like(new, grads)

    def cast(update, grad, param):
        one, other = jnp.asarray(grad).dtype, jnp.asarray(param).dtype
        return jnp.asarray(update, one if one == other else wider(one, other))

    return jax.tree.map(cast, new, grads, params)


def is_key(array: Any) -> bool:
    """Whether this is an array of random keys, which NumPy does not know."""
    return isinstance(array, jax.Array) and jnp.issubdtype(array.dtype, jax.dtypes.prng_key)
