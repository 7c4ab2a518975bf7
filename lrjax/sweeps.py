"""Run lanes: many training runs side by side, in one compiled program."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lrjax import _checks
from lrjax._progress import progress_bar
from lrjax.batches import ArrayBatches, Group, evaluation_groups, reader
from lrjax.curves import Curves
from lrjax.lanes import Lanes, check_optimizer, make_lanes
from lrjax.schedules import exponential_ramp, linear_ramp
from lrjax.tasks import Task
from lrjax.transforms import get_hyperparams, injected_states, is_injected, sgd

__all__ = ["range_test", "sweep"]


class Watch(NamedTuple):
    """What tells whether a lane diverges: a few numbers about its losses so far."""

    average: jax.Array  # the losses' running average
    best: jax.Array  # the smallest such average
    first: jax.Array  # the first loss
    last: jax.Array  # the last loss
    variation: jax.Array  # the sum of |loss - the loss before it|
    diverged: jax.Array  # bool


class State(NamedTuple):
    """What one lane carries from update to update."""

    params: Any
    model_state: Any
    opt_state: Any
    watch: Watch


class Record(NamedTuple):
    """What one lane tells of one update."""

    loss: jax.Array
    metrics: dict[str, jax.Array]
    learning_rate: jax.Array
    momentum: jax.Array


# One run. Nothing in this part knows of other lanes: `vmap` makes lanes of it.


def _init(hyperparams, seed, optimizer, initial, *, task: Task) -> State:
    """The state of a lane before its first update."""
    params, model_state, *opt_state = initial or task.init(jax.random.key(seed))
    fresh = optimizer(**hyperparams).init(params)
    if opt_state:
        fresh = _keep_moments(fresh, opt_state[0])
    zero = jnp.zeros((), jnp.result_type(float))
    return State(params, model_state, fresh, Watch(zero, zero, zero, zero, zero, jnp.bool(False)))


def _keep_moments(fresh: Any, given: Any) -> Any:
    """A given optimizer state, whose schedules and hyperparameters start anew."""

    def merge(new, old):
        if is_injected(new):
            return new._replace(inner_state=_keep_moments(new.inner_state, old.inner_state))
        return new if isinstance(new, optax.ScaleByScheduleState) else old

    def is_leaf(node):
        return is_injected(node) or isinstance(node, optax.ScaleByScheduleState)

    return jax.tree.map(merge, fresh, given, is_leaf=is_leaf)


def _train(
    hyperparams,
    seed,
    state: State,
    optimizer,
    source,
    steps,
    *,
    task: Task,
    length: int,
    divergence: float | None,
    accumulate: int,
) -> tuple[State, Record]:
    """Run the updates from `steps[0]` to `steps[1]`, in a program for `length` of them."""
    transform = optax.with_extra_args_support(optimizer(**hyperparams))
    start, stop = steps
    key = jax.random.fold_in(jax.random.key(seed), _TRAINING)

    def gradient(params, model_state, batch, key):
        return jax.value_and_grad(task.loss, has_aux=True)(params, model_state, batch, key, True)

    def update(state, step_and_items):
        step, items = step_and_items
        (loss, (model_state, metrics)), grads = _accumulated(
            gradient, state, jax.random.fold_in(key, step), items, source.fetch, accumulate
        )
        updates, opt_state = transform.update(
            grads, state.opt_state, state.params, value=loss, grad=grads
        )
        watch = _observe(state.watch, loss, step, divergence)
        alive = ~watch.diverged
        trained = optax.apply_updates(state.params, updates), model_state, opt_state
        record = Record(
            jnp.where(alive, loss, jnp.nan),
            jax.tree.map(lambda metric: jnp.where(alive, metric, jnp.nan), metrics),
            *_told(opt_state),
        )
        return _where(step < stop, State(*_freeze(alive, trained, state[:3]), watch), state), record

    items = source.chunk(start * accumulate, length * accumulate)
    items = jax.tree.map(lambda a: a.reshape(length, accumulate, *a.shape[1:]), items)
    return jax.lax.scan(update, state, (start + jnp.arange(length), items))


# Folded into a lane's key, so that its updates do not draw what its initialization drew.
_TRAINING, _EVALUATION = 1, 2


def _accumulated(gradient, state, key, items, fetch, accumulate):
    """The means over the batches of one update."""
    if accumulate == 1:
        batch = fetch(jax.tree.map(lambda item: item[0], items))
        return gradient(state.params, state.model_state, batch, key)

    def one(model_state, numbered):
        k, item = numbered
        (loss, (model_state, metrics)), grads = gradient(
            state.params, model_state, fetch(item), jax.random.fold_in(key, k)
        )
        return model_state, (loss, metrics, grads)

    model_state, stacked = jax.lax.scan(one, state.model_state, (jnp.arange(accumulate), items))
    loss, metrics, grads = jax.tree.map(lambda array: jnp.mean(array, 0), stacked)
    return (loss, (model_state, metrics)), grads


KEEP = 0.9  # of the running average, at every update
SETTLED = 10  # updates after which the losses' noise is known


def _observe(watch: Watch, loss: jax.Array, step: jax.Array, divergence: float | None) -> Watch:
    """Note a loss, and whether it means divergence.

    A lane diverges when its loss is not finite, or the mean of its last two losses rises above
    its best running average by more than `divergence` times what the loss has dropped so far
    plus how much it changes from step to step: the scale and the sign of the loss play no part.
    """
    loss = loss.astype(watch.average.dtype)
    first = jnp.where(step == 0, loss, watch.first)
    # The average of a short history, corrected for its start as in Adam.
    weight = (1 - KEEP) / (1 - KEEP ** (step.astype(loss.dtype) + 1))
    average = watch.average + weight * (loss - watch.average)
    best = jnp.where(step == 0, loss, jnp.minimum(watch.best, average))
    variation = watch.variation + jnp.where(step == 0, 0, jnp.abs(loss - watch.last))
    diverged = watch.diverged | ~jnp.isfinite(loss)
    if divergence is not None:
        # The mean change so far; without the last one, which may be the blow-up itself, once
        # there are enough others.
        settled = step >= SETTLED
        changes = jnp.maximum(jnp.where(settled, step - 1, step), 1).astype(loss.dtype)
        noise = jnp.where(settled, watch.variation, variation) / changes
        # Of two losses, because one batch may be an odd one.
        rise, drop = (watch.last + loss) / 2 - best, first - best
        diverged |= (step > 0) & (rise > divergence * (drop + noise))
    return Watch(average, best, first, loss, variation, diverged)


def _told(opt_state: Any) -> tuple[jax.Array, jax.Array]:
    """The learning rate and the momentum that an optimizer tells, else NaN."""
    told = get_hyperparams(opt_state) if any(injected_states(opt_state)) else {}
    nan = jnp.full((), jnp.nan)
    momentum = told.get("momentum", told.get("b1", nan))
    return told.get("learning_rate", nan), momentum


def _freeze(alive: jax.Array, new: Any, old: Any) -> Any:
    """The new values of a lane that is alive; of a diverged one the old.

    But for integers: counters run on, so that every lane's schedule is told to the end.
    """

    def choose(new, old):
        if jnp.issubdtype(old.dtype, jnp.integer):
            return new
        return jnp.where(alive, jnp.asarray(new, old.dtype), old)

    return jax.tree.map(choose, new, old)


def _where(condition, new, old):
    return jax.tree.map(functools.partial(jnp.where, condition), new, old)


def _evaluate(state: State, seed, groups: Sequence[Group], *, task: Task) -> tuple[Any, Any]:
    """The mean loss and metrics over all samples, NaN for a lane that has diverged."""
    key = jax.random.fold_in(jax.random.key(seed), _EVALUATION)

    def one(_, batch):
        loss, (_, metrics) = task.loss(state.params, state.model_state, batch, key, False)
        return None, (loss, metrics)

    total = sum(group.weight * len(jax.tree.leaves(group.batches)[0]) for group in groups)
    sums = [
        jax.tree.map(
            lambda array, weight=group.weight: jnp.sum(array, 0) * (weight / total),
            jax.lax.scan(one, None, group.batches)[1],
        )
        for group in groups
    ]
    mean = jax.tree.map(lambda *parts: sum(parts), *sums)
    return jax.tree.map(lambda value: jnp.where(state.watch.diverged, jnp.nan, value), mean)


# Many runs: the same, batched from outside, one program for all values of one shape.


@functools.partial(jax.jit, static_argnames="task")
def _init_lanes(hyperparams, seeds, optimizer, initial, *, task):
    init = functools.partial(_init, task=task)
    return jax.vmap(init, in_axes=(0, 0, None, None))(hyperparams, seeds, optimizer, initial)


@functools.partial(
    jax.jit,
    static_argnames=("task", "length", "divergence", "accumulate"),
    donate_argnames="states",
)
def _train_lanes(hyperparams, seeds, states, optimizer, source, steps, **static):
    train = jax.vmap(functools.partial(_train, **static), in_axes=(0, 0, 0, None, None, None))
    return train(hyperparams, seeds, states, optimizer, source, steps)


@functools.partial(jax.jit, static_argnames="task")
def _evaluate_lanes(states, seeds, groups, *, task):
    evaluate = functools.partial(_evaluate, task=task)
    return jax.vmap(evaluate, in_axes=(0, 0, None))(states, seeds, groups)


def sweep(
    task: Task,
    batches: ArrayBatches | Iterable[Any],
    optimizer: Callable[..., optax.GradientTransformation],
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
        >>> lanes = {"learning_rate": [0.01, 0.1], "momentum": [0.0, 0.9]}
        >>> sweep(task(loss, jnp.zeros(())), batches, sgd, steps=20, lanes=lanes)
        Curves(learning_rate: 2, momentum: 2, seed: 1; 20 steps, 0 evaluations, 0 of 4 lanes diverged)
    """
    steps = _checks.integer("steps", steps, minimum=1)
    accumulate = _checks.integer("accumulate", accumulate, minimum=1)
    if divergence is not None:
        divergence = float(_checks.number("divergence", divergence, above=0))
    grid = make_lanes(lanes, seeds)
    check_optimizer(optimizer, list(grid.hyperparams))
    if not isinstance(optimizer, Ramped):
        optimizer = jax.tree_util.Partial(optimizer)
    groups = () if eval_batches is None else evaluation_groups(eval_batches)
    spans, length = _spans(steps, bool(groups), eval_every, chunk_steps)
    sample, read = reader(batches, steps * accumulate)
    _check_task(task, optimizer, grid, initial, sample)

    runs = grid.hyperparams, grid.seeds
    states = _init_lanes(*runs, optimizer, initial, task=task)
    records, evaluations = [], []
    with progress_bar(steps, len(grid), enabled=progress) as report:
        for start, stop, evaluated in spans:
            count = stop - start
            states, record = _train_lanes(
                *runs,
                states,
                optimizer,
                read(count * accumulate, length * accumulate),
                (start, stop),
                task=task,
                length=length,
                divergence=divergence,
                accumulate=accumulate,
            )
            records.append(jax.tree.map(lambda array: np.asarray(array)[:, :count], record))
            if evaluated:
                evaluations.append(_evaluate_lanes(states, grid.seeds, groups, task=task))
            diverged = np.asarray(states.watch.diverged)
            report(stop, records[-1].loss, diverged)
            if diverged.all():
                break
    return _curves(grid, steps, records, [stop for _, stop, done in spans if done], evaluations)


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


