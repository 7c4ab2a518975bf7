"""From curves to learning rates, or to a reason why there are none."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from lrjax import _checks
from lrjax.curves import Curves

__all__ = ["Suggestion", "suggest"]


class Rates(NamedTuple):
    """What a method reads from one lane: rates, or NaN and a reason."""

    learning_rate: float = np.nan
    min_learning_rate: float = np.nan
    max_learning_rate: float = np.nan
    reason: str = ""
    extend: str = ""


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """Learning rates, read from the curves of a range test.

    Attributes:
        axes: coordinates along every axis of lanes, as in the curves.
        method: how they were read.
        learning_rate: a rate to train at, f32[*axes]; NaN where none can be named.
        min_learning_rate: where a cycle should start, f32[*axes]; NaN where the method does not
            tell.
        max_learning_rate: the largest usable rate, the peak of a cycle, f32[*axes]; likewise.
        reason: why there is no rate, str[*axes]: `not_learning`, `no_minimum_in_range`,
            `diverged_at_start` or `too_few_points`; empty where there is one.
        extend: for `no_minimum_in_range`, which end of the range to move outwards, `"start"` or
            `"end"`, str[*axes]; else empty.
        spread: how far the seeds disagree: the standard deviation of log10(learning_rate) over
            the seeds that name one, in decades, f32[*axes without seed]; NaN for fewer than two.
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
        seed = list(self.axes).index("seed")
        named = np.isfinite(self.learning_rate)
        enough = 2 * named.sum(seed) >= named.shape[seed]

        def median(rates):
            return np.where(enough, 10 ** _over_named(np.median, np.log10(rates), seed), np.nan)

        def commonest(texts):
            rows = np.moveaxis(texts, seed, -1).reshape(enough.size, -1)
            most = np.array([_commonest(row) for row in rows]).reshape(enough.shape)
            return np.where(enough, "", most)

        return Suggestion(
            axes={name: values for name, values in self.axes.items() if name != "seed"},
            method=self.method,
            learning_rate=median(self.learning_rate),
            min_learning_rate=median(self.min_learning_rate),
            max_learning_rate=median(self.max_learning_rate),
            reason=commonest(self.reason),
            extend=commonest(self.extend),
            spread=self.spread,
        )

    def __repr__(self) -> str:
        """A line for every lane, seeds taken together."""
        agreed = self.consensus
        lines = [f"Suggestion by {self.method!r}"]
        for index in np.ndindex(agreed.learning_rate.shape):
            where = ", ".join(
                f"{name} {values[k]:.4g}"
                for (name, values), k in zip(agreed.axes.items(), index, strict=True)
            )
            lines.append(f"  {where}{': ' if where else ''}{agreed._describe(index)}")
        return "\n".join(lines)

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


def _over_named(statistic: Callable, decades: np.ndarray, axis: int) -> np.ndarray:
    """A statistic along an axis of what is not NaN; NaN where all is."""

    def one(values):
        named = values[np.isfinite(values)]
        return statistic(named) if len(named) else np.nan

    return np.apply_along_axis(one, axis, decades)


def _commonest(texts: np.ndarray) -> str:
    """The text that occurs most often, the empty one left out."""
    values, counts = np.unique(texts[texts != ""], return_counts=True)
    return values[counts.argmax()] if len(values) else ""


def suggest(curves: Curves, method: str = "robust", **options: Any) -> Suggestion:
    """Learning rates from the curves of a range test, for every lane.

    `"robust"`, the default, smooths the losses without a lag, in decades of the rate, so that
    neither the number of steps nor the range, the scale or the sign of the loss moves it. It
    takes the evaluation loss where there are enough evaluations. In Smith's words:

    - `max_learning_rate` is where the loss is lowest, the largest usable rate (2018, section 4.1);
    - `learning_rate` is half of it ("within a factor of two of the largest one that
      converges", 2015, section 3.3), but no less than where half of the drop is done;
    - `min_learning_rate` is a tenth of the maximum (2018, section 5).

    `"minimum"` is fastai's: a tenth of the rate at the lowest loss, without the first tenth of
    the steps and the last five.

    Args:
        curves: of a range test.
        method: `"robust"` or `"minimum"`.
        **options: the method's own: for `"robust"`, `width`, the standard deviation of the
            smoothing in decades, 0.15.

    Returns:
        The rates of every lane, and with `.consensus` one for all seeds.

    Raises:
        ValueError: for an unknown method.
        TypeError: for an option that the method does not have.

    Example:
        >>> rates = np.geomspace(1e-5, 10, 200).astype(np.float32)
        >>> loss = 0.3 + 2 / (1 + rates / 0.01) + rates**2
        >>> suggest(Curves(learning_rate=rates, loss=loss))
        Suggestion by 'robust'
          learning rate 0.0892, cycle from 0.0178 to 0.178

    References:
        Smith, Cyclical Learning Rates for Training Neural Networks, 2015, arXiv 1506.01186.
        Smith, A disciplined approach to neural network hyper-parameters, 2018,
        arXiv 1803.09820.
    """
    read = functools.partial(METHODS[_checks.one_of("method", method, tuple(METHODS))], **options)
    lanes = [read(lane) for lane in _lanes(curves)]
    shape = curves.diverged_at.shape
    columns = {
        name: np.array(column).reshape(shape)
        for name, column in zip(Rates._fields, zip(*lanes, strict=True), strict=True)
    }
    return Suggestion(axes=curves.axes, method=method, spread=_spread(curves, columns), **columns)


