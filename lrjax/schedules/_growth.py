"""Cycles that grow by a constant factor: which one a count falls into, and where."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from lrjax._checks import MAX_COUNT
from lrjax.schedules._numerics import Array, as_float, divide, namespace, row


class Cycle(NamedTuple):
    """Where a count stands among cycles that grow by a constant factor."""

    number: Array  # i32: 0 for the first cycle
    first: Array  # i32: the first count of the cycle
    done: Array  # f32: steps since the cycle's real-valued start
    left: Array  # f32: steps to its real-valued end
    length: Array  # f32
    growth: Array  # how many times as long as the first; i32 where that is whole


class CycleTable(NamedTuple):
    """Where cycles begin and end, in float64: one row for each, with whole and remaining parts."""

    first: np.ndarray  # the first count of the cycle, at or after its real-valued start
    ahead: np.ndarray  # what lies between
    last: np.ndarray  # the whole part of its real-valued end
    beyond: np.ndarray  # what is left of it
    length: np.ndarray


@functools.lru_cache(maxsize=64)
def cycle_table(steps: int, mult: float, num_cycles: int | None) -> CycleTable:
    """The table of `num_cycles` cycles, or of every one that starts before 2**31-1."""
    starts, length = [0.0], float(steps)
    while len(starts) - 1 != num_cycles and starts[-1] <= MAX_COUNT:
        starts.append(starts[-1] + length)
        length *= mult
    edges = _without_rounding(np.array(starts))
    start, end = edges[:-1], edges[1:]
    first, last = np.ceil(start), np.minimum(np.floor(end), MAX_COUNT)
    return CycleTable(first, first - start, last, end - last, end - start)


def _without_rounding(starts: np.ndarray) -> np.ndarray:
    """Sums as they are, but for those that only rounding keeps from a whole number."""
    whole = np.round(starts)
    rounding = np.arange(len(starts)) * np.finfo(np.float64).eps * starts
    return np.where(np.abs(starts - whole) <= rounding, whole, starts)


def locate(count: Array, steps: int, mult: float, num_cycles: int | None = None) -> Cycle:
    """The cycle that the count falls into; the last one takes what lies behind it.

    Cycles of one length come from an integer division. Growing ones come from a table on
    the host, because floor(log(count)) is wrong just at some restarts.
    """
    xp = namespace(count)
    if mult == 1:
        number, position = divide(count, steps)
        if num_cycles is not None:
            number = xp.minimum(number, np.int32(num_cycles - 1))
            position = count - number * np.int32(steps)
        done, left = as_float(position), as_float(np.int32(steps) - position)
        return Cycle(number, count - position, done, left, as_float(steps), np.int32(1))
    table = cycle_table(steps, mult, num_cycles)
    number = row(count, table.first)

    def at(column, convert):
        return xp.asarray(convert(column))[number]

    first, last = at(table.first, np.int32), at(table.last, np.int32)
    done, left = as_float(count - first), as_float(last - count)
    if table.ahead.any() or table.beyond.any():
        done, left = done + at(table.ahead, as_float), left + at(table.beyond, as_float)
    growth = table.length / steps
    if float(mult).is_integer():
        growth = at(np.minimum(growth, MAX_COUNT), np.int32)
    else:
        growth = at(growth, as_float)
    return Cycle(number, first, done, left, at(table.length, as_float), growth)
