"""Sweeps: many runs side by side, in one compiled program, driven from the host."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import signal
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from lrjax import _checks
from lrjax._progress import progress_bar
from lrjax.batches import ArrayBatches, Group, evaluation_groups, reader
from lrjax.curves import Curves
from lrjax.lanes import (
    LANES,
    Block,
    Lanes,
    blocks,
    check_mesh,
    check_optimizer,
    make_lanes,
    sharding,
)
from lrjax.sweeps import memory, runs
from lrjax.sweeps.runs import Optimizer, Program, Record, State
from lrjax.tasks import Task

# One program for all values of one shape: hyperparameters, seeds, data and the optimizer's own
# numbers are its arguments.


@functools.partial(jax.jit, static_argnames="program")
def _init_lanes(hyperparams, seeds, optimizer, initial, program):
    init = jax.vmap(functools.partial(runs.init, program=program), in_axes=(0, 0, None, None))
    return _placed(init(hyperparams, seeds, optimizer, initial), program.mesh, LANES)


@functools.partial(jax.jit, static_argnames="program", donate_argnames="states")
def _train_lanes(hyperparams, seeds, states, optimizer, source, span, program):
    train = functools.partial(runs.train, program=program)
    train = jax.vmap(train, in_axes=(0, 0, 0, None, None, None))
    states, records = train(hyperparams, seeds, states, optimizer, source, span)
    # Every process gets the whole records.
    return _placed(states, program.mesh, LANES), _placed(records, program.mesh)


@functools.partial(jax.jit, static_argnames="program")
def _evaluate_lanes(states, seeds, groups, program):
    evaluate = jax.vmap(functools.partial(runs.evaluate, program=program), in_axes=(0, 0, None))
    return _placed(evaluate(states, seeds, groups), program.mesh)


def _placed(tree: Any, mesh: Mesh | None, *axes: str) -> Any:
    if mesh is None:
        return tree
    return jax.lax.with_sharding_constraint(tree, sharding(mesh, *axes))


def _put(tree: Any, mesh: Mesh | None, *axes: str) -> Any:
    """A tree from the host or from one device, on the devices of a mesh."""
    if mesh is None:
        return tree
    if jax.process_count() > 1:
        # What only one process can address does not go straight to the others.
        tree = jax.tree.map(np.asarray, tree)
    return jax.device_put(tree, sharding(mesh, *axes))


class FinalState(NamedTuple):
    """What lanes end with; one lane's is what `initial` takes."""

    params: Any
    model_state: Any
    opt_state: Any


