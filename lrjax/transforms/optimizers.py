"""SGD and AdamW with every hyperparameter schedulable, and with cycles of rate and momentum."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import optax
from jax.typing import ArrayLike

from lrjax import _checks
from lrjax.schedules import (
    Schedule,
    exp_range,
    onecycle,
    onecycle_momentum,
    triangular,
    triangular2,
)
from lrjax.transforms.arguments import Hyperparam, hyperparameter, is_zero
from lrjax.transforms.injection import Transform, inject

__all__ = ["adamw", "cyclical_sgd", "onecycle_adamw", "onecycle_sgd", "sgd"]


def sgd(
    learning_rate: Hyperparam,
    momentum: Hyperparam = 0.0,
    *,
    nesterov: bool = False,
    weight_decay: Hyperparam = 0.0,
    decoupled: bool = False,
    mask: Any = None,
) -> Transform:
    r"""Stochastic gradient descent with momentum, as in PyTorch and Caffe.

    .. math:: g \leftarrow g + \lambda w, \quad b \leftarrow \mu b + g, \quad
        w \leftarrow w - \eta b

    Args:
        learning_rate: :math:`\eta`, a number, an array or a schedule.
        momentum: :math:`\mu`; the number 0 leaves the buffer out.
        nesterov: whether to step along :math:`g + \mu b`.
        weight_decay: :math:`\lambda`; the number 0 leaves the decay out.
        decoupled: whether the decay passes the momentum by, as in AdamW.
        mask: which parameters decay: a tree of bools, or a function from parameters to one.

    Returns:
        A gradient transformation; `get_hyperparams` reads its hyperparameters.

    Raises:
        ValueError: for a number below 0 or not finite, a momentum above 1, or `nesterov` without
            momentum.
        TypeError: for a hyperparameter that is neither a number, an array nor a schedule, or a
            mask that is neither a tree of bools nor a function.

    Example:
        >>> import numpy as np
        >>> from lrjax import get_hyperparams
        >>> optimizer = sgd(0.1, 0.9, weight_decay=1e-4)
        >>> sorted(get_hyperparams(optimizer.init(np.zeros(3))))
        ['learning_rate', 'momentum', 'weight_decay']

    References:
        Loshchilov & Hutter, Decoupled Weight Decay Regularization, 2017, arXiv 1711.05101.
    """
    momentum_if_any = _unless_zero("momentum", momentum, at_least=0, at_most=1)
    if _checks.flag("nesterov", nesterov) and momentum_if_any is None:
        raise ValueError(f"nesterov must be False without momentum, got {nesterov!r}.")
    return inject(
        _sgd,
        learning_rate=hyperparameter("learning_rate", learning_rate, at_least=0),
        momentum=momentum_if_any,
        nesterov=nesterov,
        weight_decay=_unless_zero("weight_decay", weight_decay, at_least=0),
        decoupled=_checks.flag("decoupled", decoupled),
        mask=_mask(mask),
    )


def _unless_zero(name: str, value: Hyperparam, **bounds: float) -> Hyperparam | None:
    return None if is_zero(hyperparameter(name, value, **bounds)) else value


def _mask(mask: Any) -> Any:
    if not callable(mask) and not all(
        isinstance(leaf, bool | np.bool_) for leaf in jax.tree.leaves(mask)
    ):
        raise _checks.KindError(f"mask must be a tree of bools or a function to one, got {mask!r}.")
    return mask


def _sgd(learning_rate, momentum, nesterov, weight_decay, decoupled, mask):
    decay = [] if weight_decay is None else [optax.add_decayed_weights(weight_decay, mask)]
    trace = [] if momentum is None else [optax.trace(momentum, nesterov)]
    steps = trace + decay if decoupled else decay + trace
    return optax.chain(*steps, optax.scale_by_learning_rate(learning_rate))


def adamw(
    learning_rate: Hyperparam,
    b1: Hyperparam = 0.9,
    b2: Hyperparam = 0.999,
    eps: Hyperparam = 1e-8,
    *,
    weight_decay: Hyperparam = 1e-4,
    mask: Any = None,
) -> Transform:
    """Optax's AdamW, with every hyperparameter a number, an array or a schedule.

    Args:
        learning_rate: the step size; it also scales the decay.
        b1: decay of the gradients' average, the momentum of Adam.
        b2: decay of the squared gradients' average.
        eps: added to the denominator.
        weight_decay: decoupled weight decay.
        mask: which parameters decay: a tree of bools, or a function from parameters to one.

    Returns:
        A gradient transformation; `get_hyperparams` reads its hyperparameters.

    Raises:
        ValueError: for a number below 0 or not finite, or a `b1` or `b2` of 1 or above.
        TypeError: for a hyperparameter that is neither a number, an array nor a schedule, or a
            mask that is neither a tree of bools nor a function.

    Example:
        >>> import numpy as np
        >>> from lrjax import get_hyperparams
        >>> sorted(get_hyperparams(adamw(1e-3).init(np.zeros(3))))
        ['b1', 'b2', 'eps', 'learning_rate', 'weight_decay']

    References:
        Loshchilov & Hutter, Decoupled Weight Decay Regularization, 2017, arXiv 1711.05101.
    """
    return inject(
        optax.adamw,
        learning_rate=hyperparameter("learning_rate", learning_rate, at_least=0),
        b1=hyperparameter("b1", b1, at_least=0, below=1),
        b2=hyperparameter("b2", b2, at_least=0, below=1),
        eps=hyperparameter("eps", eps, at_least=0),
        weight_decay=hyperparameter("weight_decay", weight_decay, at_least=0),
        mask=_mask(mask),
    )


def cyclical_sgd(
    base_value: ArrayLike,
    peak_value: ArrayLike,
    steps_up: int,
    steps_down: int | None = None,
    *,
    momentum: tuple[ArrayLike, ArrayLike] | Hyperparam = (0.8, 0.9),
    mode: str = "triangular",
    gamma: ArrayLike = 1.0,
    weight_decay: Hyperparam = 0.0,
    nesterov: bool = False,
    decoupled: bool = False,
    mask: Any = None,
) -> Transform:
    """SGD with a cyclical rate, and a momentum that falls while the rate rises.

    The conventions are those of PyTorch's `CyclicLR` with `cycle_momentum=True`.

    Args:
        base_value: the smallest rate.
        peak_value: the largest rate.
        steps_up: updates from base to peak.
        steps_down: updates from peak to base; as many as up if not given.
        momentum: the smallest (at the peak) and the largest; or one number or schedule.
        mode: `"triangular"`, `"triangular2"` or `"exp_range"`.
        gamma: factor of the height per update, in the mode `"exp_range"` only.
        weight_decay: as in `sgd`.
        nesterov: as in `sgd`.
        decoupled: as in `sgd`.
        mask: as in `sgd`.

    Returns:
        A gradient transformation; `get_hyperparams` reads its hyperparameters.

    Raises:
        ValueError: as `lrjax.cyclical`, for an unknown mode, and for a gamma that has no effect.

    Example:
        >>> import numpy as np
        >>> from lrjax import get_hyperparams
        >>> optimizer = cyclical_sgd(0.1, 1.0, 10, weight_decay=1e-4)
        >>> hyperparams = get_hyperparams(optimizer.init(np.zeros(3)))
        >>> {name: round(float(value), 4) for name, value in hyperparams.items()}
        {'learning_rate': 0.1, 'momentum': 0.9, 'weight_decay': 0.0001}

    References:
        Smith, Cyclical Learning Rates for Training Neural Networks, 2015, arXiv 1506.01186.
        Smith, A disciplined approach to neural network hyper-parameters, 2018,
        arXiv 1803.09820.
    """
    cycle = _CYCLES[_checks.one_of("mode", mode, _CYCLES)]
    if mode == "exp_range":
        cycle = functools.partial(cycle, gamma=gamma)
    elif isinstance(gamma, jax.core.Tracer) or np.any(np.asarray(gamma) != 1):
        raise ValueError(f"gamma must be 1 unless mode is 'exp_range', got {gamma!r}.")
    learning_rate = cycle(base_value, peak_value, steps_up, steps_down)

    def falling_first(smallest, largest):
        return cycle(largest, smallest, steps_up, steps_down)

    return sgd(
        learning_rate,
        _cycled("momentum", momentum, falling_first),
        nesterov=nesterov,
        weight_decay=weight_decay,
        decoupled=decoupled,
        mask=mask,
    )


_CYCLES: dict[str, Callable[..., Schedule]] = {
    "triangular": triangular,
    "triangular2": triangular2,
    "exp_range": exp_range,
}


def _cycled(name: str, momentum: Any, cycle: Callable[..., Schedule]) -> Hyperparam:
    """The cycle of a pair, from the smallest momentum and the largest; else the momentum itself."""
    if isinstance(momentum, tuple | list) or (not callable(momentum) and np.ndim(momentum) > 0):
        return cycle(*_pair(name, momentum))
    return momentum


def _pair(name: str, value: Sequence[ArrayLike]) -> tuple[ArrayLike, ArrayLike]:
    ends = [_checks.number(name, end, at_least=0, at_most=1) for end in value]
    known = not any(isinstance(end, jax.core.Tracer) for end in ends)
    if len(ends) != 2 or (known and np.any(np.asarray(ends[0]) > np.asarray(ends[1]))):
        raise ValueError(f"{name} must be the smallest value and the largest, got {value!r}.")
    return ends[0], ends[1]


def onecycle_sgd(
    peak_value: ArrayLike,
    total_steps: int,
    *,
    momentum: tuple[ArrayLike, ArrayLike] | Hyperparam = (0.85, 0.95),
    weight_decay: Hyperparam = 0.0,
    nesterov: bool = False,
    decoupled: bool = False,
    mask: Any = None,
    **cycle: Any,
) -> Transform:
    """SGD with a 1cycle rate, and a momentum that falls while the rate rises.

    The conventions are those of PyTorch's `OneCycleLR` with `cycle_momentum=True`.

    Args:
        peak_value: the largest rate.
        total_steps: updates of the whole run.
        momentum: the smallest (at the peak) and the largest; or one number or schedule.
        weight_decay: as in `sgd`.
        nesterov: as in `sgd`.
        decoupled: as in `sgd`.
        mask: as in `sgd`.
        **cycle: the other arguments of `lrjax.onecycle`: `pct_start`, `anneal`, …

    Returns:
        A gradient transformation; `get_hyperparams` reads its hyperparameters.

    Raises:
        ValueError: as `lrjax.onecycle`.

    Example:
        >>> import numpy as np
        >>> from lrjax import get_hyperparams
        >>> optimizer = onecycle_sgd(1.0, 100)
        >>> hyperparams = get_hyperparams(optimizer.init(np.zeros(3)))
        >>> {name: round(float(value), 4) for name, value in hyperparams.items()}
        {'learning_rate': 0.04, 'momentum': 0.95}

    References:
        Smith, A disciplined approach to neural network hyper-parameters, 2018,
        arXiv 1803.09820.
    """
    return sgd(
        onecycle(peak_value, total_steps, **cycle),
        _onecycled("momentum", momentum, total_steps, **cycle),
        nesterov=nesterov,
        weight_decay=weight_decay,
        decoupled=decoupled,
        mask=mask,
    )


def onecycle_adamw(
    peak_value: ArrayLike,
    total_steps: int,
    *,
    b1: tuple[ArrayLike, ArrayLike] | Hyperparam = (0.85, 0.95),
    b2: Hyperparam = 0.999,
    eps: Hyperparam = 1e-8,
    weight_decay: Hyperparam = 1e-4,
    mask: Any = None,
    **cycle: Any,
) -> Transform:
    """AdamW with a 1cycle rate, and a `b1` that falls while the rate rises.

    Args:
        peak_value: the largest rate.
        total_steps: updates of the whole run.
        b1: the smallest (at the peak) and the largest; or one number or schedule.
        b2: as in `adamw`.
        eps: as in `adamw`.
        weight_decay: as in `adamw`.
        mask: as in `adamw`.
        **cycle: the other arguments of `lrjax.onecycle`: `pct_start`, `anneal`, …

    Returns:
        A gradient transformation; `get_hyperparams` reads its hyperparameters.

    Raises:
        ValueError: as `lrjax.onecycle`.

    Example:
        >>> import numpy as np
        >>> from lrjax import get_hyperparams
        >>> hyperparams = get_hyperparams(onecycle_adamw(1.0, 100).init(np.zeros(3)))
        >>> round(float(hyperparams["b1"]), 4)
        0.95

    References:
        Smith, A disciplined approach to neural network hyper-parameters, 2018,
        arXiv 1803.09820.
    """
    return adamw(
        onecycle(peak_value, total_steps, **cycle),
        _onecycled("b1", b1, total_steps, **cycle),
        b2,
        eps,
        weight_decay=weight_decay,
        mask=mask,
    )


def _onecycled(name, momentum, total_steps, *, div_factor=None, final_div_factor=None, **cycle):
    """The momentum's side of a 1cycle, which has no use for the rate's two factors."""
    del div_factor, final_div_factor

    def rising_last(smallest, largest):
        return onecycle_momentum(total_steps, base_value=smallest, max_value=largest, **cycle)

    return _cycled(name, momentum, rising_last)
