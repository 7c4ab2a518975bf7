"""What a stage says of itself: what was done and seen, and where the evidence is weak."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lrjax._texts import as_words
from lrjax.curves import Curves
from lrjax.suggestions import Ranking, Suggestion

DISAGREEMENT = 0.3  # decades, a factor of two
FAILS = 0.5  # a peak after which the loss has fallen by less than that part of the taken one's


def what_ran(what: str, curves: Curves) -> str:
    """What was run."""
    seeds, steps, ran = len(curves.axes["seed"]), curves.steps, int(curves.steps_done)
    updates = f"{steps}" if ran == steps else f"{ran} of {steps}"
    lanes = f"{_plural(curves.diverged_at.size // seeds, 'lane')} x {_plural(seeds, 'seed')}"
    return f"{what}: {lanes}, {updates} updates each."


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def ranged(curves: Curves, falling: str) -> str:
    """What was run as range tests."""
    rates = curves.rates()
    low, high = rates[..., 0].min(), rates[..., -1].max()
    return what_ran(f"Range tests with rates from {low:.3g} to {high:.3g}{falling}", curves)


def chosen_decay(ranking: Ranking) -> str:
    """Which weight decay was taken, and why."""
    decays, best = ranking.axes["weight_decay"], ranking.best["weight_decay"]
    losses = ", ".join(f"{ranking.loss[k]:.4g} at {decays[k]:.3g}" for k in ranking.order)
    why = "of the lowest loss"
    if decays[ranking.order[0]] != best:
        why = "tied with the lowest loss, and it allows a larger rate"
    return f"Lowest losses by weight decay: {losses}. Taken: {best:.3g}, {why}."


def left_out(agreed: Suggestion) -> list[str]:
    """The weight decays for which no rate can be named, and why."""
    decays, missing = agreed.axes["weight_decay"], np.isnan(agreed.max_learning_rate)
    return [
        f"at the weight decay {decay:.3g} no largest rate can be named, {reason}; it is left out."
        for decay, reason in sorted(zip(decays[missing], agreed.reason[missing], strict=True))
    ]


def doubtful_decay(ranking: Ranking, tried: np.ndarray) -> list[str]:
    """Where that choice is weak."""
    decays = ranking.axes["weight_decay"]
    doubts = []
    if not ranking.significant and len(decays) > 1:
        tied = ", ".join(f"{value:.3g}" for value in np.sort(decays[ranking.tied]))
        doubts.append(
            f"the seeds cannot tell the weight decays {tied} apart."
            if ranking.tied.sum() > 1
            else "without several seeds that differ, the weight decays cannot be told apart."
        )
    if np.isclose(ranking.best["weight_decay"], tried.max()):
        doubts.append("the weight decay taken is the largest of those tried.")
    return doubts


def largest_rate(agreed: Suggestion) -> tuple[str, list[str]]:
    """The largest usable rate, and whether the seeds agree on it."""
    spread = f" (spread {agreed.spread:.2f} decades)" if np.isfinite(agreed.spread) else ""
    sentence = f"There the largest usable rate is {agreed.max_learning_rate:.3g}{spread}."
    if agreed.spread > DISAGREEMENT:
        return sentence, [f"the seeds disagree on that rate by {agreed.spread:.2f} decades."]
    return sentence, []


def chosen_peak(ranking: Ranking, values: dict[str, float], loss: float) -> str:
    """Which peak and momentum were taken, and why."""
    taken = ", ".join(f"{as_words(name)} {value:.3g}" for name, value in values.items())
    lowest, tied = f"The lowest evaluation loss is {ranking.loss.min():.4g}", ranking.tied.sum()
    if tied == 1:
        return f"{lowest}, and that lane is taken: {taken}."
    return (
        f"{lowest}; of the {tied} lanes that the seeds cannot tell from it, that of the lowest "
        f"rate is taken: {taken}, with a loss of {loss:.4g}."
    )


def doubtful_peak(
    values: dict[str, float],
    peaks: Sequence[float],
    tied_momentums: Sequence[float],
    fallen: np.ndarray,
) -> list[str]:
    """Where that choice is weak; `fallen`: by how much the loss fell, at it and higher peaks."""
    doubts = []
    for name, end in (("lowest", min(peaks)), ("highest", max(peaks))):
        if values["max_learning_rate"] == end:
            doubts.append(f"the peak taken is the {name} of those tried.")
    if len(tied_momentums) > 1:
        tied = ", ".join(f"{momentum:g}" for momentum in tied_momentums)
        doubts.append(f"the seeds cannot tell the momenta {tied} apart at that rate.")
    if len(fallen) > 1 and fallen[1] < FAILS * fallen[0]:
        doubts.append("a peak twice as high fails: a longer run may not survive the one taken.")
    return doubts
