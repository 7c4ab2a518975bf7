"""What a sweep returns: arrays with named axes, in which divergence is data."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from lrjax import _checks
from lrjax.curves import files, summaries
from lrjax.curves.axes import Arrays
from lrjax.curves.smoothing import smoothed

__all__ = ["Curves"]


@jax.tree_util.register_pytree_with_keys_class
@dataclass(frozen=True, kw_only=True, eq=False)
class Curves:
    """The curves of a sweep, numpy arrays on the host.

    Curves from elsewhere need only `learning_rate` and `loss`, and `axes` if there are several.

    `*axes` stands for one dimension per entry of `axes`. From the step at which a lane
    diverged on, its losses, metrics and evaluations are NaN: arrays need one shape, and NaN is
    drawn as nothing.

    Attributes:
        axes: coordinates along every axis of lanes, in order, such as
            `{"weight_decay": f32[4], "seed": i32[2]}`.
        learning_rate: the rate of every update, f32[steps]; f32[*axes, steps] where lanes
            differ; NaN where the optimizer does not report it, and after the update that ended
            the last lane.
        momentum: likewise, of SGD's momentum or Adam's b1; None where there is none.
        loss: the training loss before every update, f32[*axes, steps].
        metrics: what else the task measured, f32[*axes, steps] each.
        eval_steps: how many updates preceded each evaluation, i32[evals].
        eval_loss: the loss on the evaluation data, f32[*axes, evals].
        eval_metrics: likewise, f32[*axes, evals] each.
        diverged_at: the step at which a lane diverged, i32[*axes]; the number of steps for a
            lane that never did.
        lanes: for a list of lanes, its hyperparameters along the axis `lane`; else empty.
        steps_done: updates after which the sweep ended, i32[]: all of them, unless it was
            interrupted; what comes after them is NaN, though no lane diverged there.

    Raises:
        ValueError: if there are no steps, or an array does not have its shape.
    """

    axes: Arrays = field(default_factory=dict)
    learning_rate: np.ndarray
    momentum: np.ndarray | None = None
    loss: np.ndarray
    metrics: Arrays = field(default_factory=dict)
    eval_steps: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    eval_loss: np.ndarray = None  # type: ignore[assignment]  # filled in below
    eval_metrics: Arrays = field(default_factory=dict)
    diverged_at: np.ndarray = None  # type: ignore[assignment]
    lanes: Arrays = field(default_factory=dict)
    steps_done: np.ndarray = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        """Fill in what curves from elsewhere do not have: no evaluations, divergence at NaN."""
        for entry in dataclasses.fields(self):
            kind = KINDS.get(entry.name, _measured)
            object.__setattr__(self, entry.name, _each(getattr(self, entry.name), kind))
        if not (self.loss.ndim and self.steps):
            raise ValueError(f"loss must have at least one step, got shape {self.loss.shape}.")
        if self.eval_loss is None:
            empty = np.zeros((*self.loss.shape[:-1], 0), np.float32)
            object.__setattr__(self, "eval_loss", empty)
        if self.steps_done is None:
            object.__setattr__(self, "steps_done", np.int32(self.loss.shape[-1]))
        if self.diverged_at is None:
            bad = ~np.isfinite(self.loss[..., : int(self.steps_done)])
            first = np.where(bad.any(-1), bad.argmax(-1), self.loss.shape[-1])
            object.__setattr__(self, "diverged_at", first.astype(np.int32))
        self._check_shapes()
        for name in ("eval_steps", "diverged_at", "steps_done"):
            counts = getattr(self, name)
            if counts.size and not (counts.min() >= 0 and counts.max() <= self.steps):
                raise ValueError(f"{name} must be from 0 to {self.steps}, got {counts}.")

    def _check_shapes(self) -> None:
        """Every array has the axes of lanes, and steps or evaluations, that the others have."""
        lanes = tuple(len(values) for values in self.axes.values())
        steps, evals = (*lanes, self.steps), (*lanes, len(self.eval_steps))
        listed = (len(self.axes["lane"]),) if "lane" in self.axes else ()
        shared: dict[str, Any] = {"learning_rate": self.learning_rate, "momentum": self.momentum}
        groups: list[tuple[dict[str, Any], str, list[tuple[int, ...]]]] = [
            ({"loss": self.loss, **self.metrics}, "[*axes, steps]", [steps]),
            (shared, "[steps] or [*axes, steps]", [steps[-1:], steps]),
            ({"eval_loss": self.eval_loss, **self.eval_metrics}, "[*axes, evals]", [evals]),
            ({"diverged_at": self.diverged_at}, "[*axes]", [lanes]),
            (self.lanes, "[lane]", [listed]),
        ]
        for arrays, meaning, shapes in groups:
            for name, array in arrays.items():
                if array is not None and np.shape(array) not in shapes:
                    expected = " or ".join(map(str, shapes))
                    raise ValueError(
                        f"{name} must have the shape {meaning}, here {expected}, "
                        f"got {np.shape(array)}."
                    )

    @property
    def steps(self) -> int:
        """The number of updates."""
        return self.loss.shape[-1]

    @property
    def diverged(self) -> np.ndarray:
        """Which lanes diverged, bool[*axes]."""
        return self.diverged_at < self.steps

    def done(self) -> Curves:
        """The curves of the updates that were done: all of them, or those before an interruption.

        Example:
            >>> whole = Curves(learning_rate=[0.1] * 4, loss=[3, 2, 1, np.nan], steps_done=3)
            >>> whole.done().loss.tolist()
            [3.0, 2.0, 1.0]
        """
        steps = int(self.steps_done)
        if not self.interrupted:
            return self
        evals = int(np.count_nonzero(self.eval_steps <= steps))

        def cut(names: Sequence[str], length: int) -> dict[str, Any]:
            return {n: _each(getattr(self, n), lambda array: array[..., :length]) for n in names}

        return dataclasses.replace(
            self,
            **cut(STEPPED, steps),
            **cut(("eval_steps", *EVALUATED), evals),
            diverged_at=np.minimum(self.diverged_at, steps),
        )

    @property
    def interrupted(self) -> bool:
        """Whether the sweep ended before its last update."""
        return bool(self.steps_done < self.steps)

    @property
    def is_range_test(self) -> bool:
        """Whether the learning rate of every lane rises, or stays for a while, to the end."""
        rates = self.done().rates()
        return bool(np.all(np.diff(rates) >= 0) and np.all(rates[..., :1] < rates[..., -1:]))

    def rates(self) -> np.ndarray:
        """The learning rate of every lane, f32[*axes, steps].

        Example:
            >>> Curves(axes={"seed": [0, 1]}, learning_rate=[0.1], loss=[[3], [5]]).rates().shape
            (2, 1)
        """
        return np.broadcast_to(self.learning_rate, self.loss.shape)

    def select(self, **coordinates: Any) -> Curves:
        """The curves at some coordinates.

        Args:
            **coordinates: by axis: a value, which removes the axis, or a list of values.

        Returns:
            The curves of those lanes.

        Raises:
            ValueError: for an unknown axis, a coordinate that is not on it, or none.

        Example:
            >>> curves = Curves(
            ...     axes={"weight_decay": np.float32([0, 1e-4]), "seed": np.int32([0, 1])},
            ...     learning_rate=np.float32([0.1, 0.2]),
            ...     loss=np.arange(8, dtype=np.float32).reshape(2, 2, 2))
            >>> curves.select(weight_decay=1e-4, seed=0).loss.tolist()
            [4.0, 5.0]
        """
        selected = self
        for name, wanted in coordinates.items():
            selected = selected._at(name, wanted)
        return selected

    def _at(self, name: str, wanted: Any) -> Curves:
        """The curves at one coordinate of an axis, which goes, or at several of them."""
        axis = self._axis(name)
        if np.ndim(wanted) > 1 or not np.size(wanted) or isinstance(wanted, slice):
            raise ValueError(f"{name} must be a value or a list of some, got {wanted!r}.")
        found = [self._find(name, value) for value in np.atleast_1d(wanted)]
        index: Any = found if np.ndim(wanted) else found[0]
        axes, lanes = self.axes | {name: np.asarray(self.axes[name])[index]}, self.lanes
        if not np.ndim(wanted):
            del axes[name]
        if name == "lane":
            lanes = {key: np.asarray(column)[index] for key, column in lanes.items()}
        return self._over_lanes(lambda array: np.take(array, index, axis), axes=axes, lanes=lanes)

    def mean(self, axis: str = "seed") -> Curves:
        """The mean over an axis of lanes.

        Where the first lane has diverged the mean ends: a mean of the survivors would jump.

        Args:
            axis: name of the axis.

        Returns:
            The curves without that axis; `diverged_at` is the earliest along it.

        Raises:
            ValueError: for an unknown axis.

        Example:
            >>> axes = {"seed": [0, 1]}
            >>> curves = Curves(axes=axes, learning_rate=[0.1, 0.2], loss=[[3, 1], [5, 2]])
            >>> curves.mean().loss.tolist()
            [4.0, 1.5]
        """
        position = self._axis(axis)
        axes = {name: values for name, values in self.axes.items() if name != axis}
        return self._over_lanes(
            lambda array: np.mean(array, position, dtype=np.float64).astype(array.dtype),
            axes=axes,
            diverged_at=self.diverged_at.min(position),
            lanes={} if axis == "lane" else self.lanes,
        )

    def smooth(self, width: float | None = None) -> Curves:
        """The losses and metrics smoothed without a lag.

        A Gaussian average, centred on every step, of what is finite: unlike the running
        average that other tools plot, it does not move the minimum to a larger rate.

        Args:
            width: standard deviation of the Gaussian, in steps; a fortieth of all if not given.

        Returns:
            The curves, smoothed; evaluations stay as they are.

        Raises:
            ValueError: for a width that is not above 0.

        Example:
            >>> Curves(learning_rate=[0.1] * 3, loss=[1, 4, 1]).smooth(1.0).loss.round(1)
            array([2. , 2.4, 2. ], dtype=float32)
        """
        if width is None:
            width = self.steps / 40
        _checks.number("width", width, above=0)
        return dataclasses.replace(
            self,
            loss=smoothed(self.loss, width),
            metrics={name: smoothed(metric, width) for name, metric in self.metrics.items()},
        )

    def summary(self) -> str:
        """A table of the lanes: the best loss, where it was, the last, and divergence.

        Example:
            >>> axes = {"weight_decay": [0, 0.1]}
            >>> print(Curves(axes=axes, learning_rate=[0.1, 0.2], loss=[[3, 1], [3, 2]]).summary())
            weight_decay  best loss  at rate  last loss  diverged at
                       0          1      0.2          1            -
                     0.1          2      0.2          2            -
        """
        return summaries.summary(self)

    def save(self, path: str | os.PathLike) -> None:
        """Write everything to one `.npz` file, without pickles, atomically.

        Args:
            path: the file's name; as it is, nothing is appended.

        Example:
            >>> import tempfile
            >>> path = os.path.join(tempfile.mkdtemp(), "curves.npz")
            >>> Curves(learning_rate=[0.1, 0.2], loss=[3, 1]).save(path)
            >>> Curves.load(path).loss.tolist()
            [3.0, 1.0]
        """
        files.write(path, vars(self))

    @classmethod
    def load(cls, path: str | os.PathLike) -> Curves:
        """Read what `save` wrote.

        Args:
            path: the file's name.

        Returns:
            The curves.

        Raises:
            ValueError: if the file is not one of `save`'s.

        Example:
            >>> Curves.load(__file__)  # doctest: +ELLIPSIS
            Traceback (most recent call last):
            ValueError: path must name a file that Curves.save wrote, got ...
        """
        try:
            return cls(**files.read(path))
        except files.UNREADABLE as error:
            raise ValueError(
                f"path must name a file that Curves.save wrote, got {os.fspath(path)!r}."
            ) from error

    def to_xarray(self) -> Any:
        """An `xarray.Dataset` with the same names and coordinates.

        A rate or a momentum that is an axis too is named `learning_rate_used` or `momentum_used`
        as a curve; a metric whose name is taken, `metric_…`; such an axis, `lane_…`.

        Raises:
            ImportError: if xarray is not installed.

        Example:
            >>> curves = Curves(axes={"seed": [0, 1]}, learning_rate=[0.1], loss=[[3], [5]])
            >>> curves.to_xarray().loss.dims
            ('seed', 'step')
        """
        try:
            import xarray
        except ImportError as error:
            raise ImportError("Curves.to_xarray needs xarray: pip install xarray") from error
        results = {"step", "eval_step", "loss", "eval_loss", "diverged_at"}
        axes = {f"lane_{n}" if n in results else n: values for n, values in self.axes.items()}
        lanes = tuple(axes)

        def named(array, last):
            return ((last,) if array.ndim == 1 else (*lanes, last), array)

        variables = {"loss": named(self.loss, "step"), "diverged_at": (lanes, self.diverged_at)}
        for name, array in (("learning_rate", self.learning_rate), ("momentum", self.momentum)):
            if array is not None:
                taken = name in self.axes or name in self.lanes
                variables[f"{name}_used" if taken else name] = named(array, "step")
        variables["eval_loss"] = named(self.eval_loss, "eval_step")
        coordinates = {**axes, "step": np.arange(self.steps), "eval_step": self.eval_steps}
        for name, array in self.lanes.items():
            variables[name] = (("lane",) if "lane" in self.axes else (), array)
        measured = {name: named(array, "step") for name, array in self.metrics.items()}
        for name, array in self.eval_metrics.items():
            measured[f"eval_{name}"] = named(array, "eval_step")
        used = variables.keys() | coordinates.keys()
        variables |= {f"metric_{name}" if name in used else name: a for name, a in measured.items()}
        return xarray.Dataset(variables, coordinates)

    def __repr__(self) -> str:
        """One line: the axes, the number of steps, and how many lanes diverged."""
        axes = ", ".join(f"{name}: {len(values)}" for name, values in self.axes.items())
        diverged, lanes = int(self.diverged.sum()), self.diverged.size
        interrupted = f", interrupted after {self.steps_done}" if self.interrupted else ""
        return (
            f"Curves({axes}; {self.steps} steps, {len(self.eval_steps)} evaluations, "
            f"{diverged} of {lanes} lanes diverged{interrupted})"
        )

    def _repr_html_(self) -> str:
        """A notebook's view: a table of the lanes and a picture."""
        from lrjax._report import curves_html

        return curves_html(self)

    def tree_flatten_with_keys(self):
        """The arrays, and the dicts' names in their order, which a pytree of dicts would lose."""
        children, names = [], []
        for entry in dataclasses.fields(self):
            value = getattr(self, entry.name)
            keys = tuple(value) if isinstance(value, dict) else None
            names.append(keys)
            child = tuple(value.values()) if isinstance(value, dict) else value
            children.append((jax.tree_util.GetAttrKey(entry.name), child))
        return children, tuple(names)

    @classmethod
    def tree_unflatten(cls, names, children):
        """The inverse of `tree_flatten_with_keys`."""
        # Past the constructor: the children may be anything, such as what a tree.map returns.
        curves = object.__new__(cls)
        for entry, keys, child in zip(dataclasses.fields(cls), names, children, strict=True):
            value = child if keys is None else dict(zip(keys, child, strict=True))
            object.__setattr__(curves, entry.name, value)
        return curves

    def _axis(self, name: str) -> int:
        return list(self.axes).index(_checks.one_of("axis", name, self.axes))

    def _find(self, name: str, value: Any) -> int:
        values = np.asarray(self.axes[name])
        # For floats the nearest, because those on the axis may have fewer digits.
        exact = np.issubdtype(values.dtype, np.integer)
        found = values == value if exact else np.isclose(values, value, rtol=1e-5, atol=0)
        if not found.any():
            raise ValueError(f"{name} must be one of {values.tolist()}, got {value}.")
        return int(np.argmin(np.where(found, np.abs(values - value), np.inf)))

    def _over_lanes(self, function, **changed: Any) -> Curves:
        """A function of every array that has axes of lanes, and fields that change otherwise."""

        def applied(name):
            value = getattr(self, name)
            # Rates that all lanes have in common have no axes of lanes.
            if name in RATES and np.ndim(value) == 1 < self.loss.ndim:
                return value
            # An array may have been put on a device.
            return _each(value, lambda array: function(np.asarray(array)))

        fields = {name: applied(name) for name in (*STEPPED, *EVALUATED, "diverged_at")}
        return dataclasses.replace(self, **fields | changed)


