"""What the benchmarks of speed train: models as plain functions, their data, and timing.

Every sweep is a range test over weight decays with plain SGD, the default of `lrjax.range_test`.
"""

import functools
import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

START, END = 1e-6, 1e-2


class Workload(NamedTuple):
    """A model, and the shape of what it learns from."""

    init: Callable[[jax.Array], Any]
    logits: Callable[[Any, jax.Array], jax.Array]
    shape: tuple[int, ...]
    batch: int

    def loss(self, params, batch):
        """The mean cross-entropy."""
        x, y = batch
        logits = self.logits(params, x).astype(jnp.float32)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def _weights(key, shape):
    """He's initialization of a dense layer or a convolution, and a bias."""
    fan_in = np.prod(shape[:-1])
    return jax.random.normal(key, shape) * np.float32(2 / fan_in) ** 0.5, jnp.zeros(shape[-1])


def _layers(*shapes):
    def init(key):
        return [
            _weights(*each) for each in zip(jax.random.split(key, len(shapes)), shapes, strict=True)
        ]

    return init


def _dense(layers, x):
    *hidden, (weights, bias) = layers
    for w, b in hidden:
        x = jax.nn.relu(x @ w + b)
    return x @ weights + bias


def _convolve(x, kernel, stride=1, padding="SAME"):
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=layout
    )


def _pool(x):
    """The largest of every 2 x 2 pixels, as Flax's `max_pool` has it."""
    window = (1, 2, 2, 1)
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")


def _cnn(layers, x):
    for kernel, bias in layers[:2]:
        x = _pool(jax.nn.relu(_convolve(x, kernel, padding="VALID") + bias))
    return _dense(layers[2:], x.reshape(len(x), -1))


RESNET_WIDTHS = [16] * 3 + [32] * 3 + [64] * 3


def _resnet_init(key):
    keys = iter(jax.random.split(key, 2 * len(RESNET_WIDTHS) + 2))

    def normalized(*shape):
        return _weights(next(keys), shape)[0], jnp.ones(shape[-1]), jnp.zeros(shape[-1])

    widths = itertools.pairwise([16, *RESNET_WIDTHS])
    return {
        "stem": normalized(3, 3, 3, 16),
        "blocks": [[normalized(3, 3, a, b), normalized(3, 3, b, b)] for a, b in widths],
        "head": _weights(next(keys), (64, 10)),
    }


def _resnet(params, x):
    """ResNet-20 for CIFAR-10 (He et al. 2015, arXiv 1512.03385), with padded shortcuts."""

    def normalized(x, layer, stride=1):
        kernel, scale, shift = layer
        x = _convolve(x, kernel, stride)
        mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
        return (x - mean) * jax.lax.rsqrt(variance + jnp.asarray(1e-5, x.dtype)) * scale + shift

    x = jax.nn.relu(normalized(x, params["stem"]))
    for first, second in params["blocks"]:
        wider = first[1].shape[0] - x.shape[-1]
        stride = 2 if wider else 1
        shortcut = jnp.pad(x[:, ::stride, ::stride], [(0, 0)] * 3 + [(0, wider)])
        inner = jax.nn.relu(normalized(x, first, stride))
        x = jax.nn.relu(normalized(inner, second) + shortcut)
    weights, bias = params["head"]
    return x.mean((1, 2)) @ weights + bias


WORKLOADS = {
    "tiny": Workload(_layers((64, 32), (32, 10)), _dense, (64,), 64),
    "mlp": Workload(_layers((784, 256), (256, 10)), _dense, (784,), 128),
    "cnn": Workload(
        _layers((3, 3, 1, 32), (3, 3, 32, 64), (1600, 256), (256, 10)), _cnn, (28, 28, 1), 128
    ),
    "resnet20": Workload(_resnet_init, _resnet, (32, 32, 3), 128),
}


def load(workload, path=None, samples=8192):
    """Inputs f32[samples, *shape] and labels i32[samples]: random, or of a file of images."""
    if path is not None:
        with np.load(path) as file:
            x, y = file["x_train"], file["y_train"]
        if np.prod(x.shape[1:]) == np.prod(workload.shape):
            return (x / np.float32(255)).reshape(-1, *workload.shape), y.astype(np.int32)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((samples, *workload.shape), np.float32)
    return x, rng.integers(10, size=samples, dtype=np.int32)


def decays(lanes):
    """One weight decay per lane."""
    return np.geomspace(1e-6, 1e-2, lanes, dtype=np.float32)


def rates(steps):
    """A range test's rates."""
    return np.geomspace(START, END, steps, dtype=np.float32)


def update(workload, params, decay, rate, row, data):
    """One update of one lane, as one would write it by hand: new parameters and the loss."""
    batch = jax.tree.map(lambda array: array[row], data)
    loss, grads = jax.value_and_grad(workload.loss)(params, batch)

    def descend(p, g):
        return (p - rate * (g + decay * p)).astype(p.dtype)

    return jax.tree.map(descend, params, grads), loss


def single_run(workload, decay, rates, rows, data):
    """The losses of one lane, f32[steps], as a scan."""

    def step(params, now):
        return update(workload, params, decay, *now, data)

    return jax.lax.scan(step, workload.init(jax.random.key(0)), (rates, rows))[1]


def hand_written(workload):
    """The sweep as one would write it without lrjax: `jit(vmap(scan))`.

    Returns:
        A function of decays f32[lanes], rates f32[steps], the samples' numbers
        i32[steps, batch] and the data, which gives the losses f32[lanes, steps].
    """
    run = functools.partial(single_run, workload)
    return jax.jit(jax.vmap(run, in_axes=(0, None, None, None)))


def medians(functions, repeats):
    """The median seconds of calls that take turns, back and forth, after one each that compiles."""
    times = {name: [] for name in functions}
    order = list(functions)
    for turn in range(repeats + 1):
        for name in order:
            start = time.perf_counter()
            jax.block_until_ready(functions[name]())
            if turn:
                times[name].append(time.perf_counter() - start)
        order.reverse()
    return {name: statistics.median(each) for name, each in times.items()}


def matrix_product(dtype=jnp.float32):
    """A call that multiplies two large matrices, and its operations."""
    size = 8192 if jax.default_backend() == "gpu" else 2048
    matrix, product = jnp.ones((size, size), dtype), jax.jit(jnp.matmul)
    return lambda: product(matrix, matrix), 2 * size**3
