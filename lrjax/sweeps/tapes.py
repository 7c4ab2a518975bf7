"""What a sweep leaves, from the devices over the grid's axes: its records and final states."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lrjax.curves import Curves
from lrjax.lanes import Block, Lanes
from lrjax.sweeps.dispatches import Results
from lrjax.sweeps.runs import Record, State
from lrjax.sweeps.spans import Span, evaluations


class Tape(NamedTuple):
    """All records, as flat lanes; NaN where nothing was recorded."""

    record: Any  # a Record of float32[lanes, steps]
    evaluation: tuple[Any, Any]  # loss and metrics, float32[lanes, evals] each


def blank_tape(metrics: list[str], eval_metrics: list[str], lanes: int, spans: list[Span]) -> Tape:
    """A tape for the metrics of these names, in training and in evaluation."""

    def blank(length):
        return np.full((lanes, length), np.nan, np.float32)

    steps, evals = spans[-1].stop, len(evaluations(spans))
    measured = {name: blank(steps) for name in metrics}
    evaluated = {name: blank(evals) for name in (eval_metrics if evals else [])}
    return Tape(
        Record(blank(steps), measured, blank(steps), blank(steps)), (blank(evals), evaluated)
    )


def flat(tape: Tape) -> dict[str, np.ndarray]:
    """The tape's arrays by their paths."""
    leaves = jax.tree_util.tree_leaves_with_path(tape)
    return {jax.tree_util.keystr(path): rows for path, rows in leaves}


def write(tape: Tape, block: Block, span: Span, results: Results) -> None:
    """Take the results of a block's dispatch from the devices to the tape."""
    record, evaluation = results

    def copy(where, values, rows):
        rows[block.lanes, where] = np.asarray(values)[: block.number, ...]

    steps = slice(span.start, span.stop)
    # On the host, because a slice on the device would be a program of its own.
    record = jax.tree.map(lambda values: np.asarray(values)[:, : span.stop - span.start], record)
    with np.errstate(over="ignore"):  # of what x64 can hold and the tape cannot
        jax.tree.map(functools.partial(copy, steps), record, tape.record)
        if span.evaluation is not None:
            jax.tree.map(functools.partial(copy, span.evaluation), evaluation, tape.evaluation)


def as_curves(grid: Lanes, tape: Tape, eval_steps: list[int], done: int) -> Curves:
    """The tape over the grid's axes."""
    for rows in (tape.record.learning_rate, tape.record.momentum):
        rows[:, _ended(tape.record.loss) :] = np.nan
    record, (eval_loss, eval_metrics) = jax.tree.map(
        lambda rows: rows.reshape(*grid.shape, -1), tuple(tape)
    )
    return Curves(
        axes=grid.axes,
        learning_rate=_shared(record.learning_rate),
        momentum=None if np.isnan(record.momentum).all() else _shared(record.momentum),
        loss=record.loss,
        metrics=record.metrics,
        eval_steps=np.array(eval_steps, np.int32),
        eval_loss=eval_loss,
        eval_metrics=eval_metrics,
        lanes=grid.listed,
        steps_done=np.array(done, np.int32),
    )


def _ended(loss: np.ndarray) -> int:
    """The updates up to that which ended the last lane, however long its dispatch went on."""
    alive = np.flatnonzero(np.isfinite(loss).any(0))
    return alive[-1] + 2 if len(alive) else 1


def _shared(values: np.ndarray) -> np.ndarray:
    """One row where all lanes have the same values."""
    rows = values.reshape(-1, values.shape[-1])
    return rows[0] if np.array_equal(rows, np.broadcast_to(rows[0], rows.shape), True) else values


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


def final_state(grid: Lanes, blocks: list[Block], states: list[State]) -> FinalState:
    """The lanes' final states over the grid's axes."""
    counts = [block.number for block in blocks]

    def joined(*arrays):
        lanes = [array[:count] for array, count in zip(arrays, counts, strict=True)]
        whole = lanes[0] if len(lanes) == 1 else jnp.concatenate(lanes)
        return whole.reshape(*grid.shape, *whole.shape[1:])

    return FinalState(*jax.tree.map(joined, *(tuple(state[:3]) for state in states)))