def _check_task(task: Task, optimizer: Callable, grid: Lanes, initial: Any, sample: Any) -> None:
    """Refuse before any training what the shapes alone tell."""
    if not isinstance(task, Task):
        raise TypeError(f"task must be a Task, got {task!r}.")
    if initial is not None and (not isinstance(initial, tuple) or len(initial) not in (2, 3)):
        raise TypeError(
            "initial must be (params, model_state) or (params, model_state, opt_state), "
            f"got {initial!r}."
        )
    hyperparams = {name: values[0] for name, values in grid.hyperparams.items()}
    init = functools.partial(_init, task=task)
    state = jax.eval_shape(init, hyperparams, grid.seeds[0], optimizer, initial)
    key = jax.eval_shape(jax.random.key, 0)
    loss_fn = functools.partial(task.loss, train=True)
    loss, (_, metrics) = jax.eval_shape(loss_fn, state.params, state.model_state, sample, key)
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


RAMPS = {"exponential": exponential_ramp, "linear": linear_ramp}


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["rates", "momentums"],
    meta_fields=["optimizer", "ramp", "steps", "momentum_name"],
)
@dataclass(frozen=True)
class Ramped:
    """An optimizer whose learning rate, and perhaps momentum, follows a ramp.

    The ramp's ends are data, so that another range compiles nothing.
    """

    optimizer: Callable[..., optax.GradientTransformation]
    ramp: str
    steps: int
    rates: tuple[float, float]
    momentums: tuple[float, float] | None
    momentum_name: str

    def __call__(self, **hyperparams: Any) -> optax.GradientTransformation:
        """The lane's optimizer."""
        hyperparams["learning_rate"] = RAMPS[self.ramp](*self.rates, self.steps)
        if self.momentums is not None:
            hyperparams[self.momentum_name] = linear_ramp(*self.momentums, self.steps)
        return self.optimizer(**hyperparams)

    @property
    def __signature__(self) -> inspect.Signature:
        """What is left for the lanes to set."""
        signature = inspect.signature(self.optimizer)
        taken = {"learning_rate", self.momentum_name if self.momentums else None}
        left = [p for p in signature.parameters.values() if p.name not in taken]
        return signature.replace(parameters=left)


