"""What a task measures and what its updates cost, from shapes alone, before any training."""

from __future__ import annotations

import functools
import math
import weakref
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, jaxprs_in_params

from lrjax import _checks
from lrjax.convolutions import convolves
from lrjax.lanes import Lanes
from lrjax.sweeps import runs, starts
from lrjax.sweeps.runs import Optimizer
from lrjax.tasks import Task


class Measures(NamedTuple):
    """What a task measures, and what a batch costs one lane."""

    metrics: list[str]
    eval_metrics: list[str]
    flops: float
    convolves: bool


def measure(
    task: Task,
    optimizer: Optimizer,
    initial: Any,
    grid: Lanes,
    sample: Any,
    version: str,
    evaluated: bool,
) -> Measures:
    """What a task measures and costs, from one abstract trace; raises if the loss is no scalar."""
    hyperparams = {name: values[0] for name, values in grid.hyperparams.items()}
    arguments = hyperparams, grid.seeds[0], optimizer, initial, sample, task, version, evaluated
    traced = _losses.trace(*arguments)
    names: list[list[str]] = []
    for loss, (_, metrics) in traced.out_info:
        if loss.shape or not jnp.issubdtype(loss.dtype, jnp.floating):
            raise ValueError(f"task.loss must give a scalar float as the loss, got {loss}.")
        for name, metric in metrics.items():
            if metric.shape:
                raise ValueError(f"task.loss must give scalars as metrics, got {name}: {metric}.")
        names.append(sorted(metrics))
    # A loss with its gradient costs about three losses.
    flops = 3 * _counted(traced.jaxpr) / len(names)
    return Measures(names[0], names[1] if evaluated else [], flops, convolves(traced.jaxpr))


@functools.partial(jax.jit, static_argnames=("task", "version", "evaluated"))
def _losses(hyperparams, seed, optimizer, initial, batch, task, version, evaluated):
    """A lane's first loss and metrics, in training and, if there is one, in evaluation."""
    del version  # only part of the key that JAX caches programs by
    key = runs.lane_key(seed)
    state = runs.init(hyperparams, seed, optimizer, initial, task)
    call = functools.partial(task.loss, state.params, state.model_state, batch)
    try:
        answers = [call(key, train) for train in ((True, False) if evaluated else (True,))]
        for answer in answers:
            _check_answer(answer, state.model_state)
    except Exception as error:
        if initial is not None:
            starts.explain(error, initial, task, key)
        raise
    return answers


def _check_answer(answer: Any, model_state: Any) -> None:
    match answer:
        case (_, (changed, Mapping())):
            given, returned = map(str, map(jax.tree.structure, (model_state, changed)))
            if returned != given:
                raise ValueError(
                    f"task.loss must return a model state like the one given, {given}, got "
                    f"{returned}."
                )
        case _:
            raise _checks.KindError(
                f"task.loss must return (loss, (model_state, metrics)), got {answer!r}."
            )


# Every sweep asks, also of what was traced before; not for longer than JAX keeps that.
_KNOWN: weakref.WeakKeyDictionary[ClosedJaxpr, float] = weakref.WeakKeyDictionary()


def _counted(program: ClosedJaxpr) -> float:
    if program not in _KNOWN:
        _KNOWN[program] = flops(program)
    return _KNOWN[program]


def flops(program: ClosedJaxpr | Jaxpr) -> float:
    """The floating-point operations of a program's matrix products and convolutions.

    Unlike XLA's count of a compiled program, it takes a loop as often as it runs.

    Example:
        >>> def power(x):
        ...     return jax.lax.fori_loop(0, 5, lambda _, y: y @ x, x)
        >>> flops(jax.make_jaxpr(power)(jnp.ones((10, 10))))
        10000.0
    """
    jaxpr = program.jaxpr if isinstance(program, ClosedJaxpr) else program
    return float(sum(_own_flops(eqn) + _inner_flops(eqn) for eqn in jaxpr.eqns))


def _own_flops(eqn: Any) -> int:
    """Twice the size of the output times the terms of every sum."""
    if eqn.primitive.name == "dot_general":
        (summed, _), _ = eqn.params["dimension_numbers"]
        terms = math.prod(eqn.invars[0].aval.shape[axis] for axis in summed)
    elif eqn.primitive.name == "conv_general_dilated":
        kernel, features = eqn.invars[1].aval.shape, eqn.params["dimension_numbers"].rhs_spec[0]
        terms = math.prod(kernel) // kernel[features]
    else:
        return 0
    return 2 * terms * math.prod(eqn.outvars[0].aval.shape)


def _inner_flops(eqn: Any) -> float:
    """Of the programs inside, as often as a loop of known length runs them."""
    return eqn.params.get("length", 1) * sum(map(flops, jaxprs_in_params(eqn.params)))
