"""Learning-rate schedules, range tests and hyperparameter sweeps for JAX."""

from lrjax import batches, curves, schedules, sweeps, tasks, transforms
from lrjax.batches import *
from lrjax.curves import *
from lrjax.schedules import *
from lrjax.sweeps import *
from lrjax.tasks import *
from lrjax.transforms import *

__all__ = [
    *schedules.__all__,
    *transforms.__all__,
    *tasks.__all__,
    *batches.__all__,
    *curves.__all__,
    *sweeps.__all__,
]
