"""Lanes: a grid or a list of hyperparameters and seeds, as one flat axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from lrjax import _checks


@dataclass(frozen=True)
class Lanes:
    """Training runs side by side.

    Attributes:
        axes: the coordinates along every axis, in order; the last axis is `seed`.
        hyperparams: every lane's hyperparameters along one flat axis, f32[lanes] each.
        seeds: every lane's seed, i32[lanes].
        listed: for a list of lanes, its hyperparameters along the axis `lane`; else empty.
    """

    axes: dict[str, np.ndarray]
    hyperparams: dict[str, np.ndarray]
    seeds: np.ndarray
    listed: dict[str, np.ndarray]

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of coordinates along every axis."""
        return tuple(len(coordinates) for coordinates in self.axes.values())

    def __len__(self) -> int:
        """The number of lanes."""
        return len(self.seeds)


def make_lanes(
    lanes: Mapping[str, Sequence[float]] | Sequence[Mapping[str, float]] | None,
    seeds: int | Sequence[int],
) -> Lanes:
    """Lanes from a grid or a list of hyperparameters, every one of them at every seed.

    Args:
        lanes: a dict from a name to its values makes a grid, with an axis per name; a list of
            dicts makes a list, along the axis `lane`; None makes one lane per seed.
        seeds: how many seeds, counted from 0, or the seeds themselves.

    Returns:
        The lanes.

    Raises:
        ValueError: for an empty grid, list or lane, lanes of different names, or a value that
            is not finite.
        TypeError: for a value that is not a number.

    Example:
        >>> lanes = make_lanes({"weight_decay": [0, 1e-4], "momentum": [0.9]}, seeds=2)
        >>> lanes.shape
        (2, 1, 2)
        >>> lanes.hyperparams["weight_decay"].tolist() == [0, 0, *[np.float32(1e-4)] * 2]
        True
    """
    listed = {}
    if lanes is None:
        axes = {}
    elif isinstance(lanes, Mapping):
        if not lanes:
            raise ValueError(f"lanes must hold at least one hyperparameter, got {lanes!r}.")
        axes = {name: _values(name, values) for name, values in lanes.items()}
    else:
        listed = _columns(lanes)
        axes = {"lane": np.arange(len(lanes), dtype=np.int32)}
    axes["seed"] = _seeds(seeds)
    *grid, all_seeds = (flat.ravel() for flat in np.meshgrid(*axes.values(), indexing="ij"))
    if listed:
        hyperparams = {name: column[grid[0]] for name, column in listed.items()}
    else:
        hyperparams = dict(zip(axes, grid, strict=False))
    return Lanes(axes, hyperparams, all_seeds, listed)


def _values(name: Any, values: Any) -> np.ndarray:
    if not isinstance(name, str) or name == "seed":
        raise ValueError(f"lanes must be keyed by names of hyperparameters, got {name!r}.")
    given = np.asarray(_checks.number(f"lanes[{name!r}]", values))
    if given.ndim != 1 or not len(given):
        raise ValueError(f"lanes[{name!r}] must be a list of at least one number, got {given}.")
    real = jax.dtypes.canonicalize_dtype(np.float64)
    with np.errstate(over="ignore"):
        values = given.astype(real)
    if not np.isfinite(values).all():
        raise ValueError(f"lanes[{name!r}] must be finite as {real}, got {given}.")
    return values


def _columns(lanes: Any) -> dict[str, np.ndarray]:
    if not isinstance(lanes, Sequence) or not all(isinstance(lane, Mapping) for lane in lanes):
        raise _checks.KindError(f"lanes must be a dict of lists or a list of dicts, got {lanes!r}.")
    if not lanes or not lanes[0]:
        raise ValueError(f"lanes must hold at least one hyperparameter, got {lanes!r}.")
    for k, lane in enumerate(lanes):
        if set(lane) != set(lanes[0]):
            raise ValueError(
                f"lanes[{k}] must set {sorted(lanes[0])}, as the first does, got {sorted(lane)}."
            )
    return {name: _values(name, [lane[name] for lane in lanes]) for name in lanes[0]}


def _seeds(seeds: Any) -> np.ndarray:
    if np.iterable(seeds):
        listed = _checks.each("seeds", seeds, _checks.integer, fewest=1)
        _checks.different("seeds", listed, seeds)  # equal runs would pass for runs that agree
        return np.array(listed, np.int32)
    return np.arange(_checks.integer("seeds", seeds, minimum=1), dtype=np.int32)


class Block(NamedTuple):
    """Lanes that run at once: some of all lanes, and repetitions of the last to fill up."""

    lanes: slice
    hyperparams: dict[str, np.ndarray]
    seeds: np.ndarray

    @property
    def number(self) -> int:
        """How many of them are lanes and not filling."""
        return self.lanes.stop - self.lanes.start


def cut_blocks(lanes: Lanes, size: int) -> list[Block]:
    """All lanes in blocks of one size, so that one program serves them all."""
    found = []
    for start in range(0, len(lanes), size):
        stop = min(start + size, len(lanes))
        taken = np.minimum(np.arange(start, start + size), stop - 1)
        hyperparams = {name: values[taken] for name, values in lanes.hyperparams.items()}
        found.append(Block(slice(start, stop), hyperparams, lanes.seeds[taken]))
    return found
