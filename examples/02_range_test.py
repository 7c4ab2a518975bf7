"""A learning-rate range test of your own model on plain arrays: two lines and a picture.

The rate rises at every update, over seven decades. Look in range_test.png at where the loss
begins to fall, where it falls fastest and where it rises again: a good rate lies between them,
and the last line printed says which. Needs the extra `demo`.
"""

import jax
import optax
from sklearn.datasets import load_digits

import lrjax

images, labels = load_digits(return_X_y=True)
x, y = (images / 16).astype("float32"), labels


def init(key):
    first, second = jax.random.split(key)
    return {
        "hidden": jax.random.normal(first, (64, 32)) / 8,
        "out": jax.random.normal(second, (32, 10)) / 6,
    }


def loss(params, batch):
    images, labels = batch
    logits = jax.nn.relu(images @ params["hidden"]) @ params["out"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


task = lrjax.task(loss, init)

# The two lines. Four seeds run side by side, and show how far the answer is chance.
curves = lrjax.range_test(task, (x, y), seeds=4)
ax = lrjax.plot_curves(curves)

print(curves)
print(lrjax.suggest(curves))
ax.figure.savefig("range_test.png", dpi=120)
