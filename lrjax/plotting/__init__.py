"""Curves, grids, suggestions and schedules as matplotlib axes."""

from lrjax.plotting import curves, grids, schedules, suggestions
from lrjax.plotting.curves import *
from lrjax.plotting.grids import *
from lrjax.plotting.schedules import *
from lrjax.plotting.suggestions import *

__all__ = [*curves.__all__, *grids.__all__, *suggestions.__all__, *schedules.__all__]
