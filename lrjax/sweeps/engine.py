"""Sweeps: many runs side by side, in one compiled program."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lrjax import _checks
from lrjax._progress import progress_bar
from lrjax.batches import ArrayBatches, evaluation_groups, reader
from lrjax.curves import Curves
from lrjax.lanes import Lanes, check_optimizer, make_lanes
from lrjax.sweeps import runs
from lrjax.sweeps.runs import Optimizer, Program, Record
from lrjax.tasks import Task

# One program for all values of one shape: hyperparameters, seeds, data and the optimizer's own
# numbers are its arguments.


@functools.partial(jax.jit, static_argnames="task")
def _init_lanes(hyperparams, seeds, optimizer, initial, task):
    init = functools.partial(runs.init, task=task)
    return jax.vmap(init, in_axes=(0, 0, None, None))(hyperparams, seeds, optimizer, initial)


@functools.partial(jax.jit, static_argnames="program", donate_argnames="states")
def _train_lanes(hyperparams, seeds, states, optimizer, source, span, program):
    train = functools.partial(runs.train, program=program)
    lanes = jax.vmap(train, in_axes=(0, 0, 0, None, None, None))
    return lanes(hyperparams, seeds, states, optimizer, source, span)


@functools.partial(jax.jit, static_argnames="task")
def _evaluate_lanes(states, seeds, groups, task):
    evaluate = functools.partial(runs.evaluate, task=task)
    return jax.vmap(evaluate, in_axes=(0, 0, None))(states, seeds, groups)


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
    chunk_steps: int | None = None,
    progress: bool = False,
) -> Curves:
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
        chunk_steps: updates per dispatch; at most 50 if not given.
        progress: whether to show a progress bar on a terminal.

    Returns:
        The curves, with the axes of `lanes` and then `seed`.

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
    grid = make_lanes(lanes, seeds)
    check_optimizer(optimizer, list(grid.hyperparams))
    if jax.tree_util.all_leaves([optimizer]):
        # A function as an argument of a compiled program: a pytree without leaves.
        optimizer = jax.tree_util.Partial(optimizer)
    groups = () if eval_batches is None else evaluation_groups(eval_batches)
    spans, length = _spans(steps, bool(groups), eval_every, chunk_steps)
    program = Program(task, length, divergence, accumulate)
    sample, read = reader(batches, steps * accumulate)
    _check_task(task, optimizer, grid, initial, sample)

    states = _init_lanes(grid.hyperparams, grid.seeds, optimizer, initial, task)
    records, evaluations = [], []
    with progress_bar(steps, len(grid), enabled=progress) as report:
        for start, stop, evaluated in spans:
            source = read(start * accumulate, (stop - start) * accumulate, length * accumulate)
            states, record = _train_lanes(
                grid.hyperparams, grid.seeds, states, optimizer, source, (start, stop), program
            )
            records.append(_first_steps(record, stop - start))
            if evaluated:
                evaluations.append(_evaluate_lanes(states, grid.seeds, groups, task))
            diverged = np.asarray(states.watch.diverged)
            report(stop, np.asarray(records[-1].loss), diverged)
            if diverged.all():
                break
    return _curves(grid, steps, records, [stop for _, stop, done in spans if done], evaluations)


def _first_steps(record: Record, count: int) -> Record:
    return jax.tree.map(lambda array: np.asarray(array)[:, :count], record)


MAX_CHUNK_STEPS = 50
EVALUATIONS = 25


def _spans(
    steps: int, evaluate: bool, eval_every: int | None, chunk_steps: int | None
) -> tuple[list[tuple[int, int, bool]], int]:
    """The updates of each dispatch: first, last + 1, and whether an evaluation follows.

    And the length of the program that serves them all, however many updates each has.
    """
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
            spans.append((start, stop, evaluate and stop == end))
    return spans, length


def _check_task(task: Task, optimizer: Optimizer, grid: Lanes, initial: Any, sample: Any) -> None:
    """Refuse before any training what the shapes alone tell."""
    if not isinstance(task, Task):
        raise TypeError(f"task must be a Task, got {task!r}.")
    if initial is not None and (not isinstance(initial, tuple) or len(initial) not in (2, 3)):
        raise TypeError(
            "initial must be (params, model_state) or (params, model_state, opt_state), "
            f"got {initial!r}."
        )
    hyperparams = {name: values[0] for name, values in grid.hyperparams.items()}

    def first_loss(hyperparams, seed, batch):
        state = runs.init(hyperparams, seed, optimizer, initial, task)
        return task.loss(state.params, state.model_state, batch, jax.random.key(seed), True)

    loss, (_, metrics) = jax.eval_shape(first_loss, hyperparams, grid.seeds[0], sample)
    if loss.shape or not jnp.issubdtype(loss.dtype, jnp.floating):
        raise ValueError(f"task.loss must give a scalar float as the loss, got {loss}.")
    for name, metric in metrics.items():
        if metric.shape:
            raise ValueError(f"task.loss must give scalars as metrics, got {name}: {metric}.")


def _curves(
    grid: Lanes,
    steps: int,
    records: list[Record],
    eval_steps: list[int],
    evaluations: list[tuple[Any, Any]],
) -> Curves:
    """The records of all dispatches as arrays over the grid's axes; NaN where there are none."""

    def shaped(parts, length):
        flat = np.full((len(grid), length), np.nan, np.float32)
        filled = np.concatenate(parts, axis=1)
        flat[:, : filled.shape[1]] = filled
        return flat.reshape(*grid.shape, length)

    def stacked(trees, length):
        return jax.tree.map(lambda *parts: shaped(parts, length), *trees)

    record = stacked(records, steps)
    columns = [jax.tree.map(lambda a: np.asarray(a)[:, None], pair) for pair in evaluations]
    empty = np.zeros((*grid.shape, 0), np.float32)
    eval_loss, eval_metrics = stacked(columns, len(eval_steps)) if columns else (empty, {})
    diverged = np.isnan(record.loss)
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
    )


def _shared(values: np.ndarray) -> np.ndarray:
    """One row where all lanes have the same values."""
    rows = values.reshape(-1, values.shape[-1])
    return rows[0] if np.array_equal(rows, np.broadcast_to(rows[0], rows.shape), True) else values
