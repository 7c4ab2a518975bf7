"""The learning-rate range test: a sweep in which the rate rises."""

from __future__ import annotations

from typing import Any, Literal, overload

from lrjax import _checks
from lrjax.curves import Curves
from lrjax.lanes import make_lanes
from lrjax.sweeps.engine import sweep
from lrjax.sweeps.functions import comparable
from lrjax.sweeps.optimizers import check_optimizer, momentum_name
from lrjax.sweeps.ramps import RAMPS, Ramped
from lrjax.sweeps.runs import Optimizer
from lrjax.sweeps.tapes import FinalState
from lrjax.tasks import Task
from lrjax.transforms import sgd


@overload
def range_test(
    task: Task,
    batches: Any,
    optimizer: Optimizer = sgd,
    *,
    return_state: Literal[False] = False,
    **options: Any,
) -> Curves: ...
@overload
def range_test(
    task: Task,
    batches: Any,
    optimizer: Optimizer = sgd,
    *,
    return_state: Literal[True],
    **options: Any,
) -> tuple[Curves, FinalState]: ...
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
        optimizer: as in `sweep`; its `learning_rate` is set by the ramp. One that takes only
            numbers for what is to follow a ramp, as `optax.adamw` does for `b1`, is wrapped in
            `inject`.
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
