"""What a sweep returns: arrays with named axes, in which divergence is data."""

from lrjax.curves import results
from lrjax.curves.results import *
from lrjax.curves.seeds import seeds_last as seeds_last
from lrjax.curves.seeds import without_seed as without_seed
from lrjax.curves.smoothing import smoothed as smoothed
from lrjax.curves.tables import aligned as aligned
from lrjax.curves.tables import coordinate as coordinate
from lrjax.curves.tables import shortened as shortened

__all__ = [*results.__all__]
