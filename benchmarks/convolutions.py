"""What does a convolutional lane's update cost, as it is and with its convolutions rewritten?

    python benchmarks/convolutions.py                        synthetic images, all models
    python benchmarks/convolutions.py cnn --data mnist.npz   of one model, on a file's images
    python benchmarks/convolutions.py cnn --torch            beside PyTorch, where it is installed

cnn: conv32(3x3)-pool2-conv64(3x3)-pool2-256-10 on 28x28; lenet: conv20(5x5)-pool2-conv50(5x5)-
pool2-500-10 on 28x28; resnet20: He et al.'s for CIFAR-10 on 32x32, without batch normalization.
All with a batch of 128 and plain SGD. Milliseconds per lane and update: medians of rounds, in each
of which every program has its turn, and their ratio to lrjax as it is by default; "cpu" is the
processor time of all threads in the fastest round, which other work on the machine disturbs least.

scan: a hand-written jit(vmap(scan)) of the plain loss; call: each of its updates a call of its own;
off, on: sweeps with `rewrite_convolutions` False and True, 16 lanes unless "1" stands behind.

Last answer, on a 2-core x86-64 CPU with JAX 0.10.2 and PyTorch 2.13 (which runs its updates alone,
without a loader), of `cnn lenet --torch --leave-out scan "scan 1" off "off 1"`, and of `resnet20`
likewise, without "call" too, which takes minutes:

    cnn
                     ms   ratio   cpu ms   ratio
    torch 1        35.0    2.89     58.7    2.27
    call 1         90.2    7.44    135.4    5.24
    on 1           21.5    1.77     29.7    1.15
    call          200.4   16.54    258.2    9.99
    on             12.1    1.00     25.9    1.00

    lenet
                     ms   ratio   cpu ms   ratio
    torch 1        26.2    1.84     47.9    1.67
    call 1         66.4    4.65     99.8    3.48
    on 1           26.0    1.82     32.7    1.14
    call          129.6    9.07    187.2    6.53
    on             14.3    1.00     28.7    1.00

    resnet20
                     ms   ratio   cpu ms   ratio
    call 1        553.6    2.08    845.9    1.61
    on 1          378.9    1.43    608.5    1.16
    on            265.6    1.00    524.7    1.00
"""

import argparse
import functools
import itertools
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

import lrjax

BATCH, SAMPLES, LANES = 128, 1024, 16
STEPS, ROUNDS = 2, 5
RATE = 0.01


class CNN(nn.Module):
    """Two convolutions, each with a pooling, and two dense layers."""

    channels: tuple[int, int]
    size: int
    hidden: int

    @nn.compact
    def __call__(self, x):
        for channels in self.channels:
            x = nn.relu(nn.Conv(channels, (self.size, self.size), padding="VALID")(x))
            x = nn.max_pool(x, (2, 2), (2, 2))
        return nn.Dense(10)(nn.relu(nn.Dense(self.hidden)(x.reshape(len(x), -1))))


class ResNet20(nn.Module):
    """Three stages of three blocks of two convolutions."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(16, (3, 3))(x))
        for channels, block in itertools.product((16, 32, 64), range(3)):
            strides = 2 if channels > 16 and block == 0 else 1
            y = nn.relu(nn.Conv(channels, (3, 3), strides)(x))
            y = nn.Conv(channels, (3, 3))(y)
            if strides > 1:
                x = nn.Conv(channels, (1, 1), strides)(x)
            x = nn.relu(x + y)
        return nn.Dense(10)(x.mean((1, 2)))


MODELS = {
    "cnn": (CNN((32, 64), 3, 256), (28, 28, 1)),
    "lenet": (CNN((20, 50), 5, 500), (28, 28, 1)),
    "resnet20": (ResNet20(), (32, 32, 3)),
}


def loss_of(logits, batch):
    return -jnp.take_along_axis(nn.log_softmax(logits), batch[1][:, None], 1).mean()


def images(shape, file):
    if file is None:
        random = np.random.default_rng(0)
        x, y = random.normal(size=(SAMPLES, *shape)), random.integers(0, 10, SAMPLES)
    else:
        with np.load(file) as arrays:
            x, y = (arrays[name][:SAMPLES] for name in arrays_of(arrays))
        x = x.reshape(-1, *shape) / 255
    return x.astype(np.float32), y.astype(np.int32)


def arrays_of(arrays):
    """The names of the images and their labels: the first array of each kind."""
    names = list(arrays)
    x = next(name for name in names if arrays[name].ndim > 1)
    return x, next(name for name in names if arrays[name].ndim == 1)


def hand_written(task, batches, lanes, steps):
    """Lanes in one jitted program of `steps` updates."""

    def loss(params, batch):
        return task.loss(params, {}, batch, jax.random.key(0), True)[0]

    gradient = jax.grad(loss)

    def lane(params, first):
        def update(params, k):
            grads = gradient(params, batches(first + k))
            return jax.tree.map(lambda p, g: p - RATE * g, params, grads), None

        if steps == 1:
            return update(params, 0)[0]
        return jax.lax.scan(update, params, jnp.arange(steps))[0]

    program = jax.jit(jax.vmap(lane, (0, None)))
    params = jax.vmap(lambda key: task.init(key)[0])(jax.random.split(jax.random.key(0), lanes))

    def run():
        trained = params
        for first in range(0, STEPS, steps):
            trained = program(trained, first)
        jax.block_until_ready(trained)

    return run


def swept(task, batches, lanes, **options):
    """A sweep's updates: the difference of a longer and a shorter one, by its caller."""

    def run(dispatches=1):
        lrjax.sweep(
            task,
            batches,
            lrjax.sgd,
            steps=STEPS * dispatches,
            lanes={"learning_rate": [RATE] * lanes},
            chunk_steps=STEPS,
            **options,
        )

    return run


