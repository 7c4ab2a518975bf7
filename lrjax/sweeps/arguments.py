"""What a sweep is given: checks, and what tells it from another."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax

from lrjax import _checks
from lrjax._fingerprints import fingerprint
from lrjax.batches import ArrayBatches, StreamBatches
from lrjax.lanes import Lanes
from lrjax.sweeps.spans import dispatch_steps
from lrjax.tasks import Task


class Settings(NamedTuple):
    """How lanes are run, whatever they train: numbers that a checkpoint must agree with."""

    steps: int
    eval_every: int | None
    divergence: float | None
    accumulate: int
    lane_batch: int | None
    chunk_steps: int | None

    @property
    def total_batches(self) -> int:
        """How many batches a lane takes."""
        return self.steps * self.accumulate

    def most_steps(self, flops: float, read_bytes: int) -> int:
        """The most updates of a dispatch, by what a batch costs all lanes."""
        return dispatch_steps(flops * self.accumulate, read_bytes * self.accumulate)


def checked_settings(
    steps: Any, eval_every: Any, divergence: Any, accumulate: Any, lane_batch: Any, chunk_steps: Any
) -> Settings:
    """The settings, or what is wrong with them."""
    count = functools.partial(_checks.integer, minimum=1)
    _checks.optional("divergence", divergence, _checks.static, above=0)
    return Settings(
        steps=count("steps", steps),
        eval_every=_checks.optional("eval_every", eval_every, count),
        divergence=None if divergence is None else float(divergence),
        accumulate=count("accumulate", accumulate),
        lane_batch=_checks.optional("lane_batch", lane_batch, count),
        chunk_steps=_checks.optional("chunk_steps", chunk_steps, count),
    )


def check_debugging() -> None:
    """Refuse the settings under which no sweep can run, before they fail somewhere inside."""
    reasons = {
        "jax_debug_nans": "it takes a NaN, which stands for what was not measured, for an error",
        "jax_debug_infs": "it takes an infinity, which it starts from, for an error",
        "jax_disable_jit": "its programs are compiled before they run",
    }
    for name, why in reasons.items():
        if getattr(jax.config, name):
            raise RuntimeError(
                f"a sweep cannot run under {name}: {why}. To look for a fault, call task.loss."
            )


def check_initial(initial: Any) -> None:
    """What lanes start from, if it is given."""
    if initial is not None and (not isinstance(initial, tuple) or len(initial) not in (2, 3)):
        raise _checks.KindError(
            "initial must be (params, model_state) or (params, model_state, opt_state), "
            f"got {initial!r}."
        )


# What a checkpoint also knows, because another machine would choose otherwise: the lanes of a
# block, and the updates of a dispatch.
BLOCK_SIZE, DISPATCH_STEPS = "block_size", "dispatch_steps"


def identity_of(
    settings: Settings,
    grid: Lanes,
    task: Task,
    batches: Any,
    optimizer: Any,
    initial: Any,
    groups: Any,
) -> dict[str, Any]:
    """What tells this sweep from another, by argument."""
    return {
        **settings._asdict(),
        "task": fingerprint(task),
        "batches": _contents(batches),
        "optimizer": fingerprint(optimizer),
        "lanes": fingerprint((grid.axes, grid.hyperparams)),
        "seeds": grid.seeds.tolist(),
        "initial": fingerprint(initial),
        "eval_batches": fingerprint(groups),
    }


def _contents(batches: Any) -> str:
    """What tells data from others; of a stream, nothing can be known before it is read."""
    if isinstance(batches, ArrayBatches):
        return fingerprint(batches)
    source = batches.iterable if isinstance(batches, StreamBatches) else batches
    return fingerprint(source) if isinstance(source, list | tuple) else "a stream"
