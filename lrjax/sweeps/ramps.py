"""Optimizers whose learning rate rises: what a range test makes of the user's optimizer."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import optax

from lrjax.curves import Curves
from lrjax.schedules import Schedule, exponential_ramp, linear_ramp
from lrjax.transforms.adapters import with_schedules

RAMPS = {"exponential": exponential_ramp, "linear": linear_ramp}


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["rates", "momentums"],
    meta_fields=["optimizer", "ramp", "steps", "momentum_name"],
)
@dataclass(frozen=True)
class Ramped:
    """An optimizer whose learning rate, and perhaps momentum, follows a ramp.

    The ramp's ends are data, so that another range compiles nothing.
    """

    optimizer: Callable[..., optax.GradientTransformation]
    ramp: str
    steps: int
    rates: tuple[float, float]
    momentums: tuple[float, float] | None
    momentum_name: str

    def __call__(self, **hyperparams: Any) -> optax.GradientTransformation:
        """The lane's optimizer."""
        return with_schedules(self.optimizer, **hyperparams | self.schedules())

    @property
    def ramps(self) -> dict[str, tuple[Callable, tuple[float, float]]]:
        """The kind and the ends of the ramps, by the hyperparameter that follows each."""
        ramps = {"learning_rate": (RAMPS[self.ramp], self.rates)}
        if self.momentums is not None:
            ramps[self.momentum_name] = linear_ramp, self.momentums
        return ramps

    def schedules(self) -> dict[str, Schedule]:
        """The ramps as schedules."""
        return {name: ramp(*ends, self.steps) for name, (ramp, ends) in self.ramps.items()}

    def with_ramps(self, curves: Curves) -> Curves:
        """The curves with the ramps in place of NaN, which stands where every lane had diverged.

        Rates that were used and are not the ramp's, as under `optax.MultiSteps`, stay.
        """
        counts = np.arange(self.steps)
        rate, *momentum = (np.asarray(ramp(counts)) for ramp in self.schedules().values())
        curves = dataclasses.replace(curves, learning_rate=_followed(curves.learning_rate, rate))
        if not momentum:
            return curves
        return dataclasses.replace(curves, momentum=_followed(curves.momentum, *momentum))

    @property
    def __signature__(self) -> inspect.Signature:
        """What is left for the lanes to set."""
        signature = inspect.signature(self.optimizer)
        left = [p for p in signature.parameters.values() if p.name not in self.ramps]
        return signature.replace(parameters=left)


def _followed(used: np.ndarray | None, ramp: np.ndarray) -> np.ndarray:
    """What was used, if that is not the ramp; else the ramp, which has no gaps."""
    if used is None or not np.isfinite(used).any():
        return ramp
    as_ramp = np.isnan(used) | np.isclose(used, ramp, rtol=1e-4, atol=0)
    return ramp if as_ramp.all() else np.where(np.isnan(used), ramp, used)
