"""The table of lanes that `Curves.summary` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lrjax.curves.axes import coordinates
from lrjax.curves.texts import aligned, coordinate, number

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
        row = [*map(coordinate, coordinates(curves.axes, index).values())]
        step, lowest = _best(smooth[index])
        row += map(number, (lowest, curves.rates()[index][step], _last(curves.loss[index])))
        if evaluated:
            _, lowest = _best(curves.eval_loss[index])
            row += map(number, (lowest, _last(curves.eval_loss[index])))
        rows.append([*row, str(curves.diverged_at[index]) if curves.diverged[index] else "-"])
    return "\n".join(aligned(rows))


def _best(values: np.ndarray) -> tuple[int, float]:
    """The position and the value of the smallest finite entry."""
    index = int(np.argmin(np.where(np.isfinite(values), values, np.inf)))
    return index, float(values[index])


def _last(values: np.ndarray) -> float:
    """The last finite entry, or NaN."""
    finite = values[np.isfinite(values)]
    return float(finite[-1]) if len(finite) else np.nan
