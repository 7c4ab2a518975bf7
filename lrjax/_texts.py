"""Numbers, names and tables as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def format_number(value: float) -> str:
    """A number to read, or a dash where there is none.

    Example:
        >>> format_number(0.123456), format_number(np.nan)
        ('0.1235', '-')
    """
    return f"{value:.4g}" if np.isfinite(value) else "-"


def format_coordinate(value: Any, digits: int = 4) -> str:
    """A lane's coordinate to read: a seed or another integer in full, a float shortened.

    Example:
        >>> format_coordinate(np.int32(20240101)), format_coordinate(np.float32(1e-4))
        ('20240101', '0.0001')
    """
    return str(value) if isinstance(value, int | np.integer) else f"{value:.{digits}g}"


def as_words(name: str) -> str:
    """A name as people write it: `weight_decay` as `weight decay`."""
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
