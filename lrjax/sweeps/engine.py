"""Sweeps: many runs side by side, driven from the host."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from lrjax import _checks, convolutions
from lrjax._checkpoints import (
    Checkpoints,
    check_processes,
    open_checkpoints,
    recorded,
)
from lrjax._fingerprints import fingerprint
from lrjax._progress import Report, progress_bar
from lrjax.batches import ArrayBatches, Reader, as_batches, evaluation_groups, reader
from lrjax.lanes import Block, Lanes, blocks, check_mesh, check_optimizer, make_lanes
from lrjax.sweeps.functions import comparable
from lrjax.sweeps.measures import dispatch_steps, measure
from lrjax.sweeps.programs import (
    Job,
    block_size,
    ended,
    final_state,
    first_run,
    on_device,
    put,
    run,
    state_shapes,
)
from lrjax.sweeps.runs import Optimizer, Program, State
from lrjax.sweeps.tapes import (
    Span,
    Tape,
    as_curves,
    blank_tape,
    cut_steps,
    evaluations,
    flat,
    write,
)
from lrjax.sweeps.workers import workers
from lrjax.tasks import Task


def sweep(
    task: Task,
    batches: Any,
    optimizer: Optimizer,
    *,
    steps: int,
    lanes: Mapping[str, Sequence[float]] | Sequence[Mapping[str, float]] | None = None,
    seeds: int | Sequence[int] = 1,
    initial: tuple | None = None,
    batch_size: int | None = None,
    eval_batches: Any = None,
    eval_every: int | None = None,
    divergence: float | None = 4.0,
    accumulate: int = 1,
    lane_batch: int | None = None,
    chunk_steps: int | None = None,
    mesh: Mesh | None = None,
    rewrite_convolutions: bool | None = None,
    progress: bool = False,
    checkpoint_dir: str | os.PathLike | None = None,
    return_state: bool = False,
) -> Any:
    """Train many lanes side by side, in one compiled program.

    Every lane sees the same batch at the same step. A lane diverges when its loss is not
    finite, or when its last two losses, averaged, rise above its best smoothed loss by more
    than `divergence` times what it has dropped so far plus how much it changes from step to
    step: from there on its curves are NaN and its parameters stay as they are, while the other
    lanes go on untouched. A second sweep with other values of the same shape compiles nothing.

    Args:
        task: what is trained.
        batches: the data as they are, an array or a tuple or dict of arrays with samples along
            their first axis; or `array_batches(…)`; or a list or any other iterable of batches,
            pytrees of arrays of one shape, as in `stream_batches`.
        optimizer: makes a lane's optimizer from its hyperparameters, as traced scalars.
        steps: updates of every lane.
        lanes: a dict of lists makes a grid, `{"weight_decay": [0, 1e-4], "momentum": [0.9]}`; a
            list of dicts makes a list of lanes; None makes one lane per seed.
        seeds: how many seeds for every lane, or the seeds. A lane's initial parameters are
            `task.init(jax.random.key(seed))`, whatever its hyperparameters.
        initial: `(params, model_state)` or `(params, model_state, opt_state)` to start every
            lane from; of an optimizer's state the moments are kept, and schedules and
            hyperparameters start anew.
        batch_size: of data given as they are; 64, or all if they are fewer, if not given.
        eval_batches: what to evaluate on, with `train=False`: every sample of data as they are
            or of `array_batches(…)`, or a finite iterable of batches. None for no evaluation.
        eval_every: updates between evaluations; the last update is always followed by one.
            About 25 evaluations if not given.
        divergence: the factor above; None leaves only losses that are not finite.
        accumulate: batches whose gradients are averaged into one update.
        lane_batch: how many lanes run at once; if not given, as many as fit the device's memory.
            On a CPU its cores share them.
        chunk_steps: updates per dispatch; by what an update costs, at most 200, if not given.
        mesh: devices to place lanes on, from `lane_mesh()`, across processes too.
        rewrite_convolutions: whether to run convolutions and poolings as other operations, equal
            to rounding, and on a CPU one lane per core at once; where that is faster, if not
            given.
        progress: whether to show a progress bar on a terminal.
        checkpoint_dir: folder to save the sweep's state in from time to time, and at its end;
            the same call after a kill goes on from there, to the same curves. Other arguments
            are refused, and so is a task or an optimizer whose functions, or the functions and
            constants that they name, have changed; what a stream gives is not compared.
        return_state: whether to return the lanes' final states too.

    Returns:
        The curves, with the axes of `lanes` and then `seed`. With `return_state`, also a named
        tuple of `params`, `model_state` and `opt_state`, whose arrays have those axes first.

        Ctrl-C saves and ends a sweep after the current dispatch: the curves are NaN from
        `curves.steps_done` on. A second Ctrl-C aborts.

    Raises:
        ValueError: for a number of steps below 1, a lane that is empty or that the optimizer
            does not take, a value that is not finite, a loss that is not a scalar float, or
            batches that change their shape or run out.
        TypeError: for an argument of another kind.
        RuntimeError: under `jax_debug_nans` or `jax_disable_jit`, or where another run uses
            `checkpoint_dir`.

    Example:
        >>> import jax.numpy as jnp
        >>> from lrjax import array_batches, sgd, sweep, task
        >>> def loss(params, x):
        ...     return jnp.mean((x - params) ** 2)
        >>> batches = array_batches(jnp.ones(64), 16)
        >>> lanes = {"learning_rate": [0.01, 0.1, 0.3]}
        >>> sweep(task(loss, jnp.zeros(())), batches, sgd, steps=20, lanes=lanes)
        Curves(learning_rate: 3, seed: 1; 20 steps, 0 evaluations, 0 of 3 lanes diverged)
    """
    _check_debugging()
    steps = _checks.integer("steps", steps, minimum=1)
    accumulate = _checks.integer("accumulate", accumulate, minimum=1)
    if divergence is not None:
        divergence = float(_checks.number("divergence", divergence, above=0))
    if not isinstance(task, Task):
        raise TypeError(f"task must be a Task, got {task!r}.")
    batches = as_batches("batches", batches, batch_size)
    grid = make_lanes(lanes, seeds)
    check_optimizer(optimizer, list(grid.hyperparams))
    if lane_batch is not None:
        lane_batch = _checks.integer("lane_batch", lane_batch, minimum=1)
    if eval_every is not None:
        eval_every = _checks.integer("eval_every", eval_every, minimum=1)
    if chunk_steps is not None:
        chunk_steps = _checks.integer("chunk_steps", chunk_steps, minimum=1)
    if rewrite_convolutions is not None:
        _checks.flag("rewrite_convolutions", rewrite_convolutions)
    _checks.flag("progress", progress)
    if mesh is not None:
        check_mesh(mesh, len(grid))
    groups = () if eval_batches is None else evaluation_groups(eval_batches)
    # Only where something can differ, because it takes a hash of all data.
    identity: dict[str, Any] = {}
    if checkpoint_dir is not None or jax.process_count() > 1:
        identity = {
            "task": fingerprint(task),
            # Of a stream, nothing can be known before it is read.
            "batches": fingerprint(batches) if isinstance(batches, ArrayBatches) else "a stream",
            "optimizer": fingerprint(optimizer),
            "steps": steps,
            "lanes": fingerprint((grid.axes, grid.hyperparams)),
            "seeds": grid.seeds.tolist(),
            "initial": fingerprint(initial),
            "eval_batches": fingerprint(groups),
            "eval_every": eval_every,
            "divergence": divergence,
            "accumulate": accumulate,
            "lane_batch": lane_batch,
            "chunk_steps": chunk_steps,
            "checkpoint_dir": checkpoint_dir is not None,
        }
    check_processes(identity)
    if jax.tree_util.all_leaves([optimizer]):
        # A function as an argument of a compiled program: a pytree without leaves.
        optimizer = jax.tree_util.Partial(comparable(optimizer))
    if isinstance(batches, ArrayBatches):
        batches = dataclasses.replace(batches, data=put(batches.data, mesh))
    groups = put(groups, mesh)
    initial = put(initial, mesh)
    shown = progress and jax.process_index() == 0
    at_once = min(len(grid), lane_batch or len(grid))
    with (
        contextlib.closing(_together(reader, batches, steps * accumulate)) as data,
        progress_bar(steps, len(grid), enabled=shown) as report,
        workers(mesh, at_once) as team,
        _interruptible() as stopped,
        _other_processes(),
    ):
        measures = measure(task, optimizer, initial, grid, data.sample)
        most = dispatch_steps(measures.flops * at_once * accumulate, data.bytes * accumulate)
        length = chunk_steps or _saved(checkpoint_dir, DISPATCH_STEPS)
        spans, length = cut_steps(steps, bool(groups), eval_every, length, most)
        if rewrite_convolutions is None:
            rewrite_convolutions = measures.convolves and convolutions.faster(mesh)
        if rewrite_convolutions:
            task = task._replace(loss=convolutions.Rewritten(task.loss))
        program = Program(task, length, divergence, accumulate, mesh)
        job = Job(program, optimizer, initial, groups, team)
        tape = blank_tape(measures.metrics, measures.eval_metrics, len(grid), spans)
        size = _saved(checkpoint_dir, BLOCK_SIZE)
        _check_shared(size, job.multiple)
        size = size or block_size(job, grid, lane_batch, data)
        # What a checkpoint's arrays are shaped by, besides, where a machine would choose another.
        identity |= {BLOCK_SIZE: size, DISPATCH_STEPS: length}
        with _checkpoints(checkpoint_dir, identity) as checkpoints:
            parts, states, done, failure = _drive(
                job, grid, size, spans, data, tape, checkpoints, report, stopped
            )
    curves = as_curves(grid, tape, evaluations(spans), done)
    if failure is not None:
        failure.curves = curves  # type: ignore[attr-defined]
        failure.add_note(f"The curves of {done} updates are kept as this error's `curves`.")
        raise failure
    return (curves, final_state(grid, parts, states)) if return_state else curves


def _check_debugging() -> None:
    """Refuse the settings under which no sweep can run, before they fail somewhere inside."""
    told = {
        "jax_debug_nans": "it takes a NaN, which stands for what was not measured, for an error",
        "jax_disable_jit": "its programs are compiled before they run",
    }
    for name, why in told.items():
        if getattr(jax.config, name):
            raise RuntimeError(
                f"a sweep cannot run under {name}: {why}. To look for a fault, call task.loss."
            )


CHECKPOINT_SECONDS = 60.0  # between one save and the next


def _drive(
    job: Job,
    grid: Lanes,
    size: int,
    spans: list[Span],
    data: Reader,
    tape: Tape,
    checkpoints: Checkpoints | None,
    report: Report,
    stopped: Callable[[], bool],
) -> tuple[list[Block], list[State], int, Exception | None]:
    """Run all dispatches that no checkpoint has, and fill the tape.

    Returns:
        The blocks, their states, how many updates were done, and why no more could be, if so.
    """
    parts = blocks(grid, size)
    states, begun = _resumed(job, parts, tape, checkpoints)
    alive, saved = _alive(tape, begun), time.monotonic()
    ahead = [span for span in spans if span.start >= begun] if alive else []
    running: list[Future] = []

    def read(span):
        each = job.program.accumulate
        count, length = (span.stop - span.start) * each, job.program.length * each
        start = span.start * each
        source = _together(data.read, start, count, length, lambda: _idle(running))
        return on_device(source, job.mesh)

    source, failure = (read(ahead[0]) if ahead else None), None
    for k, span in enumerate(ahead):
        try:
            if not states:
                parts, running = first_run(job, grid, size, source, span)
                if checkpoints:  # the lanes may have been too many for the device
                    checkpoints.note(BLOCK_SIZE, len(parts[0].seeds))
            else:
                running = run(job, parts, states, source, span)
            # While the devices compute.
            source, failure = _attempt(read, ahead[k + 1]) if ahead[k + 1 :] else (None, None)
            states, results = ended(running)
        except Exception as error:  # of the device, or of what the loss calls on the host
            if begun == 0 or jax.process_count() > 1:
                raise
            failure = error
            break
        for part, told in zip(parts, results, strict=True):
            write(tape, part, span, told)
        begun, alive = span.stop, _alive(tape, span.stop)
        losses = tape.record.loss[:, span.start : span.stop]
        report(begun, losses, np.isnan(losses[:, -1]), data.waited)
        ending = stopped() or not alive or source is None
        if checkpoints and _agreed(ending or time.monotonic() - saved > CHECKPOINT_SECONDS):
            checkpoints.save(begun, states, flat(tape))
            saved = time.monotonic()
        if ending:
            break
    if not alive:
        begun, failure = spans[-1].stop, None  # more batches would have changed nothing
    return parts, states, begun, failure


def _attempt(function: Callable, *args: Any) -> tuple[Any, Exception | None]:
    """What a call gives, or why it does not."""
    try:
        return function(*args), None
    except Exception as error:  # whatever a stream raises; what was computed is kept
        return None, error


def _together(function: Callable, *args: Any) -> Any:
    """What a call gives; where it fails in one process it does in all, so that none waits."""
    result, failure = _attempt(function, *args)
    if jax.process_count() > 1:
        failed = multihost_utils.process_allgather(np.bool_(failure is not None))
        if failure is None and failed.any():
            raise RuntimeError(
                f"process {np.flatnonzero(failed)[0]} could not read its batches (its own output "
                "says why), and this one cannot go on without it."
            )
    if failure is not None:
        raise failure
    return result


def _alive(tape: Tape, done: int) -> bool:
    """Whether any lane had not diverged after so many updates."""
    return done == 0 or bool(np.isfinite(tape.record.loss[:, done - 1]).any())


def _idle(running: list[Future]) -> bool:
    """Whether no block of a dispatch is being computed any more."""

    def is_over(block):
        if not block.done():
            return False
        _, results = block.result()
        return all(array.is_ready() for array in jax.tree.leaves(results))

    return all(map(is_over, running))


def _agreed(wish: bool) -> bool:
    """What the first process wishes: all must save at the same step."""
    if jax.process_count() == 1:
        return wish
    return bool(multihost_utils.broadcast_one_to_all(np.bool_(wish)))


def _resumed(
    job: Job, parts: list[Block], tape: Tape, checkpoints: Checkpoints | None
) -> tuple[list[State], int]:
    """The states of a checkpoint, if there is one, and its step; its curves go to the tape."""
    restored = (
        checkpoints.restore([state_shapes(job, part) for part in parts]) if checkpoints else None
    )
    if restored is None:
        return [], 0
    for name, rows in flat(tape).items():
        rows[...] = restored.arrays[name]
    return restored.tree, restored.step


BLOCK_SIZE, DISPATCH_STEPS = "block_size", "dispatch_steps"


def _saved(directory: str | os.PathLike | None, name: str) -> int | None:
    """A number that a checkpoint was made with, also where another machine would choose another."""
    number = None if directory is None else recorded(directory, name)
    return number if isinstance(number, int) and number > 0 else None


def _check_shared(size: int | None, multiple: int) -> None:
    if size is not None and size % multiple:
        raise ValueError(
            f"mesh must have a number of devices along 'lanes' that divides {size}, the lanes of "
            f"a block in checkpoint_dir, got {multiple}."
        )


@contextlib.contextmanager
def _checkpoints(
    directory: str | os.PathLike | None, identity: dict[str, Any]
) -> Iterator[Checkpoints | None]:
    if directory is None:
        yield None
        return
    with open_checkpoints(directory, identity) as checkpoints:
        yield checkpoints


@contextlib.contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Turn a first Ctrl-C into a request to stop; a second one aborts.

    Only where a handler can be set, and not where Ctrl-C is ignored already, nor for several
    processes, which would have to agree.
    """
    main = threading.current_thread() is threading.main_thread()
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    if not main or ignored or jax.process_count() > 1:
        yield lambda: False
        return
    requests: list[int] = []

    def handle(signum, frame):
        if requests:
            raise KeyboardInterrupt
        requests.append(signum)

    previous = signal.signal(signal.SIGINT, handle)
    try:
        yield lambda: bool(requests)
    finally:
        signal.signal(signal.SIGINT, previous)


@contextlib.contextmanager
def _other_processes() -> Iterator[None]:
    """Say what a failure means where other processes run the same sweep."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        raise RuntimeError(
            "this process cannot go on alone: another process of the sweep has probably ended or "
            "failed (its own output says why); all of them must be started again"
        ) from error
