"""What the experiments share: options, data, Caffe's networks and optimizer, tables."""

import argparse
import contextlib
import os
import signal
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

import lrjax

# Options and data


def options(description, *, data=True):
    """A parser of what every experiment can be told."""
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=data, metavar="FILE.npz", help=DATA)
    parser.add_argument("--checkpoints", type=Path, metavar="DIR", help="go on from here if killed")
    return parser


DATA = "x_train u8[n, height, width(, channels)], y_train u8[n], x_test and y_test likewise"


def load(path):
    """The training and the test set: images u8[n, height, width, channels] and labels i32[n]."""
    with np.load(path) as file:
        return [
            (_with_channels(file[f"x_{part}"]), file[f"y_{part}"].astype(np.int32))
            for part in ("train", "test")
        ]


def _with_channels(images):
    return images if images.ndim == 4 else images[..., None]


def folder(checkpoints, name):
    """Where one sweep of an experiment keeps its checkpoints, if any are wanted."""
    return checkpoints and checkpoints / name


@contextlib.contextmanager
def stopped_after(minutes):
    """Ctrl-C after some minutes, at which a sweep saves its state and returns what it has."""
    if minutes is None:
        yield
        return
    timer = threading.Timer(60 * minutes, os.kill, (os.getpid(), signal.SIGINT))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


# Tasks


def classification(network, images, scale, mean=0.0):
    """Cross-entropy and accuracy of a network that sees `(image - mean) * scale`."""

    def inputs(batch):
        return (batch[0].astype(jnp.float32) - np.float32(mean)) * scale

    def loss(logits, batch):
        labels = batch[1]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.mean(), {"accuracy": jnp.mean(logits.argmax(-1) == labels)}

    sample = images[:1], np.zeros(1, np.int32)
    return lrjax.linen_task(network, loss, sample, inputs=inputs)


def flipped(task):
    """The same task with every other training image mirrored, as the key falls."""

    def loss(params, model_state, batch, key, train):
        images, labels = batch
        if train:
            coin = jax.random.bernoulli(key, shape=(len(images), 1, 1, 1))
            images = jnp.where(coin, images[:, :, ::-1], images)
        return task.loss(params, model_state, (images, labels), key, train)

    return lrjax.Task(task.init, loss)


# Caffe's networks

XAVIER = nn.initializers.variance_scaling(1.0, "fan_in", "uniform")
MSRA = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


def pooled(pool, x, **options):
    """Windows of 3 at every 2nd pixel; like Caffe's, the last may reach over the edge."""
    return pool(x, (3, 3), (2, 2), [(0, 1), (0, 1)], **options)


def average_pooled(x):
    return pooled(nn.avg_pool, x, count_include_pad=False)


class LeNet(nn.Module):
    """Caffe's LeNet: two convolutions, each with a ReLU only if asked for, and two dense layers."""

    relu: bool = False
    kernel_init: Callable = XAVIER

    @nn.compact
    def __call__(self, x):
        for features in (20, 50):
            x = nn.Conv(features, (5, 5), padding="VALID", kernel_init=self.kernel_init)(x)
            x = nn.max_pool(nn.relu(x) if self.relu else x, (2, 2), (2, 2))
        x = x.reshape(len(x), -1)
        x = nn.relu(nn.Dense(500, kernel_init=self.kernel_init)(x))
        return nn.Dense(10, kernel_init=self.kernel_init)(x)


class CaffeCifar(nn.Module):
    """Caffe's networks for CIFAR-10: "quick", and "full", which is Smith's 3-layer network.

    Both see images of 0 to 255 without their mean.
    """

    quick: bool

    @nn.compact
    def __call__(self, x):
        def convolved(x, features, deviation):
            kernel_init = nn.initializers.normal(deviation)
            return nn.Conv(features, (5, 5), padding=2, kernel_init=kernel_init)(x)

        normalized = (lambda x: x) if self.quick else normalized_within_channels
        x = normalized(nn.relu(pooled(nn.max_pool, convolved(x, 32, 1e-4))))
        x = normalized(average_pooled(nn.relu(convolved(x, 32, 0.01))))
        x = average_pooled(nn.relu(convolved(x, 64, 0.01)))
        x = x.reshape(len(x), -1)
        if self.quick:
            x = nn.Dense(64, kernel_init=nn.initializers.normal(0.1))(x)
        deviation = 0.1 if self.quick else 0.01
        return nn.Dense(10, kernel_init=nn.initializers.normal(deviation), name="last")(x)


