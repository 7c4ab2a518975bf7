"""Smith's protocol from range tests to an optimizer.

`cycles` has the 1cycle that is tried and recommended, `protocol` the stages that choose its
values, `results` what comes of them.
"""

from lrjax.recipes.protocol import smith_recipe
from lrjax.recipes.results import Recipe

__all__ = ["Recipe", "smith_recipe"]
