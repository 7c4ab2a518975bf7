"""A range test on a stream: Grain reads, augments and shuffles on the host, lanes train.

Every batch is read once for all lanes, ahead of its use. Look at the suggested rate for each
weight decay. A PyTorch `DataLoader`, tf.data or a generator goes in the same place. Needs
`pip install grain`.
"""

import grain
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from sklearn.datasets import load_digits

import lrjax

images, labels = load_digits(return_X_y=True)
images = (images / 16).astype("float32").reshape(-1, 8, 8)


class Shifted(grain.transforms.RandomMap):
    """A sample of the given number, its image moved by up to one pixel."""

    def random_map(self, number, rng):
        moved = np.roll(images[number], rng.integers(-1, 2, size=2), axis=(0, 1))
        return {"x": moved.ravel(), "y": labels[number]}


loader = (
    grain.MapDataset.range(len(labels))
    .seed(0)
    .shuffle()
    .repeat()  # every epoch in another order
    .random_map(Shifted())
    .to_iter_dataset()
    .batch(64)
)

network = nn.Sequential([nn.Dense(64), nn.relu, nn.Dense(10)])


def loss(logits, batch):
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch["y"]).mean()


def inputs(batch):
    return batch["x"]


sample = {"x": jnp.zeros((1, 64)), "y": jnp.zeros(1, int)}
curves = lrjax.range_test(
    lrjax.linen_task(network, loss, sample, inputs=inputs),
    lrjax.stream_batches(loader, prefetch=2),
    lanes={"weight_decay": [0, 1e-3, 1e-1]},
    seeds=2,
    momentum=(0.95, 0.85),
)
print(curves)
print(lrjax.suggest(curves))
