"""Curves, grids, suggestions, recipes and schedules as matplotlib axes.

A module for each, and `style` for what their pictures have in common.
"""

from lrjax.plotting import curves, grids, recipes, schedules, suggestions
from lrjax.plotting.curves import *
from lrjax.plotting.grids import *
from lrjax.plotting.recipes import *
from lrjax.plotting.schedules import *
from lrjax.plotting.suggestions import *

__all__ = [
    *curves.__all__,
    *grids.__all__,
    *suggestions.__all__,
    *recipes.__all__,
    *schedules.__all__,
]
