"""Discriminative learning rates: groups of parameters by the names they go by."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import optax
from jax.typing import ArrayLike

from lrjax import _checks, schedules
from lrjax.transforms.arguments import Hyperparam, hyperparameter, is_zero, numeric
from lrjax.transforms.injection import Transform, inject

__all__ = ["discriminative", "geometric_learning_rates", "layerwise_decay"]


def discriminative(
    factory: Callable[..., optax.GradientTransformation],
    learning_rates: Mapping[str, Hyperparam],
    **hyperparams: Any,
) -> Transform:
    """A learning rate for every group of parameters.

    A group is a regular expression, searched for in the parameter's path: its keys joined by
    "/", as in `"encoder/Dense_0/kernel"`. The first that is found decides, so the special
    comes before the general. `get_hyperparams` reports the rates as `learning_rate/pattern`.

    Args:
        factory: a factory of optimizers that takes a `learning_rate`, lrjax's or Optax's.
        learning_rates: for every pattern a number, an array or a schedule. The number 0 freezes
            the group: no updates, no state. (A schedule may be 0 for a while, and thaw.)
        **hyperparams: all other arguments of the factory, the same for every group.

    Returns:
        A gradient transformation for dicts, Flax parameters and any other pytree.

    Raises:
        ValueError: for a pattern that is not a regular expression, a rate that is not finite; at
            `init`, for a parameter without a pattern, or a pattern that no parameter is left for,
            unless it is found in every path.
        TypeError: for patterns or rates of another kind, or arguments the factory does not take.

    Example:
        >>> import numpy as np
        >>> from lrjax import get_hyperparams, sgd
        >>> optimizer = discriminative(sgd, {"embed": 0, "head": 0.5, ".": 0.25})
        >>> state = optimizer.init({"embed": np.ones(2), "body": np.ones(2), "head": np.ones(2)})
        >>> {name: float(value) for name, value in get_hyperparams(state).items()}
        {'learning_rate/.': 0.25, 'learning_rate/head': 0.5}

    References:
        Howard & Ruder, Universal Language Model Fine-tuning for Text Classification, 2018,
        arXiv 1801.06146.
    """
    if not isinstance(learning_rates, Mapping):
        raise _checks.KindError(
            f"learning_rates must be a dict of patterns, got {learning_rates!r}."
        )
    if not learning_rates:
        raise ValueError(f"learning_rates must hold at least one pattern, got {learning_rates!r}.")
    groups = {
        _pattern(pattern): _group(factory, f"learning_rates[{pattern!r}]", rate, hyperparams)
        for pattern, rate in learning_rates.items()
    }
    return optax.partition(groups, functools.partial(_labels, patterns=tuple(groups)))


def _pattern(pattern: Any) -> str:
    if not isinstance(pattern, str):
        raise _checks.KindError(f"learning_rates must be keyed by patterns, got {pattern!r}.")
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f"learning_rates must be keyed by regular expressions, got {pattern!r}: {error}."
        ) from error
    return pattern


def _group(factory: Callable, name: str, rate: Hyperparam, hyperparams: dict[str, Any]) -> Any:
    # Made also where it is frozen, for the factory's checks of its arguments.
    transform = inject(factory, learning_rate=hyperparameter(name, rate), **hyperparams)
    return optax.set_to_zero() if is_zero(rate) else transform


def _labels(params: Any, *, patterns: tuple[str, ...]) -> Any:
    """The first pattern that is found in each parameter's path."""
    paths, structure = jax.tree_util.tree_flatten_with_path(params)
    names = parameter_names([path for path, _ in paths])
    labels = [next((p for p in patterns if re.search(p, name)), None) for name in names]
    uncovered = [name for name, label in zip(names, labels, strict=True) if label is None]
    if uncovered:
        raise ValueError(
            f"learning_rates must have a pattern for every parameter, got none for {uncovered}."
        )
    # One that is found in every path is a default, of which nothing may be left.
    unused = [
        pattern
        for pattern in patterns
        if pattern not in labels and not all(re.search(pattern, name) for name in names)
    ]
    if unused:
        raise ValueError(
            f"learning_rates must have patterns that match a parameter which no earlier one does, "
            f"got {unused} for the parameters {names}."
        )
    return jax.tree.unflatten(structure, labels)


