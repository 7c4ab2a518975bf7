"""Where batches come from: arrays on the device, or whatever a program iterates over.

`arrays` and `streams` have what a user makes, `readers` how a sweep reads either, `evaluations`
what it evaluates on.
"""

from lrjax.batches import arrays, streams
from lrjax.batches.arrays import *
from lrjax.batches.streams import *

__all__ = [*arrays.__all__, *streams.__all__]
