"""Transforms: optimizers whose hyperparameters follow schedules and can be read back.

Hyperparameters live in the state, as float32 arrays: a schedule rewrites them at every update,
`get_hyperparams` reads them and `set_hyperparams` changes those that no schedule drives, without
compiling anything anew.

`injection.inject` makes such a transform of any Optax factory; `optimizers` are calls of it,
`groups` gives parts of the parameters rates of their own, `plateaus` follows a metric.
`hyperparams` reads and sets, `moments` keeps what is gathered; `arguments` tells hyperparameters
from what else a factory takes, `adapters` gives schedules to factories that take numbers only.
"""

from lrjax.transforms import groups, hyperparams, injection, moments, optimizers, plateaus
from lrjax.transforms.groups import *
from lrjax.transforms.hyperparams import *
from lrjax.transforms.injection import *
from lrjax.transforms.moments import *
from lrjax.transforms.optimizers import *
from lrjax.transforms.plateaus import *

__all__ = [
    *injection.__all__,
    *optimizers.__all__,
    *groups.__all__,
    *plateaus.__all__,
    *hyperparams.__all__,
    *moments.__all__,
]
