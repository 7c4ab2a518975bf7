"""Schedules: pure functions `count -> value`, exact at every count.

A factory checks its arguments and returns `functools.partial` of a function of the count,
so that a schedule pickles and prints its parameters. Values may be traced (a schedule can be
built inside `vmap`); numbers of steps are Python ints. The count is the number of updates
already done: 0 for the first update. It may be an int, a traced int or an array of ints.
"""

from lrjax.schedules import combinators, cycles, decays, onecycles, transitions
from lrjax.schedules._numerics import Schedule as Schedule
from lrjax.schedules.combinators import *
from lrjax.schedules.cycles import *
from lrjax.schedules.decays import *
from lrjax.schedules.onecycles import *
from lrjax.schedules.transitions import *

__all__ = [
    *transitions.__all__,
    *cycles.__all__,
    *onecycles.__all__,
    *decays.__all__,
    *combinators.__all__,
]
