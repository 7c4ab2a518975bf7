"""Where batches come from: arrays on the device, or whatever a program iterates over."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lrjax import _checks

__all__ = ["ArrayBatches", "array_batches"]


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["data"],
    meta_fields=["batch_size", "seed", "shuffle"],
)
@dataclass(frozen=True)
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

    def __call__(self, step: jax.typing.ArrayLike) -> Any:
        """The batch of a step; the step may be traced."""
        return self.fetch(self.chunk(step, 1)[0])

    def chunk(self, start: jax.typing.ArrayLike, steps: int) -> jax.Array:
        """The rows of each of the `steps` batches from `start` on, i32[steps, batch_size]."""
        step = jnp.asarray(start, jnp.int32) + jnp.arange(steps)
        epoch, position = step // self.steps_per_epoch, step % self.steps_per_epoch
        rows = position[:, None] * self.batch_size + jnp.arange(self.batch_size)[None]
        if not self.shuffle:
            return rows
        # Each epoch that the steps can touch is shuffled once, not once per step.
        epochs = 1 + (steps - 1 + self.steps_per_epoch - 1) // self.steps_per_epoch
        orders = jax.vmap(self._order)(epoch[0] + jnp.arange(epochs))
        return orders[(epoch - epoch[0])[:, None], rows]

    def _order(self, epoch: jax.Array) -> jax.Array:
        key = jax.random.fold_in(jax.random.key(self.seed), epoch)
        return jax.random.permutation(key, self.size)

    def fetch(self, rows: jax.Array) -> Any:
        """The samples of some rows."""
        return jax.tree.map(lambda array: array[rows], self.data)


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
    data = jax.tree.map(jnp.asarray, data)
    shapes = [array.shape for array in jax.tree.leaves(data)]
    lengths = {shape[:1] for shape in shapes}
    if len(lengths) != 1 or () in lengths:
        raise ValueError(f"data must be arrays with the same first axis, got shapes {shapes}.")
    if _checks.integer("batch_size", batch_size, minimum=1) > shapes[0][0]:
        raise ValueError(
            f"batch_size must be at most the {shapes[0][0]} samples in data, got {batch_size}."
        )
    return ArrayBatches(data, batch_size, _checks.integer("seed", seed), shuffle)


@functools.partial(jax.tree_util.register_dataclass, data_fields=["batches"], meta_fields=[])
@dataclass(frozen=True)
class Loaded:
    """Batches of some steps that have been read, stacked along a first axis of steps."""

    batches: Any

    def chunk(self, start: jax.typing.ArrayLike, steps: int) -> Any:
        """The batches themselves: they were read for these steps."""
        del start, steps
        return self.batches

    def fetch(self, batch: Any) -> Any:
        """The batch itself."""
        return batch


def reader(batches: Any, total: int) -> tuple[Any, Callable[[int, int], ArrayBatches | Loaded]]:
    """What a batch looks like, and a function that reads the batches of the next steps.

    Args:
        batches: `array_batches(…)`, or any iterable of pytrees of arrays.
        total: how many batches will be read.

    Returns:
        A batch of shapes, and `read(count, length)`, which gives `count` batches, filled up to
        `length` with repetitions of the last.
    """
    if isinstance(batches, ArrayBatches):
        return jax.eval_shape(batches, 0), lambda count, length: batches
    if isinstance(batches, Sized) and len(batches) < total:
        raise ValueError(
            f"batches must last for the {total} that the steps take, got {len(batches)} "
            "(itertools.cycle repeats them)."
        )
    stream = _alike(batches, total)
    first = next(stream)
    stream = itertools.chain([first], stream)

    def read(count: int, length: int) -> Loaded:
        loaded = list(itertools.islice(stream, count))
        return Loaded(_stack(loaded + loaded[-1:] * (length - count)))

    return describe(first), read


def _alike(batches: Iterable[Any], total: int) -> Iterator[Any]:
    """The first `total` batches, which must all look like the first."""
    iterator = iter(_checks.iterable("batches", batches))
    expected = None
    for k in range(total):
        try:
            batch = jax.tree.map(np.asarray, next(iterator))
        except StopIteration:
            raise ValueError(
                f"batches must last for the {total} that the steps take, got {k} "
                "(itertools.cycle repeats them)."
            ) from None
        expected = expected or describe(batch)
        if describe(batch) != expected:
            raise ValueError(
                f"batches must all look like the first, {expected}, got {describe(batch)} "
                f"as number {k}."
            )
        yield batch


def describe(batch: Any) -> Any:
    """The shapes and types that JAX will see."""
    return jax.tree.map(
        lambda array: jax.ShapeDtypeStruct(np.shape(array), jnp.result_type(array)), batch
    )


def _stack(batches: list[Any]) -> Any:
    return jax.tree.map(lambda *arrays: np.stack(arrays), *batches)


class Group(NamedTuple):
    """Batches of one shape to evaluate on, stacked, and what each of them counts."""

    batches: Any
    weight: float


def evaluation_groups(batches: Any) -> tuple[Group, ...]:
    """All batches to evaluate on, each counting by its number of samples.

    A dataset is taken once, with its tail; an iterable is read to its end.
    """
    if isinstance(batches, ArrayBatches):
        rows = batches.size - batches.size % batches.batch_size

        def stacked(part, size):
            return jax.tree.map(lambda a: a[part].reshape(-1, size, *a.shape[1:]), batches.data)

        parts = [(slice(0, rows), batches.batch_size), (slice(rows, None), batches.size - rows)]
        return tuple(Group(stacked(part, size), float(size)) for part, size in parts if size)
    read = [jax.tree.map(np.asarray, batch) for batch in _checks.iterable("eval_batches", batches)]
    if not read:
        raise ValueError("eval_batches must hold at least one batch, got none.")
    alike = itertools.groupby(read, key=describe)
    return tuple(Group(_stack(list(group)), _samples(shape)) for shape, group in alike)


def _samples(batch: Any) -> float:
    """The length of the arrays' first axis; 1 for a batch of scalars."""
    return float(next((array.shape[0] for array in jax.tree.leaves(batch) if array.shape), 1))
