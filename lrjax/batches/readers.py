"""What a sweep reads: one stretch of batches after another."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lrjax import _checks
from lrjax._dtypes import is_key
from lrjax.batches.arrays import ArrayBatches, take
from lrjax.batches.streams import PREFETCH, StreamBatches, all_alike, read_ahead, too_few_batches


class Rows(NamedTuple):
    """A stretch of batches, as rows of a dataset on the device."""

    data: Any
    rows: np.ndarray  # i32[batches, batch_size]

    def fetch(self, k: Any) -> Any:
        """Batch k of the stretch."""
        return take(self.data, self.rows[k])


class Loaded(NamedTuple):
    """A stretch of batches, as they were read, stacked along a first axis."""

    batches: Any

    def fetch(self, k: Any) -> Any:
        """Batch k of the stretch."""
        return take(self.batches, k)


Idle = Callable[[], bool]


def _always() -> bool:
    return True


@dataclass(frozen=True)
class ArrayReader:
    """Reads a dataset on the device; see `reader`."""

    batches: ArrayBatches
    batch_bytes: ClassVar[int] = 0
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
        self._items = read_ahead(all_alike(stream.iterable, total), self._room)
        first = next(self._items)
        try:
            self.sample = describe(first)
        except Exception:
            self.close()
            raise
        self.batch_bytes = sum(array.nbytes for array in jax.tree.leaves(first))
        self.waited = 0.0
        self._prefetch = stream.prefetch
        self._ahead = itertools.chain([first], self._items)
        self._position: int | None = None

    def read(self, start: int, count: int, length: int, idle: Idle = _always) -> Loaded:
        """Some batches, in the host's memory."""
        if self._position is None:
            self._position = 0
            self._room.release(self._prefetch * length)
        if start < self._position:
            raise ValueError(f"a stream cannot go back from batch {self._position} to {start}.")
        for _ in range(start - self._position):
            self._next(idle)
        loaded = [self._next(idle) for _ in range(count)]
        self._position = start + count
        return Loaded(stack(loaded + loaded[-1:] * (length - count)))

    def _next(self, idle: Idle) -> Any:
        idle_before, began = idle(), time.perf_counter()
        batch = next(self._ahead)
        # A device that became idle meanwhile did so half-way, on average.
        self.waited += (time.perf_counter() - began) * (idle_before + idle()) / 2
        return batch

    def close(self) -> None:
        """End the thread that reads."""
        self._items.close()


Reader = ArrayReader | StreamReader


def reader(batches: Any, total: int) -> Reader:
    """What reads one stretch of batches after another.

    Args:
        batches: `array_batches(…)`, `stream_batches(…)`, or any iterable of pytrees of arrays.
        total: the number of the last batch that will be read, plus one.

    Returns:
        A reader with `sample`, a batch of shapes; `batch_bytes`, what is read for a batch;
        `read(start, count, length, idle)`, which gives the batches `start` to `start + count`,
        filled up to `length` with repetitions of the last (a stream skips those before `start`);
        `waited`, the seconds spent waiting for data while `idle()` was true; and `close()`.
    """
    if isinstance(batches, ArrayBatches):
        return ArrayReader(batches)
    if not isinstance(batches, StreamBatches):
        batches = StreamBatches(_checks.iterable("batches", batches), PREFETCH)
    known = _length(batches.iterable)
    if isinstance(batches.iterable, Iterator) and known is not None and known < total:
        raise too_few_batches(known, total)
    return StreamReader(batches, total)


def _length(iterable: Any) -> int | None:
    """The number of batches, where it is known; a loader of unknown length may have `__len__`."""
    try:
        return len(iterable)
    except TypeError:
        return None


def describe(batch: Any) -> Any:
    """The shapes and types that JAX will see."""
    return jax.tree.map(
        lambda array: jax.ShapeDtypeStruct(np.shape(array), jnp.result_type(array)), batch
    )


def stack(batches: list[Any]) -> Any:
    """Batches along a new first axis."""

    def stacked(*arrays):
        return jnp.stack(arrays) if is_key(arrays[0]) else np.stack(arrays)

    return jax.tree.map(stacked, *batches)
