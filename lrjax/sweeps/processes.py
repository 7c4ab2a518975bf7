"""What several processes that run one sweep must do alike, so that none waits for another."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils


def attempt(function: Callable, *args: Any) -> tuple[Any, Exception | None]:
    """What a call gives, or why it does not.

    Example:
        >>> attempt(int, "7"), attempt(int, "seven")[0]
        ((7, None), None)
    """
    try:
        return function(*args), None
    except Exception as error:  # whatever a stream raises; what was computed is kept
        return None, error


def together(function: Callable, *args: Any) -> Any:
    """What a call that reads batches gives; where it fails in one process it does in all.

    Example:
        >>> together(max, 2, 3)
        3
    """
    result, failure = attempt(function, *args)
    if jax.process_count() > 1:
        failed = multihost_utils.process_allgather(np.bool_(failure is not None))
        if failure is None and failed.any():
            raise RuntimeError(
                f"process {np.flatnonzero(failed)[0]} could not read its batches (its own output "
                "says why), and this one cannot go on without it."
            )
    if failure is not None:
        raise failure
    return result


def agreed(wish: bool) -> bool:
    """What the first process wishes: all must save at the same step."""
    if jax.process_count() == 1:
        return wish
    return bool(multihost_utils.broadcast_one_to_all(np.bool_(wish)))


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Say what a failure means where other processes run the same sweep."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        raise RuntimeError(
            "this process cannot go on alone: another process of the sweep has probably ended or "
            "failed (its own output says why); all of them must be started again"
        ) from error
