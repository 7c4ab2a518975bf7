"""The compiled programs of a sweep: one for all values of one shape.

Hyperparameters, seeds, data and the optimizer's own numbers are their arguments.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from lrjax.lanes import LANES, on_one_cpu, sharding
from lrjax.sweeps import runs
from lrjax.sweeps.runs import Program

# It runs once, so most of what makes a program fast is not worth the time to compile it.
QUICKLY_COMPILED = {"xla_backend_optimization_level": 2}


@functools.partial(jax.jit, static_argnames="program", compiler_options=QUICKLY_COMPILED)
def init_lanes(hyperparams, seeds, optimizer, initial, program):
    """The states of lanes before their first update."""

    def init(hyperparams, seed):
        return runs.init(hyperparams, seed, optimizer, initial, program.task)

    # A CPU's cache holds the random numbers of one lane, but not those of all.
    over_lanes = _one_by_one if on_one_cpu(program.mesh) else jax.vmap
    return _placed(over_lanes(init)(hyperparams, seeds), program.mesh, LANES)


@functools.partial(jax.jit, static_argnames="program", donate_argnames="states")
def train_lanes(hyperparams, seeds, states, optimizer, source, span, program):
    """The states of lanes after the updates of a span, and the records of these."""

    def train(hyperparams, seed, state):
        return runs.train(hyperparams, seed, state, optimizer, source, span, program)

    states, records = _over_lanes(train, program)(hyperparams, seeds, states)
    # Every process gets the whole records.
    return _placed(states, program.mesh, LANES), _placed(records, program.mesh)


@functools.partial(jax.jit, static_argnames="program")
def evaluate_lanes(states, seeds, groups, program):
    """The losses and metrics of lanes on the evaluation data."""

    def evaluate(state, seed):
        return runs.evaluate(state, seed, groups, program)

    return _placed(_over_lanes(evaluate, program)(states, seeds), program.mesh)


def _over_lanes(run: Callable, program: Program) -> Callable:
    """A function of all lanes, from one of a single lane."""
    # A CPU's cache holds the images of one lane, but not those of all.
    return _one_by_one(run) if program.in_turn else jax.vmap(run)


def _one_by_one(run: Callable) -> Callable:
    return lambda *lanes: jax.lax.map(lambda lane: run(*lane), lanes)


def _placed(tree: Any, mesh: Mesh | None, *axes: str) -> Any:
    if mesh is None:
        return tree
    return jax.lax.with_sharding_constraint(tree, sharding(mesh, *axes))
