"""Smith's protocol: from range tests to the plan of a run."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lrjax import _checks
from lrjax.batches.evaluations import reread
from lrjax.recipes.cycles import MIN_MOMENTUM
from lrjax.recipes.results import Recipe
from lrjax.recipes.stages import Protocol, range_tests, short_runs
from lrjax.sweeps.optimizers import check_optimizer, momentum_name, takes
from lrjax.tasks import Task
from lrjax.transforms import sgd

SET_BY_STAGES = {"lanes", "momentum", "ramp", "return_state", "steps"}


def smith_recipe(
    task: Task,
    batches: Any,
    eval_batches: Any,
    *,
    total_steps: int,
    optimizer: Callable = sgd,
    weight_decays: Sequence[float] | None = (0.0, 1e-5, 1e-4, 1e-3),
    momentums: Sequence[float] | None = (0.9, 0.95, 0.97, 0.99),
    seeds: int | Sequence[int] = 2,
    start: float = 1e-6,
    end: float = 10.0,
    test_steps: int | None = None,
    checkpoint_dir: str | os.PathLike | None = None,
    **options: Any,
) -> Recipe:
    """Smith's protocol: from range tests over weight decays to the plan of a 1cycle run.

    Every stage runs as lanes, side by side:

    1. A range test at every weight decay, the momentum falling while the rate rises (2018,
       sections 4.3 and 4.4), and again with the exponent of the best decay bisected on both
       sides. `rank` chooses the decay: that of the lowest evaluation loss, or of those that the
       seeds cannot tell from it one that allows a rate larger beyond its spread.
    2. Short 1cycle runs at that decay and every momentum (2018, section 4.3), each at a
       quarter, a half, once and twice the largest usable rate, because a higher momentum takes
       a lower rate. Of those that are tied with the lowest evaluation loss, one of the lowest
       rate is taken, because longer runs take lower rates. If only runs at the lowest peak are
       tied, lower peaks are tried, down to 1/256 of the largest usable rate: optimizers such as
       Muon need them.
    3. The plan: one cycle over all steps, from a tenth of the chosen rate (2018, section 5).

    A test whose range does not hold the minimum of every lane is run again with a wider one. A
    decay for which no rate can be named is left out, with a doubt; where there is none left, or
    Ctrl-C ends a stage, the recipe has a reason instead of a rate.

    Args:
        task: what is trained.
        batches: as in `sweep`. Every stage starts a stream over; an iterator goes on where the
            stage before stopped.
        eval_batches: held-out data, by which every choice is made; judge the final model on
            different data.
        total_steps: updates of the run that is planned.
        optimizer: makes an optimizer from `learning_rate`, `weight_decay` and `momentum` (or
            `b1`): `lrjax.sgd`, `lrjax.adamw`, one of Optax's, or your own.
        weight_decays: to try, and to look between; a single one is taken as it is; None for an
            optimizer without.
        momentums: to try, as the highest of a cycle, which falls to 0.85 at the peak of the
            rate; None for an optimizer without.
        seeds: the number of seeds for every lane, or a list of them.
        start: the smallest rate of the range test.
        end: its largest.
        test_steps: updates of every range test and short run; a quarter of `total_steps` if not
            given, but 100 to 1,000, and no more than `total_steps`.
        checkpoint_dir: folder for every stage's checkpoints; the same call after a kill goes on
            from there.
        **options: other arguments of `sweep`: `mesh`, `lane_batch`, `accumulate`, `progress`, …

    Returns:
        The recipe: `describe()` says what was done, seen and chosen, `optimizer()` is the plan.

    Raises:
        ValueError: as `sweep`, and without evaluation data.
        TypeError: as `sweep`.

    Example:
        >>> import jax.numpy as jnp
        >>> from lrjax import task
        >>> x = np.random.default_rng(0).normal(size=(256, 8)).astype(np.float32)
        >>> data = x, np.sign(x.sum(1))
        >>> def loss(params, batch):
        ...     return jnp.mean((jnp.tanh(batch[0] @ params) - batch[1]) ** 2)
        >>> recipe = smith_recipe(
        ...     task(loss, jnp.zeros(8)), data, data, total_steps=100,
        ...     weight_decays=(0, 1e-3), momentums=(0.9, 0.95))
        >>> recipe.total_steps, 0 < recipe.min_learning_rate < recipe.max_learning_rate
        (100, True)

    References:
        Smith, A disciplined approach to neural network hyper-parameters, 2018,
        arXiv 1803.09820.
    """
    total_steps = _checks.integer("total_steps", total_steps, minimum=1)
    if test_steps is None:
        test_steps = min(total_steps, int(np.clip(total_steps // 4, 100, 1000)))
    _checks.integer("test_steps", test_steps, minimum=1)
    if eval_batches is None:
        raise ValueError("eval_batches must be held-out data to choose by, got None.")
    if weight_decays is not None:
        weight_decays = _checks.each(
            "weight_decays", weight_decays, _checks.number, fewest=1, at_least=0
        )
    if momentums is not None:
        momentums = _checks.each(
            "momentums", momentums, _checks.number, fewest=1, at_least=0, at_most=1
        )
    for name, values in (("weight_decays", weight_decays), ("momentums", momentums)):
        if values is not None:
            _checks.different(name, map(float, values), values)
    if fixed := sorted(options.keys() & SET_BY_STAGES):
        raise TypeError(f"smith_recipe takes no {', '.join(fixed)}: its stages set that.")
    check_optimizer(optimizer, ["learning_rate"], setter="smith_recipe")
    tried = {"weight_decays": weight_decays, "momentums": momentums}
    names = "weight_decay", momentum_name(optimizer)
    for (argument, values), name in zip(tried.items(), names, strict=True):
        if values is not None and not takes(optimizer, name):
            raise ValueError(
                f"{argument} must be None for an optimizer that takes no {name}, got {values!r}."
            )

    options |= {"eval_batches": reread(eval_batches), "seeds": seeds}
    protocol = Protocol(task, batches, optimizer, test_steps, checkpoint_dir, options)
    tested = range_tests(protocol, weight_decays, momentums is not None, start, end)
    findings = [tested]
    if not tested.reason:
        decay, largest = tested.values.get("weight_decay"), tested.values["max_learning_rate"]
        findings.append(short_runs(protocol, decay, largest, momentums))
    chosen = findings[-1].values if not findings[-1].reason else {}
    peak, momentum = chosen.get("max_learning_rate", np.nan), chosen.get("momentum")
    return Recipe(
        max_learning_rate=peak,
        weight_decay=tested.values.get("weight_decay"),
        momentum=momentum,
        min_momentum=None if momentum is None else min(momentum, MIN_MOMENTUM),
        total_steps=total_steps,
        reason=findings[-1].reason,
        account=tuple(sentence for finding in findings for sentence in finding.account),
        doubts=tuple(sentence for finding in findings for sentence in finding.doubts),
        evidence={name: c for finding in findings for name, c in finding.evidence.items()},
        factory=optimizer,
    )
