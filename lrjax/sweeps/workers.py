"""Who runs blocks of lanes: a device, one after another, or the cores of a CPU, side by side."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from lrjax.meshes import on_one_cpu


class Workers(NamedTuple):
    """How many blocks run at once, and what begins one: `submit(function, *args) -> Future`."""

    number: int
    submit: Callable[..., Future]


@contextlib.contextmanager
def open_workers(mesh: Mesh | None, lanes: int) -> Iterator[Workers]:
    """Workers for so many lanes.

    XLA splits operations over the cores of a CPU, but not those that are small, nor convolutions
    in a loop. So each core gets a block of its own, from a thread of its own, because the
    dispatches of one thread run one after another.

    Args:
        mesh: the devices of the lanes; None for one device.
        lanes: how many there are to share.

    Example:
        >>> with open_workers(mesh=None, lanes=1) as found:
        ...     found.number, found.submit(max, 2, 3).result()
        (1, 3)
    """
    number = min(lanes, _cores()) if on_one_cpu(mesh) else 1
    if number > 1:
        with ThreadPoolExecutor(number, "lrjax worker") as pool:
            # A thread sees nothing of what `with jax.enable_x64(True)` and the like set.
            if pool.submit(_jax_config).result() == _jax_config():
                try:
                    yield Workers(number, _submitting(pool))
                finally:  # of an error, too
                    pool.shutdown(wait=False, cancel_futures=True)
                return
    yield Workers(1, _run_now)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _jax_config() -> dict[str, Any]:
    """JAX's settings, as this thread sees them."""
    return {name: getattr(jax.config, name, None) for name in jax.config.values}


def _submitting(pool: Executor) -> Callable[..., Future]:
    """What lets a thread of the pool make a call and wait for its results."""
    compiling = threading.Lock()

    def call_and_wait(function, *args):
        with compiling:  # of threads that need the same program, the first compiles it for all
            results = function(*args)
        return jax.block_until_ready(results)

    return lambda function, *args: pool.submit(call_and_wait, function, *args)


def _run_now(function: Callable, *args: Any) -> Future:
    """A call's results, whose arrays the device may still be computing."""
    future: Future = Future()
    future.set_result(function(*args))
    return future