def _spread(curves: Curves, columns: dict[str, np.ndarray]) -> np.ndarray:
    if "seed" not in curves.axes:
        return np.full(curves.diverged_at.shape, np.nan)

    def deviation(decades):
        return np.std(decades, ddof=1) if len(decades) > 1 else np.nan

    seed = list(curves.axes).index("seed")
    return _over_named(deviation, np.log10(columns["learning_rate"]), seed)


class Lane(NamedTuple):
    """The curves of one lane, float64[steps] and float64[evals]."""

    rate: np.ndarray
    loss: np.ndarray
    eval_rate: np.ndarray
    eval_loss: np.ndarray


def _lanes(curves: Curves) -> list[Lane]:
    done = int(curves.steps_done)
    rates = np.asarray(curves.rates(), np.float64)[..., :done]
    evaluated = curves.eval_steps <= done
    # The evaluation after n updates saw the rate of update n - 1 last.
    eval_rates = rates[..., curves.eval_steps[evaluated] - 1]
    loss = np.asarray(curves.loss[..., :done], np.float64)
    eval_loss = np.asarray(curves.eval_loss[..., evaluated], np.float64)
    return [
        Lane(rates[index], loss[index], eval_rates[index], eval_loss[index])
        for index in np.ndindex(curves.diverged_at.shape)
    ]


MIN_POINTS = 10


def robust(lane: Lane, width: float = 0.15) -> Rates:
    """Rates by Smith's rules from losses smoothed without a lag, or a reason."""
    evaluated = np.isfinite(lane.eval_loss).sum() >= MIN_POINTS
    rate, loss = (lane.eval_rate, lane.eval_loss) if evaluated else (lane.rate, lane.loss)
    usable = np.isfinite(loss) & (rate > 0)
    if len(loss) < MIN_POINTS:
        return Rates(reason="too_few_points")
    if usable.sum() < max(MIN_POINTS, len(loss) / 5):
        return Rates(reason="diverged_at_start")
    diverged = not np.isfinite(loss[-1])
    decades, smooth, error = _smooth(np.log10(rate[usable]), loss[usable], width)

    bottom = int(np.argmin(smooth))
    # What the loss was before it fell; not the very highest, which may be a start's transient.
    level = np.percentile(smooth[: bottom + 1], 75)
    drop, rise = level - smooth[bottom], smooth[bottom:].max() - smooth[bottom]
    # A flat loss without any noise still has the rounding of float32.
    rounding = np.spacing(np.float32(np.median(np.abs(loss[usable]))))
    significant = SIGNIFICANT * error[bottom] + 4 * rounding
    if drop <= significant:
        risen_early = smooth[: len(smooth) // 5].max() - smooth[bottom] > max(rise / 5, significant)
        if risen_early:
            return Rates(reason="no_minimum_in_range", extend="start")
        return Rates(reason="not_learning")
    if not diverged and rise <= max(drop / 20, significant):
        return Rates(reason="no_minimum_in_range", extend="end")

    # The middle of the basin and not its lowest point, which noise moves about.
    near = smooth <= smooth[bottom] + max(drop / 20, significant / 2)
    largest = 10 ** ((decades[_run(near, bottom, -1)] + decades[_run(near, bottom, 1)]) / 2)
    half = 10 ** decades[_run(smooth <= smooth[bottom] + drop / 2, bottom, -1)]
    return Rates(min(max(largest / 2, half), largest), largest / 10, largest)


# How many standard errors of the smoothed loss are not chance: the lowest of some dozens of
# independent values lies about three below their mean.
SIGNIFICANT = 6.0
MAX_POINTS = 500


def _smooth(
    decades: np.ndarray, loss: np.ndarray, width: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centred Gaussian averages over decades: where, the average, and its standard error."""
    group = -(-len(loss) // MAX_POINTS)
    # The second difference of a smooth curve is all noise; the median passes over a blow-up.
    noise = 1.4826 * np.median(np.abs(np.diff(loss, 2))) / np.sqrt(6 * group)
    decades, loss = _grouped(decades, group), _grouped(_without_blow_up(loss), group)
    widths = np.maximum(width, 1.5 * np.gradient(decades))
    weight = np.exp(-0.5 * ((decades - decades[:, None]) / widths[:, None]) ** 2)
    weight /= weight.sum(1, keepdims=True)
    return decades, weight @ loss, noise * np.sqrt((weight**2).sum(1))


def _grouped(values: np.ndarray, group: int) -> np.ndarray:
    """The means of so many values in a row each."""
    starts = np.arange(0, len(values), group)
    return np.add.reduceat(values, starts) / np.diff(np.append(starts, len(values)))


def _without_blow_up(loss: np.ndarray) -> np.ndarray:
    """The losses, cut off far above where they began: how far up they went tells nothing."""
    high = loss[: max(len(loss) // 4, 1)].max()
    return np.minimum(loss, high + (high - loss.min()))


def _run(holds: np.ndarray, start: int, step: int) -> int:
    """The last index, going from `start` by `step`, up to which the condition holds."""
    while 0 <= start + step < len(holds) and holds[start + step]:
        start += step
    return start


def minimum(lane: Lane) -> Rates:
    """Fastai's `minimum`: a tenth of the rate at the lowest loss."""
    kept = slice(len(lane.loss) // 10, -5)
    rate, loss = lane.rate[kept], lane.loss[kept]
    nans = np.flatnonzero(np.isnan(loss))
    loss = loss[: nans[0]] if len(nans) else loss
    if not len(loss):
        return Rates(reason="too_few_points")
    return Rates(rate[np.argmin(loss)] / 10)


METHODS: dict[str, Callable[..., Rates]] = {"robust": robust, "minimum": minimum}
