"""Run lanes: many training runs side by side, in one compiled program.

`engine.sweep` checks its arguments and sets everything up, `driver` is the loop on the host, and
`range_tests` is a sweep whose learning rate rises, by one of `ramps`. What they use:

- `arguments`: what a sweep is given; `optimizers`: what makes the optimizers of its lanes;
  `measures`: what a task measures and costs, from shapes.
- `runs`: one training run, which knows of no other; `starts`: what it starts from;
  `divergences`: when it has diverged; `programs`: the compiled programs of many.
- `dispatches`: the programs, run over blocks of lanes; `memory`: how many lanes a block has;
  `workers`: which cores, or which device, run the blocks.
- `spans`: how the steps are cut into dispatches; `tapes`: what is recorded of them.
- `interrupts`: Ctrl-C; `processes`: what several machines do alike; `functions`: when two
  functions are one program.
"""

from lrjax.sweeps.engine import sweep
from lrjax.sweeps.range_tests import range_test
from lrjax.sweeps.tapes import FinalState

__all__ = ["FinalState", "range_test", "sweep"]
