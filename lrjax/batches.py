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

    def __call__(self, step: Any) -> Any:
        """The batch of a step; the step may be traced."""
        epoch, position = divmod(step, self.steps_per_epoch)
        start = position * self.batch_size
        rows = jax.lax.dynamic_slice_in_dim(self._order(epoch), start, self.batch_size)
        return _take(self.data, rows)

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
        shuffled = _shuffled if isinstance(epoch, jax.Array) else _shuffled_once
        return shuffled(self.size, self.seed, epoch)


def _shuffled(size: int, seed: int, epoch: jax.typing.ArrayLike) -> jax.Array:
    return jax.random.permutation(jax.random.fold_in(jax.random.key(seed), epoch), size)


@functools.lru_cache(maxsize=8)
def _shuffled_once(size: int, seed: int, epoch: int) -> np.ndarray:
    with jax.ensure_compile_time_eval():
        return np.asarray(_shuffled(size, seed, epoch))


def _take(data: Any, rows: Any) -> Any:
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


class Rows(NamedTuple):
    """The batches of some steps, as rows of a dataset on the device."""

    data: Any
    rows: np.ndarray  # i32[steps, batch_size]

    def fetch(self, k: Any) -> Any:
        """The batch of step k."""
        return _take(self.data, self.rows[k])


class Loaded(NamedTuple):
    """The batches of some steps, as they were read, stacked along a first axis."""

    batches: Any

    def fetch(self, k: Any) -> Any:
        """The batch of step k."""
        return _take(self.batches, k)


Read = Callable[[int, int, int], Rows | Loaded]


def reader(batches: Any, total: int) -> tuple[Any, Read]:
    """What a batch looks like, and a function that reads one stretch of batches after another.

    Args:
        batches: `array_batches(…)`, or any iterable of pytrees of arrays.
        total: how many batches will be read.

    Returns:
        A batch of shapes, and `read(start, count, length)`, which gives the `count` batches
        from number `start` on, filled up to `length` with repetitions of the last.
    """
    if isinstance(batches, ArrayBatches):

        def read_rows(start: int, count: int, length: int) -> Rows:
            rows = batches.rows(start, count)
            return Rows(batches.data, np.concatenate([rows, *[rows[-1:]] * (length - count)]))

        return jax.eval_shape(batches, 0), read_rows
    if isinstance(batches, Sized) and len(batches) < total:
        raise ValueError(
            f"batches must last for the {total} that the steps take, got {len(batches)} "
            "(itertools.cycle repeats them)."
        )
    stream = _alike(batches, total)
    first = next(stream)
    stream = itertools.chain([first], stream)

    def read(start: int, count: int, length: int) -> Loaded:
        del start  # a stream goes on where it stands
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
