"""Optimizers in which every hyperparameter can follow a schedule and can be read back."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from lrjax import _checks
from lrjax.schedules import (
    Schedule,
    exp_range,
    onecycle,
    onecycle_momentum,
    triangular,
    triangular2,
)

__all__ = [
    "adamw",
    "cyclical_sgd",
    "get_hyperparams",
    "inject",
    "onecycle_adamw",
    "onecycle_sgd",
    "sgd",
]

Hyperparam = ArrayLike | Schedule
Transform = optax.GradientTransformationExtraArgs


def inject(factory: Callable[..., optax.GradientTransformation], **hyperparams: Any) -> Transform:
    """Any Optax factory, with hyperparameters that follow schedules and can be read back.

    A number, an array or a schedule becomes a hyperparameter of the state: read it with
    `get_hyperparams`. Everything else goes to the factory as it is: flags, None, functions
    that are no schedules (a mask), and integers where the factory's default is an integer.

    Hyperparameters are float32 whatever the parameters are, so that `b2=0.999` is not rounded
    to 1 beside bfloat16; the optimizer's own state and its updates keep their types.

    Args:
        factory: a function that returns a gradient transformation.
        **hyperparams: the factory's arguments, by name.

    Returns:
        A gradient transformation, whose state is Optax's `InjectStatefulHyperparamsState`.

    Raises:
        TypeError: if the factory does not take such an argument.
        ValueError: for a hyperparameter that is not finite.

    Example:
        >>> import optax
        >>> from lrjax import linear_decay
        >>> optimizer = inject(optax.adam, learning_rate=linear_decay(1.0, 4), b1=0.9)
        >>> state = optimizer.init(jnp.zeros(3))
        >>> for _ in range(2):
        ...     _, state = optimizer.update(jnp.ones(3), state)
        >>> {name: round(float(value), 2) for name, value in get_hyperparams(state).items()}
        {'b1': 0.9, 'learning_rate': 0.75}
    """
    signature = inspect.signature(factory)
    signature.bind(**hyperparams)
    schedules, values, fixed = {}, {}, {}
    for name, value in hyperparams.items():
        if callable(value):
            (schedules if _is_schedule(value) else fixed)[name] = value
        elif _is_hyperparameter(value, signature.parameters.get(name)):
            values[name] = _checks.number(name, value)
        else:
            fixed[name] = value

    def scheduled(count):
        return {name: _as_hyperparameter(schedule(count)) for name, schedule in schedules.items()}

    def transform(hyperparams):
        return optax.with_extra_args_support(factory(**fixed, **hyperparams))

    def init_fn(params):
        count = jnp.zeros((), jnp.int32)
        constants = {name: _as_hyperparameter(value) for name, value in values.items()}
        hyperparams = scheduled(count) | constants
        return optax.InjectStatefulHyperparamsState(
            count=count,
            hyperparams=hyperparams,
            # Names without leaves: which hyperparameters are scheduled is known statically.
            hyperparams_states={name: () for name in schedules},
            inner_state=transform(hyperparams).init(params),
        )

    def update_fn(updates, state, params=None, **extra_args):
        hyperparams = state.hyperparams | scheduled(state.count)
        new_updates, inner_state = transform(hyperparams).update(
            updates, state.inner_state, params, **extra_args
        )
        return _cast_like(new_updates, updates), optax.InjectStatefulHyperparamsState(
            count=optax.safe_increment(state.count),
            hyperparams=hyperparams,
            hyperparams_states=state.hyperparams_states,
            inner_state=_cast_like(inner_state, state.inner_state),
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _is_schedule(function: Callable) -> bool:
    """Whether a function gives a real number for a count, which a mask does not."""
    try:
        value = jax.eval_shape(function, jax.ShapeDtypeStruct((), jnp.int32))
    except Exception:  # whatever a function of something else makes of an integer
        return False
    return isinstance(value, jax.ShapeDtypeStruct) and jnp.issubdtype(value.dtype, jnp.number)


def _is_hyperparameter(value: Any, parameter: inspect.Parameter | None) -> bool:
    numbers = int | float | np.number | np.ndarray | jax.Array
    if isinstance(value, bool) or not isinstance(value, numbers):
        return False
    counts = parameter is not None and type(parameter.default) is int
    return not (counts and isinstance(value, int))


def _as_hyperparameter(value: ArrayLike) -> jax.Array:
    return jnp.asarray(value, jnp.result_type(float))


def _cast_like(tree: Any, like: Any) -> Any:
    return jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), tree, like)


def sgd(
    learning_rate: Hyperparam,
    momentum: Hyperparam = 0.0,
    *,
    nesterov: bool = False,
    weight_decay: Hyperparam = 0.0,
    decoupled: bool = False,
    mask: Any = None,
) -> Transform:
    r"""Stochastic gradient descent with momentum, as in PyTorch and Caffe.

    .. math:: g \leftarrow g + \lambda w, \quad b \leftarrow \mu b + g, \quad
        w \leftarrow w - \eta b

    Args:
        learning_rate: :math:`\eta`, a number, an array or a schedule.
        momentum: :math:`\mu`; the number 0 leaves the buffer out.
        nesterov: whether to step along :math:`g + \mu b`.
        weight_decay: :math:`\lambda`; the number 0 leaves the decay out.
        decoupled: whether the decay passes the momentum by, as in AdamW.
        mask: which parameters decay: a tree of bools, or a function from parameters to one.

    Returns:
        A gradient transformation; `get_hyperparams` reads its hyperparameters.

    Raises:
        ValueError: for a hyperparameter that is not finite.

    Example:
        >>> optimizer = sgd(0.1, 0.9, weight_decay=1e-4)
        >>> sorted(get_hyperparams(optimizer.init(jnp.zeros(3))))
        ['learning_rate', 'momentum', 'weight_decay']
    """
    return inject(
        _sgd,
        learning_rate=learning_rate,
        momentum=_unless_zero(momentum),
        nesterov=nesterov,
        weight_decay=_unless_zero(weight_decay),
        decoupled=decoupled,
        mask=mask,
    )


def _unless_zero(value: Hyperparam) -> Hyperparam | None:
    return None if isinstance(value, int | float) and value == 0 else value


def _sgd(learning_rate, momentum, nesterov, weight_decay, decoupled, mask):
    decay = [] if weight_decay is None else [optax.add_decayed_weights(weight_decay, mask)]
    trace = [] if momentum is None else [optax.trace(momentum, nesterov)]
    steps = trace + decay if decoupled else decay + trace
    return optax.chain(*steps, optax.scale_by_learning_rate(learning_rate))


def adamw(
    learning_rate: Hyperparam,
    b1: Hyperparam = 0.9,
    b2: Hyperparam = 0.999,
    eps: Hyperparam = 1e-8,
    *,
    weight_decay: Hyperparam = 1e-4,
    mask: Any = None,
) -> Transform:
    """Optax's AdamW, with every hyperparameter a number, an array or a schedule.

    Args:
        learning_rate: the step size; it also scales the decay.
        b1: decay of the gradients' average, the momentum of Adam.
        b2: decay of the squared gradients' average.
        eps: added to the denominator.
        weight_decay: decoupled weight decay.
        mask: which parameters decay: a tree of bools, or a function from parameters to one.

    Returns:
        A gradient transformation; `get_hyperparams` reads its hyperparameters.

    Raises:
        ValueError: for a hyperparameter that is not finite.

    Example:
        >>> sorted(get_hyperparams(adamw(1e-3).init(jnp.zeros(3))))
        ['b1', 'b2', 'eps', 'learning_rate', 'weight_decay']

    References:
        Loshchilov & Hutter, Decoupled Weight Decay Regularization, 2017, arXiv 1711.05101.
    """
    return inject(
        optax.adamw,
        learning_rate=learning_rate,
        b1=b1,
        b2=b2,
        eps=eps,
        weight_decay=weight_decay,
        mask=mask,
    )


def cyclical_sgd(
    base_value: ArrayLike,
    peak_value: ArrayLike,
    steps_up: int,
    steps_down: int | None = None,
    *,
    momentum: tuple[ArrayLike, ArrayLike] | Hyperparam = (0.8, 0.9),
    mode: str = "triangular",
    gamma: ArrayLike = 1.0,
    **options: Any,
) -> Transform:
    """SGD with a cyclical rate, and a momentum that falls while the rate rises.

    The conventions are those of PyTorch's `CyclicLR` with `cycle_momentum=True`.

    Args:
        base_value: the smallest rate.
        peak_value: the largest rate.
        steps_up: updates from base to peak.
        steps_down: updates from peak to base; as many as up if not given.
        momentum: the smallest (at the peak) and the largest; or one number or schedule.
        mode: `"triangular"`, `"triangular2"` or `"exp_range"`.
        gamma: factor of the height per update in the mode `"exp_range"`.
        **options: the other arguments of `sgd`: `nesterov`, `weight_decay`, …

    Returns:
        A gradient transformation; `get_hyperparams` reads its hyperparameters.

    Raises:
        ValueError: as `lrjax.cyclical`, and for an unknown mode.

    Example:
        >>> optimizer = cyclical_sgd(0.1, 1.0, 10, weight_decay=1e-4)
        >>> hyperparams = get_hyperparams(optimizer.init(jnp.zeros(3)))
        >>> {name: round(float(value), 4) for name, value in hyperparams.items()}
        {'learning_rate': 0.1, 'momentum': 0.9, 'weight_decay': 0.0001}

    References:
        Smith, Cyclical Learning Rates for Training Neural Networks, 2015, arXiv 1506.01186.
        Smith, A disciplined approach to neural network hyper-parameters, 2018,
        arXiv 1803.09820.
    """
    cycle = _CYCLES[_checks.one_of("mode", mode, tuple(_CYCLES))]
    if mode == "exp_range":
        cycle = functools.partial(cycle, gamma=gamma)
    if isinstance(momentum, tuple):
        smallest, largest = momentum
        momentum = cycle(largest, smallest, steps_up, steps_down)
    return sgd(cycle(base_value, peak_value, steps_up, steps_down), momentum, **options)


_CYCLES = {"triangular": triangular, "triangular2": triangular2, "exp_range": exp_range}


def onecycle_sgd(
    peak_value: ArrayLike,
    total_steps: int,
    *,
    momentum: tuple[ArrayLike, ArrayLike] | Hyperparam = (0.85, 0.95),
    weight_decay: Hyperparam = 0.0,
    nesterov: bool = False,
    decoupled: bool = False,
    mask: Any = None,
    **cycle: Any,
) -> Transform:
    """SGD with a 1cycle rate, and a momentum that falls while the rate rises.

    The conventions are those of PyTorch's `OneCycleLR` with `cycle_momentum=True`.

    Args:
        peak_value: the largest rate.
        total_steps: updates of the whole run.
        momentum: the smallest (at the peak) and the largest; or one number or schedule.
        weight_decay: as in `sgd`.
        nesterov: as in `sgd`.
        decoupled: as in `sgd`.
        mask: as in `sgd`.
        **cycle: the other arguments of `lrjax.onecycle`: `pct_start`, `anneal`, …

    Returns:
        A gradient transformation; `get_hyperparams` reads its hyperparameters.

    Raises:
        ValueError: as `lrjax.onecycle`.

    Example:
        >>> optimizer = onecycle_sgd(1.0, 100)
        >>> hyperparams = get_hyperparams(optimizer.init(jnp.zeros(3)))
        >>> {name: round(float(value), 4) for name, value in hyperparams.items()}
        {'learning_rate': 0.04, 'momentum': 0.95}

    References:
        Smith, A disciplined approach to neural network hyper-parameters, 2018,
        arXiv 1803.09820.
    """
    return sgd(
        onecycle(peak_value, total_steps, **cycle),
        _cycled(momentum, total_steps, **cycle),
        nesterov=nesterov,
        weight_decay=weight_decay,
        decoupled=decoupled,
        mask=mask,
    )


def onecycle_adamw(
    peak_value: ArrayLike,
    total_steps: int,
    *,
    b1: tuple[ArrayLike, ArrayLike] | Hyperparam = (0.85, 0.95),
    b2: Hyperparam = 0.999,
    eps: Hyperparam = 1e-8,
    weight_decay: Hyperparam = 1e-4,
    mask: Any = None,
    **cycle: Any,
) -> Transform:
    """AdamW with a 1cycle rate, and a `b1` that falls while the rate rises.

    Args:
        peak_value: the largest rate.
        total_steps: updates of the whole run.
        b1: the smallest (at the peak) and the largest; or one number or schedule.
        b2: as in `adamw`.
        eps: as in `adamw`.
        weight_decay: as in `adamw`.
        mask: as in `adamw`.
        **cycle: the other arguments of `lrjax.onecycle`: `pct_start`, `anneal`, …

    Returns:
        A gradient transformation; `get_hyperparams` reads its hyperparameters.

    Raises:
        ValueError: as `lrjax.onecycle`.

    Example:
        >>> hyperparams = get_hyperparams(onecycle_adamw(1.0, 100).init(jnp.zeros(3)))
        >>> round(float(hyperparams["b1"]), 4)
        0.95

    References:
        Smith, A disciplined approach to neural network hyper-parameters, 2018,
        arXiv 1803.09820.
    """
    return adamw(
        onecycle(peak_value, total_steps, **cycle),
        _cycled(b1, total_steps, **cycle),
        b2,
        eps,
        weight_decay=weight_decay,
        mask=mask,
    )


def _cycled(momentum, total_steps, *, div_factor=None, final_div_factor=None, **cycle):
    """The momentum's side of a 1cycle, which has no use for the rate's two factors."""
    del div_factor, final_div_factor
    if not isinstance(momentum, tuple):
        return momentum
    smallest, largest = momentum
    return onecycle_momentum(total_steps, base_value=smallest, max_value=largest, **cycle)


def get_hyperparams(opt_state: Any) -> dict[str, jax.Array]:
    """The hyperparameters that the last update used (before the first, those it will use).

    Looks through whatever wraps the injected transform: `chain`, `masked`, `partition`,
    `MultiSteps`, `apply_if_finite`, `vmap`, `jit`. Where several groups hold the same
    hyperparameter, as under `partition`, it is `name/group`.

    Args:
        opt_state: a state of `inject`, or of Optax's `inject_hyperparams`.

    Returns:
        The values by name, in alphabetical order.

    Raises:
        ValueError: if the state holds no hyperparameters.

    Example:
        >>> import optax
        >>> optimizer = optax.chain(optax.clip(1.0), sgd(0.5))
        >>> {name: float(v) for name, v in get_hyperparams(optimizer.init(jnp.zeros(3))).items()}
        {'learning_rate': 0.5}
    """
    hyperparams = {
        "/".join((name, *groups)): value
        for groups, state in injected_states(opt_state)
        for name, value in state.hyperparams.items()
    }
    if not hyperparams:
        raise ValueError(
            "opt_state must hold hyperparameters, got the state of an optimizer that was made "
            "without lrjax.inject or optax.inject_hyperparams."
        )
    return dict(sorted(hyperparams.items()))


_INJECTED = (optax.InjectStatefulHyperparamsState, optax.InjectHyperparamsState)


def is_injected(state: Any) -> bool:
    """Whether this is the state of an injected transform."""
    return isinstance(state, _INJECTED)


def injected_states(opt_state: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every injected state, with the groups that it lies in, outermost first."""
    leaves = jax.tree_util.tree_leaves_with_path(opt_state, is_leaf=is_injected)
    for path, state in leaves:
        if is_injected(state):
            groups = tuple(str(key.key) for key in path if isinstance(key, jax.tree_util.DictKey))
            yield groups, state
            for inner_groups, inner in injected_states(state.inner_state):
                yield (*groups, *inner_groups), inner
