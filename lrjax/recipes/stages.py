"""The stages of Smith's protocol: each runs a sweep and says what its curves come to."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from lrjax._checkpoints import subfolder
from lrjax.curves import Curves, shortened
from lrjax.recipes import accounts
from lrjax.recipes.cycles import MIN_MOMENTUM, OneCycle
from lrjax.suggestions import rank, suggest
from lrjax.sweeps import range_test, sweep
from lrjax.tasks import Task


class Setting(NamedTuple):
    """What all stages share."""

    task: Task
    batches: Any
    optimizer: Callable
    steps: int
    checkpoint_dir: str | os.PathLike | None
    options: dict[str, Any]

    def of(self, stage: str) -> dict[str, Any]:
        """The options of a stage's sweep."""
        if self.checkpoint_dir is None:
            return self.options
        return self.options | {"checkpoint_dir": subfolder(self.checkpoint_dir, stage)}


class Finding(NamedTuple):
    """What a stage comes to: values, or a reason why there are none."""

    values: dict[str, float]
    account: list[str]
    doubts: list[str]
    evidence: dict[str, Curves]
    reason: str = ""


# The momentum falls while the rate rises (Smith 2018, section 4.3).
MAX_MOMENTUM = 0.95


def range_tests(
    setting: Setting,
    weight_decays: Sequence[float] | None,
    with_momentum: bool,
    start: float,
    end: float,
) -> Finding:
    """Range tests over weight decays, and between the best and its neighbours."""
    momentum = (MAX_MOMENTUM, MIN_MOMENTUM) if with_momentum else None
    test = functools.partial(_range_test, setting, momentum)
    evidence, start, end = _with_minima(functools.partial(test, weight_decays), start, end)
    curves = evidence["range_test"]
    falling = f", the momentum falling from {MAX_MOMENTUM} to {MIN_MOMENTUM}" if momentum else ""
    account = [accounts.ranged(each, falling) for each in evidence.values()]
    doubts = []
    if len(evidence) > 1:
        doubts.append("the first range did not hold all minima and was widened.")
    if _interrupted(*evidence.values()):
        return Finding({}, account, doubts, evidence, INTERRUPTED)
    agreed = suggest(curves).consensus
    if np.isnan(agreed.max_learning_rate).all():
        reasons = sorted(set(agreed.reason.ravel().tolist()))
        return Finding({}, account, doubts, evidence, ", ".join(reasons))

    values: dict[str, float] = {}
    if weight_decays is not None:
        between = bisected(weight_decays, rank(_with_rates(curves)).best["weight_decay"])
        evidence["refined"] = test(between, "refined", start, end)
        account.append(accounts.done("At neighbouring decays", evidence["refined"]))
        if _interrupted(evidence["refined"]):
            return Finding({}, account, doubts, evidence, INTERRUPTED)
        joined = _joined(curves, evidence["refined"])
        curves = _with_rates(joined)
        ranking = rank(curves)
        agreed = suggest(curves.select(**ranking.best)).consensus
        values["weight_decay"] = shortened(ranking.best["weight_decay"])
        account.append(accounts.chosen_decay(ranking))
        doubts += accounts.left_out(suggest(joined).consensus)
        doubts += accounts.doubtful_decay(ranking, joined.axes["weight_decay"])
    values["max_learning_rate"] = shortened(float(agreed.max_learning_rate))
    rate, doubt = accounts.largest_rate(agreed)
    return Finding(values, [*account, rate], [*doubts, *doubt], evidence)


def _range_test(
    setting: Setting,
    momentum: tuple[float, float] | None,
    weight_decays: Sequence[float] | None,
    stage: str,
    start: float,
    end: float,
) -> Curves:
    return range_test(
        setting.task,
        setting.batches,
        setting.optimizer,
        start=start,
        end=end,
        steps=setting.steps,
        momentum=momentum,
        lanes=None if weight_decays is None else {"weight_decay": weight_decays},
        **setting.of(stage),
    )


WIDENINGS = 3


def _with_minima(
    test: Callable, start: float, end: float
) -> tuple[dict[str, Curves], float, float]:
    """A range test, of a wider range as long as that may show the minimum of another lane."""
    tests, ranges, named = [], [], []
    for attempt in range(WIDENINGS + 1):
        tests.append(test("range_test" if not attempt else f"wider_{attempt}", start, end))
        ranges.append((start, end))
        agreed = suggest(tests[-1]).consensus
        missing = np.isnan(agreed.max_learning_rate)
        named.append(np.count_nonzero(~missing))
        upwards = (missing & (agreed.extend == "end")).any()
        downwards = (missing & (agreed.extend == "start")).any()
        downwards |= (missing & (agreed.reason == "diverged_at_start")).any()
        if not (upwards or downwards) or _interrupted(tests[-1]):
            break
        start, end = start / 1e3 if downwards else start, end * 10 if upwards else end
    # The narrowest of those that name most rates.
    best = int(np.argmax(named))
    others = {
        f"{'narrow' if k < best else 'wide'}_{k}": test for k, test in enumerate(tests) if k != best
    }
    return {"range_test": tests[best], **others}, *ranges[best]


