"""Run lanes: many training runs side by side, in one compiled program.

`engine.sweep` checks its arguments and sets everything up, `driver` is the loop on the host, and
`range_tests` is a sweep whose learning rate rises. What they use:

- `runs`: one training run, which knows of no other.
- `programs`: the compiled programs of many, in blocks of lanes.
- `workers`: which cores, or which device, run the blocks; `memory`: how many lanes one has.
- `spans`: how the steps are cut into dispatches; `tapes`: what is recorded of them.
- `measures`: what a task measures and costs, told from shapes.
- `processes`: what several machines do alike; `functions`: when two functions are one program.
"""

from lrjax.sweeps.engine import sweep
from lrjax.sweeps.range_tests import range_test

__all__ = ["range_test", "sweep"]
