"""The loop on the host: one dispatch after another, and what happens between them."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, NamedTuple

import jax
import numpy as np

from lrjax._checkpoints import Checkpoints
from lrjax._progress import ShowProgress
from lrjax.batches.readers import Reader
from lrjax.lanes import Block, Lanes, cut_blocks
from lrjax.sweeps.arguments import BLOCK_SIZE
from lrjax.sweeps.dispatches import Job, Results, first_run, on_device, run, state_shapes, wait
from lrjax.sweeps.processes import agreed, attempt, together
from lrjax.sweeps.runs import State
from lrjax.sweeps.spans import Span
from lrjax.sweeps.tapes import Tape, flat, write

CHECKPOINT_SECONDS = 60.0  # between one save and the next


class Host(NamedTuple):
    """What a sweep reads from and writes to on the host.

    Attributes:
        data: reads batches.
        tape: takes the records.
        checkpoints: an open folder, if there is one.
        show_progress: what the bar is told of every dispatch.
        stopped: whether the user wants the sweep to end.
    """

    data: Reader
    tape: Tape
    checkpoints: Checkpoints | None
    show_progress: ShowProgress
    stopped: Callable[[], bool]


class StopReadingError(Exception):
    """Ends the reading of batches that nobody waits for any more; a stream may be slow."""


class Driven(NamedTuple):
    """How far a sweep came: its blocks and their states, the updates done, and why no more."""

    blocks: list[Block]
    states: list[State]
    done: int
    failure: Exception | None


def drive(job: Job, grid: Lanes, size: int, spans: list[Span], host: Host) -> Driven:
    """Run all dispatches that no checkpoint has, and fill the tape.

    Args:
        job: what the programs are given.
        grid: the lanes.
        size: how many of them are in a block.
        spans: the steps of every dispatch.
        host: where batches come from and results go.
    """
    blocks = cut_blocks(grid, size)
    states, done = _resumed(job, blocks, host)
    alive, saved = _alive(host.tape, done), time.monotonic()
    ahead = [span for span in spans if span.start >= done] if alive else []
    running: list[Future] = []

    def read(span):
        each = job.program.accumulate
        count, length = (span.stop - span.start) * each, job.program.length * each
        start = span.start * each
        source = together(host.data.read, start, count, length, idle)
        return on_device(source, job.mesh)

    def idle():
        if host.stopped() and running:
            raise StopReadingError
        return _idle(running)

    reads = (attempt(read, span) for span in ahead)  # one ahead of the dispatches
    source, failure = next(reads, (None, None))
    if failure is not None and done == 0:
        raise failure
    for span in ahead:
        if source is None:  # not even the first could be read
            break
        try:
            if states:
                running = run(job, blocks, states, source, span)
            else:
                blocks, running = _first_run(job, grid, size, source, span, host)
            # While the devices compute.
            source, failure = next(reads, (None, None))
            failure = None if isinstance(failure, StopReadingError) else failure
            states, results = wait(running)
        except Exception as error:  # of the device, or of what the loss calls
            if done == 0 or jax.process_count() > 1:
                raise
            failure = error
            break
        done, alive = span.stop, _record(host, blocks, results, span)
        ending = host.stopped() or not alive or source is None
        overdue = time.monotonic() - saved > CHECKPOINT_SECONDS
        if host.checkpoints and agreed(ending or overdue):
            host.checkpoints.save(done, states, flat(host.tape))
            saved = time.monotonic()
        if ending:
            break
    if not alive:
        done, failure = spans[-1].stop, None  # more batches would have changed nothing
    return Driven(blocks, states, done, failure)


def _first_run(job: Job, grid: Lanes, size: int, source: Any, span: Span, host: Host):
    """The first dispatch, in blocks that fit the device, whose size a checkpoint remembers."""
    blocks, running = first_run(job, grid, size, source, span)
    if host.checkpoints:
        host.checkpoints.note(BLOCK_SIZE, len(blocks[0].seeds))
    return blocks, running


def _record(host: Host, blocks: list[Block], results: list[Results], span: Span) -> bool:
    """Take the results of a dispatch to the tape and show them; whether any lane is alive."""
    for block, each in zip(blocks, results, strict=True):
        write(host.tape, block, span, each)
    losses = host.tape.record.loss[:, span.start : span.stop]
    host.show_progress(span.stop, losses, np.isnan(losses[:, -1]), host.data.waited)
    return _alive(host.tape, span.stop)


def _resumed(job: Job, blocks: list[Block], host: Host) -> tuple[list[State], int]:
    """The states of a checkpoint, if there is one, and its step; its curves go to the tape."""
    if host.checkpoints is None:
        return [], 0
    restored = host.checkpoints.restore([state_shapes(job, block) for block in blocks])
    if restored is None:
        return [], 0
    for name, rows in flat(host.tape).items():
        rows[...] = restored.arrays[name]
    return restored.tree, restored.step


def _alive(tape: Tape, done: int) -> bool:
    """Whether any lane had not diverged after so many updates."""
    return done == 0 or bool(np.isfinite(tape.record.loss[:, done - 1]).any())


def _idle(running: list[Future]) -> bool:
    """Whether no block of a dispatch is being computed any more."""

    def is_over(block: Future) -> bool:
        if not block.done():
            return False
        _, results = block.result()
        return all(array.is_ready() for array in jax.tree.leaves(results))

    return all(map(is_over, running))
