"""Cyclical momentum by hand: two schedules, and Optax's own SGD.

`lrjax.inject` lets any Optax factory take schedules for any of its hyperparameters. Smith's
rule: the momentum falls while the rate rises, which steadies large rates. Look at the two
columns, which turn at the same updates, and at the last line: `cyclical_sgd` is the same.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import lrjax

STEPS_UP = 20  # half a cycle
STEPS = 80

# A triangle with its base above its peak is one that falls first.
by_hand = lrjax.inject(
    optax.sgd,
    learning_rate=lrjax.triangular(0.01, 0.1, STEPS_UP),
    momentum=lrjax.triangular(0.95, 0.85, STEPS_UP),
)
in_one_call = lrjax.cyclical_sgd(0.01, 0.1, STEPS_UP, momentum=(0.85, 0.95))

x = np.random.default_rng(0).normal(size=(64, 5)).astype("float32")
y = x @ np.arange(5, dtype="float32")


def loss(params):
    return jnp.mean((x @ params - y) ** 2)


def train(optimizer):
    def step(carry, _):
        params, state = carry
        value, gradients = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(gradients, state, params)
        # What the update used, recorded from inside the compiled loop.
        record = {"loss": value, **lrjax.get_hyperparams(state)}
        return (optax.apply_updates(params, updates), state), record

    params = jnp.zeros(5)
    (params, _), records = jax.lax.scan(step, (params, optimizer.init(params)), length=STEPS)
    return params, records


params, records = jax.jit(train, static_argnums=0)(by_hand)
print("update   rate  momentum      loss")
for k in range(0, STEPS, 5):
    rate, momentum, value = (records[name][k] for name in ("learning_rate", "momentum", "loss"))
    print(f"{k:6d}  {rate:5.3f}  {momentum:8.3f}  {value:8.2g}")

same, _ = jax.jit(train, static_argnums=0)(in_one_call)
print(f"largest difference to cyclical_sgd: {jnp.abs(params - same).max():.1g}")
