"""The compiled programs of a sweep, and what they run: blocks of lanes, one after another."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.multihost_utils import process_allgather
from jax.sharding import Mesh

from lrjax.batches import ArrayReader, Group, Loaded, Reader
from lrjax.lanes import LANES, Block, Lanes, blocks, on_one_cpu, sharding
from lrjax.sweeps import memory, runs
from lrjax.sweeps.runs import Program, Record, State
from lrjax.sweeps.spans import Span
from lrjax.sweeps.workers import Workers

# One program for all values of one shape: hyperparameters, seeds, data and the optimizer's own
# numbers are its arguments.


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


def put(tree: Any, mesh: Mesh | None, *axes: str) -> Any:
    """A tree from the host or from one device, on the devices of a mesh."""
    if mesh is None:
        return tree
    if jax.process_count() > 1:
        # What only one process can address does not go straight to the others.
        tree = jax.tree.map(np.asarray, tree)
    return jax.device_put(tree, sharding(mesh, *axes))


@dataclass(frozen=True)
class Job:
    """What the programs of a sweep are given, whichever lanes they run."""

    program: Program
    optimizer: Any
    initial: Any
    groups: tuple[Group, ...]
    workers: Workers

    @property
    def mesh(self) -> Mesh | None:
        """The devices that lanes are placed on; None for one device."""
        return self.program.mesh

    @property
    def multiple(self) -> int:
        """What the number of lanes that run at once must divide by."""
        return 1 if self.mesh is None else self.mesh.shape[LANES]


def start(job: Job, part: Block) -> State:
    """A block's states before its first update."""
    lanes = put((part.hyperparams, part.seeds), job.mesh, LANES)
    return init_lanes(*lanes, job.optimizer, job.initial, job.program)


Results = tuple[Record, Any]  # of one dispatch, and of the evaluation after it if any


def run(job: Job, parts: list[Block], states: list[State], source: Any, span: Span) -> list[Future]:
    """Begin one dispatch of all lanes, block by block; `ended` waits for it."""

    def dispatch(part, state):
        hyperparams, seeds = put((part.hyperparams, part.seeds), job.mesh, LANES)
        state, record = train_lanes(
            hyperparams, seeds, state, job.optimizer, source, span[:2], job.program
        )
        evaluation = None
        if span.evaluation is not None:
            evaluation = evaluate_lanes(state, seeds, job.groups, job.program)
        return _waiting(state, parts), (record, evaluation)

    return [
        job.workers.submit(dispatch, part, state) for part, state in zip(parts, states, strict=True)
    ]


def ended(running: list[Future]) -> tuple[list[State], list[Results]]:
    """The states and results of a dispatch, once all of them are there."""
    states, results = zip(*(block.result() for block in running), strict=True)
    return list(states), jax.block_until_ready(list(results))


def state_shapes(job: Job, part: Block) -> State:
    """The shapes, types and places of a block's states."""
    lanes = part.hyperparams, part.seeds
    shapes = jax.eval_shape(init_lanes, *lanes, job.optimizer, job.initial, job.program)
    place = sharding(job.mesh, LANES)
    return jax.tree.map(
        lambda shape: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=place), shapes
    )


def _source_shapes(data: Reader, program: Program) -> Any:
    """The shapes of the batches of one dispatch, before any is read."""
    length = program.length * program.accumulate
    if isinstance(data, ArrayReader):
        return data.read(0, 1, length)
    return Loaded(
        jax.tree.map(
            lambda array: jax.ShapeDtypeStruct((length, *array.shape), array.dtype), data.sample
        )
    )


def _waiting(state: State, parts: list[Block]) -> State:
    """A block's states until its next dispatch.

    Several blocks take turns on the device, so the others' states wait on the host; but where
    the device is the host, or is another process's too, they stay where they are.
    """

    def move(array):
        on_host = next(iter(array.devices())).platform == "cpu"
        is_key = jax.dtypes.issubdtype(array.dtype, jax.dtypes.extended)
        stays = on_host or is_key or not array.is_fully_addressable
        return array if stays else np.asarray(array)

    return jax.tree.map(move, state) if len(parts) > 1 else state


def first_run(
    job: Job, grid: Lanes, size: int, source: Any, span: Span
) -> tuple[list[Block], list[Future]]:
    """The first dispatch, with blocks of half the lanes as long as they do not fit."""

    def begin(part, parts):
        # Off the device before the next block's states come, because all may not fit.
        return _waiting(start(job, part), parts)

    while True:
        parts = blocks(grid, size)
        try:
            starting = [job.workers.submit(begin, part, parts) for part in parts]
            states = jax.block_until_ready([state.result() for state in starting])
            running = run(job, parts, states, source, span)
            # Waits, because a device reports what does not fit only while it runs.
            ended(running)
            return parts, running
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error) or size <= job.multiple:
                raise
        size = max(job.multiple, size // 2 // job.multiple * job.multiple)
        at_once = size * job.workers.number
        warnings.warn(f"the lanes do not fit the device; now {at_once} at once", stacklevel=3)


def block_size(job: Job, grid: Lanes, lane_batch: int | None, data: Reader) -> int:
    """How many lanes in a block: as many as asked for, or as many as fit well, by all workers."""
    number = job.workers.number
    if lane_batch is not None:
        return _rounded_up(min(len(grid), lane_batch) // number, job.multiple)
    size = _rounded_up(-(-len(grid) // number), job.multiple)
    if on_one_cpu(job.mesh) and not job.program.in_turn:
        states = jax.tree.leaves(state_shapes(job, blocks(grid, size)[0]))
        state_bytes = sum(array.size * array.dtype.itemsize for array in states)
        size = memory.fitting_cache(size, state_bytes // size)

    def compiled(size):
        part = blocks(grid, size)[0]
        lanes = put((part.hyperparams, part.seeds), job.mesh, LANES)
        states, source = state_shapes(job, part), _source_shapes(data, job.program)
        arguments = *lanes, states, job.optimizer, source, (0, 1), job.program
        return train_lanes.lower(*arguments).compile()

    free = memory.free_bytes(job.mesh)
    size = memory.fitting(size, job.multiple, compiled, free and free // number)
    # What fits every process.
    return size if jax.process_count() == 1 else int(np.min(process_allgather(np.int32(size))))


def _rounded_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def on_device(source: Any, mesh: Mesh | None) -> Any:
    """Batches of a stream on their way to the devices, which need not have finished others."""
    if not isinstance(source, Loaded):
        return source
    return jax.device_put(source) if mesh is None else put(source, mesh)


class FinalState(NamedTuple):
    """What lanes end with, by `sweep(…, return_state=True)`; one lane's is what `initial` takes.

    Attributes:
        params: the parameters, whose arrays have the axes of the lanes first.
        model_state: likewise, of what training changes besides.
        opt_state: likewise, of the optimizer.
    """

    params: Any
    model_state: Any
    opt_state: Any


def final_state(grid: Lanes, parts: list[Block], states: list[State]) -> FinalState:
    """The lanes' final states over the grid's axes."""
    counts = [part.number for part in parts]

    def joined(*arrays):
        lanes = [array[:count] for array, count in zip(arrays, counts, strict=True)]
        whole = lanes[0] if len(lanes) == 1 else jnp.concatenate(lanes)
        return whole.reshape(*grid.shape, *whole.shape[1:])

    return FinalState(*jax.tree.map(joined, *(tuple(state[:3]) for state in states)))
