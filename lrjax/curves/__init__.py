"""What a sweep returns: arrays with named axes, in which divergence is data.

`results` has the curves, `axes` their coordinates, `smoothing` their running averages, `files` how
they are saved, `tables` their text.
"""

from lrjax.curves import results
from lrjax.curves.axes import coordinates as coordinates
from lrjax.curves.axes import seeds_last as seeds_last
from lrjax.curves.axes import without_seed as without_seed
from lrjax.curves.results import *
from lrjax.curves.results import joined as joined
from lrjax.curves.smoothing import smoothed as smoothed
from lrjax.curves.tables import aligned as aligned
from lrjax.curves.tables import coordinate as coordinate
from lrjax.curves.tables import shortened as shortened
from lrjax.curves.tables import spoken as spoken

__all__ = [*results.__all__]
