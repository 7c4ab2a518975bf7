"""One number for every lane, whatever its seed."""

from __future__ import annotations

import numpy as np

from lrjax import _checks
from lrjax.curves import Curves
from lrjax.curves.axes import seeds_last
from lrjax.suggestions.methods import suggest
from lrjax.suggestions.results import Suggestion

# What there is, and what people call it.
QUANTITIES = {
    "loss": "lowest training loss",
    "eval_loss": "lowest held-out loss",
    "last_loss": "last training loss",
    "last_eval_loss": "last held-out loss",
    "max_learning_rate": "largest usable learning rate",
}


def grid_values(curves: Curves, quantity: str, suggestion: Suggestion | None = None) -> np.ndarray:
    """One number per lane, over its seeds; NaN where there is none, f64[*axes without seed]."""
    _checks.one_of("quantity", quantity, QUANTITIES)
    if quantity == "max_learning_rate":
        return (suggestion or suggest(curves)).consensus.max_learning_rate
    if quantity.endswith("eval_loss") and not len(curves.eval_steps):
        raise ValueError("curves must have evaluations for the held-out loss, got none.")
    curves = curves.done()
    losses = curves.eval_loss if quantity.endswith("eval_loss") else curves.smooth().loss
    if not losses.shape[-1]:  # of a sweep that was interrupted before the first evaluation
        losses = np.full((*losses.shape[:-1], 1), np.nan)
    last = quantity.startswith("last_")
    values = (losses[..., -1] if last else np.fmin.reduce(losses, axis=-1)).astype(np.float64)
    return seeds_last(curves.axes, values).mean(-1)
