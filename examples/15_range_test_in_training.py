"""A range test repeated during training: the best rate shrinks as training goes on.

Training goes on at one rate; at several points, range tests start from the parameters that it
has there, with `initial=`. Look at how the rates fall, to about a tenth: the better the model,
the more a large step undoes. In the end little is left to learn, and most tests name no rate.
"""

import jax
import numpy as np
import optax
from flax import linen as nn
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import lrjax

POINTS = (0, 50, 200, 800, 3200)  # updates of training

images, labels = load_digits(return_X_y=True)
images = (images / 16).astype("float32")
x, x_test, y, y_test = train_test_split(images, labels, test_size=360, random_state=0)

network = nn.Sequential([nn.Dense(32), nn.relu, nn.Dense(10)])


def loss(logits, batch):
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]).mean()


task = lrjax.linen_task(network, loss, (x[:1], y[:1]))


def constant():  # a function with a name: one made at every call would be compiled every time
    return lrjax.sgd(0.1)


def train(state, steps, seed):
    _, final = lrjax.sweep(
        task,
        lrjax.array_batches((x, y), 32, seed=seed),
        constant,
        steps=steps,
        initial=state,
        return_state=True,
    )
    return jax.tree.map(lambda array: array[0], (final.params, final.model_state))


def range_test(state, seed):
    curves = lrjax.range_test(
        task,
        lrjax.array_batches((x, y), 32, seed=seed),
        start=1e-4,
        initial=state,
        eval_batches=[(x_test, y_test)],
        eval_every=2,
    )
    suggestion = lrjax.suggest(curves)
    return curves.eval_loss[0, 0], suggestion.learning_rate[0], suggestion.max_learning_rate[0]


state, done = task.init(jax.random.key(0)), 0
print("updates  held-out loss  suggested rate  largest usable  named by")
for point in POINTS:
    if point > done:
        state, done = train(state, point - done, seed=point), point
    # The order of the batches may make a factor of three, so five of them.
    tests = np.array([range_test(state, seed) for seed in range(5)])
    held_out, rate, largest = np.nanmedian(tests, axis=0)
    named = f"{np.isfinite(tests[:, 1]).sum()} of {len(tests)}"
    print(f"{done:7d}  {held_out:13.3f}  {rate:14.3f}  {largest:14.3f}  {named:>8}")
