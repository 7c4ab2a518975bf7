"""Functions as arguments of compiled programs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from typing import Any


def comparable(function: Callable) -> Callable:
    """The function; a `functools.partial` so that it equals another one of the same parts.

    By itself it equals nothing but itself, and every new one would compile a program of its own.

    Example:
        >>> from lrjax import sgd
        >>> def make():
        ...     return comparable(functools.partial(sgd, momentum=0.9))
        >>> make() == make(), hash(make()) == hash(make())
        (True, True)
    """
    parts = _parts(function)
    is_partial = isinstance(function, functools.partial)
    return Comparable(function, parts) if is_partial and _is_hashable(parts) else function


class Comparable:
    """A function that is compared by its parts."""

    def __init__(self, function: Callable, parts: Hashable) -> None:
        self.__wrapped__, self.parts = function, parts  # as `inspect` looks for it

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the function returns."""
        return self.__wrapped__(*args, **kwargs)

    def __eq__(self, other: object) -> bool:
        """Whether the parts are the same."""
        return isinstance(other, Comparable) and self.parts == other.parts

    def __hash__(self) -> int:
        """The hash of the parts."""
        return hash(self.parts)


def _parts(value: Any) -> Any:
    """A value with its type, for 1 equals True; of a partial its function and arguments."""
    if not isinstance(value, functools.partial):
        return type(value), value
    keywords = ((name, _parts(value.keywords[name])) for name in sorted(value.keywords))
    return type(value), _parts(value.func), tuple(map(_parts, value.args)), tuple(keywords)


def _is_hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True
