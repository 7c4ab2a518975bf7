"""Where batches come from: arrays on the device, or whatever a program iterates over."""

from __future__ import annotations

import functools
import itertools
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lrjax import _checks

__all__ = ["ArrayBatches", "StreamBatches", "array_batches", "stream_batches"]


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
    # Apart, because there the lowering would run, and so compile, each of its operations.
    return np.asarray(_permutation.lower(key, epoch, size=size).compile()(key, epoch))


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
    size = _samples_of("data", data)
    if _checks.integer("batch_size", batch_size, minimum=1) > size:
        raise ValueError(
            f"batch_size must be at most the {size} samples in data, got {batch_size}."
        )
    data = jax.tree.map(jnp.asarray, data)
    seed, shuffle = _checks.integer("seed", seed), _checks.flag("shuffle", shuffle)
    return ArrayBatches(data, batch_size, seed, shuffle)


def _samples_of(name: str, data: Any) -> int:
    """The length of the first axis, which all arrays must share."""
    leaves = jax.tree.leaves(data)
    for leaf in leaves:
        if not hasattr(leaf, "__array__"):
            raise TypeError(f"{name} must hold arrays only, got {leaf!r} in it.")
    shapes = [np.shape(leaf) for leaf in leaves]
    lengths = {shape[:1] for shape in shapes}
    if len(lengths) != 1 or () in lengths:
        raise ValueError(f"{name} must be arrays with the same first axis, got shapes {shapes}.")
    return shapes[0][0]


BATCH_SIZE = 64


def as_batches(name: str, given: Any, batch_size: int | None = None) -> Any:
    """Batches of data that are given as they are: an array, or a tuple or dict of arrays.

    Anything else, a list among it, holds batches already and stays what it is.
    """
    if not isinstance(given, tuple | Mapping) and not hasattr(given, "__array__"):
        if batch_size is not None:
            raise ValueError(f"batch_size is for {name} given as arrays, got {batch_size!r}.")
        return given
    if batch_size is None:
        batch_size = min(BATCH_SIZE, _samples_of(name, given))
    return array_batches(given, batch_size)


@dataclass(frozen=True)
class StreamBatches:
    """Batches that come one after another, read ahead of their use; see `stream_batches`."""

    iterable: Iterable[Any]
    prefetch: int

    def __iter__(self) -> Iterator[Any]:
        """The batches, as they are."""
        return iter(self.iterable)


PREFETCH = 2


def stream_batches(iterable: Iterable[Any], *, prefetch: int = PREFETCH) -> StreamBatches:
    """Batches from whatever a program iterates over, read by a thread while the device computes.

    A sweep reads a stream once for all its lanes, in order. A list, or a loader, is begun again
    when it ends, each time without shorter batches at its end; a generator, or another iterator,
    that ends before the last step is an error, for it cannot begin again. An iterable that is
    given to a sweep as it is, is read in the same way.

    The stream runs in a thread of its own: JAX's context managers around a sweep do not reach
    into it. It may reuse the memory of its batches.

    Args:
        iterable: gives pytrees of arrays, or of what NumPy makes arrays of, of one shape: a
            generator, Grain's or PyTorch's `DataLoader`, `as_numpy_iterator()` of tf.data.
        prefetch: how many dispatches' batches to keep ready in the host's memory.

    Returns:
        A description for a sweep, which reads nothing by itself.

    Raises:
        ValueError: for a prefetch below 1.
        TypeError: for something that is no iterable, or a prefetch that is no integer.

    Example:
        >>> from lrjax import range_test, task
        >>> def measurements():
        ...     rng = np.random.default_rng(0)
        ...     while True:
        ...         yield rng.normal(size=16).astype(np.float32)
        >>> def loss(params, x):
        ...     return jnp.mean((x - params) ** 2)
        >>> batches = stream_batches(measurements(), prefetch=4)
        >>> range_test(task(loss, jnp.ones(())), batches, end=0.1, steps=30)
        Curves(seed: 1; 30 steps, 0 evaluations, 0 of 1 lanes diverged)
    """
    _checks.iterable("iterable", iterable)
    return StreamBatches(iterable, _checks.integer("prefetch", prefetch, minimum=1))


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


Idle = Callable[[], bool]


