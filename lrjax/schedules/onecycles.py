"""One cycle for a whole training run: PyTorch's conventions, and Smith's own."""

from __future__ import annotations

from functools import partial

from jax.typing import ArrayLike

from lrjax import _checks
from lrjax.schedules import _numerics
from lrjax.schedules._numerics import Schedule

__all__ = ["onecycle", "onecycle_momentum", "smith_onecycle", "smith_onecycle_momentum"]


def onecycle(
    peak_value: ArrayLike,
    total_steps: int,
    *,
    pct_start: float = 0.3,
    div_factor: ArrayLike = 25.0,
    final_div_factor: ArrayLike = 1e4,
    anneal: str = "cosine",
    three_phase: bool = False,
) -> Schedule:
    r"""The 1cycle rate with PyTorch's conventions: up to the peak, down to far below the start.

    From :math:`v_0 = v_{peak}/\mathrm{div}` at count 0 to the peak at
    :math:`e_1 = p\,T - 1`, and to :math:`v_0/\mathrm{final\_div}` at :math:`T - 1`, the last
    of :math:`T` updates. With three phases, back to :math:`v_0` at :math:`2 e_1` and from
    there to the minimum. Ends of phases are real-valued, as in PyTorch. Unlike PyTorch's, the
    schedule holds its last value afterwards, and a rise shorter than one step is left out.

    Args:
        peak_value: the largest value.
        total_steps: updates of the whole run.
        pct_start: fraction of them before the peak; 0 is no rise, 1 no fall.
        div_factor: peak over the initial value.
        final_div_factor: initial value over the last.
        anneal: `"cosine"` or `"linear"`.
        three_phase: whether to fall back to the initial value first.

    Returns:
        A schedule `count -> value`.

    Raises:
        ValueError: for fewer than one step, a fraction outside [0, 1] (above 0.5 with three
            phases), a factor that is not above 0, or an unknown anneal.
        TypeError: for an argument of the wrong type.

    Example:
        >>> rate = onecycle(1.0, 11, pct_start=0.5, anneal="linear", div_factor=10)
        >>> [round(float(rate(count)), 2) for count in (0, 4, 5, 10, 11)]
        [0.1, 0.9, 0.91, 0.0, 0.0]

    References:
        Smith & Topin, Super-Convergence, 2017, arXiv 1708.07120.
    """
    return partial(
        _onecycle,
        peak_value=_checks.number("peak_value", peak_value),
        **_check_phases(total_steps, pct_start, anneal, three_phase),
        div_factor=_checks.number("div_factor", div_factor, above=0),
        final_div_factor=_checks.number("final_div_factor", final_div_factor, above=0),
    )


@_numerics.closed_form
def _onecycle(count, peak_value, div_factor, final_div_factor, three_phase, **phases):
    initial = _numerics.wide(peak_value) / _numerics.wide(div_factor)
    final_div_factor = _numerics.wide(final_div_factor)
    values = (initial, peak_value, *([initial] if three_phase else []), initial / final_div_factor)
    return _phases(count, values, **phases)


def onecycle_momentum(
    total_steps: int,
    *,
    base_value: ArrayLike = 0.85,
    max_value: ArrayLike = 0.95,
    pct_start: float = 0.3,
    anneal: str = "cosine",
    three_phase: bool = False,
) -> Schedule:
    """The momentum beside `onecycle`: from its maximum to its base at the peak, and back.

    Args:
        total_steps: updates of the whole run.
        base_value: momentum where the rate is largest.
        max_value: momentum where the rate is smallest.
        pct_start: as in `onecycle`.
        anneal: `"cosine"` or `"linear"`.
        three_phase: as in `onecycle`; the third phase holds the maximum.

    Returns:
        A schedule `count -> value`.

    Raises:
        ValueError: as in `onecycle`.
        TypeError: for an argument of the wrong type.

    Example:
        >>> momentum = onecycle_momentum(11, pct_start=0.5, anneal="linear")
        >>> [round(float(momentum(count)), 4) for count in (0, 4, 5, 10, 11)]
        [0.95, 0.8611, 0.8591, 0.95, 0.95]

    References:
        Smith, A disciplined approach to neural network hyper-parameters, 2018,
        arXiv 1803.09820.
    """
    return partial(
        _onecycle_momentum,
        base_value=_checks.number("base_value", base_value),
        max_value=_checks.number("max_value", max_value),
        **_check_phases(total_steps, pct_start, anneal, three_phase),
    )


@_numerics.closed_form
def _onecycle_momentum(count, base_value, max_value, three_phase, **phases):
    values = (max_value, base_value, max_value, *([max_value] if three_phase else []))
    return _phases(count, values, **phases)


