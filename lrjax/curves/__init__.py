"""What a sweep returns: arrays with named axes, in which divergence is data.

`results` has the curves, `axes` their coordinates, `smoothing` their running averages, `files` how
they are saved, `tables` their summary, `texts` how numbers and names are written.
"""

from lrjax.curves import results
from lrjax.curves.axes import coordinates as coordinates
from lrjax.curves.axes import seeds_last as seeds_last
from lrjax.curves.axes import without_seed as without_seed
from lrjax.curves.results import *
from lrjax.curves.results import joined as joined
from lrjax.curves.smoothing import smoothed as smoothed
from lrjax.curves.texts import aligned as aligned
from lrjax.curves.texts import coordinate as coordinate
from lrjax.curves.texts import number as number
from lrjax.curves.texts import shortened as shortened
from lrjax.curves.texts import spoken as spoken

__all__ = [*results.__all__]
