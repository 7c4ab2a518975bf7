"""The steps of a sweep, cut into dispatches."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import jax
import numpy as np


class Span(NamedTuple):
    """The updates of one dispatch, from `start` to `stop`."""

    start: int
    stop: int
    evaluation: int | None  # the number of the evaluation that follows, if one does


def even_share(total: int, most: int) -> int:
    """The size of each part when a total is cut into as few equal parts as `most` allows.

    Example:
        >>> even_share(10, most=4)  # 4 + 4 + 2 would leave a stub
        4
    """
    return math.ceil(total / math.ceil(total / most))


EVALUATIONS = 25


def cut_steps(
    steps: int, evaluate: bool, eval_every: int | None, chunk_steps: int | None, most: int
) -> tuple[list[Span], int]:
    """The dispatches, of at most `most` updates, and the length of the program for all of them."""
    between = steps
    if evaluate:
        between = min(eval_every or max(1, steps // EVALUATIONS), steps)
    length = min(chunk_steps or even_share(between, most), between)
    stops = [*range(between, steps, between), steps]
    spans = []
    for number, (begin, end) in enumerate(itertools.pairwise([0, *stops])):
        for start in range(begin, end, length):
            stop = min(start + length, end)
            spans.append(Span(start, stop, number if evaluate and stop == end else None))
    return spans, length


def evaluations(spans: list[Span]) -> list[int]:
    """The numbers of updates after which there is an evaluation."""
    return [span.stop for span in spans if span.evaluation is not None]


# About a second, so that the bar, checkpoints and Ctrl-C need not wait for long; but so many
# updates, at least, that the cost of a dispatch, most of which is fresh memory, is shared.
CPU_FLOPS, ACCELERATOR_FLOPS = 1e11, 1e13
MIN_DISPATCH_STEPS, MAX_DISPATCH_STEPS = 4, 200
DISPATCH_BYTES = 2**26  # of batches that are read, of which some dispatches' are kept ready


def dispatch_steps(flops: float, read_bytes: int = 0) -> int:
    """How many updates of so many operations, and bytes read, to dispatch at once."""
    target = CPU_FLOPS if jax.default_backend() == "cpu" else ACCELERATOR_FLOPS
    steps = np.clip(target / max(flops, 1.0), MIN_DISPATCH_STEPS, MAX_DISPATCH_STEPS)
    return max(1, min(int(steps), DISPATCH_BYTES // max(read_bytes, 1)))
