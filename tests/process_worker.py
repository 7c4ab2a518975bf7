"""One of several processes that run one sweep; see test_processes.py.

Run as `process_worker.py PORT NUMBER COUNT OUT [STEPS [WEIGHT_DECAY [LAST]]]`; OUT is a folder that
all processes see, for checkpoints too, and LAST the number of batches in a stream.
"""

import os
import pathlib
import sys
import time

os.environ["JAX_NUM_CPU_DEVICES"] = "2"
port, number, count, out = sys.argv[1:5]
steps, decay, last = [*sys.argv[5:], *["30", "1e-3", ""][len(sys.argv) - 5 :]]

import jax

jax.distributed.initialize(
    f"127.0.0.1:{port}", int(count), int(number), heartbeat_timeout_seconds=5
)

from helpers import clouds, network

import lrjax


def slow(batches):
    """The batches as a stream that takes its time, so that a test can kill a process in it."""
    for step in range(10**9):
        time.sleep(0.02)
        if step == 60:
            pathlib.Path(out, f"{number}.running").touch()
        yield jax.device_get(batches(step))


def lasting(batches, number):
    """So many batches, though all that are needed are promised."""
    yield from (jax.device_get(batches(step)) for step in range(number))


task, data = network()
batches = lrjax.array_batches(data, 16)
curves = lrjax.range_test(
    task,
    lasting(batches, int(last)) if last else batches if int(steps) < 1000 else slow(batches),
    lanes={"weight_decay": [0.0, float(decay), 0.1]},
    seeds=2,
    steps=int(steps),
    start=1e-3,
    eval_batches=lrjax.array_batches(clouds(40, seed=1), 16),
    mesh=lrjax.lane_mesh(),
    chunk_steps=10,
    divergence=None,
    progress=True,
    checkpoint_dir=f"{out}/saved",
)
curves.save(f"{out}/{number}.npz")
