"""Problems and tools that several test modules share."""

import contextlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax

import lrjax

KEY = jax.random.key(0)

# Optax's own arithmetic mixes types, which the tests forbid to ours.
mixed_types = jax.numpy_dtype_promotion("standard")


def clouds(samples=96, features=5, classes=3, seed=0):
    """Clouds of points, one per class: inputs f32[samples, features] and labels i32[samples]."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=samples).astype(np.int32)
    centres = np.random.default_rng(7).normal(size=(classes, features))
    points = centres[labels] + 0.7 * rng.normal(size=(samples, features))
    return points.astype(np.float32), labels


def cross_entropy(logits, labels):
    picked = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=-1)
    return -picked.mean()


def network_init(key, features=5, hidden=8, classes=3):
    first, second = jax.random.split(key)
    return {
        "first": jax.random.normal(first, (features, hidden)) / np.sqrt(features),
        "second": jax.random.normal(second, (hidden, classes)) / np.sqrt(hidden),
    }


def network_loss(params, batch):
    points, labels = batch
    logits = jnp.tanh(points @ params["first"]) @ params["second"]
    return cross_entropy(logits, labels), {"accuracy": jnp.mean(logits.argmax(-1) == labels)}


def plain_loss(params, batch):
    """The same without metrics."""
    return network_loss(params, batch)[0]


def network():
    """A small network on clouds: the task and its data."""
    return lrjax.task(network_loss, network_init), clouds()


TASK, DATA = network()
BATCHES = lrjax.array_batches(DATA, 16)
HELD_OUT = lrjax.array_batches(clouds(40, seed=1), 16)


def line_init(key):
    return jax.random.normal(key, (5,))


def line_loss(params, batch):
    points, labels = batch
    return jnp.mean((points @ params - labels.astype(points.dtype)) ** 2)


def plain_sgd(learning_rate, momentum, weight_decay):
    """SGD of Optax alone, at one learning rate."""
    return optax.chain(optax.add_decayed_weights(weight_decay), optax.sgd(learning_rate, momentum))


def plain_loop(loss_fn, params, rates, momentum, weight_decay):
    """The losses of one lane, in a loop that knows nothing of lrjax but its batches."""
    optimizer = optax.inject_hyperparams(plain_sgd)(0.0, momentum, weight_decay)
    opt_state = optimizer.init(params)

    @jax.jit
    def update(params, opt_state, rate, step):
        loss, grads = jax.value_and_grad(loss_fn)(params, BATCHES(step))
        opt_state.hyperparams["learning_rate"] = rate
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    losses = []
    for step, rate in enumerate(rates):
        params, opt_state, loss = update(params, opt_state, jnp.float32(rate), step)
        losses.append(float(loss))
    return np.array(losses)


def falling_and_rising(rate, lowest=0.0, onset=0.003, edge=0.3, drop=2.0, power=3):
    """The loss of a range test: it falls around one rate, and rises after another."""
    return lowest + drop / (1 + rate / onset) + (rate / edge) ** power


def make_curves(rate, loss, **fields):
    """Curves with axes to fit; `loss` is [*axes, steps]."""
    loss = np.asarray(loss, np.float32)
    lanes = loss.shape[:-1]
    names = ["weight_decay", "seed"][-len(lanes) :] if lanes else []
    axes = {name: np.arange(size) for name, size in zip(names, lanes, strict=True)}
    given = {"axes": axes, "learning_rate": np.asarray(rate, np.float32), "loss": loss}
    return lrjax.Curves(**given | fields)


@contextlib.contextmanager
def compilations(stage="backend_compile"):
    """Counts how often XLA compiles: a list that grows by one entry each time.

    Of the stages before, `jaxpr_to_mlir_module` lowers a program, and `jaxpr_trace` traces it.
    """
    seen = []

    def listen(event, duration, **kwargs):
        if event == f"/jax/core/compile/{stage}_duration":
            seen.append(kwargs.get("fun_name", event))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seen
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def python(code):
    """Run code in a fresh interpreter and return what it prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
