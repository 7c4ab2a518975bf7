"""Fine-tuning with a learning rate for every layer: the further from the output, the smaller.

A network that knows the digits 0 to 7 gets a new last layer and 20 examples of 8 and 9. The
new layer trains at the full rate, each one before it at `decay` times that of the next. Look at
how far the first layer moves from where it was, and at the accuracy on other 8s and 9s: on this
small problem it had better move; ULMFiT took a decay of 1 / 2.6 for its language model.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits
from sklearn.utils import shuffle

import lrjax

images, labels = shuffle(*load_digits(return_X_y=True), random_state=0)
images = (images / 16).astype("float32")
old = np.flatnonzero(labels < 8)
few, rest = np.split(np.flatnonzero(labels >= 8), [20])


def random(key, outputs):
    return jax.random.normal(key, (64, outputs)) * np.sqrt(2 / 64)


def init(key):
    first, second, last = jax.random.split(key, 3)
    return {"first": random(first, 64), "second": random(second, 64), "last": random(last, 10)}


def loss(params, batch):
    x, y = batch
    x = jax.nn.relu(x @ params["first"])
    logits = jax.nn.relu(x @ params["second"]) @ params["last"]
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
    return losses.mean(), {"accuracy": jnp.mean(logits.argmax(-1) == y)}


_, final = lrjax.sweep(
    lrjax.task(loss, init),
    (images[old], labels[old]),
    lambda: lrjax.onecycle_sgd(0.2, 200),
    steps=200,
    return_state=True,
)
trained = jax.tree.map(lambda array: array[0], final.params)  # of the only seed


def new_last_layer(key):
    return trained | {"last": random(key, 10)}


def optimizer(decay):
    rate = lrjax.onecycle(0.1, 100)
    # {"last": rate, "second": rate x decay, "first": rate x decay**2}
    rates = lrjax.layerwise_decay(rate, ["last", "second", "first"], decay=decay)
    return lrjax.discriminative(optax.sgd, rates, momentum=0.9)


decays = [0.01, 0.1, 1 / 2.6, 1.0]
curves, final = lrjax.sweep(
    lrjax.task(loss, new_last_layer),
    (images[few], labels[few]),
    optimizer,
    lanes={"decay": decays},
    seeds=5,  # five new layers
    steps=100,
    eval_batches=[(images[rest], labels[rest])],  # as one batch
    eval_every=100,
    return_state=True,
)
accuracy = curves.eval_metrics["accuracy"][..., -1]
print("decay  first layer moved  accuracy on 8 and 9")
for k, decay in enumerate(decays):
    before, after = trained["first"], final.params["first"][k, 0]
    moved = np.linalg.norm(after - before) / np.linalg.norm(before)
    print(f"{decay:5.2g}  {moved:17.1%}  {accuracy[k].mean():10.3f} +- {accuracy[k].std():.3f}")
