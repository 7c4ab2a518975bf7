"""What one run does in an update: batches, gradients, random numbers, and its optimizer."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import (
    BATCHES,
    DATA,
    TASK,
    mixed_types,
    network_init,
    plain_loss,
)

import lrjax
from lrjax.sweeps import memory

STEPS = 12


def sam(learning_rate):
    ascent = optax.chain(optax.contrib.normalize(), optax.sgd(0.1))
    return optax.contrib.sam(optax.sgd(learning_rate), ascent)


def backtracking(learning_rate):
    return optax.chain(optax.sgd(learning_rate), optax.scale_by_backtracking_linesearch(5))


def jitted(learning_rate):
    optimizer = optax.with_extra_args_support(optax.adam(learning_rate))
    return optax.GradientTransformationExtraArgs(optimizer.init, jax.jit(optimizer.update))


def injected_sam(learning_rate):
    return lrjax.inject(sam, learning_rate=learning_rate)


def searching(learning_rate):
    return optax.lbfgs(learning_rate, memory_size=3)


def own_loop(optimizer, loss_of, arguments):
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


@mixed_types
@pytest.mark.parametrize(
    ("optimizer", "arguments", "accumulate"),
    [
        (sam, (), 1),
        (jitted, (), 1),
        (injected_sam, (), 2),
        (backtracking, ("value", "grad", "value_fn"), 2),
        (searching, ("value", "grad", "value_fn"), 1),
    ],
)
def test_optimizers_are_given_what_they_ask_for(optimizer, arguments, accumulate):
    lanes = {"learning_rate": [0.3, 0.1]}
    curves = lrjax.sweep(
        TASK, BATCHES, optimizer, steps=STEPS, lanes=lanes, accumulate=accumulate, divergence=None
    )
    loss_of = functools.partial(mean_loss, accumulate)
    for rate, loss in zip(lanes["learning_rate"], curves.loss[:, 0], strict=True):
        expected = own_loop(optimizer(rate), loss_of, arguments)
        np.testing.assert_allclose(loss, expected, rtol=1e-4)


@mixed_types
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


def test_accumulated_batches_make_one_update_of_a_large_one():
    small = lrjax.array_batches(DATA, 8, shuffle=False)
    large = lrjax.array_batches(DATA, 32, shuffle=False)
    run = functools.partial(lrjax.range_test, TASK, steps=9)
    accumulated = run(small, accumulate=4)
    np.testing.assert_allclose(accumulated.loss, run(large).loss, rtol=1e-5)


def test_accumulated_gradients_are_summed_on_the_way(monkeypatch):
    task = lrjax.task(lambda params, batch: jnp.mean((batch @ params) ** 2), jnp.zeros((1000, 100)))
    needed, program_bytes = [], memory.program_bytes

    def noted(compiled):
        needed.append(program_bytes(compiled))
        return needed[-1]

    monkeypatch.setattr(memory, "program_bytes", noted)
    for accumulate in (2, 32):
        lrjax.sweep(
            task,
            np.ones((64, 1000), np.float32),
            lrjax.sgd,
            steps=1,
            lanes={"learning_rate": [1e-6] * 2 * jax.device_count()},
            accumulate=accumulate,
            batch_size=2,
            mesh=lrjax.lane_mesh(),
        )
    assert needed[1] < 1.1 * needed[0]


def test_metrics_of_accumulated_batches_are_means():
    def loss(params, batch):
        return params**2, {"number": batch.max(), "large": batch.max() > 1}

    curves = lrjax.range_test(
        lrjax.task(loss, jnp.ones(())), [np.arange(3), np.arange(3) - 1], accumulate=2, steps=1
    )
    assert (curves.metrics["number"].item(), curves.metrics["large"].item()) == (1.5, 0.5)


@mixed_types
@pytest.mark.parametrize("optimizer", [lrjax.sgd, optax.adam])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_complex_parameters_learn(optimizer, accumulate):
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(64, 3)) + 1j * rng.normal(size=(64, 3))).astype(np.complex64)
    wanted = np.complex64([1 + 2j, 3j, -1])

    def loss(params, batch):
        return jnp.mean(jnp.abs(batch[0] @ params - batch[1]) ** 2)

    task = lrjax.task(loss, jnp.zeros(3, jnp.complex64))
    options = {"steps": 200, "accumulate": accumulate, "return_state": True}
    lanes = {"learning_rate": [0.1]}
    _, state = lrjax.sweep(task, (x, x @ wanted), optimizer, lanes=lanes, **options)
    np.testing.assert_allclose(state.params[0, 0], wanted, atol=1e-2)


@mixed_types
def test_an_optimizer_may_hold_keys_and_integers():
    def noisy(learning_rate):
        return optax.noisy_sgd(learning_rate, key=1)

    run = functools.partial(lrjax.sweep, TASK, BATCHES, noisy, steps=12)
    once, again = (run(lanes={"learning_rate": [0.1, 0.2]}).loss for _ in range(2))
    np.testing.assert_array_equal(once, again)
    assert abs(once[0, 0, -1] - once[1, 0, -1]) > 1e-3


def noise(params, model_state, batch, key, train):
    return jax.random.normal(key) + 0.0 * params, (model_state, {})


NOISE = functools.partial(
    lrjax.sweep,
    lrjax.Task(lambda key: (jnp.zeros(()), {}), noise),
    np.zeros(8, np.float32),
    lrjax.sgd,
    lanes={"learning_rate": [0.1]},
    divergence=None,
)


def test_every_update_draws_anew_whatever_the_dispatches():
    whole, cut = (NOISE(steps=8, chunk_steps=length).loss.ravel() for length in (8, 2))
    np.testing.assert_array_equal(whole, cut)
    assert len(set(whole.tolist())) == 8


def test_every_batch_of_an_update_draws_anew():
    assert NOISE(steps=200, batch_size=1, accumulate=16).loss.std() == pytest.approx(1 / 4, rel=0.2)


def test_the_batches_of_an_update_hand_on_the_model_state():
    def counting(params, model_state, batch, key, train):
        return model_state + 0.0 * params, (model_state + 1.0 if train else model_state, {})

    task = lrjax.Task(lambda key: (jnp.zeros(()), jnp.zeros(())), counting)
    curves = lrjax.sweep(
        task,
        np.zeros(8, np.float32),
        lrjax.sgd,
        steps=2,
        lanes={"learning_rate": [0.1]},
        divergence=None,
        batch_size=1,
        accumulate=4,
    )
    np.testing.assert_allclose(curves.loss[0, 0], [np.mean([0, 1, 2, 3]), np.mean([4, 5, 6, 7])])


def test_an_optimizer_may_ask_for_the_gradient():
    def updater(learning_rate):
        def update(updates, state, params=None, *, value, grad, **extra):
            return jax.tree.map(lambda g: -learning_rate * g, grad), state

        return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)

    run = functools.partial(lrjax.range_test, TASK, BATCHES, start=1e-3, end=0.1, steps=5)
    np.testing.assert_allclose(run(updater).loss, run().loss, rtol=1e-6)


@pytest.mark.parametrize("number", range(4))
def test_no_run_draws_what_its_initialization_drew(number):
    def init(key):
        return jax.random.normal(jax.random.split(key, 4)[number]), {}

    def loss(params, model_state, batch, key, train):
        return jnp.abs(params - jax.random.normal(key)), (model_state, {})

    task, nothing = lrjax.Task(init, loss), np.zeros(8, np.float32)
    curves = lrjax.sweep(task, nothing, lambda: lrjax.sgd(0.0), steps=1, eval_batches=nothing)
    assert min(curves.loss.item(), curves.eval_loss.item()) > 1e-3
