"""Every public name."""

from lrjax import (
    batches,
    curves,
    meshes,
    plotting,
    random_search,
    recipes,
    schedules,
    suggestions,
    sweeps,
    tasks,
    transforms,
)
from lrjax.batches import *
from lrjax.curves import *
from lrjax.meshes import *
from lrjax.plotting import *
from lrjax.random_search import *
from lrjax.recipes import *
from lrjax.schedules import *
from lrjax.suggestions import *
from lrjax.sweeps import *
from lrjax.tasks import *
from lrjax.transforms import *

__all__ = [
    *schedules.__all__,
    *transforms.__all__,
    *tasks.__all__,
    *batches.__all__,
    *meshes.__all__,
    *random_search.__all__,
    *curves.__all__,
    *sweeps.__all__,
    *suggestions.__all__,
    *recipes.__all__,
    *plotting.__all__,
]