def _always() -> bool:
    return True


@dataclass(frozen=True)
class ArrayReader:
    """Reads a dataset on the device; see `reader`."""

    batches: ArrayBatches
    bytes: ClassVar[int] = 0
    waited: ClassVar[float] = 0.0

    @property
    def sample(self) -> Any:
        """A batch of shapes."""
        size = self.batches.batch_size
        return jax.tree.map(
            lambda array: jax.ShapeDtypeStruct((size, *array.shape[1:]), array.dtype),
            self.batches.data,
        )

    def read(self, start: int, count: int, length: int, idle: Idle = _always) -> Rows:
        """The rows of some batches."""
        rows = self.batches.rows(start, count)
        return Rows(self.batches.data, np.concatenate([rows, *[rows[-1:]] * (length - count)]))

    def close(self) -> None:
        """Nothing to end."""


class StreamReader:
    """Reads a stream ahead, in a thread; see `reader`."""

    def __init__(self, stream: StreamBatches, total: int) -> None:
        # Room for the first and no more: a sweep may be refused for what it looks like.
        self._room = threading.Semaphore(1)
        self._thread = _read_ahead(_alike(stream.iterable, total), self._room)
        first = next(self._thread)
        try:
            self.sample = describe(first)
        except Exception:
            self.close()
            raise
        self.bytes = sum(array.nbytes for array in jax.tree.leaves(first))
        self.waited = 0.0
        self._prefetch = stream.prefetch
        self._ahead = itertools.chain([first], self._thread)
        self._position: int | None = None

    def read(self, start: int, count: int, length: int, idle: Idle = _always) -> Loaded:
        """Some batches, in the host's memory."""
        if self._position is None:
            self._position = 0
            self._room.release(self._prefetch * length)
        if start < self._position:
            raise ValueError(f"a stream cannot go back from batch {self._position} to {start}.")
        for _ in range(start - self._position):
            self._next(self._ahead, idle)
        loaded = [self._next(self._ahead, idle) for _ in range(count)]
        self._position = start + count
        return Loaded(_stack(loaded + loaded[-1:] * (length - count)))

    def _next(self, ahead: Iterator[Any], idle: Idle) -> Any:
        idle_before, began = idle(), time.perf_counter()
        batch = next(ahead)
        # A device that became idle meanwhile did so half-way, on average.
        self.waited += (time.perf_counter() - began) * (idle_before + idle()) / 2
        return batch

    def close(self) -> None:
        """End the thread."""
        self._thread.close()


Reader = ArrayReader | StreamReader


def reader(batches: Any, total: int) -> Reader:
    """What reads one stretch of batches after another.

    Args:
        batches: `array_batches(…)`, `stream_batches(…)`, or any iterable of pytrees of arrays.
        total: the number of the last batch that will be read, plus one.

    Returns:
        A reader with `sample`, a batch of shapes; `bytes`, of a batch that is to be read;
        `read(start, count, length, idle)`, which gives the `count` batches from number `start`
        on, filled up to `length` with repetitions of the last, where a stream leaves out the
        batches before `start`; `waited`, the seconds that this has waited for data while
        `idle()`; and `close()`, for the end.
    """
    if isinstance(batches, ArrayBatches):
        return ArrayReader(batches)
    if not isinstance(batches, StreamBatches):
        batches = StreamBatches(_checks.iterable("batches", batches), PREFETCH)
    known = _length(batches.iterable)
    if isinstance(batches.iterable, Iterator) and known is not None and known < total:
        raise _ended(known, total)
    return StreamReader(batches, total)


def _length(iterable: Any) -> int | None:
    """The number of batches, where it is known; a loader of unknown length may have `__len__`."""
    try:
        return len(iterable)
    except TypeError:
        return None


def _ended(count: int, total: int) -> ValueError:
    if count == 0:
        return ValueError(f"batches must last for the {total} that the steps take, got 0.")
    return ValueError(
        f"batches must last for the {total} that the steps take, got {count} "
        "(an iterator cannot begin again; give the list or the loader itself, or a generator with "
        "`while True: yield from loader`)."
    )


