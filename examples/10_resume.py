"""A sweep that is interrupted and goes on: the same call again, with `checkpoint_dir=`.

The stream presses Ctrl-C in the middle of the first call. Look at how far that came, and at the
last line: with the second call the curves are those of a sweep that nothing disturbed. After
the kill of a process it is the same, from the last minute's save. Needs the extra `checkpoint`.
"""

import itertools
import signal
import tempfile

import jax.numpy as jnp
import numpy as np

import lrjax

rng = np.random.default_rng(0)
x = rng.normal(size=(512, 8)).astype("float32")
y = np.sin(x.sum(1)).astype("float32")


def batches(ctrl_c_at=None):
    """Batches that depend on nothing but their number, as a resumed stream's must."""
    for k in itertools.count():
        if k == ctrl_c_at:
            signal.raise_signal(signal.SIGINT)
        rows = np.random.default_rng(k).integers(len(x), size=32)
        yield x[rows], y[rows]


def loss(params, batch):
    x, y = batch
    return jnp.mean((jnp.tanh(x @ params["hidden"]) @ params["out"] - y) ** 2)


start = {
    "hidden": rng.normal(size=(8, 16)).astype("float32") / 3,
    "out": rng.normal(size=16).astype("float32") / 4,
}
task = lrjax.task(loss, start)


def train(stream, checkpoint_dir=None):
    return lrjax.sweep(
        task,
        stream,
        lrjax.sgd,
        lanes={"learning_rate": [0.01, 0.1], "momentum": [0.0, 0.9]},
        steps=400,
        checkpoint_dir=checkpoint_dir,
    )


with tempfile.TemporaryDirectory() as folder:
    first = train(batches(ctrl_c_at=250), folder)
    print(f"first call:  {first.steps_done} of {first.steps} updates")
    second = train(batches(), folder)
    print(f"second call: {second.steps_done} of {second.steps} updates")

undisturbed = train(batches())
print(f"as if undisturbed: {np.array_equal(second.loss, undisturbed.loss)}")
