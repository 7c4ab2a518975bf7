"""Batches from whatever a program iterates over, read ahead by a thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import jax

from lrjax import _checks
from lrjax.batches.arrays import copied

__all__ = ["StreamBatches", "stream_batches"]


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

    A sweep reads a stream once for all its lanes, in order. A list or a loader starts over when it
    ends, and shorter batches at its end are skipped. A generator or another iterator cannot start
    over: if it ends early, that is an error. A plain iterable passed to a sweep is read the same
    way.

    The stream runs in a thread of its own: JAX's context managers around a sweep do not reach
    into it. It may reuse its buffers, because batches are copied.

    Args:
        iterable: gives pytrees of arrays, or of what NumPy makes arrays of, of one shape: a
            generator, Grain's or PyTorch's `DataLoader`, `as_numpy_iterator()` of tf.data.
        prefetch: how many dispatches' batches to keep ready in the host's memory.

    Returns:
        A description for a sweep, which reads nothing by itself.

    Raises:
        ValueError: for a prefetch below 1.
        TypeError: for something that is not an iterable, or a prefetch that is not an integer.

    Example:
        >>> import jax.numpy as jnp
        >>> import numpy as np
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


def too_few_batches(count: int, total: int) -> ValueError:
    short = f"batches must provide the {total} batches that the steps take, got {count}"
    if count == 0:
        return ValueError(f"{short}.")
    return ValueError(
        f"{short} (an iterator cannot begin again; give the list or the loader itself, or a "
        "generator with `while True: yield from loader`)."
    )


def all_alike(batches: Iterable[Any], total: int) -> Iterator[Any]:
    """The first `total` batches, which must all look like the first.

    What is not an iterator is read again and again, each time without shorter batches at its end.
    """
    restarts = not isinstance(batches, Iterator)
    count, first = 0, None
    while True:
        begun = count
        for batch in _one_pass(batches, count, first, restarts):
            first = batch if count == 0 else first
            yield batch
            count += 1
            if count == total:
                return
        if not restarts or count == begun:
            raise too_few_batches(count, total)


def _one_pass(batches: Iterable[Any], number: int, first: Any, restarts: bool) -> Iterator[Any]:
    """The batches that look like the first; of what restarts, a shorter end is left out."""
    short = None
    for batch in _copies(batches, number):
        first = batch if first is None else first
        if restarts and _is_shorter(batch, first):
            short = batch if short is None else short
        elif short is not None or not _same(_look(batch), _look(first)):
            raise ValueError(
                f"batches must all look like the first, {_look(first)}, "
                f"got {_look(batch if short is None else short)} as number {number}; only at "
                "the end of a list or a loader are shorter ones left out."
            )
        else:
            yield batch
            number += 1


def _copies(batches: Iterable[Any], number: int) -> Iterator[Any]:
    """Copies of batches from some number on."""
    iterator = None
    while True:
        try:
            iterator = iter(batches) if iterator is None else iterator
            batch = jax.tree.map(copied, next(iterator))
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
    """Whether a batch has fewer samples than another, and differs in nothing else.

    Arrays of another length, such as a table that comes with every batch, may be as long.
    """
    if not _same(_look(batch, first_axis=1), _look(other, first_axis=1)):
        return False
    pairs = zip(jax.tree.leaves(batch), jax.tree.leaves(other), strict=True)
    lengths = {(len(short), len(whole)) for short, whole in pairs if whole.ndim}
    one_each = len({whole for _, whole in lengths}) == len(lengths)
    none_longer = all(short <= whole for short, whole in lengths)
    return one_each and none_longer and any(short < whole for short, whole in lengths)


PATIENCE = 1.0  # seconds for a stream to give its current batch before it is left behind


def read_ahead(items: Iterator[Any], room: threading.Semaphore) -> Generator[Any, None, None]:
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
