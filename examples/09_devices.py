"""Lanes on several devices: eight runs, two on each of four.

`lane_mesh()` takes all devices, of all processes. On a machine without accelerators the CPU
passes for four devices here, so that the script runs anywhere; it gets no faster by that. Look
at the last line: where the lanes run does not change what comes out, but for rounding.
"""

import os

# Must be set before JAX is imported; has no effect on accelerators.
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "4")

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

import lrjax

images, labels = load_digits(return_X_y=True)
data = (images / 16).astype("float32"), labels


def loss(params, batch):
    logits = batch[0] @ params["weights"] + params["bias"][None]
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]).mean()


task = lrjax.task(loss, {"weights": jnp.zeros((64, 10)), "bias": jnp.zeros(10)})


def train(mesh):
    lanes = {"learning_rate": [0.01, 0.03, 0.1, 0.3], "momentum": [0.0, 0.9]}
    return lrjax.sweep(task, data, lrjax.sgd, lanes=lanes, steps=100, mesh=mesh)


mesh = lrjax.lane_mesh()
print(f"{jax.device_count()} devices: {mesh}")
curves = train(mesh)
print(curves.summary())

alone = train(None)
difference = np.nanmax(np.abs(curves.loss - alone.loss))
print(f"largest difference of a loss to those of one device: {difference:.1g}")
