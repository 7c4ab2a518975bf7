"""One training run, as pure functions that know of no other run; `vmap` makes lanes of them."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from lrjax import _checks, convolutions
from lrjax._dtypes import cast_like, wider
from lrjax.batches.evaluations import Group
from lrjax.batches.readers import Loaded, Rows
from lrjax.meshes import DATA, on_one_cpu, sharding
from lrjax.sweeps import divergences, starts
from lrjax.sweeps.ramps import Ramped
from lrjax.tasks import Metrics, Task
from lrjax.transforms import get_hyperparams
from lrjax.transforms.arguments import accepted
from lrjax.transforms.hyperparams import injected_states, is_injected
from lrjax.transforms.plateaus import plateau_scales

Optimizer = Callable[..., optax.GradientTransformation]
Hyperparams = dict[str, jax.Array]


class Program(NamedTuple):
    """What is compiled into the program of a run, rather than given to it."""

    task: Task
    length: int  # the most updates of a call
    divergence: float | None
    accumulate: int
    mesh: Mesh | None = None  # of which an axis `data` splits every batch
    version: str = ""  # of the task and the optimizer: a changed one compiles anew

    @property
    def in_turn(self) -> bool:
        """Whether the lanes of a block run one after another, instead of as one."""
        rewritten = isinstance(self.task.loss, convolutions.Rewritten)
        return rewritten and on_one_cpu(self.mesh)


class State(NamedTuple):
    """What a run carries from update to update."""

    params: Any
    model_state: Any
    opt_state: Any
    watch: divergences.Watch


class Record(NamedTuple):
    """What a run reports of one update."""

    loss: jax.Array
    metrics: Metrics
    learning_rate: jax.Array
    momentum: jax.Array


def lane_key(seed: jax.Array) -> jax.Array:
    """The key of all random numbers of a run.

    Not of JAX's default kind, which may be `rbg`: what a lane draws of that depends, under `vmap`,
    on the lanes beside it.
    """
    return jax.random.key(seed, impl="threefry2x32")


def init(
    hyperparams: Hyperparams, seed: jax.Array, optimizer: Optimizer, initial: Any, task: Task
) -> State:
    """The state of a run before its first update."""
    start = initial or task.init(lane_key(seed))
    if not isinstance(start, tuple) or len(start) < 2:
        raise _checks.KindError(f"task.init must return (params, model_state), got {start!r}.")
    params, model_state, *opt_state = start
    starts.check_trainable(params)
    fresh = optimizer(**hyperparams).init(params)
    if opt_state:
        fresh = starts.with_initial(fresh, opt_state[0])
    state = State(params, model_state, fresh, divergences.start())
    # Strongly typed, as what training makes of it, so that both have one program.
    return cast_like(state, state)


# Folded into a run's key, so that neither draws what the initialization drew. Large, because the
# first of them are what `split` gives: `split(key, 3)[2]` is `fold_in(key, 2)`.
TRAINING, EVALUATION = 0x7472_6169, 0x6576_616C


def train(
    hyperparams: Hyperparams,
    seed: jax.Array,
    state: State,
    optimizer: Optimizer,
    source: Rows | Loaded,
    span: tuple[jax.Array, jax.Array],
    program: Program,
) -> tuple[State, Record]:
    """Run the updates from `span[0]` to `span[1]`; the records after them are NaN."""
    start, stop = span
    transform = optimizer(**hyperparams)
    key = jax.random.fold_in(lane_key(seed), TRAINING)

    def update(state, k):
        step = start + k
        given = state, source, k, jax.random.fold_in(key, step)
        loss, model_state, metrics, grads = _mean_gradient(program, *given)
        # By the names under which Optax's own ask for them; line searches ask for a function. It
        # is a pytree, because an update may be jitted.
        value_fn = jax.tree_util.Partial(functools.partial(_mean_loss, program), *given)
        known = {"value": loss, "grad": grads, "value_fn": value_fn}
        updates, opt_state = transform.update(
            grads, state.opt_state, state.params, **accepted(transform, known)
        )
        params = optax.apply_updates(state.params, updates)
        watch = divergences.observe(state.watch, loss, step, program.divergence)
        loss, metrics = _measured(~watch.diverged, (loss, metrics))
        rate, momentum = _used(opt_state, optimizer, step)
        new = State(params, model_state, opt_state, watch)
        return _advance(new, state), Record(loss, metrics, rate, momentum)

    def update_and_record(k, carry):
        state, rows = carry
        state, record = update(state, k)
        return state, jax.tree.map(lambda row, value: row.at[k].set(value), rows, record)

    _, record = jax.eval_shape(update, state, jnp.int32(0))
    rows = jax.tree.map(lambda value: jnp.full(program.length, jnp.nan, value.dtype), record)
    # Not a scan, whose length is part of the program: the last, shorter dispatch would need one
    # of its own, or a selection of new or old for all parameters at every step.
    return jax.lax.fori_loop(0, stop - start, update_and_record, (state, rows))


def _mean_loss(
    program: Program, state: State, source: Rows | Loaded, k: jax.Array, key: jax.Array, params: Any
) -> jax.Array:
    """The mean loss over the batches of update k, with the same random numbers, at any `params`."""

    def add(carry, part):
        model_state, total = carry
        batch, part_key = _batch(program, source, k, part), jax.random.fold_in(key, part)
        loss, (changed, _) = program.task.loss(params, model_state, batch, part_key, True)
        return (cast_like(changed, model_state), total + jnp.asarray(loss, total.dtype)), None

    parts, total = jnp.arange(program.accumulate), jnp.zeros(())
    (_, total), _ = jax.lax.scan(add, (state.model_state, total), parts)
    return total / program.accumulate


def _batch(program: Program, source: Rows | Loaded, k: jax.Array, part: jax.Array) -> Any:
    """A batch of update k."""
    return _spread(source.fetch(k * program.accumulate + part), program.mesh)


def _mean_gradient(program: Program, state: State, source: Rows | Loaded, k: jax.Array, key):
    """The means over the batches of update k: loss, model state, metrics and gradient."""
    gradient = jax.value_and_grad(program.task.loss, has_aux=True)

    def one(model_state, part):
        batch = _batch(program, source, k, part)
        (loss, (model_state, metrics)), grads = gradient(
            state.params, model_state, batch, jax.random.fold_in(key, part), True
        )
        # Of complex parameters JAX gives the conjugate of the direction in which the loss rises.
        grads = jax.tree.map(jnp.conj, grads)
        return model_state, jax.tree.map(jnp.asarray, (loss, metrics, grads))

    def add(carry, part):
        model_state, total = carry
        changed, new = one(model_state, part)
        # Summed on the way: all gradients at once would not fit where one large batch does not.
        total = jax.tree.map(lambda sum, term: sum + jnp.asarray(term, sum.dtype), total, new)
        return (cast_like(changed, model_state), total), None

    if program.accumulate == 1:
        model_state, means = one(state.model_state, 0)
    else:
        shapes = jax.eval_shape(one, state.model_state, 0)[1]
        total = jax.tree.map(lambda shape: jnp.zeros(shape.shape, wider(shape.dtype)), shapes)
        parts = jnp.arange(program.accumulate)
        (model_state, total), _ = jax.lax.scan(add, (state.model_state, total), parts)
        means = jax.tree.map(lambda array: array / program.accumulate, total)
    loss, metrics, grads = means
    return loss, model_state, metrics, cast_like(grads, state.params)


def _spread(batch: Any, mesh: Mesh | None) -> Any:
    """The batch, split over the devices that share it."""
    if mesh is None or DATA not in mesh.axis_names:
        return batch
    # The mesh as it is within `shard_map`: what follows would not go with the one around it.
    within = sharding(jax.sharding.get_abstract_mesh(), DATA)

    def split(array):
        if not array.ndim or array.shape[0] % mesh.shape[DATA]:
            return array
        return jax.lax.with_sharding_constraint(array, within)

    return jax.tree.map(split, batch)


def _used(opt_state: Any, optimizer: Optimizer, step: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The learning rate and the momentum of the last update; NaN where the optimizer tells none.

    A range test knows them all the same, by the count of the optimizer's own schedules: under
    `optax.MultiSteps` they do not count every step. Plateaus scale whatever rate there is.
    """
    used = {}
    if isinstance(optimizer, Ramped):
        count = _last_count(opt_state, step)
        used = {name: schedule(count) for name, schedule in optimizer.schedules().items()}
    if any(injected_states(opt_state)):
        used |= get_hyperparams(opt_state)
    nan = jnp.full((), jnp.nan)
    scale = math.prod(plateau_scales(opt_state), start=jnp.ones(()))
    return scale * used.get("learning_rate", nan), used.get("momentum", used.get("b1", nan))


