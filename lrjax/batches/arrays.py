"""Plain arrays on the device, and the batches that are drawn from them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lrjax import _checks
from lrjax._dtypes import is_key

__all__ = ["ArrayBatches", "array_batches"]


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["data"],
    meta_fields=["batch_size", "seed", "shuffle"],
)
@dataclass(frozen=True, eq=False)  # so that it has a hash, as a function that is jitted must
class ArrayBatches:
    """A dataset on the device, and the batches that are drawn from it; see `array_batches`."""

    data: Any
    batch_size: int
    seed: int
    shuffle: bool

    @property
    def size(self) -> int:
        """The number of samples."""
        return jax.tree.leaves(self.data)[0].shape[0]

    @property
    def steps_per_epoch(self) -> int:
        """The number of batches in an epoch, without the short tail."""
        return self.size // self.batch_size

    def __call__(self, step: Any) -> Any:
        """The batch of a step; the step may be traced."""
        if not isinstance(step, jax.Array):
            step = _checks.integer("step", step)
        epoch, position = divmod(step, self.steps_per_epoch)
        start = position * self.batch_size
        rows = jax.lax.dynamic_slice_in_dim(self._order(epoch), start, self.batch_size)
        return take(self.data, rows)

    def rows(self, start: int, steps: int) -> np.ndarray:
        """The numbers of the samples in the batches from step `start` on, [steps, batch_size]."""
        epochs, positions = np.divmod(np.arange(start, start + steps), self.steps_per_epoch)
        within = positions[:, None] * self.batch_size + np.arange(self.batch_size)
        orders = map(self._order, epochs.tolist())
        return np.stack([order[rows] for order, rows in zip(orders, within, strict=True)])

    def _order(self, epoch: Any) -> Any:
        """The samples' numbers in the order of an epoch, i32[size]; on the host if it is known."""
        if not self.shuffle:
            return np.arange(self.size, dtype=np.int32)
        if isinstance(epoch, jax.Array):
            return _permutation(jax.random.key(self.seed), epoch, self.size)
        return _shuffled_once(self.size, self.seed, epoch)


@functools.partial(jax.jit, static_argnames="size")
def _permutation(key: jax.Array, epoch: jax.typing.ArrayLike, size: int) -> jax.Array:
    return jax.random.permutation(jax.random.fold_in(key, epoch), size)


@functools.lru_cache(maxsize=8)
def _shuffled_once(size: int, seed: int, epoch: int) -> np.ndarray:
    with jax.ensure_compile_time_eval():
        key = jax.random.key(seed)
    # Outside the `with`, inside which every operation would be compiled and run by itself.
    return np.asarray(_permutation.lower(key, epoch, size=size).compile()(key, epoch))


def take(data: Any, rows: Any) -> Any:
    """Some rows of every array."""
    return jax.tree.map(lambda array: array[rows], data)


def array_batches(
    data: Any, batch_size: int, *, seed: int = 0, shuffle: bool = True
) -> ArrayBatches:
    """Batches of a dataset that lies on the device.

    The batch of a step is a pure function of the seed and the step. Every epoch takes the
    samples in a new order, each once; a tail too short for a batch is left out of it. (An
    evaluation takes every sample, tail included.)

    Args:
        data: a pytree of arrays with samples along their first axis.
        batch_size: samples per batch.
        seed: of the order.
        shuffle: whether to reorder the samples at all.

    Returns:
        A function `step -> batch`, for sweeps and for loops of your own.

    Raises:
        ValueError: for no arrays, arrays of different lengths, or a batch larger than the data.

    Example:
        >>> batches = array_batches({"x": jnp.arange(10)}, 4, shuffle=False)
        >>> [batches(step)["x"].tolist() for step in range(3)]
        [[0, 1, 2, 3], [4, 5, 6, 7], [0, 1, 2, 3]]
    """
    size = _check_lengths("data", data)
    if _checks.integer("batch_size", batch_size, minimum=1) > size:
        raise ValueError(
            f"batch_size must be at most the {size} samples in data, got {batch_size}."
        )
    data = jax.tree.map(lambda leaf: jnp.asarray(_readable(leaf)), data)
    seed, shuffle = _checks.integer("seed", seed), _checks.flag("shuffle", shuffle)
    return ArrayBatches(data, batch_size, seed, shuffle)


def _check_lengths(name: str, data: Any) -> int:
    """The length of the first axis, which all arrays must share."""
    leaves = jax.tree_util.tree_leaves_with_path(data)
    for path, leaf in leaves:
        where = f"{name}{jax.tree_util.keystr(path)}"
        if not hasattr(leaf, "__array__"):
            raise _checks.KindError(f"{where} must be an array, got {leaf!r}.")
        array = _readable(leaf)
        if isinstance(array, np.ndarray) and array.dtype.kind in "OSUmM":
            raise _checks.KindError(f"{where} must hold numbers, got an array of {array.dtype}.")
    shapes = [np.shape(leaf) for _, leaf in leaves]
    lengths = {shape[:1] for shape in shapes}
    if len(lengths) != 1 or () in lengths:
        raise ValueError(f"{name} must be arrays with the same first axis, got shapes {shapes}.")
    if not shapes[0][0]:
        raise ValueError(f"{name} must hold at least one sample, got shapes {shapes}.")
    return shapes[0][0]


def _readable(array: Any) -> Any:
    """An array of JAX, or one of NumPy: also of PyTorch's tensors and pandas' frames."""
    return array if isinstance(array, jax.Array) else np.asarray(array)


def copied(array: Any) -> Any:
    """A copy in the host's memory, because batches may be written into one memory after another."""
    return array if is_key(array) else np.array(array)


def are_arrays(given: Any) -> bool:
    """Whether this is data as plain arrays; a list is one of batches."""
    return isinstance(given, tuple | Mapping) or hasattr(given, "__array__")


BATCH_SIZE = 64


def as_batches(name: str, given: Any, batch_size: int | None = None) -> Any:
    """Batches of plain arrays: one, or a tuple or dict of them.

    Anything else, a list among it, holds batches already and stays what it is.
    """
    if not are_arrays(given):
        if batch_size is not None:
            raise ValueError(f"batch_size is for {name} given as arrays, got {batch_size!r}.")
        return given
    if batch_size is None:
        batch_size = min(BATCH_SIZE, _check_lengths(name, given))
    return array_batches(given, batch_size)