def torch_run(model):
    """The same updates in PyTorch, of one lane."""
    import torch

    module, shape = MODELS[model]
    if not isinstance(module, CNN):
        return None
    (first, second), size = module.channels, module.size
    side = ((shape[0] - size + 1) // 2 - size + 1) // 2
    layers = torch.nn.Sequential(
        *(torch.nn.Conv2d(1, first, size), torch.nn.ReLU(), torch.nn.MaxPool2d(2)),
        *(torch.nn.Conv2d(first, second, size), torch.nn.ReLU(), torch.nn.MaxPool2d(2)),
        *(torch.nn.Flatten(), torch.nn.Linear(second * side * side, module.hidden)),
        *(torch.nn.ReLU(), torch.nn.Linear(module.hidden, 10)),
    )
    optimizer = torch.optim.SGD(layers.parameters(), lr=RATE)
    x, y = torch.randn(BATCH, 1, *shape[:2]), torch.randint(0, 10, (BATCH,))

    def run():
        for _ in range(STEPS):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(layers(x), y).backward()
            optimizer.step()

    return run


def timed(run):
    cpu, start = time.process_time(), time.perf_counter()
    run()
    return np.array([time.perf_counter() - start, time.process_time() - cpu])


def measure(model, file, with_torch, rounds, left_out):
    module, shape = MODELS[model]
    data = images(shape, file)
    batches = lrjax.array_batches(data, BATCH)
    task = lrjax.linen_task(module, loss_of, tuple(array[:2] for array in data))
    runs = {}
    if with_torch:
        runs["torch 1"] = (torch_run(model), 1)
    for lanes in (1, LANES):
        mark = "" if lanes == LANES else " 1"
        makers = {
            "scan": functools.partial(hand_written, steps=STEPS),
            "off": functools.partial(swept, rewrite_convolutions=False),
            "call": functools.partial(hand_written, steps=1),
            "on": functools.partial(swept, rewrite_convolutions=True),
        }
        runs |= {
            name + mark: (make(task, batches, lanes), lanes)
            for name, make in makers.items()
            if name + mark not in left_out
        }
    runs = {name: run for name, run in runs.items() if run[0] is not None}
    seconds = {name: [] for name in runs}
    for attempt in range(rounds + 1):
        for name, (run, lanes) in runs.items():
            taken = timed(run)
            if name.startswith(("on", "off")):
                # Without what a sweep takes besides its updates.
                taken = timed(functools.partial(run, 3)) / 2 - taken / 2
            if attempt:  # the first one compiles
                seconds[name].append(taken / lanes / STEPS * 1000)
    print(f"\n    {model}\n    {'':10}{'ms':>9}{'ratio':>8}{'cpu ms':>9}{'ratio':>8}")
    medians = {name: statistics.median(t[0] for t in times) for name, times in seconds.items()}
    least = {name: min(t[1] for t in times) for name, times in seconds.items()}
    for name in seconds:
        wall, cpu = (value[name] / value["on"] for value in (medians, least))
        print(
            f"    {name:10}{medians[name]:9.1f}{wall:8.2f}{least[name]:9.1f}{cpu:8.2f}", flush=True
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", metavar="MODEL", help=", ".join(MODELS))
    parser.add_argument("--data", help="an .npz file of images and labels")
    parser.add_argument("--torch", action="store_true", help="measure PyTorch too")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument(
        "--leave-out", nargs="*", default=[], metavar="NAME", help='such as "scan" and "off 1"'
    )
    arguments = parser.parse_args()
    for model in arguments.models or MODELS:
        if model not in MODELS:
            parser.error(f"a model is one of {', '.join(MODELS)}, got {model!r}")
        measure(model, arguments.data, arguments.torch, arguments.rounds, arguments.leave_out)


if __name__ == "__main__":
    main()
