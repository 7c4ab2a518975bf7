"""Early stopping and a checkpoint of the best epoch, beside a cyclical rate.

A cycle makes the held-out loss worse while the rate is high, and that is no reason to stop: the
patience must be longer than a cycle. Look at where a patience of two epochs would have stopped,
at where training did stop, and at the best epoch so far (*). Needs the extra `checkpoint`.
"""

import tempfile

import jax
import optax
import orbax.checkpoint as ocp
from flax import linen as nn
from flax.training.early_stopping import EarlyStopping
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import lrjax

EPOCHS = 60  # at most
CYCLE = 6  # epochs

images, labels = load_digits(return_X_y=True)
images = (images / 16).astype("float32")
# Few to train on, so that too much training does harm.
x, x_test, y, y_test = train_test_split(images, labels, train_size=600, random_state=0)
held_out = x_test, y_test
batches = lrjax.array_batches((x, y), 32)
per_epoch = batches.steps_per_epoch

network = nn.Sequential([nn.Dense(64), nn.relu, nn.Dense(64), nn.relu, nn.Dense(10)])
optimizer = lrjax.cyclical_sgd(0.005, 0.3, CYCLE * per_epoch // 2, momentum=(0.85, 0.95))
params = network.init(jax.random.key(0), x[:1])
state = optimizer.init(params)


def loss(params, batch):
    logits = network.apply(params, batch[0])
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]).mean()


@jax.jit
def epoch(number, params, state):
    def update(step, carry):
        params, state = carry
        gradients = jax.grad(loss)(params, batches(step))
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    first = number * per_epoch
    params, state = jax.lax.fori_loop(first, first + per_epoch, update, (params, state))
    return params, state, loss(params, held_out)


hasty, patient = EarlyStopping(patience=2), EarlyStopping(patience=2 * CYCLE + 1)
latest = ocp.CheckpointManagerOptions(max_to_keep=1)
with (
    tempfile.TemporaryDirectory() as folder,
    ocp.CheckpointManager(folder, options=latest) as checkpoints,
):
    print("epoch   rate  held-out loss")
    for number in range(EPOCHS):
        params, state, value = epoch(number, params, state)
        rate = lrjax.get_hyperparams(state)["learning_rate"]
        running, hasty, patient = not hasty.should_stop, hasty.update(value), patient.update(value)
        note = "a patience of 2 stops here" if running and hasty.should_stop else ""
        note = "*" if patient.has_improved else note
        print(f"{number:5d}  {rate:5.3f}  {value:13.3f}  {note}")
        if patient.has_improved:
            checkpoints.save(number, args=ocp.args.StandardSave(params))
        if patient.should_stop:
            break
    checkpoints.wait_until_finished()
    best = checkpoints.latest_step()
    params = checkpoints.restore(best, args=ocp.args.StandardRestore(params))
print(f"Stopped after epoch {number}; back to epoch {best} with loss {loss(params, held_out):.3f}.")
