"""Dispatches: the programs, run over blocks of lanes."""

from __future__ import annotations

import warnings
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from lrjax._dtypes import is_key
from lrjax.batches.evaluations import Group
from lrjax.batches.readers import Loaded
from lrjax.lanes import Block, Lanes, cut_blocks
from lrjax.meshes import LANES, sharding
from lrjax.sweeps.programs import evaluate_lanes, init_lanes, train_lanes
from lrjax.sweeps.runs import Program, Record, State
from lrjax.sweeps.spans import Span
from lrjax.sweeps.workers import Workers


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


def put(tree: Any, mesh: Mesh | None, *axes: str) -> Any:
    """A tree from the host or from one device, on the devices of a mesh."""
    if mesh is None:
        return tree
    where = sharding(mesh, *axes)
    if jax.process_count() == 1:
        return jax.device_put(tree, where)
    return jax.tree.map(lambda array: _put_everywhere(array, where), tree)


def _put_everywhere(array: Any, where: Any) -> Any:
    """By way of the host: what one process can address does not go straight to the others."""
    if is_key(array):
        data = _put_everywhere(jax.random.key_data(array), where)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(array))
    return jax.device_put(np.asarray(array), where)


def placed(job: Job, block: Block) -> tuple[Any, Any]:
    """A block's hyperparameters and seeds, on the devices that run it."""
    return put((block.hyperparams, block.seeds), job.mesh, LANES)


def start(job: Job, block: Block) -> State:
    """A block's states before its first update."""
    return init_lanes(*placed(job, block), job.optimizer, job.initial, job.program)


Results = tuple[Record, Any]  # of one dispatch, and of the evaluation after it if any


def run(
    job: Job, blocks: list[Block], states: list[State], source: Any, span: Span
) -> list[Future]:
    """Begin one dispatch of all lanes, block by block; `wait` waits for it."""

    def dispatch(block, state):
        hyperparams, seeds = placed(job, block)
        state, record = train_lanes(
            hyperparams, seeds, state, job.optimizer, source, span[:2], job.program
        )
        evaluation = None
        if span.evaluation is not None:
            evaluation = evaluate_lanes(state, seeds, job.groups, job.program)
        return _parked(state, blocks), (record, evaluation)

    return [
        job.workers.submit(dispatch, block, state)
        for block, state in zip(blocks, states, strict=True)
    ]


def wait(running: list[Future]) -> tuple[list[State], list[Results]]:
    """The states and results of a dispatch, once all of them are there."""
    states, results = zip(*(future.result() for future in running), strict=True)
    return list(states), jax.block_until_ready(list(results))


def state_shapes(job: Job, block: Block) -> State:
    """The shapes, types and places of a block's states."""
    lanes = block.hyperparams, block.seeds
    shapes = jax.eval_shape(init_lanes, *lanes, job.optimizer, job.initial, job.program)
    place = sharding(job.mesh, LANES)
    return jax.tree.map(
        lambda shape: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=place), shapes
    )


def _parked(state: State, blocks: list[Block]) -> State:
    """A block's states until its next dispatch.

    Several blocks take turns on the device, so the others' states wait on the host; but where
    the device is the host, or is another process's too, they stay where they are.
    """

    def move(array):
        on_host = next(iter(array.devices())).platform == "cpu"
        is_key = jax.dtypes.issubdtype(array.dtype, jax.dtypes.extended)
        stays = on_host or is_key or not array.is_fully_addressable
        return array if stays else np.asarray(array)

    return jax.tree.map(move, state) if len(blocks) > 1 else state


def first_run(
    job: Job, grid: Lanes, size: int, source: Any, span: Span
) -> tuple[list[Block], list[Future]]:
    """The first dispatch, with blocks of half the lanes as long as they do not fit."""

    def begin(block, blocks):
        # Off the device before the next block's states come, because all may not fit.
        return _parked(start(job, block), blocks)

    while True:
        blocks = cut_blocks(grid, size)
        try:
            starting = [job.workers.submit(begin, block, blocks) for block in blocks]
            states = jax.block_until_ready([state.result() for state in starting])
            running = run(job, blocks, states, source, span)
            # Waits, because a device reports what does not fit only while it runs.
            wait(running)
            return blocks, running
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error) or size <= job.multiple:
                raise
        size = max(job.multiple, size // 2 // job.multiple * job.multiple)
        at_once = size * job.workers.number
        warnings.warn(f"the lanes do not fit in memory; trying {at_once} at once", stacklevel=3)


def on_device(source: Any, mesh: Mesh | None) -> Any:
    """Batches of a stream on their way to the devices, which need not have finished others."""
    if not isinstance(source, Loaded):
        return source
    return jax.device_put(source) if mesh is None else put(source, mesh)
