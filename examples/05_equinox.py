"""An Equinox model as a task: its arrays are the parameters, the rest is put back inside the loss.

Any library whose models are pytrees goes this way, without support for it in lrjax. Four peak
rates of a 1cycle are trained side by side. Look at how far apart they end; the accuracy is that
of the Equinox models that come back. Needs `pip install equinox`.
"""

import equinox as eqx
import jax
import numpy as np
import optax
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import lrjax

STEPS = 200

images, labels = load_digits(return_X_y=True)
images = (images / 16).astype("float32")
x, x_test, y, y_test = train_test_split(images, labels, test_size=360, random_state=0)


def make_model(key):
    return eqx.nn.MLP(64, 10, width_size=32, depth=1, key=key)


# What is no array, such as sizes and activation functions, is the same for every seed.
static = eqx.filter(make_model(jax.random.key(0)), eqx.is_array, inverse=True)


def init(key):
    return eqx.filter(make_model(key), eqx.is_array)


def loss(params, batch):
    model, (images, labels) = eqx.combine(params, static), batch
    logits = jax.vmap(model)(images)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def onecycle(learning_rate):
    return lrjax.onecycle_adamw(learning_rate, STEPS)


rates = [1e-4, 1e-3, 1e-2, 1e-1]
curves, final = lrjax.sweep(
    lrjax.task(loss, init),
    (x, y),
    onecycle,
    lanes={"learning_rate": rates},
    steps=STEPS,
    return_state=True,
)

print("peak rate  last loss  held-out accuracy")
for k, rate in enumerate(rates):
    # Every array of the final state has the axes of the lanes first: rate, then seed.
    params = jax.tree.map(lambda array, k=k: array[k, 0], final.params)
    model = eqx.combine(params, static)
    accuracy = np.mean(jax.vmap(model)(x_test).argmax(-1) == y_test)
    print(f"{rate:9g}  {curves.loss[k, 0, -1]:9.3f}  {accuracy:17.3f}")
