"""Learning-rate schedules, range tests and hyperparameter sweeps for JAX."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from lrjax._everything import *


def __getattr__(name: str) -> Any:
    """A public name, all of which are loaded at the first use, so that `lrjax --help` is quick."""
    if importlib.util.find_spec(f"{__name__}.{name}"):
        # Only this module: the whole package may be half-loaded here.
        return importlib.import_module(f"{__name__}.{name}")
    everything = importlib.import_module("lrjax._everything")
    # Afterwards they are found without this function.
    globals().update({key: value for key, value in vars(everything).items() if key[0] != "_"})
    if name == "__all__":
        return everything.__all__
    if name not in globals():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return globals()[name]


def __dir__() -> list[str]:
    return [*globals(), *__getattr__("__all__")]
