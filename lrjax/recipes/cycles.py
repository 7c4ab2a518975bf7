"""The 1cycle of a recipe, for any optimizer."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from lrjax.schedules import Schedule, onecycle, onecycle_momentum
from lrjax.sweeps.optimizers import momentum_name
from lrjax.transforms.adapters import with_schedules

# "One tenth" of the maximum for a single cycle (Smith 2018, arXiv 1803.09820, section 5).
MAX_OVER_MIN = 10.0
# The momentum at the peak of the rate falls to this (2018, section 4.3).
MIN_MOMENTUM = 0.85


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["weight_decay", "min_momentum"],
    meta_fields=["optimizer", "total_steps"],
)
@dataclass(frozen=True)
class OneCycle:
    """Makes an optimizer whose rate does one cycle, and whose momentum falls as the rate rises.

    The weight decay is data, so that another one compiles nothing.
    """

    optimizer: Any
    total_steps: int
    weight_decay: ArrayLike | None
    min_momentum: ArrayLike | None = MIN_MOMENTUM

    def schedules(
        self, max_learning_rate: ArrayLike, momentum: ArrayLike | None = None
    ) -> tuple[Schedule, Schedule | None]:
        """The rate, and the momentum where there is one, of the cycle with these maxima."""
        rate = onecycle(max_learning_rate, self.total_steps, div_factor=MAX_OVER_MIN)
        if momentum is None or self.min_momentum is None:
            return rate, None
        lowest = jnp.minimum(self.min_momentum, momentum)
        return rate, onecycle_momentum(self.total_steps, base_value=lowest, max_value=momentum)

    def __call__(
        self, max_learning_rate: ArrayLike, momentum: ArrayLike | None = None
    ) -> optax.GradientTransformation:
        """The optimizer that follows these schedules, with the weight decay if there is one."""
        return with_schedules(self.optimizer, **self.hyperparams(max_learning_rate, momentum))

    def hyperparams(
        self, max_learning_rate: ArrayLike, momentum: ArrayLike | None = None
    ) -> dict[str, Any]:
        """What the optimizer is given: the schedules, and the weight decay if there is one."""
        rate, falling = self.schedules(max_learning_rate, momentum)
        hyperparams = {
            "learning_rate": rate,
            momentum_name(self.optimizer): falling,
            "weight_decay": self.weight_decay,
        }
        return {name: value for name, value in hyperparams.items() if value is not None}