def _check_phases(total_steps, pct_start, anneal, three_phase) -> dict:
    """The arguments that both 1cycles share, under their names."""
    longest = 0.5 if _checks.flag("three_phase", three_phase) else 1
    return {
        "total_steps": _checks.integer("total_steps", total_steps, minimum=1),
        "pct_start": _checks.static("pct_start", pct_start, at_least=0, at_most=longest),
        "anneal": _checks.one_of("anneal", anneal, ("cosine", "linear")),
        "three_phase": three_phase,
    }


def _phases(count, values, total_steps, pct_start, anneal):
    """Along three values in two phases, or four in three, placed as PyTorch places them."""
    last = total_steps - 1
    peak = min(max(pct_start * total_steps - 1, 0), last)
    times = (0, peak, last) if len(values) == 3 else (0, peak, 2 * peak, last)
    return _numerics.through(count, times, values, anneal)


def smith_onecycle(
    base_value: ArrayLike,
    peak_value: ArrayLike,
    total_steps: int,
    *,
    cycle_steps: int | None = None,
    final_value: ArrayLike | None = None,
) -> Schedule:
    r"""The 1cycle rate of Smith's own runs: a triangle down to 0, then a small constant.

    Linear from base to peak in the first half of the cycle, linear from peak towards 0 in
    the second, then constant to the end. (His logs show it; neither fastai's nor PyTorch's
    1cycle does this.)

    Args:
        base_value: value of the first update.
        peak_value: value in the middle of the cycle.
        total_steps: updates of the whole run.
        cycle_steps: updates of the triangle; 0.9 of all, rounded, if not given.
        final_value: the constant; a thousandth of the base if not given.

    Returns:
        A schedule `count -> value`.

    Raises:
        ValueError: for fewer than one step, a cycle longer than the run, or a value that is
            not finite.
        TypeError: for an argument of the wrong type.

    Example:
        >>> rate = smith_onecycle(0.1, 1.0, 12, cycle_steps=10)
        >>> [round(float(rate(count)), 4) for count in (0, 5, 9, 10, 12)]
        [0.1, 1.0, 0.2, 0.0001, 0.0001]

    References:
        Smith, A disciplined approach to neural network hyper-parameters, 2018,
        arXiv 1803.09820.
    """
    _checks.number("base_value", base_value)
    return partial(
        _smith_onecycle,
        values=(base_value, _checks.number("peak_value", peak_value), 0.0),
        cycle_steps=_cycle_steps(total_steps, cycle_steps),
        final_value=(
            _numerics.wide(base_value) / 1000
            if final_value is None
            else _checks.number("final_value", final_value)
        ),
    )


def smith_onecycle_momentum(
    max_value: ArrayLike,
    base_value: ArrayLike,
    total_steps: int,
    *,
    cycle_steps: int | None = None,
) -> Schedule:
    """The momentum beside `smith_onecycle`: max to base to max, linearly, then held at max.

    Args:
        max_value: momentum at both ends of the cycle, and after it.
        base_value: momentum in the middle of the cycle, where the rate is largest.
        total_steps: updates of the whole run.
        cycle_steps: as in `smith_onecycle`.

    Returns:
        A schedule `count -> value`.

    Raises:
        ValueError: as in `smith_onecycle`.
        TypeError: for an argument of the wrong type.

    Example:
        >>> momentum = smith_onecycle_momentum(0.95, 0.85, 12, cycle_steps=10)
        >>> [round(float(momentum(count)), 4) for count in (0, 5, 9, 10, 12)]
        [0.95, 0.85, 0.93, 0.95, 0.95]

    References:
        Smith, A disciplined approach to neural network hyper-parameters, 2018,
        arXiv 1803.09820.
    """
    _checks.number("max_value", max_value)
    return partial(
        _smith_onecycle,
        values=(max_value, _checks.number("base_value", base_value), max_value),
        cycle_steps=_cycle_steps(total_steps, cycle_steps),
        final_value=max_value,
    )


def _cycle_steps(total_steps: int, cycle_steps: int | None) -> int:
    total_steps = _checks.integer("total_steps", total_steps, minimum=1)
    if cycle_steps is None:
        return max(round(0.9 * total_steps), 1)
    cycle_steps = _checks.integer("cycle_steps", cycle_steps, minimum=1)
    if cycle_steps > total_steps:
        raise ValueError(
            f"cycle_steps must be at most total_steps ({total_steps}), got {cycle_steps!r}."
        )
    return cycle_steps


@_numerics.closed_form
def _smith_onecycle(count, values, cycle_steps, final_value):
    times = (0, cycle_steps / 2, cycle_steps)
    triangle = _numerics.through(count, times, values, "linear")
    return _numerics.latest(count, [cycle_steps], [triangle, _numerics.as_float(final_value)])
