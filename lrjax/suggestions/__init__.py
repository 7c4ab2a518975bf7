"""From curves to learning rates, or to a reason why there are none.

`points` has what a method reads, `results` what comes of it. `basins` has the methods that follow
Smith, on the smooth curves of `fits`; `peers` those of other libraries; `methods` lists them all.
`rankings` compares lanes, and `grids` has one number per lane, for tables and heat maps.
"""

from lrjax.suggestions.methods import suggest
from lrjax.suggestions.rankings import Ranking, rank
from lrjax.suggestions.results import Suggestion

__all__ = ["Ranking", "Suggestion", "rank", "suggest"]
