"""The shapes that introductory articles teach, one line each, in one picture: schedules.png.

Run it with `python examples/01_schedules.py`; it needs the extra `plot`.
"""

import jax.numpy as jnp
import matplotlib.pyplot as plt

import lrjax

EPOCH = 20  # updates
STEPS = 7 * EPOCH

SHAPES = {
    "linear": lrjax.linear_decay(1.0, STEPS),
    "step": lrjax.per_epoch(lrjax.step_decay(1.0, 0.5, every=2, offset=1), EPOCH),
    "time, lr / (1 + d t)": lrjax.inverse_time_decay(1.0, 0.03),
    "time, lr *= 1 / (1 + d t)": lrjax.compound_time_decay(1.0, 0.0003),
    "exponential": lrjax.exponential_decay(1.0, 0.98),
    "polynomial": lrjax.polynomial_decay(1.0, STEPS, power=2),
    "cosine": lrjax.cosine_decay(1.0, STEPS),
    "triangular": lrjax.triangular(0.1, 1.0, EPOCH),
    "triangular2": lrjax.triangular2(0.1, 1.0, EPOCH),
    "exp_range": lrjax.exp_range(0.1, 1.0, EPOCH, gamma=0.985),
    "restarts, cycles of 1, 2, 4 epochs": lrjax.warm_restarts(1.0, EPOCH, cycle_mult=2),
    "1cycle": lrjax.onecycle(1.0, STEPS),
    "1cycle of Smith's runs": lrjax.smith_onecycle(0.1, 1.0, STEPS),
}
MOMENTA = {
    "1cycle": lrjax.onecycle_momentum(STEPS),
    "1cycle of Smith's runs": lrjax.smith_onecycle_momentum(0.95, 0.85, STEPS),
}


def annealed(losses):
    """The rate that `plateau` makes of a constant one while a loss stops improving."""
    optimizer, rates = lrjax.plateau(0.5, patience=5), []
    state = optimizer.init(jnp.zeros(()))
    for loss in losses:
        _, state = optimizer.update(jnp.zeros(()), state, value=loss)
        rates.append(float(lrjax.get_hyperparams(state)["scale"]))
    return rates


figure, grid = plt.subplots(5, 3, figsize=(10, 11), sharex=True, layout="constrained")
for ax, (name, schedule) in zip(grid.flat, SHAPES.items(), strict=False):
    lrjax.plot_schedule(schedule, STEPS, momentum=MOMENTA.get(name), ax=ax)
    ax.set_title(name, fontsize="medium")
ax = grid.flat[len(SHAPES)]
ax.plot(annealed([max(1 / (1 + 0.2 * k), 0.15) for k in range(STEPS)]))
ax.set_title("annealed when the loss stops improving", fontsize="medium")
grid.flat[-1].remove()
for ax in grid.flat[:-1]:
    ax.label_outer()
figure.savefig("schedules.png", dpi=120)