def _last_count(opt_state: Any, step: jax.Array) -> jax.Array:
    """The count at which the last update's schedules were read; the step, if none is counted."""

    def counts(state):
        return is_injected(state) or isinstance(state, optax.ScaleByScheduleState)

    counted = filter(counts, jax.tree.leaves(opt_state, is_leaf=counts))
    return next((jnp.maximum(state.count - 1, 0) for state in counted), step)


def _advance(new: State, old: State) -> State:
    """The new state; of a diverged run the old parameters and model state.

    Its optimizer goes on, so that every run's schedules are reported to the end; what becomes of
    its moments does not matter any more, and to keep them would cost every other run time.
    """
    new = cast_like(new, old)
    kept = functools.partial(jnp.where, new.watch.diverged)
    params, model_state = jax.tree.map(kept, old[:2], new[:2])
    return new._replace(params=params, model_state=model_state)


def _measured(alive: jax.Array, tree: tuple[Any, Any]) -> tuple[Any, Any]:
    """A loss and metrics as floats; NaN of a run that has diverged."""

    def one(value):
        return jnp.where(alive, jnp.asarray(value, jnp.result_type(float)), jnp.nan)

    return jax.tree.map(one, tree)


def evaluate(
    state: State, seed: jax.Array, groups: Sequence[Group], program: Program
) -> tuple[jax.Array, Metrics]:
    """The mean loss and metrics over all samples, NaN for a run that has diverged."""
    key = jax.random.fold_in(lane_key(seed), EVALUATION)

    def widened(value):
        array = jnp.asarray(value)
        return array.astype(wider(array.dtype))

    def one(_, batch):
        batch = _spread(batch, program.mesh)
        loss, (_, metrics) = program.task.loss(state.params, state.model_state, batch, key, False)
        # Before they are summed, for which a narrow type has too few digits.
        return None, jax.tree.map(widened, (loss, metrics))

    total = sum(group.weight * len(jax.tree.leaves(group.batches)[0]) for group in groups)
    sums = [
        jax.tree.map(
            lambda array, weight=group.weight: jnp.sum(array, 0) * (weight / total),
            jax.lax.scan(one, None, group.batches)[1],
        )
        for group in groups
    ]
    return _measured(~state.watch.diverged, jax.tree.map(lambda *parts: sum(parts), *sums))
