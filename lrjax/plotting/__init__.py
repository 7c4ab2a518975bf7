"""Curves, grids and schedules as matplotlib axes."""

from lrjax.plotting import curves, grids, schedules
from lrjax.plotting.curves import *
from lrjax.plotting.grids import *
from lrjax.plotting.schedules import *

__all__ = [*curves.__all__, *grids.__all__, *schedules.__all__]
