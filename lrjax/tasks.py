"""A training problem as two pure functions, from a plain function, Flax Linen or Flax NNX."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lrjax import _checks

__all__ = ["Task", "linen_task", "nnx_task", "task"]

Metrics = dict[str, jax.Array]


class Task(NamedTuple):
    """A training problem.

    Attributes:
        init: `key -> (params, model_state)`. The model state is what training changes besides
            the parameters, such as the averages of a batch normalization; `{}` for none.
        loss: `(params, model_state, batch, key, train) -> (loss, (model_state, metrics))`, with
            a scalar loss and a dict of scalar metrics.
    """

    init: Callable[[jax.Array], tuple[Any, Any]]
    loss: Callable[[Any, Any, Any, jax.Array, bool], tuple[jax.Array, tuple[Any, Metrics]]]


def task(loss_fn: Callable, init: Any) -> Task:
    """A task from a loss function of parameters and a batch.

    One that draws random numbers, or that changes a state, is a `Task` of its own.

    Args:
        loss_fn: `(params, batch) -> loss`, or `-> (loss, metrics)` with a dict of scalars.
        init: `key -> params`, or the parameters themselves, which may be a module of Equinox,
            filtered by `eqx.is_inexact_array` where it holds more than parameters.

    Returns:
        A task without a model state.

    Raises:
        TypeError: if `loss_fn` is not a function.

    Example:
        >>> def squares(params, batch):
        ...     x, y = batch
        ...     return jnp.mean((x @ params - y) ** 2)
        >>> problem = task(squares, jnp.zeros(3))
        >>> batch = jnp.ones((8, 3)), jnp.ones(8)
        >>> loss, _ = problem.loss(jnp.zeros(3), {}, batch, jax.random.key(0), True)
        >>> float(loss)
        1.0
    """
    _checks.function("loss_fn", loss_fn)

    # A module of Equinox is callable, too, and holds arrays.
    makes = callable(init) and not any(isinstance(x, jax.Array) for x in jax.tree.leaves(init))

    def init_fn(key):
        return (init(key) if makes else init), {}

    def loss(params, model_state, batch, key, train):
        del key, train
        value, metrics = _with_metrics(loss_fn(params, batch))
        return value, (model_state, metrics)

    return Task(init_fn, loss)


def _with_metrics(result: Any) -> tuple[jax.Array, Metrics]:
    """A loss and metrics, from what a loss function returns."""
    loss, metrics = result if isinstance(result, tuple) and len(result) == 2 else (result, {})
    known = isinstance(metrics, dict)
    if not (known and all(isinstance(value, LOSS_TYPES) for value in (loss, *metrics.values()))):
        raise _checks.KindError(
            "loss_fn must return a loss, or (loss, metrics) with a dict of scalars, "
            f"got {result!r}."
        )
    return jnp.asarray(loss), {name: jnp.asarray(value) for name, value in metrics.items()}


LOSS_TYPES = jax.Array | np.ndarray | np.generic | float | int  # or a tracer, a kind of array


def _first(batch: Any) -> Any:
    if not isinstance(batch, tuple | list):
        raise _checks.KindError(
            "inputs must be given, a function from a batch to the module's argument, for a batch "
            f"that is not a tuple, got {type(batch).__name__}."
        )
    return batch[0]


def linen_task(
    module: Any,
    loss_fn: Callable,
    sample_batch: Any,
    *,
    inputs: Callable[[Any], Any] = _first,
    rngs: Sequence[str] = ("dropout",),
    mutable: Sequence[str] = ("batch_stats",),
) -> Task:
    """A task from a Flax Linen module.

    The module is told whether it trains by whichever of these its `__call__` takes: `train`,
    `training`, `is_training`, or, negated, `deterministic` and `use_running_average`.

    Args:
        module: the model.
        loss_fn: `(outputs, batch) -> loss`, or `-> (loss, metrics)` with a dict of scalars.
        sample_batch: a batch, to initialize the parameters with.
        inputs: `batch -> ` the module's argument, or a dict of several of its arguments by their
            names; the batch's first element by default.
        rngs: streams of random numbers that the module draws from.
        mutable: collections of variables that training changes. What a module sows is not kept.

    Returns:
        A task whose model state holds all collections but the parameters.

    Raises:
        TypeError: if `module` is not a `flax.linen.Module` that was made from its class, or
            `loss_fn` is not a function.

    Example:
        >>> from flax import linen as nn
        >>> batch = jnp.ones((8, 3)), jnp.ones((8, 1))
        >>> def squares(outputs, batch):
        ...     return jnp.mean((outputs - batch[1]) ** 2)
        >>> problem = linen_task(nn.Dense(1), squares, batch)
        >>> params, model_state = problem.init(jax.random.key(0))
        >>> params["kernel"].shape
        (3, 1)
    """
    import flax
    from flax import linen as nn

    _checks.instance("module", module, nn.Module, "a flax.linen.Module, made from its class")
    _checks.function("loss_fn", loss_fn)
    _checks.function("inputs", inputs)
    rngs, mutable = _checks.sequence("rngs", rngs), _checks.sequence("mutable", mutable)
    accepted = inspect.signature(type(module).__call__).parameters

    def mode(train: bool) -> dict[str, bool]:
        flags = dict.fromkeys(("train", "training", "is_training"), train)
        flags |= dict.fromkeys(("deterministic", "use_running_average"), not train)
        return {name: flag for name, flag in flags.items() if name in accepted}

    def streams(key):
        return {name: jax.random.fold_in(key, k) for k, name in enumerate(rngs)}

    def arguments(batch):
        given = inputs(batch)
        named = isinstance(given, dict) and given and set(given) <= set(accepted)
        return ((), given) if named else ((given,), {})

    def init(key):
        keys = {"params": key, **streams(key)}
        args, kwargs = arguments(sample_batch)
        variables = module.init(keys, *args, **kwargs, **mode(train=False))
        model_state = {name: tree for name, tree in variables.items() if name != "params"}
        return variables.get("params", {}), model_state

    def loss(params, model_state, batch, key, train):
        variables = {"params": params, **model_state}
        args, kwargs = arguments(batch)
        apply = functools.partial(module.apply, variables, *args, **kwargs, **mode(train))
        if train:
            outputs, changed = apply(rngs=streams(key), mutable=list(mutable))
            kept = {name: tree for name, tree in changed.items() if alike(tree, model_state, name)}
            model_state = {**model_state, **kept}
        else:
            try:
                outputs = apply()
            except flax.errors.InvalidRngError:  # a module that draws in evaluation, too
                outputs = apply(rngs=streams(key))
        value, metrics = _with_metrics(loss_fn(outputs, batch))
        return value, (model_state, metrics)

    def alike(tree, model_state, name):
        """Whether a collection kept its structure; one that was sown grows with every call."""
        known = jax.tree.structure(model_state.get(name))
        return jax.tree.structure(tree) == known  # type: ignore[operator]

    return Task(init, loss)


def nnx_task(make_model: Callable, loss_fn: Callable) -> Task:
    """A task from a Flax NNX model.

    The loss function sees the model in training or in evaluation mode (`model.train()`,
    `model.eval()`), with fresh random numbers at every update. What the model sows is not kept;
    an array that it holds must be an `nnx.Variable`, or marked by `nnx.data`. Where the model
    itself changes a parameter, as `nnx.WeightNorm` does, the change lasts for that call only.

    Args:
        make_model: `nnx.Rngs -> nnx.Module`.
        loss_fn: `(model, batch) -> loss`, or `-> (loss, metrics)` with a dict of scalars.

    Returns:
        A task whose model state holds all variables but parameters and random numbers. For
        `initial`, take both from a model by `_, params, _, model_state = nnx.split(model,
        nnx.Param, nnx.RngState, ...)`.

    Raises:
        TypeError: if `make_model` or `loss_fn` is not a function.

    Example:
        >>> from flax import nnx
        >>> def squares(model, batch):
        ...     return jnp.mean((model(batch[0]) - batch[1]) ** 2)
        >>> problem = nnx_task(lambda rngs: nnx.Linear(3, 1, rngs=rngs), squares)
        >>> params, model_state = problem.init(jax.random.key(0))
        >>> params["kernel"].shape
        (3, 1)
    """
    from flax import nnx

    _checks.function("make_model", make_model)
    _checks.function("loss_fn", loss_fn)
    if isinstance(make_model, nnx.Module):
        raise _checks.KindError(
            f"make_model must be a function `nnx.Rngs -> nnx.Module`, got {make_model!r}."
        )

    def split(model):
        return nnx.split(model, nnx.Param, nnx.RngState, ...)

    graphs = []  # which are no arrays, as the values of a traced function must be

    def random_state():
        graph, _, rng_state, _ = split(make_model(nnx.Rngs(0)))
        graphs.append(graph)
        return rng_state

    rng_shapes = jax.eval_shape(random_state)
    (graph,) = graphs

    def init(key):
        _, params, _, model_state = split(make_model(nnx.Rngs(key)))
        return params, model_state

    def reseeded(key):
        def fresh(k, leaf):
            if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                return jax.random.split(jax.random.fold_in(key, k), leaf.shape)
            return jnp.zeros(leaf.shape, leaf.dtype)

        leaves, structure = jax.tree.flatten(rng_shapes)
        return jax.tree.unflatten(structure, map(fresh, itertools.count(), leaves))

    def loss(params, model_state, batch, key, train):
        # NNX forbids to change a variable that was made outside of the current trace.
        params, model_state = jax.tree.map(lambda leaf: leaf, (params, model_state))
        model = nnx.merge(graph, params, reseeded(key), model_state)
        model.train() if train else model.eval()
        value, metrics = _with_metrics(loss_fn(model, batch))
        nnx.pop(model, nnx.Intermediate)
        return value, (split(model)[3], metrics)

    return Task(init, loss)