INTERRUPTED = "interrupted"  # the same call goes on, where there is a folder of checkpoints


def _interrupted(*sweeps: Curves) -> bool:
    """Whether one was ended before its last update."""
    return any(curves.steps_done < curves.steps for curves in sweeps)


def bisected(weight_decays: Sequence[float], best: float) -> list[float]:
    """The decays half-way in the exponent between the best and its neighbours.

    Beyond the last, and below the smallest above 0, half a decade further.
    """
    step = 10**0.5
    known = sorted(decay for decay in weight_decays if decay > 0)
    if best == 0:
        return [shortened(known[0] / step) if known else 1e-5]
    k = int(np.argmin(np.abs(np.log(np.array(known) / best))))
    lower = (known[k - 1] * known[k]) ** 0.5 if k > 0 else known[k] / step
    upper = (known[k] * known[k + 1]) ** 0.5 if k + 1 < len(known) else known[k] * step
    return [shortened(lower), shortened(upper)]


# Times the largest usable rate of the range test, which knows one momentum only.
PEAKS = (0.25, 0.5, 1.0, 2.0)
LOWERINGS, LOWER = 2, 8  # how often, and how many times lower, where the lowest peak is the best


def short_runs(
    setting: Setting,
    weight_decay: float | None,
    largest: float,
    momentums: Sequence[float] | None,
) -> Finding:
    """Short 1cycle runs at every momentum and several peaks, until the lowest is not the best."""
    optimizer = OneCycle(setting.optimizer, setting.steps, weight_decay)
    tests: list[Curves] = []
    tried: list[float] = []
    for attempt in range(LOWERINGS + 1):
        peaks = [shortened(largest * factor / LOWER**attempt, 3) for factor in PEAKS]
        tried += peaks
        stage = "cycles" if not attempt else f"lower_{attempt}"
        tests.append(_short_runs(setting, optimizer, peaks, momentums, stage))
        ranking = rank(tests[-1])
        # Of the lanes that are tied; infinite where none has come to a loss.
        loss = np.where(ranking.tied, ranking.loss, np.inf).reshape(len(PEAKS), -1)
        if np.isfinite(loss[1:]).any() or _interrupted(tests[-1]):
            break
    curves = tests[-1]
    evidence = {"cycles": curves}
    evidence |= {f"higher_{k}": test for k, test in enumerate(tests[:-1])}
    account = [accounts.done("Short 1cycles", test) for test in tests]
    doubts = []
    if len(tests) > 1:
        doubts.append("the lowest of the first peaks was the best, and lower ones were tried.")
    if _interrupted(curves):
        return Finding({}, account, doubts, evidence, INTERRUPTED)
    if not np.isfinite(loss).any():
        return Finding({}, account, doubts, evidence, "short_runs_diverged")

    # The lowest rate, because longer runs take lower rates; of these the lowest loss.
    row = int(np.argmax(np.isfinite(loss).any(1)))
    column = int(loss[row].argmin())
    values = {"max_learning_rate": peaks[row]}
    tied: list[float] = []
    if momentums is not None:
        values["momentum"] = float(momentums[column])
        tied = [float(m) for m, each in zip(momentums, loss[row], strict=True) if each < np.inf]
    account.append(accounts.chosen_peak(ranking, values, loss[row, column]))
    fallen = np.nanmean(curves.loss[..., 0]) - ranking.loss.reshape(loss.shape)[row:, column]
    doubts += accounts.doubtful_peak(values, tried, tied, fallen)
    return Finding(values, account, doubts, evidence)


def _short_runs(
    setting: Setting,
    optimizer: OneCycle,
    peaks: Sequence[float],
    momentums: Sequence[float] | None,
    stage: str,
) -> Curves:
    lanes = {"max_learning_rate": peaks}
    if momentums is not None:
        lanes["momentum"] = list(map(float, momentums))
    return sweep(
        setting.task,
        setting.batches,
        optimizer,
        steps=setting.steps,
        lanes=lanes,
        **{"eval_every": max(setting.steps // 5, 1)} | setting.of(stage),
    )


def _with_rates(curves: Curves) -> Curves:
    """The weight decays for which a rate can be named."""
    named = np.isfinite(suggest(curves).consensus.max_learning_rate)
    return curves.select(weight_decay=curves.axes["weight_decay"][named].tolist())


def _joined(first: Curves, second: Curves) -> Curves:
    """Curves of two sweeps that differ in their first axis only."""
    name = next(iter(first.axes))

    def both(one, other):
        return np.concatenate([one, other])

    def each(one, other):
        return {key: both(array, other[key]) for key, array in one.items()}

    return dataclasses.replace(
        first,
        axes=first.axes | {name: both(first.axes[name], second.axes[name])},
        learning_rate=both(first.rates(), second.rates()),
        momentum=None,  # which nobody reads
        loss=both(first.loss, second.loss),
        metrics=each(first.metrics, second.metrics),
        eval_loss=both(first.eval_loss, second.eval_loss),
        eval_metrics=each(first.eval_metrics, second.eval_metrics),
        diverged_at=both(first.diverged_at, second.diverged_at),
    )
