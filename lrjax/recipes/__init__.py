"""Smith's protocol from range tests to an optimizer.

`stages` runs sweeps and chooses by their curves, `accounts` puts that into words, `cycles` has
the 1cycle that is tried and recommended; `protocol` puts all together and `results` is what
comes of it. `batch_sizes` compares these at equal cost.
"""

from lrjax.recipes.batch_sizes import compare_batch_sizes
from lrjax.recipes.protocol import smith_recipe
from lrjax.recipes.results import Recipe

__all__ = ["Recipe", "compare_batch_sizes", "smith_recipe"]
