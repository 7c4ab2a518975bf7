"""A sweep that saves after every dispatch, for test_resume.py to kill.

Run as `resume_worker.py FOLDER OUT`.
"""

import sys

import jax
import numpy as np
from helpers import clouds, network

import lrjax
from lrjax._checkpoints import Checkpoints
from lrjax.sweeps import driver

driver.CHECKPOINT_SECONDS = 0.0
task, data = network()
batches = lrjax.array_batches(data, 16)
STEPS = 60


def run(checkpoint_dir=None, stream=False, **options):
    """The sweep whose curves must not depend on how often it was killed."""
    source = (jax.tree.map(np.asarray, batches(step)) for step in range(STEPS))
    arguments = {
        "lanes": {"weight_decay": [0.0, 1e-3, 0.1]},
        "seeds": 2,
        "steps": STEPS,
        "start": 1e-3,
        "momentum": (0.95, 0.85),
        "eval_batches": lrjax.array_batches(clouds(40, seed=1), 16),
        "eval_every": 6,
        "chunk_steps": 3,
        "checkpoint_dir": checkpoint_dir,
    }
    return lrjax.range_test(task, source if stream else batches, **arguments | options)


def announcing(save):
    """A save that says on stdout when it begins, so that it can be killed there."""

    def announced(self, step, tree, arrays):
        print("saving", step, flush=True)
        save(self, step, tree, arrays)

    return announced


if __name__ == "__main__":
    Checkpoints.save = announcing(Checkpoints.save)
    directory, out = sys.argv[1:]
    run(directory).save(out)
