"""What `MODULE:NAME` on the command line stands for."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from lrjax.tasks import Task
from lrjax.transforms import sgd


class Problem(NamedTuple):
    """A task with its data, and what to train it with."""

    task: Task
    batches: Any
    eval_batches: Any = None
    optimizer: Any = sgd


def load_problem(name: str) -> Problem:
    """The task that `MODULE:NAME` names, with what its module holds next to it.

    Args:
        name: of a module, looked up in the current folder first, and in it of a `Task`, or of a
            function without arguments that returns a dict with the fields of a `Problem`.

    Returns:
        The task and its data.

    Raises:
        ValueError: if there is no such module or name, or no data.
        TypeError: for something else than a task or such a function.
    """
    module_name, _, attribute = name.partition(":")
    attribute = attribute or "task"
    module = _module(module_name)
    if not hasattr(module, attribute):
        tasks = [key for key, value in vars(module).items() if isinstance(value, Task)]
        raise ValueError(
            f"task must name something in the module {module_name!r}, which has no "
            f"{attribute!r}; its tasks are: {', '.join(tasks) or 'none'}."
        )
    found = getattr(module, attribute)
    if isinstance(found, Task):
        fields = {key: vars(module)[key] for key in Problem._fields if key in vars(module)}
        fields["task"] = found
    else:
        fields = found() if callable(found) and _takes_nothing(found) else found
        if not isinstance(fields, Mapping) or not isinstance(fields.get("task"), Task):
            raise TypeError(
                f"{name} must be a Task, or a function without arguments that returns a dict with "
                f"one as its 'task', got {fields!r}."
            )
        unknown = set(fields) - set(Problem._fields)
        if unknown:
            raise ValueError(
                f"{name} must return a dict of {', '.join(Problem._fields)}, "
                f"got {', '.join(sorted(unknown))} too."
            )
    if "batches" not in fields:
        raise ValueError(f"{name} must come with data to train on: 'batches' next to the task.")
    return Problem(**fields)


def _takes_nothing(function: Callable) -> bool:
    try:
        inspect.signature(function).bind()
    except TypeError:
        return False
    return True


def _module(name: str) -> Any:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # something that the module itself imports
        hint = " (a module's name, without .py)" if name.endswith(".py") else ""
        raise ValueError(
            f"task must name a module, as MODULE:NAME, got {name!r}, which is neither here nor "
            f"installed{hint}."
        ) from None
