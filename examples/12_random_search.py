"""Random search: 24 runs with rate, momentum and weight decay drawn at random, as lanes.

All of them train at once, in one compiled program, and a run that diverges harms no other. Look
at what the best have in common, which is neither a rate nor a momentum, but that their quotient
rate / (1 - momentum) is about 1; any weight decay below 1e-2 will do.
"""

import jax
import numpy as np
import optax
from flax import linen as nn
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import lrjax

STEPS = 150  # raise it, and smaller rates do as well

images, labels = load_digits(return_X_y=True)
images = (images / 16).astype("float32")
x, x_test, y, y_test = train_test_split(images, labels, test_size=360, random_state=0)

network = nn.Sequential([nn.Dense(32), nn.relu, nn.Dense(10)])


def loss(logits, batch):
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]).mean()


lanes = lrjax.random_lanes(
    jax.random.key(0),
    24,
    learning_rate=lrjax.log_uniform(1e-3, 1.0),
    momentum=lrjax.choice([0.0, 0.9, 0.95, 0.99]),
    weight_decay=lrjax.log_uniform(1e-6, 1e-1),
)
curves = lrjax.sweep(
    lrjax.linen_task(network, loss, (x[:1], y[:1])),
    (x, y),
    lrjax.sgd,
    lanes=lanes,
    seeds=2,
    steps=STEPS,
    eval_batches=[(x_test, y_test)],  # as one batch
    eval_every=STEPS,
)

final = curves.eval_loss[..., -1].mean(-1)  # over seeds; NaN for a lane that diverged
print(curves)
print("held-out loss    rate  momentum  rate / (1 - momentum)  weight decay")
for k in np.argsort(final):  # NaN comes last
    rate, momentum, decay = (lanes[k][name] for name in sorted(lanes[k]))
    effective = rate / (1 - momentum)
    print(f"{final[k]:13.3f}  {rate:6.4f}  {momentum:8g}  {effective:21.3f}  {decay:12.1e}")
