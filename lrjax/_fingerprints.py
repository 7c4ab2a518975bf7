"""Fingerprints: short texts that tell whether two values are the same."""

from __future__ import annotations

import dataclasses
import dis
import functools
import hashlib
import inspect
import itertools
import sys
import sysconfig
import types
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from numbers import Number
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from lrjax._dtypes import is_key


def fingerprint(value: Any, *, largest: float = np.inf) -> str:
    """A short text that is the same for the same value, in every process and every run.

    Arrays count by shape, dtype and bytes; containers, dataclasses and other objects by type
    and what they hold, dicts in their order; functions by name, code, defaults, what they close
    over and the globals that they name. Of those globals, functions, classes, dataclasses, arrays
    and immutable values count; so do lists, dicts and sets of such values that a function does no
    more with than to iterate over them or to take their items. Of others, of modules and of other
    objects, which may be caches, only what is read by a constant name counts, as `config["width"]`
    or `args.width`. What is installed counts by its name, what cannot be looked into by its type.

    Args:
        value: pytrees of arrays, plain values and functions, or anything else.
        largest: arrays of more bytes count by shape and dtype alone.

    Returns:
        16 hexadecimal digits.

    Example:
        >>> fingerprint((1, "a")) == fingerprint((1, "a")) != fingerprint((1, "b"))
        True
    """
    return _digest(value, {}, largest).hex()[:16]


def _digest(
    value: Any, seen: dict[int, tuple[Any, bytes]], largest: float, depth: int = 0
) -> bytes:
    """The hash of a value's type, its own data, and the hashes of its parts."""
    if id(value) not in seen:
        # For a value that refers to itself, as a recursive function does.
        seen[id(value)] = (value, b"at depth %d" % depth)
        try:
            own, parts = _looked_into(value, largest) if depth < DEEPEST else (b"", ())
        except Exception:  # of a deleted array, an attribute that was never set, a tracer, …
            own, parts = b"", ()
        digest = hashlib.sha256(_name(type(value)).encode() + b"\0" + own)
        for part in parts:
            digest.update(_digest(part, seen, largest, depth + 1))
        seen[id(value)] = (value, digest.digest())
    return seen[id(value)][1]


DEEPEST = 200  # far below Python's limit of recursion


def _looked_into(value: Any, largest: float) -> tuple[bytes, Sequence[Any]]:
    """A value's own data, and its parts."""
    match value:
        case None | bool() | int() | float() | complex() | str() | bytes() | bytearray():
            return repr(value).encode(), ()
        case slice() | range() | PurePath() | Number():
            return repr(value).encode(), ()
        case np.ndarray() | np.generic() | jax.Array():
            return _array_data(value, largest), ()
        case Mapping():
            return b"", [part for item in value.items() for part in item]
        case list() | tuple():
            return b"", value
        case set() | frozenset():
            # In an order that is the same in every process.
            seen = {id(value): (value, b"")}
            return b"".join(sorted(_digest(part, dict(seen), largest) for part in value)), ()
        case functools.partial():
            return b"", (value.func, value.args, value.keywords)
        case types.FunctionType():
            cells = [_content(cell) for cell in value.__closure__ or ()]
            parts = (value.__code__, value.__defaults__, value.__kwdefaults__, cells)
            return _name(value).encode(), (*parts, *_globals(value))
        case types.CodeType():
            arguments = value.co_varnames[: value.co_argcount + value.co_kwonlyargcount]
            return value.co_code, (value.co_consts, value.co_names, arguments)
        case types.MethodType():
            return b"", (value.__func__, value.__self__)
        case type():
            return _name(value).encode(), _members(value) if _is_own(value) else ()
        case types.ModuleType() | types.BuiltinFunctionType() | np.ufunc():
            return _name(value).encode(), ()
        case np.dtype():
            return str(value).encode(), ()
        case _ if dataclasses.is_dataclass(value):
            held = [getattr(value, field.name, None) for field in dataclasses.fields(value)]
            return b"", (type(value), *held)
        case _ if hasattr(value, "__wrapped__"):  # as of jax.jit
            return b"", (value.__wrapped__,)
    slots = [name for cls in type(value).__mro__ for name in getattr(cls, "__slots__", ())]
    held = [getattr(value, name, None) for name in slots]
    return b"", (type(value), getattr(value, "__dict__", None), held)


