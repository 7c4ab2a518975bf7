"""Tables of lanes as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

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
        row = [*map(coordinate, coordinates(curves.axes, index).values())]
        row += [_number(_best(smooth[index])[1])]
        row += [_number(curves.rates()[index][_best(smooth[index])[0]])]
        row += [_number(_last(curves.loss[index]))]
        if evaluated:
            row += [_number(_best(curves.eval_loss[index])[1])]
            row += [_number(_last(curves.eval_loss[index]))]
        rows.append([*row, str(curves.diverged_at[index]) if curves.diverged[index] else "-"])
    return "\n".join(aligned(rows))


def coordinate(value: Any, digits: int = 4) -> str:
    """A lane's coordinate to read: a seed or another integer in full, a float shortened.

    Example:
        >>> coordinate(np.int32(20240101)), coordinate(np.float32(1e-4))
        ('20240101', '0.0001')
    """
    return str(value) if isinstance(value, int | np.integer) else f"{value:.{digits}g}"


def spoken(name: str) -> str:
    """A name as people write it."""
    return name.replace("_", " ")


def shortened(value: Any, digits: int = 6) -> float:
    """Without the digits that float32 adds, so that 1e-4 is printed as it was written.

    Example:
        >>> float(np.float32(1e-4)), shortened(np.float32(1e-4))
        (9.999999747378752e-05, 0.0001)
    """
    return float(f"{value:.{digits}g}")


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table whose columns end where their widest cell does."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.rjust, row, widths)) for row in rows]


def _best(values: np.ndarray) -> tuple[int, float]:
    """The position and the value of the smallest finite entry."""
    index = int(np.argmin(np.where(np.isfinite(values), values, np.inf)))
    return index, float(values[index])


def _last(values: np.ndarray) -> float:
    """The last finite entry, or NaN."""
    finite = values[np.isfinite(values)]
    return float(finite[-1]) if len(finite) else np.nan


def _number(value: float) -> str:
    return f"{value:.4g}"
