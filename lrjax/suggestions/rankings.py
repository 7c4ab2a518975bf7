"""Which lanes are best, and whether the seeds can tell."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lrjax._texts import aligned, as_words, format_coordinate, format_number
from lrjax.curves import Curves
from lrjax.curves.axes import coordinates, seeds_differ, seeds_last, without_seed
from lrjax.curves.results import checked
from lrjax.suggestions.fits import MIN_POINTS
from lrjax.suggestions.methods import suggest


@dataclass(frozen=True, kw_only=True, eq=False)
class Ranking:
    """Lanes in the order of their losses; see `rank`.

    Attributes:
        axes: coordinates along every axis of lanes but `seed`, in order.
        loss: the loss that counts, the mean over seeds, f64[*axes]; infinite where a seed
            diverged before it had one.
        noise: the standard error, over seeds, of the difference to the lowest loss, f64[*axes];
            NaN with a single seed; seeds with identical curves count as one.
        max_learning_rate: the largest usable rate, by `suggest`, f64[*axes]; NaN where there is
            none, or the curves are not of a range test.
        spread: of that rate over seeds, in decades, f64[*axes].
        order: the flat indices of the lanes, the lowest loss first, i64[lanes].
        tied: whose loss is not higher than the lowest by more than chance, bool[*axes].
        best: the coordinates of the lane to take.
        significant: whether no other lane is tied with the lowest loss. Among lanes that are
            equally good this happens by chance in at most 1 of 20 sweeps. False with a single
            seed, which cannot tell.
    """

    axes: dict[str, np.ndarray]
    loss: np.ndarray
    noise: np.ndarray
    max_learning_rate: np.ndarray
    spread: np.ndarray
    order: np.ndarray
    tied: np.ndarray
    best: dict[str, float]
    significant: bool

    def __repr__(self) -> str:
        """A table of the lanes, the best first."""
        names = [*map(as_words, self.axes)]
        rows = [["", *names, "loss", "behind", "noise", "max rate"]]
        best = self.order[0]
        for lane in self.order:
            index = np.unravel_index(lane, self.loss.shape)
            where = coordinates(self.axes, index)
            columns = (self.loss, self.noise, self.max_learning_rate)
            loss, noise, rate = (float(column[index]) for column in columns)
            behind = loss - float(self.loss.flat[best]) if lane != best else np.nan
            mark = "*" if where == self.best else "=" if self.tied[index] else ""
            rows.append(
                [
                    mark,
                    *map(format_coordinate, where.values()),
                    *map(format_number, (loss, behind, noise, rate)),
                ]
            )
        verdict = (
            "its loss is lower than the others' by more than the noise between seeds"
            if self.significant
            else "the seeds cannot tell the lanes marked = or * apart"
            if self.tied.sum() > 1
            else "without several seeds that differ, this may be chance"
        )
        return "\n".join([*aligned(rows), f"* recommended; {verdict}"])


def rank(curves: Curves) -> Ranking:
    r"""Which lane reaches the lowest loss and allows the largest rate, and how sure that is.

    The loss that counts is the evaluation loss if there is one, else the training loss. Of a range
    test it is the lowest running median over 0.3 decades or a twelfth of the curve, whichever is
    shorter (with fewer than 10 evaluations, of the training loss): neither an odd batch nor how far
    up the loss went later moves that. Of any other sweep it is the last value. Lanes of one seed
    see the same batches from the same start, so lanes are compared seed by seed: with the
    differences :math:`d_s` to the lane of the lowest mean, over S seeds,

    .. math:: \mathrm{noise} = \mathrm{std}(d) / \sqrt{S}

    but no less than its median over the better half of the lanes, because few seeds agree by chance
    and bad lanes are noisier. A lane is tied with the lowest unless their means differ by more than
    the noise times Student's t, the 97.5 % quantile at (S - 1)(L - 1) degrees of freedom for L
    lanes: 12.7 for two lanes of two seeds, 3.2 for two of four or four of two, 2 for many. Seeds
    with identical curves count as one. Smith takes the weight decay "that allows the
    largest learning rate" at the lowest loss (2018, section 4.4): of the lanes that are tied, that
    of the largest usable rate where it is larger beyond its spread over seeds, else that of the
    lowest loss.

    Args:
        curves: with several lanes, at best at several seeds.

    Returns:
        The ranking; its `best` are coordinates, as `Curves.select` takes them.

    Raises:
        ValueError: for curves without lanes to compare.

    Example:
        >>> rate = np.geomspace(1e-4, 1, 60).astype(np.float32)
        >>> fall = 2 / (1 + rate / 0.01) + rate**2
        >>> loss = np.stack([[fall, fall + 0.1], [fall + 0.5, fall + 0.61]])
        >>> axes = {"weight_decay": np.float32([1e-4, 1e-2]), "seed": np.int32([0, 1])}
        >>> ranking = rank(Curves(axes=axes, learning_rate=rate, loss=loss))
        >>> f"{ranking.best['weight_decay']:g}", ranking.significant
        ('0.0001', True)

    References:
        Smith, A disciplined approach to neural network hyper-parameters, 2018,
        arXiv 1803.09820.
    """
    axes = without_seed(checked(curves).axes)
    if not axes:
        raise ValueError(f"curves must have lanes besides seeds to rank, got {curves!r}.")
    curves = curves.done()
    by_seed = seeds_last(curves.axes, _deciding_loss(curves))
    if not seeds_differ(curves.axes, curves.loss, curves.eval_loss):
        by_seed = by_seed[..., :1]
    losses = by_seed.reshape(-1, by_seed.shape[-1])
    loss, noise = _compared(losses)
    order = np.argsort(loss, kind="stable")
    lowest = loss[order[0]]
    by_chance = np.nan_to_num(noise) * _student(np.isfinite(loss).sum(), losses.shape[1])
    tied = loss - lowest <= by_chance if np.isfinite(lowest) else loss == lowest
    rates, spread = _largest_rates(curves, len(loss))
    best = _best(order[0], tied, rates, spread)
    shape = by_seed.shape[:-1]
    index = np.unravel_index(best, shape)
    return Ranking(
        axes=axes,
        loss=loss.reshape(shape),
        noise=noise.reshape(shape),
        max_learning_rate=rates.reshape(shape),
        spread=spread.reshape(shape),
        order=order,
        tied=tied.reshape(shape),
        best={name: value.item() for name, value in coordinates(axes, index).items()},
        significant=bool(losses.shape[1] > 1 and tied.sum() == 1),
    )


def _deciding_loss(curves: Curves) -> np.ndarray:
    """The loss of every lane that decides; infinite where it has none."""
    needed = MIN_POINTS if curves.is_range_test else 1
    loss = curves.eval_loss if curves.eval_loss.shape[-1] >= needed else curves.loss
    loss = np.asarray(loss, np.float64)
    loss = np.where(np.isfinite(loss), loss, np.inf)
    if not curves.is_range_test:
        return loss[..., -1]
    rates = curves.rates()
    decades = np.log10(rates.max() / rates[rates > 0].min())
    near = min(WIDTH / decades, 1 / 12) * loss.shape[-1]  # linear ramps have most points at the end
    window = max(int(near - 1) // 2 * 2 + 1, 1)
    windows = np.lib.stride_tricks.sliding_window_view(loss, window, -1)
    return np.median(windows, -1).min(-1)


WIDTH = 0.3  # decades over which the loss at its minimum is about the same


def _compared(losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean losses over seeds, and the standard error of their differences to the lowest."""
    loss, seeds = losses.mean(-1), losses.shape[1]
    lowest = losses[np.argmin(loss)]
    if seeds == 1 or not np.isfinite(lowest).all():
        return loss, np.full_like(loss, np.nan)
    finite = np.isfinite(loss)
    noise = np.full_like(loss, np.nan)
    noise[finite] = np.std(losses[finite] - lowest, axis=-1, ddof=1) / np.sqrt(seeds)
    others = np.delete(np.argsort(loss, kind="stable"), 0)
    better = others[: math.ceil(np.count_nonzero(finite[others]) / 2)]
    if len(better):
        noise[finite] = np.maximum(noise[finite], np.median(noise[better]))
    return loss, noise


def _student(lanes: int, seeds: int) -> float:
    """How many standard errors can be chance: 95 % of Student's t lie within as many."""
    from scipy.special import stdtrit

    return float(stdtrit(max((lanes - 1) * (seeds - 1), 1), 0.975))


def _largest_rates(curves: Curves, lanes: int) -> tuple[np.ndarray, np.ndarray]:
    """The largest usable rate of every lane, and its spread over seeds."""
    if not curves.is_range_test:
        return np.full(lanes, np.nan), np.full(lanes, np.nan)
    agreed = suggest(curves).consensus
    return agreed.max_learning_rate.ravel(), agreed.spread.ravel()


def _best(lowest: int, tied: np.ndarray, rates: np.ndarray, spread: np.ndarray) -> int:
    """Of the tied lanes the one of the largest rate, if that is larger than can be chance."""
    candidates = np.where(tied & np.isfinite(rates), rates, -np.inf)
    largest = int(np.argmax(candidates))
    if not (np.isfinite(rates[lowest]) and np.isfinite(candidates[largest])):
        return lowest
    further = np.log10(rates[largest] / rates[lowest])
    return largest if further > np.hypot(spread[largest], spread[lowest]) else lowest
