"""What sweeps and recipes must know of the functions that make their lanes' optimizers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from lrjax import _checks


def check_optimizer(optimizer: Callable, names: Iterable[str], setter: str = "lanes") -> None:
    """An optimizer must take every hyperparameter that is set."""
    for name in names:
        if not takes(optimizer, name):
            raise ValueError(
                f"{setter} must set hyperparameters that the optimizer takes, "
                f"{', '.join(_parameters(optimizer))}, got {name!r}."
            )


def takes(optimizer: Callable, name: str) -> bool:
    """Whether an optimizer takes a hyperparameter."""
    parameters = _parameters(optimizer)
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return takes_any or name in parameters


def check_complete(optimizer: Callable, names: Collection[str]) -> None:
    """An optimizer must need no hyperparameter beyond those that lanes set."""
    for name, parameter in _parameters(optimizer).items():
        named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        if named and parameter.default is parameter.empty and name not in names:
            raise _checks.KindError(
                f"lanes must set {name}, which the optimizer has no default for, got {list(names)}."
            )


def momentum_name(optimizer: Callable) -> str:
    """What an optimizer calls its momentum: Adam's is `b1`."""
    accepted = _parameters(optimizer)
    return "b1" if "b1" in accepted and "momentum" not in accepted else "momentum"


def _parameters(optimizer: Any) -> Mapping[str, inspect.Parameter]:
    if not callable(optimizer):
        raise _checks.KindError(
            "optimizer must be a function that makes an optimizer from hyperparameters, such as "
            f"lrjax.sgd or optax.adam itself, got {optimizer!r}."
        )
    return inspect.signature(optimizer).parameters
