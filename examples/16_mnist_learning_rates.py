"""A published experiment as lanes: one CNN on MNIST, Adam, five learning rates, one sweep.

`python examples/16_mnist_learning_rates.py --data mnist.npz --epochs 2` printed this on a CPU,
beside what machinecurve.com published after up to 25 epochs:

    learning rate  test loss  published  accuracy  published
              0.5       2.31       2.32      9.7%      10.1%
             0.01     0.0417     0.0454     98.6%      98.9%
            0.001     0.0488     0.0286     98.4%      99.2%
            1e-05       1.81      0.171     75.8%      95.1%
            1e-07       2.32       2.27      8.1%      16.2%

Look at the small rates, which need longer. Without a file (of x_train, y_train, x_test, y_test)
a small copy trains on scikit-learn's digits, which the published numbers are not of.
"""

import argparse
import functools

import numpy as np
import optax
from flax import linen as nn
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import lrjax

RATES = [0.5, 0.01, 0.001, 1e-5, 1e-7]
PUBLISHED_LOSSES = [2.319, 0.0454, 0.0286, 0.171, 2.272]  # on the test data
PUBLISHED_ACCURACIES = [0.101, 0.989, 0.992, 0.951, 0.162]

parser = argparse.ArgumentParser()
parser.add_argument("--data", help="MNIST as an .npz file")
parser.add_argument("--epochs", type=int, default=4)
arguments = parser.parse_args()
widths = (32, 64, 256) if arguments.data else (4, 8, 16)
if arguments.data:
    with np.load(arguments.data) as file:
        x, y, x_test, y_test = (file[k] for k in ("x_train", "y_train", "x_test", "y_test"))
    x, y = x[: len(x) * 4 // 5], y[: len(y) * 4 // 5]  # the article validates on the last fifth
else:
    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8).repeat(2, axis=1).repeat(2, axis=2)
    x, x_test, y, y_test = train_test_split(images, labels, test_size=360, random_state=0)
x, x_test = ((images[..., None] / images.max()).astype("float32") for images in (x, x_test))


class CNN(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        init = {"kernel_init": nn.initializers.glorot_uniform()}  # Keras's
        for width in widths[:2]:
            x = nn.relu(nn.Conv(width, (3, 3), padding="VALID", **init)(x))
            x = nn.Dropout(0.25, deterministic=not train)(nn.max_pool(x, (2, 2), strides=(2, 2)))
        x = nn.relu(nn.Dense(widths[2], **init)(x.reshape(len(x), -1)))
        return nn.Dense(10, **init)(x)


def loss(logits, batch):
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch[1])
    return losses.mean(), {"accuracy": (logits.argmax(-1) == batch[1]).mean()}


batches = lrjax.array_batches((x, y), 250)
curves = lrjax.sweep(
    lrjax.linen_task(CNN(), loss, (x[:1], y[:1])),
    batches,
    functools.partial(optax.adam, eps=1e-7),  # Keras's
    lanes={"learning_rate": RATES},
    steps=arguments.epochs * batches.steps_per_epoch,
    eval_batches=lrjax.array_batches((x_test, y_test), min(len(x_test), 1000)),
    eval_every=arguments.epochs * batches.steps_per_epoch,
    divergence=None,  # as in the article, the worst go on to the end
    progress=True,
)
print("learning rate  test loss  published  accuracy  published")
losses, accuracies = curves.eval_loss[:, 0, -1], curves.eval_metrics["accuracy"][:, 0, -1]
for row in zip(RATES, losses, PUBLISHED_LOSSES, accuracies, PUBLISHED_ACCURACIES, strict=True):
    print("{:13g}  {:9.3g}  {:9.3g}  {:8.1%}  {:9.1%}".format(*row))