def _alike(batches: Iterable[Any], total: int) -> Iterator[Any]:
    """The first `total` batches, which must all look like the first.

    What is no iterator is read again and again, each time without shorter batches at its end.
    """
    again = not isinstance(batches, Iterator)
    count, first = 0, None
    while True:
        begun, short = count, None
        for batch in _copies(batches, count):
            first = batch if count == 0 else first
            if again and _is_shorter(batch, first):
                short = batch if short is None else short
                continue
            if short is not None or not _same(_look(batch), _look(first)):
                raise ValueError(
                    f"batches must all look like the first, {_look(first)}, "
                    f"got {_look(batch if short is None else short)} as number {count}; only at "
                    "the end of a list or a loader are shorter ones left out."
                )
            yield batch
            count += 1
            if count == total:
                return
        if not again or count == begun:
            raise _ended(count, total)


def _copies(batches: Iterable[Any], number: int) -> Iterator[Any]:
    """Copies, because their memory may be used again, of batches from some number on."""
    iterator = None
    while True:
        try:
            iterator = iter(batches) if iterator is None else iterator
            batch = jax.tree.map(np.array, next(iterator))
        except StopIteration:
            return
        except Exception as error:
            raise RuntimeError(
                f"batches raised at number {number}: {type(error).__name__}: {error}"
            ) from error
        yield batch
        number += 1


def _look(batch: Any, first_axis: int = 0) -> Any:
    """Types and shapes as NumPy has them, because JAX's settings do not reach into a thread."""
    return jax.tree.map(lambda array: f"{array.dtype}{[*array.shape[first_axis:]]}", batch)


def _same(look: Any, other: Any) -> bool:
    return jax.tree.flatten(look) == jax.tree.flatten(other)


def _is_shorter(batch: Any, other: Any) -> bool:
    """Whether a batch has fewer samples than another, and differs in nothing else."""
    if not _same(_look(batch, first_axis=1), _look(other, first_axis=1)):
        return False
    pairs = zip(jax.tree.leaves(batch), jax.tree.leaves(other), strict=True)
    return all(a.shape[:1] < b.shape[:1] for a, b in pairs if b.ndim) and any(
        b.ndim for b in jax.tree.leaves(other)
    )


PATIENCE = 1.0  # seconds for a stream to give its current batch before it is left behind


def _read_ahead(items: Iterator[Any], room: threading.Semaphore) -> Generator[Any, None, None]:
    """The same items, all read by one thread, while there is room for those not taken yet."""
    ready: queue.SimpleQueue = queue.SimpleQueue()
    closed = threading.Event()

    def work():
        try:
            while room.acquire() and not closed.is_set():
                ready.put((next(items), None))
        except BaseException as error:  # raised again where the item is missed
            ready.put((None, error))

    # A daemon, because a stream that never answers must not keep the program from ending.
    thread = threading.Thread(target=work, name="lrjax batches", daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item
            room.release()
    finally:
        closed.set()
        room.release()
        thread.join(PATIENCE)


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
    batches = as_batches("eval_batches", batches)
    if isinstance(batches, ArrayBatches):
        rows = batches.size - batches.size % batches.batch_size

        def stacked(part, size):
            return jax.tree.map(lambda a: a[part].reshape(-1, size, *a.shape[1:]), batches.data)

        parts = [(slice(0, rows), batches.batch_size), (slice(rows, None), batches.size - rows)]
        return tuple(Group(stacked(part, size), float(size)) for part, size in parts if size)
    read = _read(_checks.iterable("eval_batches", batches))
    if not read:
        raise ValueError("eval_batches must hold at least one batch, got none.")
    alike = itertools.groupby(read, key=describe)
    return tuple(Group(_stack(list(group)), _samples(shape)) for shape, group in alike)


def reread(batches: Any) -> Any:
    """What may be read as often as one likes: an iterator's batches as a list, else the same."""
    source = batches.iterable if isinstance(batches, StreamBatches) else batches
    return _read(source) if isinstance(source, Iterator) else batches


def _read(batches: Iterable[Any]) -> list[Any]:
    """Copies of all batches, because their memory may be used again."""
    return [jax.tree.map(np.array, batch) for batch in batches]


def _samples(batch: Any) -> float:
    """The length of the arrays' first axis; 1 for a batch of scalars."""
    return float(next((array.shape[0] for array in jax.tree.leaves(batch) if array.shape), 1))