def parameter_names(paths: list[tuple]) -> list[str]:
    """The names of parameters, joined by slashes, the same in Flax's boxes and without them."""
    return [name_of(path) for path in unboxed(paths)]


def name_of(path: tuple) -> str:
    """A path's keys, joined by slashes."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def unboxed(paths: list[tuple]) -> list[tuple]:
    """The paths without what Flax's boxes add to them."""
    # Flax's boxes (nnx.Variable, linen.Partitioned) hold a parameter as their only `value`;
    # inside an NNX optimizer the same parameters come without boxes, and must get the same names.
    held = Counter(path[:-1] for path in paths)

    def is_boxed(path):
        is_value = len(path) > 1 and getattr(path[-1], "name", None) == "value"
        return is_value and held[path[:-1]] == 1

    return [path[:-1] if is_boxed(path) else path for path in paths]


def geometric_learning_rates(
    low: ArrayLike, high: ArrayLike, num_groups: int
) -> tuple[ArrayLike, ...]:
    r"""Learning rates from low to high, each by the same factor above the one before.

    .. math:: \eta_i = \eta_{low} \left(\eta_{high} / \eta_{low}\right)^{i / (n - 1)}

    Args:
        low: rate of the first group, above 0.
        high: rate of the last group; of one group alone, its rate.
        num_groups: how many groups.

    Returns:
        The rates, for the values of the dict that `discriminative` takes.

    Raises:
        ValueError: for a rate that is not above 0, or less than one group.

    Example:
        >>> patterns = ["embed", "body", "head"]
        >>> dict(zip(patterns, geometric_learning_rates(0.25, 1.0, 3)))
        {'embed': 0.25, 'body': 0.5, 'head': 1.0}

    References:
        Howard & Gugger, fastai: A Layered API for Deep Learning, 2020, arXiv 2002.04688.
    """
    num_groups = _checks.integer("num_groups", num_groups, minimum=1)
    low, high = numeric("low", low, above=0), numeric("high", high, above=0)
    if num_groups == 1:
        return (high,)
    fractions = [i / (num_groups - 1) for i in range(num_groups)]
    return tuple(low ** (1 - fraction) * high**fraction for fraction in fractions)


def layerwise_decay(
    learning_rate: Hyperparam, patterns: Iterable[str], *, decay: ArrayLike
) -> dict[str, Hyperparam]:
    r"""Learning rates that fall from the last layer to the first.

    .. math:: \eta_k = \eta \, d^k

    Args:
        learning_rate: the rate of the last layer, the first pattern: a number or a schedule.
        patterns: one for each layer or group of layers, from the last to the first.
        decay: the factor d from each to the next, e.g. 1 / 2.6 in ULMFiT, 0.65 in BEiT.

    Returns:
        The dict that `discriminative` takes.

    Raises:
        ValueError: for a decay that is not above 0, no patterns, or one that comes twice.
        TypeError: for a rate that is neither a number, an array nor a schedule.

    Example:
        >>> layerwise_decay(1.0, ["head", "block_1", "block_0", "embed"], decay=0.5)
        {'head': 1.0, 'block_1': 0.5, 'block_0': 0.25, 'embed': 0.125}

    References:
        Howard & Ruder, Universal Language Model Fine-tuning for Text Classification, 2018,
        arXiv 1801.06146.
        Bao et al., BEiT: BERT Pre-Training of Image Transformers, 2021, arXiv 2106.08254.
    """
    hyperparameter("learning_rate", learning_rate)
    numeric("decay", decay, above=0)
    patterns = _checks.sequence("patterns", patterns, fewest=1)
    if len(set(patterns)) < len(patterns):
        raise ValueError(f"patterns must be different patterns, got {patterns!r}.")
    factors = {pattern: decay**k for k, pattern in enumerate(patterns)}
    if callable(learning_rate):
        return {name: schedules.scale(learning_rate, factor) for name, factor in factors.items()}
    return {name: learning_rate * factor for name, factor in factors.items()}
