"""A range test repeated during training: the best rate shrinks as training goes on.

Training goes on at one rate; at several points, range tests start from the parameters that it
has there. Look at how the rates fall, to less than a tenth. They do because a fifth of the labels
is wrong: the better the model, the more of a step follows the noise of its batch, and only small
steps average it out. (Clean digits are learned by then, and their range tests say so.)
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
rng = np.random.default_rng(0)
y = np.where(rng.random(len(y)) < 0.2, rng.integers(10, size=len(y)), y)

network = nn.Sequential([nn.Dense(32), nn.relu, nn.Dense(10)])


def loss(logits, batch):
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]).mean()


task = lrjax.linen_task(network, loss, (x[:1], y[:1]))


def train(state, steps, seed):
    _, final = lrjax.sweep(
        task,
        lrjax.array_batches((x, y), 32, seed=seed),
        lambda: lrjax.sgd(0.1),
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
print("updates  held-out loss  suggested rate  largest usable")
for point in POINTS:
    if point > done:
        state, done = train(state, point - done, seed=point), point
    # One order of the batches may be a factor of three off, so several.
    held_out, rate, largest = np.nanmedian([range_test(state, seed) for seed in range(3)], axis=0)
    print(f"{done:7d}  {held_out:13.3f}  {rate:14.3f}  {largest:14.3f}")
