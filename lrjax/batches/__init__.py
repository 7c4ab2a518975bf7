"""Where batches come from: arrays on the device, or whatever a program iterates over.

`arrays` and `streams` have what a user makes, `readers` how a sweep reads either, `evaluations`
what it evaluates on.
"""

from lrjax.batches import arrays, streams
from lrjax.batches.arrays import *
from lrjax.batches.arrays import are_arrays as are_arrays
from lrjax.batches.arrays import as_batches as as_batches
from lrjax.batches.evaluations import Group as Group
from lrjax.batches.evaluations import evaluation_groups as evaluation_groups
from lrjax.batches.evaluations import reread as reread
from lrjax.batches.readers import ArrayReader as ArrayReader
from lrjax.batches.readers import Loaded as Loaded
from lrjax.batches.readers import Reader as Reader
from lrjax.batches.readers import Rows as Rows
from lrjax.batches.readers import reader as reader
from lrjax.batches.streams import *

__all__ = [*arrays.__all__, *streams.__all__]