def normalized_within_channels(x):
    """Caffe's local response normalization, over 3 x 3 pixels of the same channel."""
    around = nn.avg_pool(x**2, (3, 3), padding="SAME")
    return x * (1 + 5e-5 * around) ** -0.75


class ResNet(nn.Module):
    """The ResNet of Smith's Caffe files: (depth - 2) / 6 blocks of two convolutions per stage.

    Between stages the shortcut is an average of 3 x 3 pixels, and zeros are the new features.
    """

    depth: int = 56
    width: int = 16
    average: float = 0.999  # what the running averages of the batch normalization keep
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, train):
        def convolved(x, features, stride=1):
            x = nn.Conv(features, (3, 3), stride, padding=1, kernel_init=MSRA, dtype=self.dtype)(x)
            return nn.BatchNorm(not train, momentum=self.average, dtype=self.dtype)(x)

        x = nn.relu(convolved(x, self.width))
        for stage in range(3):
            for block in range((self.depth - 2) // 6):
                features, shrinks = x.shape[-1], stage > 0 and block == 0
                y = nn.relu(convolved(x, features, 2 if shrinks else 1))
                y = convolved(y, features)
                x = nn.relu((average_pooled(x) if shrinks else x) + y)
                if shrinks:
                    x = jnp.concatenate([x, jnp.zeros_like(x)], -1)
        x = nn.Dense(10, kernel_init=XAVIER, dtype=self.dtype)(x.mean((1, 2)))
        return x.astype(jnp.float32)


# Caffe's optimizer


def caffe_sgd(learning_rate, momentum=0.9, *, weight_decay=0.0, nesterov=False, last_decay=1):
    """Caffe's SGD: the rate is inside the momentum, and doubled for biases.

    Args:
        learning_rate: a number, an array or a schedule.
        momentum: likewise.
        weight_decay: likewise; an L2 penalty.
        nesterov: whether the momentum looks ahead.
        last_decay: how many times the weight decay applies to the kernel of the layer `last`.
    """
    return lrjax.inject(
        _caffe_sgd,
        learning_rate=learning_rate,
        momentum=momentum,
        weight_decay=weight_decay,
        nesterov=nesterov,
        last_decay=last_decay,
    )


def _caffe_sgd(learning_rate, momentum, weight_decay, nesterov: bool, last_decay: int = 1):
    more = optax.add_decayed_weights((last_decay - 1) * weight_decay)
    return optax.chain(
        optax.add_decayed_weights(weight_decay),
        optax.masked(more, _those(lambda path: path == "last/kernel")),
        optax.scale_by_learning_rate(learning_rate),
        optax.masked(optax.scale(2.0), _those(lambda path: path.endswith("bias"))),
        optax.trace(momentum, nesterov),
    )


def _those(condition):
    """A mask of the parameters whose paths meet a condition."""

    def mask(params):
        def met(path, _):
            return condition(jax.tree_util.keystr(path, simple=True, separator="/"))

        return jax.tree_util.tree_map_with_path(met, params)

    return mask


# Results


def last_accuracy(curves):
    """The accuracy of all lanes at the last evaluation, also of a sweep that was stopped."""
    accuracy = curves.done().eval_metrics["accuracy"]
    return accuracy[..., -1] if accuracy.shape[-1] else np.full(accuracy.shape[:-1], np.nan)


def machine():
    """What the numbers were measured on."""
    device = jax.devices()[0].device_kind
    return f"{jax.device_count()} x {device}, {os.cpu_count()} cores, JAX {jax.__version__}"


def percent(accuracies):
    """Mean and deviation over the last axis, of seeds."""
    values = 100 * np.asarray(accuracies, np.float64)
    if np.isnan(values).any():
        return f"{np.nanmean(values):.2f}?" if np.isfinite(values).any() else "-"
    deviation = f" ± {values.std(ddof=1):.2f}" if len(values) > 1 else ""
    return f"{values.mean():.2f}{deviation}"


def show(*rows):
    """Print a table, of whose rows the first is its head."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for first, *others in cells:
        line = [first.ljust(widths[0]), *map(str.rjust, others, widths[1:])]
        print("  ".join(line).rstrip())


def seconds(*functions, repeats=3):
    """The median times of calls that take turns, after one each that compiles."""
    times = []
    for _ in range(1 + repeats):
        times.append([])
        for function in functions:
            start = time.perf_counter()
            function()
            times[-1].append(time.perf_counter() - start)
    return [statistics.median(column) for column in zip(*times[1:], strict=True)]
