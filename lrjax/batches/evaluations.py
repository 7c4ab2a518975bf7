"""Batches to evaluate on, which are read once and kept."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax

from lrjax import _checks
from lrjax.batches.arrays import ArrayBatches, as_batches, copied
from lrjax.batches.readers import describe, stack
from lrjax.batches.streams import StreamBatches


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
    alike = [(shape, list(group)) for shape, group in itertools.groupby(read, key=describe)]
    weights = _samples([shape for shape, _ in alike])
    if not all(weights):
        raise ValueError("eval_batches must hold samples in every batch, got one without.")
    return tuple(
        Group(stack(group), weight) for (_, group), weight in zip(alike, weights, strict=True)
    )


def reread(batches: Any) -> Any:
    """What may be read as often as one likes: an iterator's batches as a list, else the same."""
    source = batches.iterable if isinstance(batches, StreamBatches) else batches
    return _read(source) if isinstance(source, Iterator) else batches


def _read(batches: Iterable[Any]) -> list[Any]:
    """Copies of all batches."""
    return [jax.tree.map(copied, batch) for batch in batches]


def _samples(shapes: list[Any]) -> list[float]:
    """The number of samples in batches of these shapes.

    The length of the first axis, where all arrays of a batch share it; else of the one axis in
    which batches differ; of batches that differ in none or in several, of the first axis of the
    first array that has one.
    """
    arrays = [jax.tree.leaves(batch) for batch in shapes]
    firsts = [{array.shape[0] for array in batch if array.shape} for batch in arrays]
    if all(len(lengths) == 1 for lengths in firsts):
        return [float(*lengths) for lengths in firsts]
    if len({tuple(len(array.shape) for array in batch) for batch in arrays}) == 1:
        # Of every axis of every array, its length in each of the batches.
        axes = zip(*([n for array in batch for n in array.shape] for batch in arrays), strict=True)
        differing = {lengths for lengths in axes if len(set(lengths)) > 1}
        if len(differing) == 1:
            return list(map(float, differing.pop()))
    return [float(next((array.shape[0] for array in batch if array.shape), 1)) for batch in arrays]
