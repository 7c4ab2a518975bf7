"""A command line for any schedule, from its signature."""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Callable
from typing import Any

from lrjax import _checks, schedules

KINDS: dict[str, dict[str, Any]] = {
    "int": {"type": int},
    "float": {"type": float},
    "ArrayLike": {"type": float},
    "str": {"type": str},
    "Shape": {"type": str},
    "bool": {"action": argparse.BooleanOptionalAction},
    "Sequence[int]": {"type": int, "nargs": "+"},
    "Sequence[ArrayLike]": {"type": float, "nargs": "+"},
}


def schedule_names() -> list[str]:
    """The schedules that numbers alone make; the others take schedules or functions."""
    factories = {name: getattr(schedules, name) for name in schedules.__all__}
    return [
        name
        for name, factory in factories.items()
        if inspect.isfunction(factory) and all(map(_has_kind, _required(factory)))
    ]


def schedule_factory(name: str) -> Callable:
    """The factory of that name."""
    return getattr(schedules, _checks.one_of("schedule", name, schedule_names()))


def add_parameters(parser: argparse.ArgumentParser, factory: Callable) -> list[str]:
    """Add an option for every parameter that can be given as text; returns their names."""
    described = _parameter_help(factory)
    taken = list(filter(_has_kind, inspect.signature(factory).parameters.values()))
    for parameter in taken:
        required = parameter.default is parameter.empty
        known = "" if required or parameter.default is None else f" (default: {parameter.default})"
        parser.add_argument(
            f"--{parameter.name.replace('_', '-')}",
            required=required,
            default=None if required else parameter.default,
            help=(described.get(parameter.name, "") + known).replace("%", "%%"),
            **KINDS[_annotation(parameter)],
        )
    return [parameter.name for parameter in taken]


def _required(factory: Callable) -> list[inspect.Parameter]:
    taken = inspect.signature(factory).parameters.values()
    return [parameter for parameter in taken if parameter.default is parameter.empty]


def _annotation(parameter: inspect.Parameter) -> str:
    return str(parameter.annotation).removesuffix(" | None")


def _has_kind(parameter: inspect.Parameter) -> bool:
    return parameter.kind is not parameter.VAR_POSITIONAL and _annotation(parameter) in KINDS


def _parameter_help(factory: Callable) -> dict[str, str]:
    """What the docstring says of every parameter."""
    arguments = re.search(r"Args:\n(.*?)\n\n", inspect.getdoc(factory) or "", re.DOTALL)
    found = re.findall(r"^    (\w+): (.*(?:\n     .*)*)", arguments[1] if arguments else "", re.M)
    return {name: " ".join(text.split()) for name, text in found}
