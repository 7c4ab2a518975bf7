"""What a protocol comes to: the values to train with, and what they rest on."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optax

from lrjax import _checks
from lrjax.curves import Curves
from lrjax.recipes.cycles import MAX_OVER_MIN, OneCycle
from lrjax.schedules import Schedule
from lrjax.transforms import adamw, sgd
from lrjax.transforms.adapters import readable

FACTORIES: dict[str, Callable] = {"sgd": sgd, "adamw": adamw}


INTERRUPTED = "interrupted"  # the reason of a recipe that was


@dataclass(frozen=True, kw_only=True, eq=False)
class Recipe:
    """The plan of a 1cycle run, and the curves that it was read from; see `smith_recipe`.

    Attributes:
        max_learning_rate: the rate at the peak of the cycle; NaN where none can be named.
        min_learning_rate: the rate at its start, a tenth of the peak.
        weight_decay: the decay, the same throughout; None if none was asked for or chosen.
        momentum: the momentum (of Adam: `b1`) at the start and at the end of the cycle, where
            it is highest; None if none was asked for or chosen.
        min_momentum: the momentum at the peak of the rate.
        total_steps: updates of the run.
        reason: why there is no rate, empty where there is one: those of `Suggestion` that the
            range test gave, `short_runs_diverged` or `interrupted`.
        account: what was done and seen, and why this was chosen, in sentences.
        doubts: where the evidence is weak, in sentences.
        evidence: the curves that the choices were made from: `range_test`, `refined` at
            neighbouring weight decays, and `cycles`, the short 1cycle runs; and of the trials that
            led to them: `narrow_0`, `wide_1`, … for other ranges, `higher_0`, … for higher peaks.
        factory: the optimizer, `factory(learning_rate, weight_decay, momentum or b1)`.
    """

    max_learning_rate: float
    weight_decay: float | None
    momentum: float | None
    min_momentum: float | None
    total_steps: int
    reason: str = ""
    account: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    evidence: dict[str, Curves] = field(default_factory=dict)
    factory: Callable = sgd

    @property
    def min_learning_rate(self) -> float:
        """The rate at the start of the cycle, a tenth of the peak."""
        return self.max_learning_rate / MAX_OVER_MIN

    @property
    def interrupted(self) -> bool:
        """Whether a stage was interrupted; with a `checkpoint_dir`, the same call goes on."""
        return self.reason == INTERRUPTED

    @property
    def updates(self) -> int:
        """What the recipe cost: the updates of all lanes of all stages."""
        return sum(curves.done().loss.size for curves in self.evidence.values())

    def optimizer(self) -> optax.GradientTransformation:
        """The optimizer of the run; `get_hyperparams` reads its hyperparameters.

        Raises:
            ValueError: if the recipe names no rate.

        Example:
            >>> from lrjax import get_hyperparams
            >>> recipe = Recipe(
            ...     max_learning_rate=0.5, weight_decay=1e-4,
            ...     momentum=0.95, min_momentum=0.85, total_steps=100)
            >>> state = recipe.optimizer().init(np.zeros(3))
            >>> {name: round(float(value), 4) for name, value in get_hyperparams(state).items()}
            {'learning_rate': 0.05, 'momentum': 0.95, 'weight_decay': 0.0001}
        """
        hyperparams = self._cycle().hyperparams(self.max_learning_rate, self.momentum)
        return readable(self.factory, **hyperparams)

    def schedules(self) -> tuple[Schedule, Schedule | None]:
        """The run's learning rate, and its momentum if it has one, as schedules of the update.

        Raises:
            ValueError: if the recipe names no rate.

        Example:
            >>> recipe = Recipe(
            ...     max_learning_rate=0.5, weight_decay=None,
            ...     momentum=None, min_momentum=None, total_steps=100)
            >>> rate, momentum = recipe.schedules()
            >>> round(float(rate(29)), 4), momentum
            (0.5, None)
        """
        return self._cycle().schedules(self.max_learning_rate, self.momentum)

    def _cycle(self) -> OneCycle:
        if not np.isfinite(self.max_learning_rate):
            raise ValueError(
                f"the recipe names no learning rate, {self.reason}; describe() says more."
            )
        return OneCycle(self.factory, self.total_steps, self.weight_decay, self.min_momentum)

    def describe(self) -> str:
        """What was done, what was seen and why this was chosen, to check against the curves.

        Example:
            >>> recipe = Recipe(
            ...     max_learning_rate=0.5, weight_decay=1e-4,
            ...     momentum=None, min_momentum=None, total_steps=100)
            >>> print(recipe.describe().partition("; ")[0])
            1cycle over 100 updates: learning rate from 0.05 up to 0.5 and down to almost 0
        """
        doubts = ["Weak: " + doubt for doubt in self.doubts]
        return "\n".join([self._plan(), *self.account, *doubts])

    def _plan(self) -> str:
        if self.reason:
            return f"No learning rate can be named: {self.reason}."
        held = f"weight decay {self.weight_decay:.3g}" if self.weight_decay is not None else ""
        if self.momentum is not None:
            held += (", " if held else "") + (
                f"momentum {self.momentum:.3g} falling to {self.min_momentum:.3g} at the peak"
            )
        return (
            f"1cycle over {self.total_steps} updates: learning rate from "
            f"{self.min_learning_rate:.3g} up to {self.max_learning_rate:.3g} and down to almost "
            f"0{'; ' if held else ''}{held}."
        )

    def __repr__(self) -> str:
        """The plan in one line."""
        return f"Recipe({self._plan()})"

    def to_json(self) -> str:
        """Everything as JSON, curves included, which `from_json` reads.

        Example:
            >>> recipe = Recipe(
            ...     max_learning_rate=0.5, weight_decay=None,
            ...     momentum=None, min_momentum=None, total_steps=100)
            >>> Recipe.from_json(recipe.to_json()).max_learning_rate
            0.5
        """
        fields = dict(vars(self))
        fields["evidence"] = {name: _encoded(curves) for name, curves in self.evidence.items()}
        known = (name for name, factory in FACTORIES.items() if factory is self.factory)
        fields["factory"] = next(known, repr(self.factory))
        if not np.isfinite(self.max_learning_rate):
            fields["max_learning_rate"] = None
        numbers = {name: value.item() for name, value in fields.items() if hasattr(value, "item")}
        return json.dumps({"lrjax.Recipe": 1, **fields, **numbers}, allow_nan=False)

    @classmethod
    def from_json(cls, text: str, *, factory: Callable | None = None) -> Recipe:
        """Read what `to_json` wrote.

        Args:
            text: the JSON.
            factory: the optimizer, where it was neither `lrjax.sgd` nor `lrjax.adamw`.

        Returns:
            The recipe.

        Raises:
            ValueError: if the text is not of `to_json`, or needs a `factory`.

        Example:
            >>> Recipe.from_json("{}")
            Traceback (most recent call last):
            ValueError: text must be what Recipe.to_json wrote, got '{}' ('lrjax.Recipe').
        """
        try:
            fields = json.loads(text)
            if fields.pop("lrjax.Recipe") != 1:
                raise ValueError("another version's")
            named = fields.pop("factory")
            fields["evidence"] = {name: _decoded(c) for name, c in fields["evidence"].items()}
            for name in ("account", "doubts"):
                fields[name] = tuple(fields[name])
            if fields["max_learning_rate"] is None:
                fields["max_learning_rate"] = np.nan
            recipe = cls(**fields)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise ValueError(
                f"text must be what Recipe.to_json wrote, got {str(text)[:60]!r} ({error})."
            ) from error
        if factory is None:
            factory = FACTORIES[_checks.one_of("factory", named, FACTORIES)]
        return dataclasses.replace(recipe, factory=factory)


def _encoded(value: Any) -> Any:
    """Curves, and the arrays in them, as what JSON has."""
    if isinstance(value, Curves):
        return {name: _encoded(entry) for name, entry in vars(value).items()}
    if isinstance(value, dict):
        return {"names": {name: _encoded(array) for name, array in value.items()}}
    if value is None:
        return None
    array = np.asarray(value)
    # The shortest digits that give the same float32; NaN and infinities, which JSON's numbers do
    # not have, as words.
    words = array.ravel().astype(str).tolist()
    values = [json.loads(word) if np.isfinite(float(word)) else word for word in words]
    return {"dtype": str(array.dtype), "shape": array.shape, "values": values}


def _decoded(value: Any) -> Any:
    """The inverse of `_encoded`."""
    if value is None:
        return None
    if "names" in value:
        return {name: _decoded(array) for name, array in value["names"].items()}
    if "dtype" in value:
        return np.array(value["values"], dtype=value["dtype"]).reshape(value["shape"])
    return Curves(**{name: _decoded(entry) for name, entry in value.items()})
