"""Which part of the suggested rate is the best constant rate, for which optimizer?

    pip install ".[demo]"
    python benchmarks/optimizers.py                 some minutes on two cores

Smith's rule, half of the largest usable rate, is of SGD. For every optimizer: a range test of 150
updates of 64 digits with a network of 64-64-10 and three seeds, `suggest` by `robust`, and the loss
on 400 other digits after 500 updates at constant rates, from the suggestion down to a hundredth of
it; at fastai's `valley` of the same curves; and of the 1cycle of `smith_recipe`, over as many
updates, which is told neither weight decays nor momenta to try, and chooses by the same 400.

Last answer, on a 2-core x86-64 CPU with JAX 0.10.2; the lowest losses are at a fifth of the
suggestion for most, at a tenth to a thirtieth for the last three, whose updates do not shrink with
the gradient:

                      suggested      1    1/2    1/3    1/5   1/10   1/30  1/100 valley recipe
    sgd, momentum 0.9     0.258  0.392  0.364  0.350  0.326  0.327  0.384  0.671  0.326  0.314
    rmsprop             0.00878  0.404  0.348  0.333  0.330  0.373  0.776  1.794  0.369  0.354
    adam                 0.0168  0.394  0.339  0.319  0.314  0.326  0.467  1.199  0.352  0.320
    adamw                0.0168  0.392  0.338  0.319  0.315  0.327  0.467  1.199  0.351  0.341
    adafactor            0.0749  0.385  0.387  0.344  0.325  0.345  0.674  1.746  0.332  0.334
    lion                 0.0129  6.519  3.065  2.275  1.702  0.633  0.407  1.281  1.949  0.721
    lamb                 0.0579  2.303  2.303  1.521  0.506  0.337  0.431  1.562  0.744  0.475
    muon                  0.135  3.228  1.191  0.877  0.511  0.382  0.318  1.287  0.974  0.618
"""

import functools

import jax
import numpy as np
import optax
from flax import linen as nn
from sklearn.datasets import load_digits

import lrjax

STEPS = 500
PARTS = [1, 1 / 2, 1 / 3, 1 / 5, 1 / 10, 1 / 30, 1 / 100]
OPTIMIZERS = {
    "sgd, momentum 0.9": functools.partial(lrjax.sgd, momentum=0.9),
    "rmsprop": optax.rmsprop,
    "adam": optax.adam,
    "adamw": lrjax.adamw,
    "adafactor": optax.adafactor,
    "lion": optax.lion,
    "lamb": optax.lamb,
    "muon": optax.contrib.muon,
}


def problem():
    images, labels = load_digits(return_X_y=True)
    images, labels = (images / 16).astype(np.float32), labels.astype(np.int32)
    network = nn.Sequential([nn.Dense(64), nn.relu, nn.Dense(10)])

    def loss(logits, batch):
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]).mean()

    task = lrjax.linen_task(network, loss, sample_batch=(images[:1], labels[:1]))
    return task, (images[:1397], labels[:1397]), (images[1397:], labels[1397:])


def main():
    task, train, held_out = problem()

    def losses(optimizer, **lanes):
        curves = lrjax.sweep(
            task, train, optimizer, steps=STEPS, seeds=3, eval_batches=held_out,
            eval_every=STEPS, divergence=None, **lanes,
        )  # fmt: skip
        return curves.eval_loss[..., -1].mean(-1)

    parts = ["1" if part == 1 else f"1/{1 / part:.0f}" for part in PARTS]
    print(f"{'':18}{'suggested':>9}" + "".join(f"{part:>7}" for part in parts), end="")
    print(f"{'valley':>7}{'recipe':>7}")
    for name, optimizer in OPTIMIZERS.items():
        curves = lrjax.range_test(task, train, optimizer, steps=150, seeds=3)
        rate = float(lrjax.suggest(curves))
        fastai = float(lrjax.suggest(curves, "valley"))
        rates = [rate * part for part in PARTS]
        *found, valley = losses(optimizer, lanes={"learning_rate": [*rates, fastai]})
        recipe = lrjax.smith_recipe(
            task, train, held_out, total_steps=STEPS, optimizer=optimizer,
            weight_decays=None, momentums=None,
        )  # fmt: skip
        cycle = losses(recipe.optimizer) if not recipe.reason else np.nan
        print(f"{name:18}{rate:9.3g}" + "".join(f"{loss:7.3f}" for loss in found), end="")
        print(f"{valley:7.3f}{float(cycle):7.3f}", flush=True)


if __name__ == "__main__":
    jax.config.update("jax_numpy_dtype_promotion", "standard")
    main()
