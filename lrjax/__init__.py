"""Learning-rate schedules, range tests and hyperparameter sweeps for JAX."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0.dev0"

if TYPE_CHECKING:
    from lrjax._everything import *


def __getattr__(name: str) -> Any:
    """A module or a public name, loaded at its first use, so that `lrjax --help` is quick."""
    module = f"{__name__}.{name}"
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
    everything = vars(importlib.import_module("lrjax._everything"))
    if name not in everything:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return everything[name]


def __dir__() -> list[str]:
    return [*globals(), *__getattr__("__all__")]
