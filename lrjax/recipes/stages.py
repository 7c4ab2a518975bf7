"""The stages of Smith's protocol: each runs a sweep and says what its curves come to."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from lrjax._checkpoints import subfolder
from lrjax._texts import shortened
from lrjax.curves import Curves
from lrjax.curves.results import joined
from lrjax.recipes import accounts
from lrjax.recipes.cycles import MIN_MOMENTUM, OneCycle
from lrjax.recipes.results import INTERRUPTED
from lrjax.suggestions import rank, suggest
from lrjax.sweeps import range_test, sweep
from lrjax.tasks import Task


class Protocol(NamedTuple):
    """What all stages share."""

    task: Task
    batches: Any
    optimizer: Callable
    steps: int
    checkpoint_dir: str | os.PathLike | None
    options: dict[str, Any]

    def options_for(self, stage: str) -> dict[str, Any]:
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
    protocol: Protocol,
    weight_decays: Sequence[float] | None,
    with_momentum: bool,
    start: float,
    end: float,
) -> Finding:
    """Range tests over weight decays, and of several between the best and its neighbours."""
    momentum = (MAX_MOMENTUM, MIN_MOMENTUM) if with_momentum else None
    test = functools.partial(_range_test, protocol, momentum)
    evidence, start, end = _with_minima(functools.partial(test, weight_decays), start, end)
    curves = evidence["range_test"]
    falling = f", the momentum falling from {MAX_MOMENTUM} to {MIN_MOMENTUM}" if momentum else ""
    account = [accounts.ranged(each, falling) for each in evidence.values()]
    doubts = []
    if len(evidence) > 1:
        doubts.append("the first range did not hold all minima and was widened.")
    if any(each.interrupted for each in evidence.values()):
        return Finding({}, account, doubts, evidence, INTERRUPTED)
    agreed = suggest(curves).consensus
    if np.isnan(agreed.max_learning_rate).all():
        reasons = sorted(set(agreed.reason.ravel().tolist()))
        return Finding({}, account, doubts, evidence, ", ".join(reasons))

    values: dict[str, float] = {}
    if weight_decays is not None and len(weight_decays) == 1:
        values["weight_decay"] = shortened(weight_decays[0])
        agreed = suggest(curves.select(weight_decay=weight_decays[0])).consensus
    elif weight_decays is not None:
        between = bisected(weight_decays, rank(_with_rates(curves)).best["weight_decay"])
        evidence["refined"] = test(between, "refined", start, end)
        account.append(accounts.what_ran("At neighbouring decays", evidence["refined"]))
        if evidence["refined"].interrupted:
            return Finding({}, account, doubts, evidence, INTERRUPTED)
        all_decays = joined(curves, evidence["refined"], "weight_decay")
        curves = _with_rates(all_decays)
        ranking = rank(curves)
        agreed = suggest(curves.select(**ranking.best)).consensus
        values["weight_decay"] = shortened(ranking.best["weight_decay"])
        account.append(accounts.chosen_decay(ranking))
        doubts += accounts.left_out(suggest(all_decays).consensus)
        doubts += accounts.doubtful_decay(ranking, all_decays.axes["weight_decay"])
    values["max_learning_rate"] = shortened(float(agreed.max_learning_rate))
    rate, doubt = accounts.largest_rate(agreed)
    return Finding(values, [*account, rate], [*doubts, *doubt], evidence)


def _range_test(
    protocol: Protocol,
    momentum: tuple[float, float] | None,
    weight_decays: Sequence[float] | None,
    stage: str,
    start: float,
    end: float,
) -> Curves:
    return range_test(
        protocol.task,
        protocol.batches,
        protocol.optimizer,
        start=start,
        end=end,
        steps=protocol.steps,
        momentum=momentum,
        lanes=None if weight_decays is None else {"weight_decay": weight_decays},
        **protocol.options_for(stage),
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
        # Every lane diverged early, without having learned anything.
        downwards |= missing.all() and (tests[-1].diverged_at < tests[-1].steps / 2).all()
        if not (upwards or downwards) or tests[-1].interrupted:
            break
        start, end = start / 1e3 if downwards else start, end * 10 if upwards else end
    # The narrowest of those that name most rates.
    best = int(np.argmax(named))
    others = {
        f"{'narrow' if k < best else 'wide'}_{k}": test for k, test in enumerate(tests) if k != best
    }
    return {"range_test": tests[best], **others}, *ranges[best]


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
    protocol: Protocol,
    weight_decay: float | None,
    largest: float,
    momentums: Sequence[float] | None,
) -> Finding:
    """Short 1cycle runs at every momentum and several peaks, until the lowest is not the best."""
    optimizer = OneCycle(protocol.optimizer, protocol.steps, weight_decay)
    tests: list[Curves] = []
    tried: list[float] = []
    for attempt in range(LOWERINGS + 1):
        peaks = [shortened(largest * factor / LOWER**attempt, 3) for factor in PEAKS]
        tried += peaks
        stage = "cycles" if not attempt else f"lower_{attempt}"
        tests.append(_short_runs(protocol, optimizer, peaks, momentums, stage))
        ranking = rank(tests[-1])
        # Of the lanes that are tied; infinite where none has come to a loss.
        loss = np.where(ranking.tied, ranking.loss, np.inf).reshape(len(PEAKS), -1)
        if np.isfinite(loss[1:]).any() or tests[-1].interrupted:
            break
    curves = tests[-1]
    evidence = {"cycles": curves}
    evidence |= {f"higher_{k}": test for k, test in enumerate(tests[:-1])}
    account = [accounts.what_ran("Short 1cycles", test) for test in tests]
    doubts = []
    if len(tests) > 1:
        doubts.append("the lowest of the first peaks was the best, and lower ones were tried.")
    if curves.interrupted:
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
    protocol: Protocol,
    optimizer: OneCycle,
    peaks: Sequence[float],
    momentums: Sequence[float] | None,
    stage: str,
) -> Curves:
    lanes = {"max_learning_rate": peaks}
    if momentums is not None:
        lanes["momentum"] = list(map(float, momentums))
    return sweep(
        protocol.task,
        protocol.batches,
        optimizer,
        steps=protocol.steps,
        lanes=lanes,
        **{"eval_every": max(protocol.steps // 5, 1)} | protocol.options_for(stage),
    )


def _with_rates(curves: Curves) -> Curves:
    """The weight decays for which a rate can be named."""
    named = np.isfinite(suggest(curves).consensus.max_learning_rate)
    return curves.select(weight_decay=curves.axes["weight_decay"][named].tolist())
