"""What a method reads, and what `suggest` returns."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lrjax._texts import format_coordinate
from lrjax.curves.axes import coordinates, seeds_last, without_seed


class Rates(NamedTuple):
    """What a method reads from one lane: rates, or NaN and a reason."""

    learning_rate: float = np.nan
    min_learning_rate: float = np.nan
    max_learning_rate: float = np.nan
    reason: str = ""
    extend: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Suggestion:
    """Learning rates, read from the curves of a range test.

    Attributes:
        axes: coordinates along every axis of lanes, as in the curves.
        method: how they were read.
        learning_rate: a rate to train at, f64[*axes]; NaN where none can be named.
        min_learning_rate: where a cycle should start, f64[*axes]; NaN where the method does not
            tell.
        max_learning_rate: the largest usable rate, the peak of a cycle, f64[*axes]; likewise.
        reason: why there is no rate, str[*axes], empty where there is one. `not_learning`: the loss
            does not fall by more than its noise; more steps or evaluations may reveal a fall.
            `no_minimum_in_range`: the lowest loss lies at an end of the range.
            `diverged_at_start`: even the smallest rate is too large. `too_few_points`.
        extend: for `no_minimum_in_range`, which end of the range to move outwards, `"start"` or
            `"end"`, str[*axes]; else empty.
        spread: how far the seeds disagree: the standard deviation of log10(learning_rate) over
            the seeds that name one, in decades, f64[*axes without seed]; NaN for fewer than two,
            and where all seeds have the same curves.
    """

    axes: dict[str, np.ndarray]
    method: str
    learning_rate: np.ndarray
    min_learning_rate: np.ndarray
    max_learning_rate: np.ndarray
    reason: np.ndarray
    extend: np.ndarray
    spread: np.ndarray

    @property
    def consensus(self) -> Suggestion:
        """One suggestion for all seeds: the median in decades where most of them name a rate.

        Where fewer than half of the seeds do, there is none, for the commonest reason.
        """
        if "seed" not in self.axes:
            return self
        by_seed = functools.partial(seeds_last, self.axes)
        enough = np.isfinite(by_seed(self.learning_rate)).mean(-1) >= 0.5

        def median(rates):
            decades = over_named(np.median, np.log10(by_seed(rates)))
            return np.where(enough, 10**decades, np.nan)

        def commonest(texts):
            rows = texts.reshape(enough.size, -1)
            most = np.array([_commonest(row) for row in rows]).reshape(enough.shape)
            return np.where(enough, "", most)

        reason = commonest(by_seed(self.reason))
        # Which end to move is said by the seeds that have that reason.
        same = by_seed(self.reason) == reason[..., None]

        return Suggestion(
            axes=without_seed(self.axes),
            method=self.method,
            learning_rate=median(self.learning_rate),
            min_learning_rate=median(self.min_learning_rate),
            max_learning_rate=median(self.max_learning_rate),
            reason=reason,
            extend=commonest(np.where(same, by_seed(self.extend), "")),
            spread=self.spread,
        )

    def __float__(self) -> float:
        """The learning rate of a single lane, its seeds taken together.

        Raises:
            ValueError: if there are several lanes, or no rate can be named.

        Example:
            >>> rate = np.geomspace(1e-4, 1, 60)
            >>> from lrjax import Curves, suggest
            >>> curves = Curves(learning_rate=rate, loss=2 / (1 + rate / 0.01) + rate**2)
            >>> round(float(suggest(curves)), 2)
            0.1
        """
        agreed = self.consensus
        if agreed.learning_rate.size != 1:
            lanes = " x ".join(f"{len(values)} {name}" for name, values in agreed.axes.items())
            raise ValueError(
                f"float() needs the suggestion of one lane, got {lanes}; Curves.select takes one."
            )
        if not np.isfinite(agreed.learning_rate).all():
            raise ValueError(f"no learning rate can be named: {agreed.reason.item()}.")
        return agreed.learning_rate.item()

    def __repr__(self) -> str:
        """A line for every lane, seeds taken together."""
        agreed = self.consensus
        lines = [f"Suggestion by {self.method!r}"]
        for index in np.ndindex(agreed.learning_rate.shape):
            where = ", ".join(
                f"{name} {format_coordinate(value)}"
                for name, value in coordinates(agreed.axes, index).items()
            )
            lines.append(f"  {where}{': ' if where else ''}{agreed._describe(index)}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """A notebook's view: a table of the lanes and a picture."""
        from lrjax._report import suggestion_html

        return suggestion_html(self)

    def _describe(self, index) -> str:
        if self.reason[index]:
            end = self.extend[index]
            return f"none, {self.reason[index]}" + (f" (extend the {end})" if end else "")
        text = f"learning rate {self.learning_rate[index]:.3g}"
        if np.isfinite(self.max_learning_rate[index]):
            low, high = self.min_learning_rate[index], self.max_learning_rate[index]
            text += f", cycle from {low:.3g} to {high:.3g}"
        if np.isfinite(self.spread[index]):
            text += f", spread {self.spread[index]:.2f} decades"
        return text


def over_named(statistic: Callable, decades: np.ndarray) -> np.ndarray:
    """A statistic along the last axis of what is not NaN; NaN where all is."""

    def one(values):
        named = values[np.isfinite(values)]
        return statistic(named) if len(named) else np.nan

    return np.apply_along_axis(one, -1, decades)


def _commonest(texts: np.ndarray) -> str:
    """The text that occurs most often, the empty one left out."""
    values, counts = np.unique(texts[texts != ""], return_counts=True)
    return values[counts.argmax()] if len(values) else ""
