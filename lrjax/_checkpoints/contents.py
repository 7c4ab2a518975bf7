"""What goes into a checkpoint: the leaves of a tree, and arrays of any lengths as bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np


def filled(tree: Any) -> dict[str, Any]:
    """The leaves by number, without the empty ones, which Orbax does not take."""
    leaves = enumerate(jax.tree.leaves(tree))
    return {str(k): leaf for k, leaf in leaves if not is_empty(leaf)}


def is_empty(leaf: Any) -> bool:
    return 0 in leaf.shape


def as_arrays(tree: Any) -> Any:
    known = jax.Array | jax.ShapeDtypeStruct
    return jax.tree.map(lambda leaf: leaf if isinstance(leaf, known) else np.asarray(leaf), tree)


def placed(leaf: Any) -> Any:
    """The shape, the dtype and the devices of a JAX array to restore."""
    if isinstance(leaf, np.ndarray):
        return leaf
    # Without a sharding Orbax would ask for the devices that the array was on when saved.
    sharding = leaf.sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def empty(leaf: Any) -> Any:
    if isinstance(leaf, np.ndarray):
        return np.empty_like(leaf)
    return jax.numpy.empty(leaf.shape, leaf.dtype, device=leaf.sharding)


def described(tree: Any) -> dict[str, str]:
    """Every leaf's dtype and shape by its path."""
    return {
        jax.tree_util.keystr(path): f"{leaf.dtype}{list(leaf.shape)}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


PREFIX = "arrays/"


def packed(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """Arrays of any names, shapes and dtypes as one array of bytes, never empty."""
    file = io.BytesIO()
    # With a prefix, as savez has arguments of its own.
    named = {f"{PREFIX}{name}": array for name, array in arrays.items()}
    np.savez(file, allow_pickle=False, **named)
    return np.frombuffer(file.getvalue(), np.uint8)


def unpacked(packed: np.ndarray) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(packed.tobytes()), allow_pickle=False) as file:
        return {name.removeprefix(PREFIX): array for name, array in file.items()}
