"""What a sweep returns: arrays with named axes, in which divergence is data.

`results` has the curves, `axes` their coordinates, `smoothing` their running averages, `files` how
they are saved, `summaries` their table.
"""

from lrjax.curves import results
from lrjax.curves.results import *

__all__ = [*results.__all__]