def checked(curves: Any) -> Curves:
    """Curves, and not the pair that a sweep with `return_state` returns."""
    return _checks.instance("curves", curves, Curves, "Curves")


def joined(first: Curves, second: Curves, axis: str) -> Curves:
    """The lanes of two sweeps that differ along one axis only.

    Example:
        >>> one = Curves(axes={"seed": [0]}, learning_rate=[0.1, 0.2], loss=[[3, 1]])
        >>> other = Curves(axes={"seed": [1]}, learning_rate=[0.1, 0.2], loss=[[5, 2]])
        >>> joined(one, other, "seed").loss.tolist()
        [[3.0, 1.0], [5.0, 2.0]]
    """
    position = first._axis(axis)

    def arrays(curves):
        found = {name: getattr(curves, name) for name in (*STEPPED, *EVALUATED, "diverged_at")}
        rates = {name: found[name] for name in RATES if found[name] is not None}
        return found | {n: np.broadcast_to(each, curves.loss.shape) for n, each in rates.items()}

    def both(*two):
        return np.concatenate(two, position)

    axes = first.axes | {axis: np.concatenate([first.axes[axis], second.axes[axis]])}
    fields = jax.tree.map(both, arrays(first), arrays(second))
    return dataclasses.replace(first, axes=axes, **fields)


RATES = "learning_rate", "momentum"
STEPPED = *RATES, "loss", "metrics"
EVALUATED = "eval_loss", "eval_metrics"


def _each(value: Any, function: Callable[[Any], np.ndarray]) -> Any:
    """A function of an array, of every array of a dict, or None of None."""
    if value is None:
        return None
    if isinstance(value, dict):
        return {name: function(array) for name, array in value.items()}
    return function(value)


def _as_integers(values: Any) -> np.ndarray:
    array = np.asarray(values)
    return array if np.issubdtype(array.dtype, np.integer) else array.astype(np.int32)


def _measured(values: Any) -> np.ndarray:
    """An array of floats, and so of what can be NaN and averaged."""
    array = np.asarray(values)
    return array if np.issubdtype(array.dtype, np.floating) else array.astype(np.float32)


KINDS: dict[str, Callable[[Any], np.ndarray]] = {
    **dict.fromkeys(("axes", "lanes"), np.asarray),
    **dict.fromkeys(("eval_steps", "diverged_at", "steps_done"), _as_integers),
}