CONSTANTS = (
    *(bool, int, float, complex, str, bytes, tuple, frozenset, slice, range),
    *(np.ndarray, np.generic, jax.Array, Enum, Number, PurePath, functools.partial),
)


def _globals(function: types.FunctionType) -> list[Any]:
    """The globals that a function names, with what it reads in them, of those that count."""
    if not _is_own(function):
        return []
    found = (
        value
        for path in sorted(_paths(function.__code__), key=repr)
        for value in _along(function.__globals__, path)
    )
    tables = (function.__globals__.get(name) for name in sorted(_tables(function.__code__)))
    parts = [part for value in found for part in _relevant(value)]
    return parts + [table for table in tables if _is_constant(table)]


class Read(NamedTuple):
    """One read on the way to a value: of an attribute, or of an item under a constant key."""

    key: Any
    is_item: bool


@functools.lru_cache(maxsize=1024)
def _paths(code: types.CodeType) -> frozenset[tuple[Read, ...]]:
    """What code reads by constant names, as `config.model["width"]`, from the globals on.

    Not what it writes as well, which is not a constant: a counter, or what is kept for later.
    """
    steps = list(dis.get_instructions(code))
    written = {step.argval for step in steps if step.opname in ("STORE_GLOBAL", "STORE_ATTR")}
    items = not any(step.opname == "STORE_SUBSCR" for step in steps)
    inner = (const for const in code.co_consts if isinstance(const, types.CodeType))
    found = (
        _path(steps[k:], written, items)
        for k, step in enumerate(steps)
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME") and step.argval not in written
    )
    return frozenset(found).union(*map(_paths, inner))


def _path(steps: list[dis.Instruction], written: set[str], items: bool) -> tuple[Read, ...]:
    """The global that is loaded first, and the attributes and items that are read of it."""
    path, following = [Read(steps[0].argval, is_item=True)], itertools.pairwise(steps[1:])
    for step, after in following:
        if step.opname in ATTRIBUTE and step.argval not in written:
            path.append(Read(step.argval, is_item=False))
        elif items and step.opname in CONSTANT and _takes_item(after):
            path.append(Read(step.argval, is_item=True))
            next(following, None)  # the taking itself
        else:
            break
    return tuple(path)


CONSTANT = ("LOAD_CONST", "LOAD_SMALL_INT")


def _takes_item(step: dis.Instruction) -> bool:
    return step.opname == "BINARY_SUBSCR" or step.argrepr == "[]"


def _along(values: dict[str, Any], path: tuple[Read, ...]) -> Iterator[Any]:
    """What is found at every key of a path, up to one that is missing; nothing of it runs."""
    value: Any = values
    for key, is_item in path:
        if is_item and not isinstance(value, Mapping | list | tuple):
            return
        try:
            value = value[key] if is_item else _attribute(value, key)
        except Exception:  # there is no such key, yet
            return
        value = value.fget if isinstance(value, property) else value
        yield value


def _attribute(value: Any, key: str) -> Any:
    """An attribute, also of an object that keeps them in a dict, as ml_collections.ConfigDict."""
    try:
        return inspect.getattr_static(value, key)
    except AttributeError:
        kept = (held for held in vars(value).values() if type(held) is dict and key in held)
        return next(kept)[key]


@functools.lru_cache(maxsize=1024)
def _tables(code: types.CodeType) -> frozenset[str]:
    """The globals that code only iterates over, or takes items of under keys that are no constants.

    Nothing else in it may name them: a cache or a history is also asked, written or handed on.
    """
    uses = list(_uses(code))
    others = {name for name, is_read in uses if not is_read}
    read = {name for name, is_read in uses if name and is_read}
    return frozenset() if None in others else frozenset(read - others)


def _uses(code: types.CodeType) -> Iterator[tuple[str | None, bool]]:
    """The globals that code names, and whether to read; without a name where it writes items."""
    steps = list(dis.get_instructions(code))
    for k, step in enumerate(steps):
        following = steps[k + 1 : k + 4]
        if step.opname in ("STORE_SUBSCR", "DELETE_SUBSCR", "STORE_SLICE"):
            yield None, False
        elif step.opname in ("LOAD_GLOBAL", "LOAD_NAME") and not _takes(following, CONSTANT):
            yield step.argval, _reads(following)
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            yield from _uses(const)


