"""Sweeps: many runs side by side, driven from the host."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from lrjax import _checks, convolutions
from lrjax._checkpoints import check_processes, open_checkpoints, recorded
from lrjax._fingerprints import fingerprint
from lrjax._progress import progress_bar
from lrjax.batches import ArrayBatches, as_batches, evaluation_groups, reader
from lrjax.curves import Curves
from lrjax.lanes import Lanes, check_mesh, check_optimizer, make_lanes, on_one_cpu
from lrjax.sweeps.driver import BLOCK_SIZE, Host, drive
from lrjax.sweeps.functions import comparable
from lrjax.sweeps.measures import Measures, measure
from lrjax.sweeps.processes import explained, together
from lrjax.sweeps.programs import Job, block_size, final_state, put
from lrjax.sweeps.runs import Optimizer, Program
from lrjax.sweeps.spans import cut_steps, dispatch_steps, evaluations
from lrjax.sweeps.tapes import as_curves, blank_tape
from lrjax.sweeps.workers import open_workers
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
    finite, or when its smoothed loss rises above the best by more than `divergence` times what
    the loss has dropped so far plus how much it changes from step to step (or a thousandth of
    it): from there on its curves are NaN and its parameters stay as they are, while the other
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
        chunk_steps: updates per dispatch; if not given, chosen from what an update costs, at
            most 200.
        mesh: devices to place lanes on, from `lane_mesh()`, across processes too.
        rewrite_convolutions: whether to replace convolutions and poolings by operations that XLA
            runs faster on a CPU, with the same results to rounding; each core then runs one lane
            at a time. If not given, done where it is faster.
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
    if not isinstance(task, Task):
        raise TypeError(f"task must be a Task, got {task!r}.")
    settings = _settings(steps, eval_every, divergence, accumulate, lane_batch, chunk_steps)
    _checks.optional(_checks.flag, "rewrite_convolutions", rewrite_convolutions)
    _checks.flag("progress", progress)
    batches = as_batches("batches", batches, batch_size)
    grid = make_lanes(lanes, seeds)
    check_optimizer(optimizer, list(grid.hyperparams))
    if mesh is not None:
        check_mesh(mesh, len(grid))
    groups = () if eval_batches is None else evaluation_groups(eval_batches)
    identity: dict[str, Any] = {}
    # Only where something can differ, because it takes a hash of all data.
    if checkpoint_dir is not None or jax.process_count() > 1:
        identity = _identity(settings, grid, task, batches, optimizer, initial, groups)
        identity["checkpoint_dir"] = checkpoint_dir is not None
    check_processes(identity)
    if jax.tree_util.all_leaves([optimizer]):
        # A function as an argument of a compiled program: a pytree without leaves.
        optimizer = jax.tree_util.Partial(comparable(optimizer))
    # JAX takes a function for the same as long as it is; but what it refers to may have changed.
    static = task, jax.tree.map(lambda _: None, optimizer)
    source = fingerprint(static, largest=LARGEST_CONSTANT)
    if isinstance(batches, ArrayBatches):
        batches = dataclasses.replace(batches, data=put(batches.data, mesh))
    groups, initial = put(groups, mesh), put(initial, mesh)
    at_once = min(len(grid), settings.lane_batch or len(grid))
    shown = progress and jax.process_index() == 0
    with (
        contextlib.closing(together(reader, batches, settings.batches)) as data,
        progress_bar(settings.steps, len(grid), enabled=shown) as report,
        open_workers(mesh, at_once) as team,
        _interruptible() as stopped,
        explained(),
    ):
        measures = measure(task, optimizer, initial, grid, data.sample, source)
        most = settings.most_steps(measures.flops * at_once, data.bytes)
        length = settings.chunk_steps or _saved(checkpoint_dir, DISPATCH_STEPS)
        spans, length = cut_steps(settings.steps, bool(groups), settings.eval_every, length, most)
        task = _rewritten(task, rewrite_convolutions, measures, mesh)
        program = Program(task, length, settings.divergence, settings.accumulate, mesh, source)
        job = Job(program, optimizer, initial, groups, team)
        tape = blank_tape(measures.metrics, measures.eval_metrics, len(grid), spans)
        size = _shared(_saved(checkpoint_dir, BLOCK_SIZE), job.multiple)
        size = size or block_size(job, grid, settings.lane_batch, data)
        # What a checkpoint's arrays are shaped by, besides, where a machine would choose another.
        identity |= {BLOCK_SIZE: size, DISPATCH_STEPS: length}
        with _opened(checkpoint_dir, identity) as checkpoints:
            driven = drive(job, grid, size, spans, Host(data, tape, checkpoints, report, stopped))
    curves = as_curves(grid, tape, evaluations(spans), driven.done)
    if driven.failure is not None:
        raise _with_curves(driven.failure, curves)
    return (curves, final_state(grid, driven.parts, driven.states)) if return_state else curves


LARGEST_CONSTANT = 2**20  # bytes of an array, beyond which a change in it is not looked for


class Settings(NamedTuple):
    """How lanes are run, whatever they train: numbers that a checkpoint must agree with."""

    steps: int
    eval_every: int | None
    divergence: float | None
    accumulate: int
    lane_batch: int | None
    chunk_steps: int | None

    @property
    def batches(self) -> int:
        """How many batches a lane takes."""
        return self.steps * self.accumulate

    def most_steps(self, flops: float, read_bytes: int) -> int:
        """The most updates of a dispatch, by what a batch costs all lanes."""
        return dispatch_steps(flops * self.accumulate, read_bytes * self.accumulate)


def _settings(steps, eval_every, divergence, accumulate, lane_batch, chunk_steps) -> Settings:
    count = functools.partial(_checks.integer, minimum=1)
    _checks.optional(_checks.static, "divergence", divergence, above=0)
    return Settings(
        steps=count("steps", steps),
        eval_every=_checks.optional(count, "eval_every", eval_every),
        divergence=None if divergence is None else float(divergence),
        accumulate=count("accumulate", accumulate),
        lane_batch=_checks.optional(count, "lane_batch", lane_batch),
        chunk_steps=_checks.optional(count, "chunk_steps", chunk_steps),
    )


def _identity(
    settings: Settings,
    grid: Lanes,
    task: Task,
    batches: Any,
    optimizer: Any,
    initial: Any,
    groups: Any,
) -> dict[str, Any]:
    """What tells this sweep from another, by argument."""
    return {
        **settings._asdict(),
        "task": fingerprint(task),
        # Of a stream, nothing can be known before it is read.
        "batches": fingerprint(batches) if isinstance(batches, ArrayBatches) else "a stream",
        "optimizer": fingerprint(optimizer),
        "lanes": fingerprint((grid.axes, grid.hyperparams)),
        "seeds": grid.seeds.tolist(),
        "initial": fingerprint(initial),
        "eval_batches": fingerprint(groups),
    }


def _with_curves(failure: Exception, curves: Curves) -> Exception:
    """What ended a sweep, with the curves up to there."""
    failure.curves = curves  # type: ignore[attr-defined]
    failure.add_note(f"The curves of {curves.steps_done} updates are in this error's `curves`.")
    return failure


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


DISPATCH_STEPS = "dispatch_steps"  # what a checkpoint calls the updates of a dispatch


def _saved(directory: str | os.PathLike | None, name: str) -> int | None:
    """A number that a checkpoint was made with, also where another machine would choose another."""
    number = None if directory is None else recorded(directory, name)
    return number if isinstance(number, int) and number > 0 else None


def _rewritten(task: Task, wanted: bool | None, measures: Measures, mesh: Mesh | None) -> Task:
    """The task with its convolutions rewritten, if that is wanted or else faster: on a CPU."""
    if wanted is None:
        wanted = measures.convolves and on_one_cpu(mesh)
    return task._replace(loss=convolutions.Rewritten(task.loss)) if wanted else task


def _shared(size: int | None, multiple: int) -> int | None:
    """The lanes of a checkpoint's blocks, which the devices must be able to share."""
    if size is not None and size % multiple:
        raise ValueError(
            f"mesh must have a number of devices along 'lanes' that divides {size}, the lanes of "
            f"a block in checkpoint_dir, got {multiple}."
        )
    return size


def _opened(directory: str | os.PathLike | None, identity: dict[str, Any]) -> Any:
    """The checkpoints of a folder, or None without one, for a `with`."""
    return contextlib.nullcontext() if directory is None else open_checkpoints(directory, identity)


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
