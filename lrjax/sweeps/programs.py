"""The compiled programs of a sweep: one for all values of one shape.

Hyperparameters, seeds, data and the optimizer's own numbers are their arguments.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh, PartitionSpec

from lrjax.meshes import LANES, on_one_cpu, sharding
from lrjax.sweeps import runs

# It runs once, so most of what makes a program fast is not worth the time to compile it.
QUICKLY_COMPILED = {"xla_backend_optimization_level": 2}


@functools.partial(jax.jit, static_argnames="program", compiler_options=QUICKLY_COMPILED)
def init_lanes(hyperparams, seeds, optimizer, initial, program):
    """The states of lanes before their first update."""

    def init(hyperparams, seed, optimizer, initial):
        return runs.init(hyperparams, seed, optimizer, initial, program.task)

    # A CPU's cache holds the random numbers of one lane, but not those of all.
    in_turn = on_one_cpu(program.mesh)
    return _over_lanes(init, program.mesh, in_turn)((hyperparams, seeds), (optimizer, initial))


@functools.partial(jax.jit, static_argnames="program", donate_argnames="states")
def train_lanes(hyperparams, seeds, states, optimizer, source, span, program):
    """The states of lanes after the updates of a span, and the records of these."""
    train = functools.partial(runs.train, program=program)
    over_lanes = _over_lanes(train, program.mesh, program.in_turn)
    states, records = over_lanes((hyperparams, seeds, states), (optimizer, source, span))
    return states, _whole(records, program.mesh)


@functools.partial(jax.jit, static_argnames="program")
def evaluate_lanes(states, seeds, groups, program):
    """The losses and metrics of lanes on the evaluation data."""
    evaluate = functools.partial(runs.evaluate, program=program)
    over_lanes = _over_lanes(evaluate, program.mesh, program.in_turn)
    return _whole(over_lanes((states, seeds), (groups,)), program.mesh)


def _over_lanes(run: Callable, mesh: Mesh | None, in_turn: bool) -> Callable:
    """A function of what all lanes have and of what they share, from one of a single lane."""

    def over_lanes(lanes, shared):
        if in_turn:  # a CPU's cache holds the images of one lane, but not those of all
            return jax.lax.map(lambda lane: run(*lane, *shared), lanes)
        return jax.vmap(lambda *lane: run(*lane, *shared))(*lanes)

    if mesh is None:
        return over_lanes
    # Every device runs its own lanes. Left to itself, XLA would split the operations of them all
    # over the devices, and gets 1x1 convolutions wrong that way.
    own, same = PartitionSpec(LANES), PartitionSpec()
    return jax.shard_map(
        over_lanes,
        mesh=mesh,
        in_specs=(own, same),
        out_specs=own,
        axis_names={LANES},
        check_vma=False,
    )


def _whole(tree: Any, mesh: Mesh | None) -> Any:
    """The same on every device, so that every process has it."""
    return tree if mesh is None else jax.lax.with_sharding_constraint(tree, sharding(mesh))
