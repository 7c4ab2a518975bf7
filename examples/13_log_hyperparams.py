"""Logging what the optimizer really used: every hyperparameter of every update, to a CSV file.

`get_hyperparams` reads the optimizer's state, through whatever wraps it, and inside `jit`. Look
at hyperparams.csv, or at the lines printed from it: the rate and momentum follow their cycles,
the decay is a constant, and the names come from the optimizer. TensorBoard takes the same dict.
"""

import csv

import jax
import jax.numpy as jnp
import numpy as np
import optax

import lrjax

STEPS = 100

rng = np.random.default_rng(0)
x = rng.normal(size=(256, 8)).astype("float32")
y = np.sin(x.sum(1)).astype("float32")
params = {
    "hidden": rng.normal(size=(8, 16)).astype("float32") / 3,
    "out": rng.normal(size=16).astype("float32") / 4,
}

# The hyperparameters are found inside the chain.
optimizer = optax.chain(
    optax.clip_by_global_norm(1.0), lrjax.onecycle_sgd(0.3, STEPS, weight_decay=1e-4)
)
state = optimizer.init(params)


def loss(params):
    return jnp.mean((jnp.tanh(x @ params["hidden"]) @ params["out"] - y) ** 2)


@jax.jit
def train_step(params, state):
    value, gradients = jax.value_and_grad(loss)(params)
    updates, state = optimizer.update(gradients, state, params)
    record = {"loss": value, **lrjax.get_hyperparams(state)}
    return optax.apply_updates(params, updates), state, record


with open("hyperparams.csv", "w", newline="") as file:
    writer = None
    for step in range(STEPS):
        params, state, record = train_step(params, state)
        row = {"step": step} | {name: float(value) for name, value in record.items()}
        if writer is None:
            writer = csv.DictWriter(file, row.keys())
            writer.writeheader()
        writer.writerow(row)

with open("hyperparams.csv") as file:
    lines = file.read().splitlines()
print("\n".join([lines[0], *lines[1::10]]))
