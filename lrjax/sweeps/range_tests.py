"""The learning-rate range test: a sweep in which the rate rises."""

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

from lrjax import _checks
from lrjax.curves import Curves
from lrjax.lanes import make_lanes
from lrjax.schedules import Schedule, exponential_ramp, linear_ramp
from lrjax.sweeps.engine import sweep
from lrjax.sweeps.functions import comparable
from lrjax.sweeps.runs import Optimizer
from lrjax.tasks import Task
from lrjax.transforms import sgd, with_schedules
from lrjax.transforms.arguments import check_optimizer, momentum_name

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

    optimizer: Optimizer
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
        """The curves with the ramps in place of NaN.

        NaN stands where every lane had diverged, or the optimizer reports no rate. Rates that it
        reports and that are not the ramp's, as those of `optax.MultiSteps`, stay.
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


def _followed(reported: np.ndarray | None, ramp: np.ndarray) -> np.ndarray:
    """What an optimizer reported, if that is not the ramp; else the ramp, which has no gaps."""
    if reported is None or not np.isfinite(reported).any():
        return ramp
    as_ramp = np.isnan(reported) | np.isclose(reported, ramp, rtol=1e-4, atol=0)
    return ramp if as_ramp.all() else np.where(np.isnan(reported), ramp, reported)


def range_test(
    task: Task,
    batches: Any,
    optimizer: Optimizer = sgd,
    *,
    start: float = 1e-6,
    end: float = 10.0,
    steps: int = 100,
    ramp: str = "exponential",
    momentum: tuple[float, float] | None = None,
    **options: Any,
) -> Any:
    """Smith's learning-rate range test: a sweep in which the rate rises at every update.

    Args:
        task: what is trained.
        batches: plain arrays, or as in `sweep`.
        optimizer: as in `sweep`; its `learning_rate` is set by the ramp. One that asks for a
            number where a ramp is to go, as `optax.adamw` does for `b1`, is wrapped in `inject`.
        start: the first update's rate.
        end: the last update's rate.
        steps: updates of every lane.
        ramp: `"exponential"` or `"linear"`.
        momentum: `(high, low)` for a momentum (of Adam: `b1`) that falls linearly as the rate
            rises, which steadies large rates.
        **options: all other arguments of `sweep`: `lanes`, `seeds`, `eval_batches`, …

    Returns:
        The curves; `suggest` reads learning rates from them, `plot_curves` draws them. With
        `return_state`, also the lanes' final states, as `sweep`.

    Raises:
        ValueError: as `sweep`, and for `start >= end` or an unknown ramp.
        TypeError: as `sweep`.

    Example:
        >>> import jax.numpy as jnp
        >>> from lrjax import range_test, task
        >>> def loss(params, x):
        ...     return jnp.mean((x - params) ** 2)
        >>> curves = range_test(task(loss, jnp.zeros(())), jnp.ones(64), seeds=2)
        >>> curves.loss.shape, bool(curves.diverged.all())
        ((2, 100), True)

    References:
        Smith, Cyclical Learning Rates for Training Neural Networks, 2015, arXiv 1506.01186.
        Smith, A disciplined approach to neural network hyper-parameters, 2018,
        arXiv 1803.09820.
    """
    _checks.one_of("ramp", ramp, RAMPS)
    steps = _checks.integer("steps", steps, minimum=1)
    rates = float(_checks.static("start", start)), float(_checks.static("end", end))
    if rates[0] >= rates[1]:
        raise ValueError(f"start must be less than end ({end!r}), got {start!r}.")
    if momentum is not None:
        pair = _checks.each("momentum", momentum, _checks.static, at_least=0, at_most=1)
        if len(pair) != 2 or pair[0] < pair[1]:
            raise ValueError(f"momentum must be a pair, (high, low), got {momentum!r}.")
        momentum = float(pair[0]), float(pair[1])
    name = momentum_name(optimizer)
    ramped = Ramped(comparable(optimizer), ramp, steps, rates, momentum, name)
    followed = ramped.schedules()  # which checks the ends
    check_optimizer(optimizer, followed, setter="range_test")
    lanes = make_lanes(options.get("lanes"), seeds=1)
    set_twice = followed.keys() & lanes.hyperparams.keys()
    if set_twice:
        raise ValueError(f"lanes must not set {sorted(set_twice)}, which follow the test's ramp.")
    try:
        results = sweep(task, batches, ramped, steps=steps, **options)
    except Exception as error:
        if hasattr(error, "curves"):
            error.curves = ramped.with_ramps(error.curves)
        raise
    if options.get("return_state"):
        curves, state = results
        return ramped.with_ramps(curves), state
    return ramped.with_ramps(results)
