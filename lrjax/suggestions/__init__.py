"""From curves to learning rates, or to a reason why there are none.

`lanes` has the points that a method reads, `results` what comes of them. `basins` has the
methods that follow Smith, `peers` those of other libraries, `methods` lists them all. `rankings`
compares lanes.
"""

from lrjax.suggestions.methods import suggest
from lrjax.suggestions.rankings import Ranking, rank
from lrjax.suggestions.results import Suggestion

__all__ = ["Ranking", "Suggestion", "rank", "suggest"]
