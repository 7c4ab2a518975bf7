"""What a run gives its optimizer, and which rates it reports."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import BATCHES, TASK, network_init, plain_loss

import lrjax

pytestmark = pytest.mark.usefixtures("mixed_types")
STEPS = 12


@pytest.fixture
def mixed_types():
    """Optax's own arithmetic mixes types, which the tests forbid to ours."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def sam(learning_rate):
    ascent = optax.chain(optax.contrib.normalize(), optax.sgd(0.1))
    return optax.contrib.sam(optax.sgd(learning_rate), ascent)


def backtracking(learning_rate):
    return optax.chain(optax.sgd(learning_rate), optax.scale_by_backtracking_linesearch(5))


def injected_sam(learning_rate):
    return lrjax.inject(sam, learning_rate=learning_rate)


def searching(learning_rate):
    return optax.lbfgs(learning_rate, memory_size=3)


def plain_loop(optimizer, loss_of, arguments):
    """The losses of a lane, in a loop that knows nothing of lrjax but its batches."""
    params = network_init(jax.random.key(0))
    state = optimizer.init(params)
    losses = []

    @jax.jit
    def update(params, state, step):
        value_fn = functools.partial(loss_of, step)
        loss, grads = jax.value_and_grad(value_fn)(params)
        given = {"value": loss, "grad": grads, "value_fn": value_fn}
        extra = {name: given[name] for name in arguments}
        updates, state = optimizer.update(grads, state, params, **extra)
        return optax.apply_updates(params, updates), state, loss

    for step in range(STEPS):
        params, state, loss = update(params, state, step)
        losses.append(loss)
    return np.array(losses)


def mean_loss(accumulate, step, params):
    parts = [plain_loss(params, BATCHES(step * accumulate + part)) for part in range(accumulate)]
    return sum(parts) / accumulate


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize(
    ("optimizer", "arguments"),
    [
        (sam, ()),
        (injected_sam, ()),
        (backtracking, ("value", "grad", "value_fn")),
        (searching, ("value", "grad", "value_fn")),
    ],
)
def test_optimizers_are_given_what_they_ask_for(optimizer, arguments, accumulate):
    lanes = {"learning_rate": [0.3, 0.1]}
    curves = lrjax.sweep(
        TASK, BATCHES, optimizer, steps=STEPS, lanes=lanes, accumulate=accumulate, divergence=None
    )
    loss_of = functools.partial(mean_loss, accumulate)
    for rate, loss in zip(lanes["learning_rate"], curves.loss[:, 0], strict=True):
        expected = plain_loop(optimizer(rate), loss_of, arguments)
        np.testing.assert_allclose(loss, expected, rtol=1e-4)


@pytest.mark.parametrize(
    "plateau",
    [
        functools.partial(lrjax.plateau, 0.5, patience=1, convention="optax"),
        functools.partial(optax.contrib.reduce_on_plateau, 0.5, patience=1, accumulation_size=1),
    ],
)
def test_rates_are_those_that_a_plateau_leaves(plateau):
    # A loss that never improves, so that every check but the first cuts.
    task = lrjax.task(lambda params, batch: 0 * params.sum() + 1.0, jnp.ones(3))

    def annealed(learning_rate):
        return optax.chain(lrjax.sgd(learning_rate), plateau())

    curves = lrjax.sweep(task, BATCHES, annealed, steps=4, lanes={"learning_rate": [0.1, 0.2]})
    cuts = np.float32([1, 0.5, 0.25, 0.125])
    np.testing.assert_allclose(curves.learning_rate[:, 0], np.outer([0.1, 0.2], cuts), rtol=1e-6)
