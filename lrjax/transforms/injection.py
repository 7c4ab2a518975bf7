"""Any Optax factory, with its hyperparameters in the state."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from lrjax import _checks
from lrjax._dtypes import as_hyperparameter, cast_like, cast_updates, widen_floats
from lrjax.schedules import Schedule
from lrjax.transforms.arguments import accepted, is_hyperparameter, is_schedule, wants_function
from lrjax.transforms.hyperparams import injected_states

__all__ = ["inject"]

Transform: TypeAlias = optax.GradientTransformationExtraArgs


class Injection(NamedTuple):
    """A factory and its arguments, sorted by what `inject` does with them."""

    factory: Callable[..., optax.GradientTransformation]
    schedules: dict[str, Schedule]  # evaluated at every update
    values: dict[str, ArrayLike]  # of the first update; then the state's count
    fixed: dict[str, Any]  # handed to the factory as they are


def inject(factory: Callable[..., optax.GradientTransformation], **hyperparams: Any) -> Transform:
    """Any Optax factory, with hyperparameters that follow schedules and can be read back.

    A number, an array of floats or a schedule becomes a hyperparameter of the state: read it
    with `get_hyperparams`. Everything else goes to the factory as it is: flags, types, None,
    random keys, functions that are not schedules (a mask), and integers where the factory's
    signature asks for an integer. An argument that is not given keeps the factory's default, and
    is not in the state: to read `b1` back, give it.

    Hyperparameters are float32 whatever the parameters are, so that `b2=0.999` is not rounded
    to 1 beside bfloat16; the optimizer's own state and its updates keep their types.

    Args:
        factory: a function that returns a gradient transformation. One of lrjax's, which
            injects already, is called as it is.
        **hyperparams: the factory's arguments, by name.

    Returns:
        A gradient transformation, whose state is Optax's `InjectStatefulHyperparamsState`.

    Raises:
        TypeError: if the factory is not a function, or does not take such an argument; for a
            schedule that `jit` cannot trace.
        ValueError: for a hyperparameter that is not finite; at `init`, if the factory hides an
            injected transform inside another.

    Example:
        >>> import optax
        >>> from lrjax import get_hyperparams, linear_decay
        >>> optimizer = inject(optax.adam, learning_rate=linear_decay(1.0, 4), b1=0.9)
        >>> state = optimizer.init(jnp.zeros(3))
        >>> for _ in range(2):
        ...     _, state = optimizer.update(jnp.ones(3), state)
        >>> {name: round(float(value), 2) for name, value in get_hyperparams(state).items()}
        {'b1': 0.9, 'learning_rate': 0.75}
    """
    signature = inspect.signature(_checks.function("factory", factory))
    signature.bind_partial(**hyperparams)  # an unknown argument is told before a missing one
    signature.bind(**hyperparams)
    schedules, values, fixed = {}, {}, {}
    for name, value in hyperparams.items():
        parameter = signature.parameters.get(name)
        if not wants_function(name, parameter) and is_schedule(name, value):
            schedules[name] = value
        elif is_hyperparameter(value, parameter):
            values[name] = _checks.number(name, value)
        else:
            fixed[name] = value
    injection = Injection(factory, schedules, values, fixed)
    if _injects(injection):
        return factory(**hyperparams)
    return Transform(partial(_init, injection), partial(_update, injection))


def _init(injection: Injection, params: Any) -> optax.InjectStatefulHyperparamsState:
    hyperparams = _initial(injection)
    inner_state = _build(injection, hyperparams).init(params)
    if any(injected_states(inner_state)):
        raise ValueError(
            "factory must not wrap an injected transform, whose hyperparameters would stay at "
            f"their first values, got {injection.factory!r}. Use Optax's own transforms inside."
        )
    return optax.InjectStatefulHyperparamsState(
        count=jnp.zeros((), jnp.int32),
        hyperparams=hyperparams,
        # Names without leaves: which hyperparameters are scheduled is known statically.
        hyperparams_states=dict.fromkeys(injection.schedules, ()),
        inner_state=inner_state,
    )


def injects(update: Callable) -> Callable:
    """Mark an update whose state holds hyperparameters as that of `inject` does."""
    update.injects = True  # type: ignore[attr-defined]
    return update


@injects
def _update(injection: Injection, updates: Any, state: Any, params: Any = None, **extra_args: Any):
    hyperparams = state.hyperparams | _scheduled(injection, state.count)
    transform = _build(injection, hyperparams)
    # Computed in the hyperparameters' type and stored in its own: Optax is not made for float32
    # hyperparameters beside bfloat16. It also mixes its counters with floats.
    with jax.numpy_dtype_promotion("standard"):
        new_updates, inner_state = transform.update(
            *widen_floats((updates, state.inner_state, params)),
            **accepted(transform, extra_args),
        )
        new_updates = cast_updates(new_updates, updates, params)
    return new_updates, optax.InjectStatefulHyperparamsState(
        count=optax.safe_increment(state.count),
        hyperparams=hyperparams,
        hyperparams_states=state.hyperparams_states,
        inner_state=cast_like(inner_state, state.inner_state),
    )


def _build(injection: Injection, hyperparams: dict[str, jax.Array]) -> Any:
    return injection.factory(**injection.fixed, **hyperparams)


def _injects(injection: Injection) -> bool:
    """Whether the factory injects by itself; raises where it makes no transform."""
    answers = []

    def ask():
        hyperparams = _initial(injection)
        try:
            built = _build(injection, hyperparams)
        except jax.errors.JAXTypeError as error:
            raise _checks.KindError(
                f"factory must not branch on the values of {', '.join(hyperparams)}, which are "
                f"traced, got {injection.factory!r}. Bind such a number beforehand: "
                "functools.partial(factory, name=value)."
            ) from error
        if not is_transform(built):
            raise _checks.KindError(
                f"factory must return a gradient transformation, got {built!r}."
            )
        answers.append(is_injecting(built))

    jax.eval_shape(ask)  # from shapes alone: nothing runs on a device before `init`
    return answers[0]


def is_transform(value: Any) -> bool:
    return hasattr(value, "init") and hasattr(value, "update")


def is_injecting(transform: Any) -> bool:
    return getattr(getattr(transform.update, "func", None), "injects", False)


def _initial(injection: Injection) -> dict[str, jax.Array]:
    constants = {name: as_hyperparameter(value) for name, value in injection.values.items()}
    return constants | _scheduled(injection, jnp.zeros((), jnp.int32))


def _scheduled(injection: Injection, count: jax.Array) -> dict[str, jax.Array]:
    return {
        name: as_hyperparameter(schedule(count)) for name, schedule in injection.schedules.items()
    }