def _reads(following: list[dis.Instruction]) -> bool:
    """Whether what was loaded is iterated over, or an item of it is taken."""
    if following[0].opname in ATTRIBUTE:
        return following[0].argval in ("items", "keys", "values")
    return following[0].opname == "GET_ITER" or _takes(following, VARIABLE)


def _takes(following: list[dis.Instruction], keys: tuple[str, ...]) -> bool:
    """Whether an item is taken under such a key, and no attribute of that."""
    key, *then = following
    return key.opname in keys and _takes_item(then[0]) and then[1].opname not in ATTRIBUTE


ATTRIBUTE = ("LOAD_ATTR", "LOAD_METHOD")
VARIABLE = ("LOAD_FAST", "LOAD_FAST_BORROW", "LOAD_DEREF", "LOAD_GLOBAL", "LOAD_NAME")
MOST_ENTRIES, MOST_LEVELS = 1000, 10  # of what is taken for constants, and not for data


def _is_constant(table: Any) -> bool:
    """Whether this is a list, a dict or a set of values that are constants."""
    if type(table) not in (dict, list, set):
        return False
    entries = list(itertools.islice(_entries(table), MOST_ENTRIES + 1))
    known = all(entry is None or isinstance(entry, CONSTANTS) for entry in entries)
    return known and len(entries) <= MOST_ENTRIES


def _entries(value: Any, levels: int = MOST_LEVELS) -> Iterator[Any]:
    """What a container holds, at any level; of anything else, the value itself."""
    if type(value) not in (dict, list, set, tuple) or not levels:
        yield value
        return
    for entry in value.values() if isinstance(value, dict) else value:
        yield from _entries(entry, levels - 1)


def _relevant(value: Any) -> list[Any]:
    """What counts of a global, if anything."""
    own = callable(value) and _is_own(inspect.unwrap(value))
    if own or isinstance(value, CONSTANTS) or dataclasses.is_dataclass(value):
        return [value]
    return [_name(value)] if callable(value) else []


def _members(cls: type) -> list[Any]:
    """What is written in a class, and in those that it is made from."""
    named = sorted(vars(cls).items())
    constants = [
        item for item in named if isinstance(item[1], CONSTANTS) and not item[0].startswith("__")
    ]
    functions = [
        inspect.unwrap(getattr(member, "__func__", getattr(member, "fget", member)))
        for _, member in named
    ]
    written = [
        function
        for function in functions
        # Not what a dataclass makes up.
        if isinstance(function, types.FunctionType) and function.__code__.co_filename != "<string>"
    ]
    return [*constants, *written, *(base for base in cls.__mro__[1:] if _is_own(base))]


LIBRARIES = {"site-packages", "dist-packages"}


def _is_own(value: Any) -> bool:
    """Whether a function or a class is the user's, and not installed."""
    module = sys.modules.get(getattr(value, "__module__", None) or "")
    if module is None or module.__name__.partition(".")[0] == __name__.partition(".")[0]:
        return False
    path = Path(getattr(module, "__file__", None) or "notebook")
    return LIBRARIES.isdisjoint(path.parts) and not path.is_relative_to(STANDARD)


STANDARD = sysconfig.get_paths()["stdlib"]


def _name(value: Any) -> str:
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", "")
    return f"{getattr(value, '__module__', '')}.{name}"


def _content(cell: Any) -> Any:
    """What a variable of an enclosing function holds, which may be nothing yet."""
    try:
        return cell.cell_contents
    except ValueError:
        return None


def _array_data(array: Any, largest: float) -> bytes:
    """A hash, so that no copy of a large data set is kept."""
    dtype = str(array.dtype)
    if array.nbytes > largest:
        return f"{dtype}{array.shape}".encode()
    if isinstance(array, jax.Array):
        if is_key(array):
            array = jax.random.key_data(array)
        if not array.is_fully_addressable:
            array = multihost_utils.process_allgather(array, tiled=True)
    array = np.ascontiguousarray(array)
    if array.dtype.hasobject:
        return dtype.encode() + repr(array.tolist()).encode()
    digest = hashlib.sha256(f"{dtype}{array.shape}".encode())
    digest.update(array.reshape(-1).view(np.uint8))
    return digest.digest()
