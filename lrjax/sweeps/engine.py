"""Sweeps: many runs side by side, driven from the host."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, overload

import jax
from jax.sharding import Mesh

from lrjax import _checks, convolutions
from lrjax._checkpoints import check_processes, open_checkpoints, recorded
from lrjax._fingerprints import fingerprint
from lrjax._progress import progress_bar
from lrjax.batches import ArrayBatches
from lrjax.batches.arrays import as_batches
from lrjax.batches.evaluations import evaluation_groups
from lrjax.batches.readers import reader
from lrjax.curves import Curves
from lrjax.lanes import make_lanes
from lrjax.meshes import check_mesh, on_one_cpu
from lrjax.sweeps.arguments import (
    BLOCK_SIZE,
    DISPATCH_STEPS,
    check_debugging,
    check_initial,
    checked_settings,
    identity_of,
)
from lrjax.sweeps.dispatches import Job, put
from lrjax.sweeps.driver import Host, drive
from lrjax.sweeps.functions import comparable
from lrjax.sweeps.interrupts import interruptible
from lrjax.sweeps.measures import Measures, measure
from lrjax.sweeps.memory import block_size
from lrjax.sweeps.optimizers import check_complete, check_optimizer
from lrjax.sweeps.processes import explained, together
from lrjax.sweeps.runs import Optimizer, Program
from lrjax.sweeps.spans import cut_steps, evaluations
from lrjax.sweeps.tapes import FinalState, as_curves, blank_tape, final_state
from lrjax.sweeps.workers import open_workers
from lrjax.tasks import Task


@overload
def sweep(
    task: Task,
    batches: Any,
    optimizer: Optimizer,
    *,
    steps: int,
    return_state: Literal[False] = False,
    **options: Any,
) -> Curves: ...
@overload
def sweep(
    task: Task,
    batches: Any,
    optimizer: Optimizer,
    *,
    steps: int,
    return_state: Literal[True],
    **options: Any,
) -> tuple[Curves, FinalState]: ...
def sweep(  # type: ignore[misc]  # the overloads do not repeat the options
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

    Every lane sees the same batch at the same step. A second sweep with other values of the same
    shape compiles nothing.

    A lane diverges when its loss is not finite, or when the running average of its loss, in which
    outliers count for little, exceeds the lowest so far by more than `divergence * (drop + noise)`:
    `drop` is how far that average has fallen since the start, `noise` the mean change of the loss
    from one update to the next, but at least a thousandth of the loss. From there on the lane's
    curves are NaN and its parameters are frozen; the other lanes are unaffected.

    Ctrl-C saves and ends a sweep after the current dispatch: the curves are NaN from
    `curves.steps_done` on. A second Ctrl-C aborts.

    Args:
        task: what is trained.
        batches: plain arrays, one or a tuple or dict of them, with samples along
            their first axis; or `array_batches(…)`; or a list or any other iterable of batches,
            pytrees of arrays of one shape, as in `stream_batches`.
        optimizer: makes a lane's optimizer from its hyperparameters, as traced scalars. Its
            updates are given the loss as `value`, the gradient as `grad`, and the loss at other
            parameters as `value_fn`, where they accept them, as line searches do.
        steps: updates of every lane.
        lanes: a dict of lists makes a grid, `{"weight_decay": [0, 1e-4], "momentum": [0.9]}`; a
            list of dicts makes a list of lanes; None makes one lane per seed.
        seeds: the number of seeds for every lane, or a list of them. A lane's initial parameters
            are `task.init(jax.random.key(seed, impl="threefry2x32"))`, whatever its
            hyperparameters; keys are of this kind whatever JAX's default is.
        initial: `(params, model_state)` or `(params, model_state, opt_state)` to start every
            lane from; of an optimizer's state the moments are kept, and schedules and
            hyperparameters start anew. Seeds then differ in the random numbers that the loss
            draws; if it draws none, all seeds are the same run.
        batch_size: for plain arrays; if not given 64, or all samples if they are fewer.
        eval_batches: what to evaluate on, with `train=False`: every sample of plain arrays
            or of `array_batches(…)`, or a finite iterable of batches. The loss is the mean over
            batches, each with the weight of its samples. None for no evaluation.
        eval_every: updates between evaluations; the last update is always followed by one.
            About 25 evaluations if not given. Only with `eval_batches`.
        divergence: the factor above; None leaves only losses that are not finite, as for a loss
            that is meant to rise.
        accumulate: batches whose gradients are averaged into one update.
        lane_batch: the most lanes that run at once; a CPU's cores, or the devices of a mesh,
            share them equally, with at least one lane each. If not given, as many as fit the
            device's memory.
        chunk_steps: updates per dispatch; if not given, chosen from what an update costs, at
            most 200.
        mesh: devices to place lanes on, from `lane_mesh()`, across processes too.
        rewrite_convolutions: whether to replace convolutions and poolings by operations that XLA
            runs faster on a CPU, with the same results to rounding; each core then runs one lane
            at a time. If not given, done where it is faster.
        progress: whether to show a progress bar on a terminal, by rich.
        checkpoint_dir: folder to save the sweep's state in from time to time, and at its end, by
            Orbax; the same call after a kill goes on from there, to the same curves. A call with
            other arguments is refused, and so is a task or an optimizer whose code or constants
            have changed; the contents of a stream are not compared.
        return_state: whether to return the lanes' final states too.

    Returns:
        The curves, with the axes of `lanes` and then `seed`. With `return_state`, also a
        `FinalState` of `params`, `model_state` and `opt_state`, whose arrays have those axes first.

    Raises:
        ValueError: for a number of steps below 1, a lane that is empty or that the optimizer
            does not take, a value that is not finite, a loss that is not a scalar float, or
            batches that change their shape or run out.
        TypeError: for an argument of the wrong type.
        ImportError: if what `progress` or `checkpoint_dir` needs is not installed.
        OSError: for a `checkpoint_dir` that cannot be written to.
        RuntimeError: under `jax_debug_nans`, `jax_debug_infs` or `jax_disable_jit`, or where
            another run uses `checkpoint_dir`.

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
    check_debugging()
    _checks.instance("task", task, Task, "a Task")
    settings = checked_settings(steps, eval_every, divergence, accumulate, lane_batch, chunk_steps)
    _checks.optional("rewrite_convolutions", rewrite_convolutions, _checks.flag)
    _checks.flag("progress", progress)
    _checks.flag("return_state", return_state)
    batches = as_batches("batches", batches, batch_size)
    grid = make_lanes(lanes, seeds)
    check_optimizer(optimizer, grid.hyperparams)
    check_complete(optimizer, grid.hyperparams)
    check_initial(initial)
    if mesh is not None:
        check_mesh(mesh, len(grid))
    if eval_every is not None and eval_batches is None:
        raise ValueError(f"eval_every must come with eval_batches, got {eval_every!r} alone.")
    groups = () if eval_batches is None else evaluation_groups(eval_batches)
    identity: dict[str, Any] = {}
    # Only where something can differ, because it takes a hash of all data.
    if checkpoint_dir is not None or jax.process_count() > 1:
        identity = identity_of(settings, grid, task, batches, optimizer, initial, groups)
        identity["checkpoint_dir"] = checkpoint_dir is not None
    check_processes(identity)
    optimizer = _as_argument(optimizer)
    version = _version(task, optimizer)
    if isinstance(batches, ArrayBatches):
        batches = dataclasses.replace(batches, data=put(batches.data, mesh))
    groups, initial = put(groups, mesh), put(initial, mesh)
    at_once = min(len(grid), settings.lane_batch or len(grid))
    shown = progress and jax.process_index() == 0
    with (
        contextlib.closing(together(reader, batches, settings.total_batches)) as data,
        progress_bar(settings.steps, len(grid), enabled=shown) as show_progress,
        open_workers(mesh, at_once) as team,
        interruptible() as stopped,
        explained(),
    ):
        measures = measure(task, optimizer, initial, grid, data.sample, version, bool(groups))
        most = settings.most_steps(measures.flops * at_once, data.batch_bytes)
        chunk_steps = settings.chunk_steps or _saved(checkpoint_dir, DISPATCH_STEPS)
        spans, length = cut_steps(
            settings.steps, bool(groups), settings.eval_every, chunk_steps, most
        )
        task = _rewritten(task, rewrite_convolutions, measures, mesh)
        program = Program(task, length, settings.divergence, settings.accumulate, mesh, version)
        job = Job(program, optimizer, initial, groups, team)
        tape = blank_tape(measures.metrics, measures.eval_metrics, len(grid), spans)
        size = _checked_size(_saved(checkpoint_dir, BLOCK_SIZE), job.multiple)
        size = size or block_size(job, grid, settings.lane_batch, data)
        # They shape a checkpoint's arrays, too, and another machine would choose others.
        identity |= {BLOCK_SIZE: size, DISPATCH_STEPS: length}
        with _open(checkpoint_dir, identity) as checkpoints:
            host = Host(data, tape, checkpoints, show_progress, stopped)
            driven = drive(job, grid, size, spans, host)
    curves = as_curves(grid, tape, evaluations(spans), driven.done)
    if driven.failure is not None:
        raise _with_curves(driven.failure, curves)
    return (curves, final_state(grid, driven.blocks, driven.states)) if return_state else curves


def _as_argument(optimizer: Optimizer) -> Any:
    """The optimizer as an argument of compiled programs: a function is a pytree without leaves."""
    is_function = jax.tree_util.all_leaves([optimizer])
    return jax.tree_util.Partial(comparable(optimizer)) if is_function else optimizer


LARGEST_CONSTANT = 2**20  # bytes of an array, beyond which a change in it is not looked for


def _version(task: Task, optimizer: Any) -> str:
    """What changes with what they refer to; JAX takes a function for the same as long as it is."""
    static = task, jax.tree.map(lambda _: None, optimizer)
    return fingerprint(static, largest=LARGEST_CONSTANT)


def _with_curves(failure: Exception, curves: Curves) -> Exception:
    """What ended a sweep, with the curves up to there."""
    failure.curves = curves  # type: ignore[attr-defined]
    failure.add_note(f"The curves of {curves.steps_done} updates are in this error's `curves`.")
    return failure


def _saved(directory: str | os.PathLike | None, name: str) -> int | None:
    """A number that a checkpoint was made with, also where another machine would choose another."""
    number = None if directory is None else recorded(directory, name)
    return number if isinstance(number, int) and number > 0 else None


def _rewritten(task: Task, wanted: bool | None, measures: Measures, mesh: Mesh | None) -> Task:
    """The task with its convolutions rewritten, if that is wanted or else faster: on a CPU."""
    if wanted is None:
        wanted = measures.convolves and on_one_cpu(mesh)
    return task._replace(loss=convolutions.Rewritten(task.loss)) if wanted else task


def _checked_size(size: int | None, multiple: int) -> int | None:
    """The lanes of a checkpoint's blocks, which the devices must be able to share."""
    if size is not None and size % multiple:
        raise ValueError(
            f"mesh must have a number of devices along 'lanes' that divides {size}, the lanes of "
            f"a block in checkpoint_dir, got {multiple}."
        )
    return size


def _open(directory: str | os.PathLike | None, identity: dict[str, Any]) -> Any:
    """The checkpoints of a folder, or None without one, for a `with`."""
    return contextlib.nullcontext() if directory is None else open_checkpoints(directory, identity)
