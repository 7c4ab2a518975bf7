"""A Flax NNX training loop of your own, with a 1cycle of AdamW's rate and b1.

`nnx.Optimizer` takes lrjax's optimizers as it takes Optax's, and `get_hyperparams` reads its
state. Look at the table: b1, Adam's momentum, falls while the rate rises, and turns with it.
"""

import jax.numpy as jnp
import optax
from flax import nnx
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import lrjax

STEPS = 300

images, labels = load_digits(return_X_y=True)
images = (images / 16).astype("float32")
x, x_test, y, y_test = train_test_split(images, labels, test_size=360, random_state=0)
batches = lrjax.array_batches((x, y), 64)

rngs = nnx.Rngs(0)
model = nnx.Sequential(
    nnx.Linear(64, 64, rngs=rngs),
    nnx.BatchNorm(64, rngs=rngs),
    nnx.relu,
    nnx.Dropout(0.2, rngs=rngs),
    nnx.Linear(64, 10, rngs=rngs),
)
optimizer = nnx.Optimizer(
    model, lrjax.onecycle_adamw(0.02, STEPS, weight_decay=1e-2), wrt=nnx.Param
)


@nnx.jit
def train_step(model, optimizer, step):
    x, y = batches(step)

    def loss(model):
        return optax.softmax_cross_entropy_with_integer_labels(model(x), y).mean()

    value, gradients = nnx.value_and_grad(loss)(model)
    optimizer.update(model, gradients)
    return value


@nnx.jit
def accuracy(model):
    return jnp.mean(model(x_test).argmax(-1) == y_test)


print("updates    rate     b1   loss  held-out accuracy")
for step in range(STEPS):
    model.train()
    value = train_step(model, optimizer, step)
    if (step + 1) % 30 == 0:
        model.eval()
        used = lrjax.get_hyperparams(optimizer.opt_state)  # by the last update
        print(
            f"{step + 1:7d}  {used['learning_rate']:6.4f}  {used['b1']:5.3f}  {value:5.3f}  "
            f"{accuracy(model):17.3f}"
        )
