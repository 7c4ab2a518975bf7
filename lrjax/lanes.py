"""Lanes: a grid or a list of hyperparameters and seeds, as one flat axis."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lrjax import _checks

__all__ = ["Lanes", "make_lanes"]


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
            raise ValueError("lanes must hold at least one hyperparameter, got {}.")
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
    values = np.asarray(_checks.number(f"lanes[{name!r}]", values), np.float32)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"lanes[{name!r}] must be a list of at least one number, got {values}.")
    return values


def _columns(lanes: Any) -> dict[str, np.ndarray]:
    if not isinstance(lanes, Sequence) or not all(isinstance(lane, Mapping) for lane in lanes):
        raise TypeError(f"lanes must be a dict of lists or a list of dicts, got {lanes!r}.")
    if not lanes or not lanes[0]:
        raise ValueError(f"lanes must hold at least one hyperparameter, got {lanes!r}.")
    for k, lane in enumerate(lanes):
        if set(lane) != set(lanes[0]):
            raise ValueError(
                f"lanes[{k}] must set {sorted(lanes[0])}, as the first does, got {sorted(lane)}."
            )
    return {name: _values(name, [lane[name] for lane in lanes]) for name in lanes[0]}


def _seeds(seeds: Any) -> np.ndarray:
    if isinstance(seeds, Sequence | np.ndarray):
        checked = [_checks.integer(f"seeds[{k}]", seed) for k, seed in enumerate(seeds)]
        if not checked:
            raise ValueError(f"seeds must hold at least one seed, got {seeds!r}.")
        return np.array(checked, np.int32)
    return np.arange(_checks.integer("seeds", seeds, minimum=1), dtype=np.int32)


def check_optimizer(optimizer: Callable, names: Sequence[str]) -> None:
    """An optimizer must take every hyperparameter that the lanes set."""
    parameters = inspect.signature(_checks.function("optimizer", optimizer)).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for name in names:
        if name not in parameters:
            raise ValueError(
                f"lanes must set hyperparameters that the optimizer takes, "
                f"{', '.join(parameters)}, got {name!r}."
            )
