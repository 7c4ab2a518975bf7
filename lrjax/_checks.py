"""Checks of arguments: each returns its value or says what was expected and what was given."""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Iterable, Mapping, Set
from typing import Any, TypeVar

import jax
import numpy as np

MAX_COUNT = 2**31 - 1

T = TypeVar("T")


class KindError(TypeError, ValueError):
    """An argument of the wrong type: a `TypeError` and a `ValueError`, like NumPy's `AxisError`."""


def integer(name: str, value: Any, *, minimum: int = 0) -> int:
    """A Python int of at least `minimum` that fits a step counter."""
    try:
        number = None if isinstance(value, (bool, np.bool_)) else operator.index(value)
    except TypeError:
        number = None
    if number is None:
        raise KindError(f"{name} must be an integer, got {value!r}.")
    if not minimum <= number <= MAX_COUNT:
        raise ValueError(f"{name} must be an integer from {minimum} to 2**31-1, got {value!r}.")
    return number


def number(
    name: str,
    value: T,
    *,
    above: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
) -> T:
    """A finite real number or an array of them; a traced value passes unseen."""
    if isinstance(value, jax.core.Tracer):
        return value
    array = np.asarray(value)
    if (
        array.dtype == bool
        or not jax.numpy.issubdtype(array.dtype, np.number)
        or np.iscomplexobj(array)
    ):
        raise KindError(f"{name} must be a real number, got {value!r}.")
    array = array.astype(np.float64)
    bounds = [
        ("finite", np.isfinite(array)),
        (f"above {above}", above is None or array > above),
        (f"at least {at_least}", at_least is None or array >= at_least),
        (f"at most {at_most}", at_most is None or array <= at_most),
        (f"below {below}", below is None or array < below),
    ]
    for expected, holds in bounds:
        if not np.all(holds):
            raise ValueError(f"{name} must be {expected}, got {value!r}.")
    return value


def static(name: str, value: Any, **bounds: float | None) -> Any:
    """One finite real number that shapes the computation, so that it cannot be traced."""
    if isinstance(value, jax.core.Tracer) or np.ndim(value):
        raise KindError(f"{name} must be a Python number, got {value!r}.")
    return np.asarray(number(name, value, **bounds)).item()


def flag(name: str, value: T) -> T:
    """True or False, and nothing that merely counts as one."""
    if not isinstance(value, (bool, np.bool_)):
        raise KindError(f"{name} must be True or False, got {value!r}.")
    return value


def sequence(name: str, value: Iterable[T], *, fewest: int = 0) -> tuple[T, ...]:
    """Some values in order, which those of a dict or a set are not, as a tuple."""
    if isinstance(value, str | Mapping | Set) or not np.iterable(value):
        raise KindError(f"{name} must be a sequence, got {value!r}.")
    values = tuple(value)
    if len(values) < fewest:
        raise ValueError(f"{name} must be at least {fewest} long, got {value!r}.")
    return values


def each(
    name: str, values: Iterable[Any], check: Callable[..., T], *, fewest: int = 0, **bounds: Any
) -> tuple[T, ...]:
    """Some values in order, each of which is checked under its number."""
    listed = sequence(name, values, fewest=fewest)
    return tuple(check(f"{name}[{k}]", value, **bounds) for k, value in enumerate(listed))


def different(name: str, values: Iterable[T], given: Any) -> None:
    """Values of which no two are equal; `given` is what they were made from."""
    listed = list(values)
    if len(set(listed)) < len(listed):
        raise ValueError(f"{name} must be different, got {given!r}.")


def optional(name: str, value: Any, check: Callable[..., T], **bounds: Any) -> T | None:
    """None, or a value that is checked."""
    return None if value is None else check(name, value, **bounds)


def one_of(name: str, value: T, options: Collection[T]) -> T:
    """One of a few names."""
    if not isinstance(value, str) or value not in options:
        listed = ", ".join(repr(option) for option in options) or "(there are none)"
        error = ValueError if isinstance(value, str) else KindError
        raise error(f"{name} must be one of {listed}, got {value!r}.")
    return value


def instance(name: str, value: T, kind: type, described: str) -> T:
    """A value of a class; `described` says which one, and perhaps where it comes from."""
    if not isinstance(value, kind):
        raise KindError(f"{name} must be {described}, got {value!r:.200}.")
    return value


def function(name: str, value: T) -> T:
    """Something that can be called."""
    if not callable(value):
        raise KindError(f"{name} must be a function, got {value!r}.")
    return value


def iterable(name: str, value: T) -> T:
    """Something to iterate over, checked without starting to iterate."""
    able = isinstance(value, Iterable) or hasattr(value, "__getitem__")
    if not able or isinstance(value, str | Mapping):
        raise KindError(f"{name} must be an iterable of batches, got {value!r}.")
    return value
