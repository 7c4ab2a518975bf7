"""What a factory takes: numbers, arrays and schedules, or anything else."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeAlias, get_args, get_origin

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from lrjax import _checks
from lrjax.schedules import Schedule

Hyperparam: TypeAlias = ArrayLike | Schedule
NUMBERS = int | float | np.number | np.ndarray | jax.Array


def numeric(name: str, value: Any, **bounds: float) -> Any:
    """A finite number or an array of them, and no list, which would be a tree."""
    if not isinstance(value, NUMBERS):
        raise _checks.KindError(f"{name} must be a number or an array, got {value!r}.")
    return _checks.number(name, value, **bounds)


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


def is_hyperparameter(value: Any, parameter: inspect.Parameter | None) -> bool:
    """Whether this is a float, an array of floats, or an integer where none is asked for."""
    if not isinstance(value, NUMBERS):
        return False
    dtype = jnp.result_type(value)
    if jnp.issubdtype(dtype, jnp.floating):
        return True
    counted = parameter is not None and (
        type(parameter.default) is int or _is_integer(parameter.annotation)
    )
    return jnp.issubdtype(dtype, jnp.integer) and jnp.ndim(value) == 0 and not counted


def wants_function(name: str, parameter: inspect.Parameter | None) -> bool:
    """Whether an argument is a function itself: a mask, whose answer may look like a number."""
    annotation = None if parameter is None else parameter.annotation
    return name.endswith("mask") or get_origin(annotation) is Callable


def _is_integer(annotation: Any) -> bool:
    """Whether a signature asks for an integer, or for one among other things, but for no float."""
    kinds = get_args(annotation)
    written = annotation in (int, "int", "int | None", "Optional[int]")
    return written or (int in kinds and float not in kinds)


def accepted(transform: Any, extra_args: dict[str, Any]) -> dict[str, Any]:
    """The extra arguments that a transform's update takes: all, those that it names, or none."""
    if not isinstance(transform, optax.GradientTransformationExtraArgs):
        return {}
    parameters = inspect.signature(transform.update).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return extra_args
    names = {parameter.name for parameter in parameters}
    return {name: value for name, value in extra_args.items() if name in names}