def range_test(
    task: Task,
    batches: ArrayBatches | Iterable[Any],
    optimizer: Callable[..., optax.GradientTransformation] = sgd,
    *,
    start: float = 1e-6,
    end: float = 10.0,
    steps: int = 100,
    ramp: str = "exponential",
    momentum: tuple[float, float] | None = None,
    **options: Any,
) -> Curves:
    """Smith's learning-rate range test: a sweep in which the rate rises at every update.

    Args:
        task: what is trained.
        batches: as in `sweep`.
        optimizer: as in `sweep`; its `learning_rate` is set by the ramp.
        start: the first update's rate.
        end: the last update's rate.
        steps: updates of every lane.
        ramp: `"exponential"` or `"linear"`.
        momentum: `(high, low)` for a momentum (of Adam: `b1`) that falls linearly as the rate
            rises, which steadies large rates.
        **options: all other arguments of `sweep`: `lanes`, `seeds`, `eval_batches`, …

    Returns:
        The curves; `suggest` reads learning rates from them, `plot_curves` draws them.

    Raises:
        ValueError: as `sweep`, and for `start >= end` or an unknown ramp.
        TypeError: as `sweep`.

    Example:
        >>> from lrjax import array_batches, range_test, task
        >>> def loss(params, x):
        ...     return jnp.mean((x - params) ** 2)
        >>> batches = array_batches(jnp.ones(64), 16)
        >>> curves = range_test(task(loss, jnp.zeros(())), batches, seeds=2)
        >>> curves.loss.shape, bool(curves.diverged.all())
        ((2, 100), True)

    References:
        Smith, Cyclical Learning Rates for Training Neural Networks, 2015, arXiv 1506.01186.
        Smith, A disciplined approach to neural network hyper-parameters, 2018,
        arXiv 1803.09820.
    """
    _checks.one_of("ramp", ramp, tuple(RAMPS))
    steps = _checks.integer("steps", steps, minimum=1)
    rates = float(_checks.number("start", start)), float(_checks.number("end", end))
    if rates[0] >= rates[1]:
        raise ValueError(f"start must be less than end, {end!r}, got {start!r}.")
    rate = RAMPS[ramp](*rates, steps)
    if momentum is not None:
        high, low = momentum
        momentum = float(_checks.number("momentum", high)), float(_checks.number("momentum", low))
    accepted = inspect.signature(_checks.function("optimizer", optimizer)).parameters
    name = "b1" if "b1" in accepted and "momentum" not in accepted else "momentum"
    ramped = Ramped(optimizer, ramp, steps, rates, momentum, name)
    curves = sweep(task, batches, ramped, steps=steps, **options)
    # The ramp is known to its end even where every lane diverged before, or the optimizer
    # does not tell.
    known = {"learning_rate": np.asarray(rate(np.arange(steps)))}
    if momentum is not None:
        known["momentum"] = np.asarray(linear_ramp(*momentum, steps)(np.arange(steps)))
    return dataclasses.replace(curves, **known)
