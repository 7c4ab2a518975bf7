"""A Flax Linen training loop of your own, with a 1cycle of rate and momentum.

The line to look for is `tx=`: lrjax's optimizers are Optax transformations. Look at the
table: while the rate rises to its peak the momentum falls, and both turn back together; the
best accuracy comes at the end, when the rate is small.
"""

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax.training.train_state import TrainState
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import lrjax

STEPS = 300

images, labels = load_digits(return_X_y=True)
images = (images / 16).astype("float32")
x, x_test, y, y_test = train_test_split(images, labels, test_size=360, random_state=0)
batches = lrjax.array_batches((x, y), 64)  # a function of the step, shuffled every epoch

network = nn.Sequential([nn.Dense(64), nn.relu, nn.Dense(10)])
state = TrainState.create(
    apply_fn=network.apply,
    params=network.init(jax.random.key(0), x[:1])["params"],
    tx=lrjax.onecycle_sgd(1.0, STEPS, momentum=(0.85, 0.95), weight_decay=1e-4),
)


@jax.jit
def train_step(state):
    x, y = batches(state.step)

    def loss(params):
        logits = state.apply_fn({"params": params}, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    value, gradients = jax.value_and_grad(loss)(state.params)
    return state.apply_gradients(grads=gradients), value


@jax.jit
def accuracy(params):
    logits = network.apply({"params": params}, x_test)
    return jnp.mean(logits.argmax(-1) == y_test)


print("updates   rate  momentum   loss  held-out accuracy")
for step in range(1, STEPS + 1):
    state, value = train_step(state)
    if step % 30 == 0:
        used = lrjax.get_hyperparams(state.opt_state)  # by the last update
        print(
            f"{step:7d}  {used['learning_rate']:5.3f}  {used['momentum']:8.3f}  {value:5.3f}  "
            f"{accuracy(state.params):17.3f}"
        )
