"""Any Optax factory, with its hyperparameters in the state."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeAlias, get_args, get_origin

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from lrjax import _checks
from lrjax.schedules import Schedule
from lrjax.transforms.hyperparams import NUMBERS, injected_states, is_injected, numeric

__all__ = ["inject"]

Hyperparam: TypeAlias = ArrayLike | Schedule
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
    random keys, functions that are no schedules (a mask), and integers where the factory's
    signature asks for an integer.

    Hyperparameters are float32 whatever the parameters are, so that `b2=0.999` is not rounded
    to 1 beside bfloat16; the optimizer's own state and its updates keep their types.

    Args:
        factory: a function that returns a gradient transformation. One of lrjax's, which
            injects already, is called as it is.
        **hyperparams: the factory's arguments, by name.

    Returns:
        A gradient transformation, whose state is Optax's `InjectStatefulHyperparamsState`.

    Raises:
        TypeError: if the factory is none, or does not take such an argument; for a schedule
            that `jit` cannot trace.
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
        if not _wants_function(name, parameter) and is_schedule(name, value):
            schedules[name] = value
        elif _is_hyperparameter(value, parameter):
            values[name] = _checks.number(name, value)
        else:
            fixed[name] = value
    injection = Injection(factory, schedules, values, fixed)
    if _returns_injected(injection):
        return factory(**hyperparams)
    return Transform(partial(_init, injection), partial(_update, injection))


def with_schedules(factory: Callable, **hyperparams: Any) -> Any:
    """What a factory makes of schedules; of one that asks for numbers, `inject` of it.

    Example:
        >>> fall = optax.linear_schedule(1.0, 0.0, 4)
        >>> optimizer = with_schedules(optax.adam, learning_rate=fall, b1=fall)
        >>> type(optimizer.init(jnp.zeros(3))).__name__
        'InjectStatefulHyperparamsState'
    """
    injected = partial(inject, factory, **hyperparams)
    try:
        plain = factory(**hyperparams)
    except TypeError:
        return injected()
    if not _is_transform(plain):
        return injected()
    if _injects(plain):
        return plain
    either = Either(plain, injected)
    return Transform(partial(_init_either, either), partial(_update_either, either))


class Either(NamedTuple):
    """What a factory makes of schedules, and what makes the same by `inject`."""

    plain: Any
    injected: Callable[[], Transform]


def _init_either(either: Either, params: Any) -> Any:
    return (either.plain if _can_update(either.plain, params) else either.injected()).init(params)


def _update_either(either: Either, updates: Any, state: Any, params: Any = None, **extra_args: Any):
    # As `init` chose; whether the factory injects, too, is not told by the state.
    by_injection = is_injected(state) and not _can_update(either.plain, updates)
    chosen = either.injected() if by_injection else optax.with_extra_args_support(either.plain)
    return chosen.update(updates, state, params, **extra_args)


def _can_update(transform: Any, params: Any) -> bool:
    """Told from shapes alone."""
    transform = optax.with_extra_args_support(transform)

    def update(params):
        value = jnp.zeros(())
        return transform.update(params, transform.init(params), params, value=value, grad=params)

    try:
        jax.eval_shape(update, params)
    except TypeError:
        return False
    return True


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
    transform = optax.with_extra_args_support(_build(injection, hyperparams))
    # Computed in the hyperparameters' type and stored in its own: Optax is not made for float32
    # hyperparameters beside bfloat16. It also mixes its counters with floats.
    with jax.numpy_dtype_promotion("standard"):
        new_updates, inner_state = transform.update(
            *_widen((updates, state.inner_state, params)), **extra_args
        )
        new_updates = _cast_updates(new_updates, updates, params)
    return new_updates, optax.InjectStatefulHyperparamsState(
        count=optax.safe_increment(state.count),
        hyperparams=hyperparams,
        hyperparams_states=state.hyperparams_states,
        inner_state=cast_like(inner_state, state.inner_state),
    )


def _build(injection: Injection, hyperparams: dict[str, jax.Array]) -> Any:
    return injection.factory(**injection.fixed, **hyperparams)


def _returns_injected(injection: Injection) -> bool:
    """Whether the factory returns what `inject` does."""
    answers = []

    def ask():
        hyperparams = _initial(injection)
        try:
            built = _build(injection, hyperparams)
        except jax.errors.JAXTypeError as error:
            raise _checks.KindError(
                f"factory must take traced values of {', '.join(hyperparams)}, got "
                f"{injection.factory!r}, which asks what one is: fix that with "
                "functools.partial(factory, name=value)."
            ) from error
        if not _is_transform(built):
            raise _checks.KindError(
                f"factory must return a gradient transformation, got {built!r}."
            )
        answers.append(_injects(built))

    jax.eval_shape(ask)  # from shapes alone: nothing runs on a device before `init`
    return answers[0]


def _is_transform(value: Any) -> bool:
    return hasattr(value, "init") and hasattr(value, "update")


def _injects(transform: Any) -> bool:
    return getattr(getattr(transform.update, "func", None), "injects", False)


def _initial(injection: Injection) -> dict[str, jax.Array]:
    constants = {name: as_hyperparameter(value) for name, value in injection.values.items()}
    return constants | _scheduled(injection, jnp.zeros((), jnp.int32))


def _scheduled(injection: Injection, count: jax.Array) -> dict[str, jax.Array]:
    return {
        name: as_hyperparameter(schedule(count)) for name, schedule in injection.schedules.items()
    }


def _widen(tree: Any) -> Any:
    """The same tree with no float narrower than a hyperparameter."""

    def widen(leaf):
        array = jnp.asarray(leaf)
        if not jnp.issubdtype(array.dtype, jnp.inexact):
            return leaf
        return array.astype(_wider(array.dtype, jnp.result_type(float)))

    return jax.tree.map(widen, tree)


def _wider(one: Any, other: Any) -> Any:
    """Their promoted type; that of the other beside an 8-bit float, which JAX does not promote."""
    return other if one.itemsize == 1 else jnp.promote_types(one, other)


def _cast_updates(new: Any, grads: Any, params: Any) -> Any:
    """Updates of the gradients' types, or the parameters' where these have more digits."""
    if jax.tree.structure(params) != jax.tree.structure(grads):  # type: ignore[operator]
        return cast_like(new, grads)

    def cast(update, grad, param):
        one, other = jnp.asarray(grad).dtype, jnp.asarray(param).dtype
        return jnp.asarray(update, one if one == other else _wider(one, other))

    return jax.tree.map(cast, new, grads, params)


def hyperparameter(name: str, value: Hyperparam, **bounds: float) -> Hyperparam:
    """A number, an array or a schedule, and nothing else; numbers within some bounds."""
    if not callable(value):
        return numeric(name, value, **bounds)
    answer = _answer(name, value)
    if not _is_number(answer):
        raise _checks.KindError(
            f"{name} must be a number, an array or a schedule, got {value!r}."
        ) from (answer if isinstance(answer, Exception) else None)
    return value


def is_zero(value: Hyperparam) -> bool:
    """Whether this is the number 0, which leaves out what it would multiply; an array stays."""
    return isinstance(value, int | float | np.number) and value == 0


def is_schedule(name: str, value: Any) -> bool:
    """Whether this is a function that gives a real number for a count, which a mask does not."""
    return callable(value) and _is_number(_answer(name, value))


def _answer(name: str, value: Callable) -> Any:
    """The shape of what a function gives for a count, or the exception that it raises."""
    if isinstance(value, type):  # a dtype, not a schedule
        return None
    try:
        return jax.eval_shape(value, jax.ShapeDtypeStruct((), jnp.int32))
    except jax.errors.JAXTypeError as error:
        raise _checks.KindError(
            f"{name} must be a function that jit can trace, got {value!r}."
        ) from error
    except Exception as error:  # whatever a function of something else makes of an integer
        return error


def _is_number(answer: Any) -> bool:
    return isinstance(answer, jax.ShapeDtypeStruct) and jnp.issubdtype(answer.dtype, jnp.number)


def _is_hyperparameter(value: Any, parameter: inspect.Parameter | None) -> bool:
    if not isinstance(value, NUMBERS):
        return False
    dtype = jnp.result_type(value)
    if jnp.issubdtype(dtype, jnp.floating):
        return True
    counted = parameter is not None and (
        type(parameter.default) is int or _is_integer(parameter.annotation)
    )
    return jnp.issubdtype(dtype, jnp.integer) and jnp.ndim(value) == 0 and not counted


def _wants_function(name: str, parameter: inspect.Parameter | None) -> bool:
    """Whether an argument is a function itself: a mask, whose answer may look like a number."""
    annotation = None if parameter is None else parameter.annotation
    return name.endswith("mask") or get_origin(annotation) is Callable


def _is_integer(annotation: Any) -> bool:
    """Whether a signature asks for an integer, or for one among other things, but for no float."""
    kinds = get_args(annotation)
    written = annotation in (int, "int", "int | None", "Optional[int]")
    return written or (int in kinds and float not in kinds)


def as_hyperparameter(value: ArrayLike) -> jax.Array:
    """A copy in float32 (under x64 float64): a donated state must not take the caller's array."""
    return jnp.array(value, jnp.result_type(float))


def cast_like(tree: Any, like: Any) -> Any:
    """A tree with the types of another."""
    return jax.tree.map(lambda new, old: jnp.asarray(new, jnp.asarray(old).dtype), tree, like)
