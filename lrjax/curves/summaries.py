"""The table of lanes that `Curves.summary` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lrjax._texts import aligned, format_coordinate, format_number
from lrjax.curves.axes import coordinates

if TYPE_CHECKING:
    from lrjax.curves.results import Curves


def summary(curves: Curves) -> str:
    """The lanes: the best loss, where it was, the last, and divergence."""
    evaluated = curves.eval_loss.shape[-1] > 0
    header = [*curves.axes, "best loss", "at rate", "last loss"]
    header += ["best eval", "last eval"] if evaluated else []
    rows = [[*header, "diverged at"]]
    smooth = curves.smooth().loss
    for index in np.ndindex(curves.diverged_at.shape):
        row = [*map(format_coordinate, coordinates(curves.axes, index).values())]
        lowest, rate = _best(smooth[index], curves.rates()[index])
        row += map(format_number, (lowest, rate, _last(curves.loss[index])))
        if evaluated:
            evaluations = curves.eval_loss[index]
            row += map(format_number, (*_best(evaluations), _last(evaluations)))
        rows.append([*row, str(curves.diverged_at[index]) if curves.diverged[index] else "-"])
    return "\n".join(aligned(rows))


def _best(losses: np.ndarray, *others: np.ndarray) -> list[float]:
    """The smallest finite loss, and what others are there; NaN for all where there is none."""
    finite = np.isfinite(losses)
    index = np.argmin(np.where(finite, losses, np.inf))
    return [float(values[index]) if finite.any() else np.nan for values in (losses, *others)]


def _last(values: np.ndarray) -> float:
    """The last finite entry, or NaN."""
    finite = values[np.isfinite(values)]
    return float(finite[-1]) if len(finite) else np.nan