def sweep(
    task: Task,
    batches: ArrayBatches | Iterable[Any],
    optimizer: Optimizer,
    *,
    steps: int,
    lanes: Mapping[str, Sequence[float]] | Sequence[Mapping[str, float]] | None = None,
    seeds: int | Sequence[int] = 1,
    initial: tuple | None = None,
    eval_batches: ArrayBatches | Iterable[Any] | None = None,
    eval_every: int | None = None,
    divergence: float | None = 4.0,
    accumulate: int = 1,
    lane_batch: int | None = None,
    chunk_steps: int | None = None,
    mesh: Mesh | None = None,
    progress: bool = False,
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
        batches: `array_batches(…)`, or any iterable of pytrees of arrays of one shape.
        optimizer: makes a lane's optimizer from its hyperparameters, as traced scalars.
        steps: updates of every lane.
        lanes: a dict of lists makes a grid, `{"weight_decay": [0, 1e-4], "momentum": [0.9]}`; a
            list of dicts makes a list of lanes; None makes one lane per seed.
        seeds: how many seeds for every lane, or the seeds. A lane's initial parameters are
            `task.init(jax.random.key(seed))`, whatever its hyperparameters.
        initial: `(params, model_state)` or `(params, model_state, opt_state)` to start every
            lane from; of an optimizer's state the moments are kept, and schedules and
            hyperparameters start anew.
        eval_batches: what to evaluate on, with `train=False`: every sample of
            `array_batches(…)`, or a finite iterable of batches. None for no evaluation.
        eval_every: updates between evaluations; the last update is always followed by one.
            About 25 evaluations if not given.
        divergence: the factor above; None leaves only losses that are not finite.
        accumulate: batches whose gradients are averaged into one update.
        lane_batch: lanes that run at once; as many as fit the memory if not given.
        chunk_steps: updates per dispatch; at most 50 if not given.
        mesh: devices to place lanes on, from `lane_mesh()`, across processes too.
        progress: whether to show a progress bar on a terminal.
        return_state: whether to return the lanes' final states too.

    Returns:
        The curves, with the axes of `lanes` and then `seed`. With `return_state`, also a
        `FinalState`, whose arrays have those axes first.

        Ctrl-C ends a sweep after the current dispatch: the curves are NaN from
        `curves.steps_done` on. A second Ctrl-C aborts.

    Raises:
        ValueError: for a number of steps below 1, a lane that is empty or that the optimizer
            does not take, a value that is not finite, a loss that is not a scalar float, or
            batches that change their shape or run out.
        TypeError: for an argument of another kind.

    Example:
        >>> from lrjax import array_batches, sgd, sweep, task
        >>> def loss(params, x):
        ...     return jnp.mean((x - params) ** 2)
        >>> batches = array_batches(jnp.ones(64), 16)
        >>> lanes = {"learning_rate": [0.01, 0.1, 0.3]}
        >>> sweep(task(loss, jnp.zeros(())), batches, sgd, steps=20, lanes=lanes)
        Curves(learning_rate: 3, seed: 1; 20 steps, 0 evaluations, 0 of 3 lanes diverged)
    """
    steps = _checks.integer("steps", steps, minimum=1)
    accumulate = _checks.integer("accumulate", accumulate, minimum=1)
    if divergence is not None:
        divergence = float(_checks.number("divergence", divergence, above=0))
    if not isinstance(task, Task):
        raise TypeError(f"task must be a Task, got {task!r}.")
    grid = make_lanes(lanes, seeds)
    check_optimizer(optimizer, list(grid.hyperparams))
    if lane_batch is not None:
        _checks.integer("lane_batch", lane_batch, minimum=1)
    if mesh is not None:
        check_mesh(mesh, len(grid))
    if jax.tree_util.all_leaves([optimizer]):
        # A function as an argument of a compiled program: a pytree without leaves.
        optimizer = jax.tree_util.Partial(optimizer)
    groups = () if eval_batches is None else _put(evaluation_groups(eval_batches), mesh)
    spans, length = _spans(steps, bool(groups), eval_every, chunk_steps)
    program = Program(task, length, divergence, accumulate, mesh)
    if isinstance(batches, ArrayBatches):
        batches = dataclasses.replace(batches, data=_put(batches.data, mesh))
    sample, read = reader(batches, steps * accumulate)

    job = Job(program, optimizer, _put(initial, mesh), groups)
    tape = _blank_tape(_check_task(job, grid, sample), len(grid), spans)
    evaluations = itertools.count()
    with (
        progress_bar(steps, len(grid), enabled=progress and jax.process_index() == 0) as report,
        _interruptible() as stopped,
        _other_processes(),
    ):
        source = _read(read, spans[0], program)
        size = _block_size(job, grid, lane_batch, source)
        parts, states, pending = _first(job, grid, size, source, spans[0])
        for k, span in enumerate(spans):
            if k > 0:
                states, pending = _run(job, parts, states, source, span)
            if k + 1 < len(spans):
                source = _read(read, spans[k + 1], program)  # while the devices compute
            row = next(evaluations) if span.evaluated else None
            for part, results in zip(parts, pending, strict=True):
                _write(tape, part, span, row, results)
            losses = tape.record.loss[:, span.start : span.stop]
            report(span.stop, losses, np.isnan(losses[:, -1]))
            if stopped() or np.isnan(losses[:, -1]).all():
                break
    done = span.stop if np.isfinite(losses[:, -1]).any() else steps
    curves = _curves(grid, tape, [s.stop for s in spans if s.evaluated], done)
    return (curves, _final(grid, parts, states)) if return_state else curves


class Span(NamedTuple):
    """The updates of one dispatch, from `start` to `stop`."""

    start: int
    stop: int
    evaluated: bool  # whether an evaluation follows


MAX_CHUNK_STEPS = 50
EVALUATIONS = 25


def _spans(
    steps: int, evaluate: bool, eval_every: int | None, chunk_steps: int | None
) -> tuple[list[Span], int]:
    """The dispatches, and the length of the program that serves them all."""
    if eval_every is None:
        eval_every = max(1, steps // EVALUATIONS)
    eval_every = _checks.integer("eval_every", eval_every, minimum=1) if evaluate else steps
    between = min(eval_every, steps)
    if chunk_steps is None:
        # Chunks of one length, so that none trains mostly filling.
        chunk_steps = -(-between // -(-between // MAX_CHUNK_STEPS))
    length = min(_checks.integer("chunk_steps", chunk_steps, minimum=1), between)
    stops = [*range(eval_every, steps, eval_every), steps]
    spans = []
    for begin, end in zip([0, *stops[:-1]], stops, strict=True):
        for start in range(begin, end, length):
            stop = min(start + length, end)
            spans.append(Span(start, stop, evaluate and stop == end))
    return spans, length


@dataclass(frozen=True)
class Job:
    """What the programs of a sweep are given, whichever lanes they run."""

    program: Program
    optimizer: Any
    initial: Any
    groups: tuple[Group, ...]

    @property
    def mesh(self) -> Mesh | None:
        """The devices that lanes are placed on; None for one device."""
        return self.program.mesh

    @property
    def multiple(self) -> int:
        """What the number of lanes that run at once must divide by."""
        return 1 if self.mesh is None else self.mesh.shape[LANES]


def _read(read: Callable[[int, int, int], Any], span: Span, program: Program) -> Any:
    each = program.accumulate
    return read(span.start * each, (span.stop - span.start) * each, program.length * each)


def _start(job: Job, part: Block) -> State:
    lanes = _put((part.hyperparams, part.seeds), job.mesh, LANES)
    return _init_lanes(*lanes, job.optimizer, job.initial, job.program)


Results = tuple[Record, Any]  # of one dispatch, and of the evaluation after it if any


def _run(
    job: Job, parts: list[Block], states: list[State], source: Any, span: Span
) -> tuple[list[State], list[Results]]:
    """One dispatch of all lanes, block after block."""
    ended, pending = [], []
    for part, state in zip(parts, states, strict=True):
        hyperparams, seeds = _put((part.hyperparams, part.seeds), job.mesh, LANES)
        state, record = _train_lanes(
            hyperparams, seeds, state, job.optimizer, source, span[:2], job.program
        )
        evaluation = None
        if span.evaluated:
            evaluation = _evaluate_lanes(state, seeds, job.groups, job.program)
        # Several blocks take turns on the device, so the others' states wait on the host.
        ended.append(_off_device(state) if len(parts) > 1 else state)
        pending.append((record, evaluation))
    return ended, pending


def _off_device(tree: Any) -> Any:
    """Arrays on the host; as they are where the device is the host, or another process's too."""

    def move(array):
        on_host = next(iter(array.devices())).platform == "cpu"
        return array if on_host or not array.is_fully_addressable else np.asarray(array)

    return jax.tree.map(move, tree)


def _first(
    job: Job, grid: Lanes, size: int, source: Any, span: Span
) -> tuple[list[Block], list[State], list[Results]]:
    """The first dispatch, with blocks of half the lanes as long as they do not fit."""
    while True:
        parts = blocks(grid, size)
        try:
            # Waits, because a device reports what does not fit only while it runs.
            states = [jax.block_until_ready(_start(job, part)) for part in parts]
            return parts, *jax.block_until_ready(_run(job, parts, states, source, span))
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error) or size <= job.multiple:
                raise
        size = max(job.multiple, size // 2 // job.multiple * job.multiple)
        warnings.warn(f"the lanes do not fit the device; now {size} at once", stacklevel=3)


def _block_size(job: Job, grid: Lanes, lane_batch: int | None, source: Any) -> int:
    """How many lanes to run at once: as many as asked for, or as many as fit."""
    most = min(len(grid), lane_batch or len(grid))
    size = -(-most // job.multiple) * job.multiple
    if lane_batch is not None:
        return size

    def compiled(size):
        part = blocks(grid, size)[0]
        lanes = _put((part.hyperparams, part.seeds), job.mesh, LANES)
        shapes = jax.eval_shape(_init_lanes, *lanes, job.optimizer, job.initial, job.program)
        states = jax.tree.map(
            lambda shape: jax.ShapeDtypeStruct(
                shape.shape, shape.dtype, sharding=sharding(job.mesh, LANES)
            ),
            shapes,
        )
        arguments = *lanes, states, job.optimizer, source, (0, 1), job.program
        return _train_lanes.lower(*arguments).compile()

    return memory.fitting(size, job.multiple, compiled, memory.free_bytes(job.mesh))


@contextlib.contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Turn a first Ctrl-C into a request to stop; a second one aborts.

    Only where a handler can be set, and not for several processes, which would have to agree.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or jax.process_count() > 1:
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


def _check_task(job: Job, grid: Lanes, sample: Any) -> tuple[list[str], list[str]]:
    """Refuse before any training what the shapes alone tell.

    Returns:
        The names of the metrics in training and in evaluation.
    """
    initial, task = job.initial, job.program.task
    if initial is not None and (not isinstance(initial, tuple) or len(initial) not in (2, 3)):
        raise TypeError(
            "initial must be (params, model_state) or (params, model_state, opt_state), "
            f"got {initial!r}."
        )
    hyperparams = {name: values[0] for name, values in grid.hyperparams.items()}

    def losses(hyperparams, seed, batch):
        state = runs.init(hyperparams, seed, job.optimizer, initial, job.program)
        call = functools.partial(task.loss, state.params, state.model_state, batch)
        return [call(jax.random.key(seed), train) for train in (True, False)]

    names = []
    for loss, (_, metrics) in jax.eval_shape(losses, hyperparams, grid.seeds[0], sample):
        if loss.shape or not jnp.issubdtype(loss.dtype, jnp.floating):
            raise ValueError(f"task.loss must give a scalar float as the loss, got {loss}.")
        for name, metric in metrics.items():
            if metric.shape:
                raise ValueError(f"task.loss must give scalars as metrics, got {name}: {metric}.")
        names.append(sorted(metrics))
    return names[0], names[1]


class Tape(NamedTuple):
    """All records, as flat lanes; NaN where nothing was recorded."""

    record: Any  # a Record of float32[lanes, steps]
    evaluation: tuple[Any, Any]  # loss and metrics, float32[lanes, evals] each


def _blank_tape(names: tuple[list[str], list[str]], lanes: int, spans: list[Span]) -> Tape:
    def blank(length):
        return np.full((lanes, length), np.nan, np.float32)

    steps, evals = spans[-1].stop, sum(span.evaluated for span in spans)
    metrics = {name: blank(steps) for name in names[0]}
    record = Record(blank(steps), metrics, blank(steps), blank(steps))
    evaluated = names[1] if evals else []
    return Tape(record, (blank(evals), {name: blank(evals) for name in evaluated}))


def _write(tape: Tape, part: Block, span: Span, row: int | None, results: Results) -> None:
    """Take the results of a block's dispatch from the devices to the tape."""
    record, evaluation = results

    def write(where, values, rows):
        rows[part.lanes, where] = np.asarray(values)[: part.number, ...]

    steps = slice(span.start, span.stop)
    record = jax.tree.map(lambda values: values[:, : span.stop - span.start], record)
    jax.tree.map(functools.partial(write, steps), record, tape.record)
    if span.evaluated:
        jax.tree.map(functools.partial(write, row), evaluation, tape.evaluation)


def _curves(grid: Lanes, tape: Tape, eval_steps: list[int], done: int) -> Curves:
    """The tape over the grid's axes."""
    record, (eval_loss, eval_metrics) = jax.tree.map(
        lambda rows: rows.reshape(*grid.shape, -1), tuple(tape)
    )
    diverged = np.isnan(record.loss[..., :done])
    steps = record.loss.shape[-1]
    return Curves(
        axes=grid.axes,
        learning_rate=_shared(record.learning_rate),
        momentum=None if np.isnan(record.momentum).all() else _shared(record.momentum),
        loss=record.loss,
        metrics=record.metrics,
        eval_steps=np.array(eval_steps, np.int32),
        eval_loss=eval_loss,
        eval_metrics=eval_metrics,
        diverged_at=np.where(diverged.any(-1), diverged.argmax(-1), steps).astype(np.int32),
        lanes=grid.listed,
        steps_done=np.array(done, np.int32),
    )


def _final(grid: Lanes, parts: list[Block], states: list[State]) -> FinalState:
    """The lanes' final states over the grid's axes."""
    counts = [part.number for part in parts]

    def joined(*arrays):
        lanes = [array[:count] for array, count in zip(arrays, counts, strict=True)]
        whole = lanes[0] if len(lanes) == 1 else jnp.concatenate(lanes)
        return whole.reshape(*grid.shape, *whole.shape[1:])

    return FinalState(*jax.tree.map(joined, *(tuple(state[:3]) for state in states)))


def _shared(values: np.ndarray) -> np.ndarray:
    """One row where all lanes have the same values."""
    rows = values.reshape(-1, values.shape[-1])
    return rows[0] if np.array_equal(rows, np.broadcast_to(rows[0], rows.shape), True) else values
