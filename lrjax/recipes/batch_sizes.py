"""Range tests at several batch sizes that cost the same."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from lrjax import _checks
from lrjax._checkpoints import subfolder
from lrjax.batches import ArrayBatches
from lrjax.batches.arrays import are_arrays
from lrjax.batches.evaluations import reread
from lrjax.curves import Curves
from lrjax.sweeps import range_test
from lrjax.tasks import Task
from lrjax.transforms import sgd


def compare_batch_sizes(
    task: Task,
    data: Any,
    batch_sizes: Sequence[int],
    optimizer: Callable = sgd,
    *,
    steps: int = 100,
    equal: str = "samples",
    **options: Any,
) -> dict[int, Curves]:
    r"""Range tests at several batch sizes, each given the same samples or the same time.

    Larger batches allow larger rates but fewer updates, so batch sizes compared at equal
    updates tell nothing; Smith compares them at equal execution time (2018, section 4.2). With
    the batch sizes b, the largest of them B and what an update costs, :math:`c_b = b` samples
    or its measured seconds,

    .. math:: n_b = \mathrm{steps} \cdot c_B / c_b

    Args:
        task: what is trained.
        data: an array, or a tuple or dict of arrays, or `array_batches(…)` of any batch size.
        batch_sizes: to compare.
        optimizer: as in `range_test`.
        steps: updates at the largest batch size; smaller ones take more.
        equal: `"samples"` or `"time"`, which is kept equal in all tests. Time is measured with a
            short test at every batch size, compilation apart.
        **options: all other arguments of `range_test`: `lanes`, `seeds`, `eval_batches`, …

    Returns:
        The curves by batch size, in the order given.

    Raises:
        ValueError: for no batch size, one larger than the data, or an unknown `equal`.
        TypeError: for data that are batches already.

    Example:
        >>> import jax.numpy as jnp
        >>> from lrjax import suggest, task
        >>> def loss(params, x):
        ...     return jnp.mean((x - params) ** 2)
        >>> curves = compare_batch_sizes(task(loss, jnp.zeros(())), jnp.ones(64), [8, 32], steps=20)
        >>> {size: one.steps for size, one in curves.items()}
        {8: 80, 32: 20}

    References:
        Smith, A disciplined approach to neural network hyper-parameters, 2018,
        arXiv 1803.09820.
    """
    sizes = _checks.each("batch_sizes", batch_sizes, _checks.integer, fewest=1, minimum=1)
    _checks.integer("steps", steps, minimum=1)
    _checks.one_of("equal", equal, ("samples", "time"))
    if isinstance(data, ArrayBatches):
        data = data.data
    if not are_arrays(data):
        raise _checks.KindError(
            f"data must be arrays, to make batches of several sizes of, got {data!r}."
        )

    if "eval_batches" in options:
        options["eval_batches"] = reread(options["eval_batches"])
    folder = options.pop("checkpoint_dir", None)

    def test(size, steps, **more):
        return range_test(task, data, optimizer, steps=steps, batch_size=size, **options | more)

    cost = {size: size if equal == "samples" else _seconds(test, size) for size in sizes}
    budget = steps * cost[max(sizes)]
    return {
        size: test(
            size,
            max(round(budget / cost[size]), 1),
            checkpoint_dir=folder and subfolder(folder, str(size)),
        )
        for size in sizes
    }


PROBE_STEPS = 20


def _seconds(test: Callable, size: int) -> float:
    """What an update takes at a batch size, once all is compiled."""
    test(size, PROBE_STEPS)
    began = time.perf_counter()
    test(size, PROBE_STEPS)
    return (time.perf_counter() - began) / PROBE_STEPS
