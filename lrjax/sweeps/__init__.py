"""Run lanes: many training runs side by side, in one compiled program.

`runs` is one run and knows of no other; `engine` makes lanes of it and drives them from the
host; `range_tests` is a sweep whose learning rate rises.
"""

from lrjax.sweeps.engine import sweep
from lrjax.sweeps.range_tests import range_test

__all__ = ["range_test", "sweep"]
