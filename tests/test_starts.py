"""What lanes start from."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import (
    BATCHES,
    DATA,
    KEY,
    TASK,
    mixed_types,
    network_init,
    network_loss,
    plain_loss,
)

import lrjax


@pytest.mark.parametrize(
    ("init", "first"),
    [(0.5, 0.25), (lambda key: 0.5, 0.25), ({"w": 0.5, "n": np.float64(1)}, 1.25)],
)
def test_parameters_may_be_python_s_numbers(init, first):
    def loss(params, batch):
        return sum(jnp.square(leaf) for leaf in jax.tree.leaves(params))

    curves = lrjax.range_test(lrjax.task(loss, init), BATCHES, steps=3)
    assert curves.loss[0, 0] == first > curves.loss[0, -1]


def test_initial_starts_every_lane_there_and_is_not_modified():
    params = network_init(jax.random.key(9))
    before = jax.tree.map(np.array, params)
    curves = lrjax.range_test(TASK, BATCHES, steps=5, seeds=3, initial=(params, {}))
    loss, _ = network_loss(params, BATCHES(0))
    np.testing.assert_allclose(curves.loss[:, 0], np.full(3, loss), rtol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, params, before)
    jax.tree.map(np.testing.assert_array_equal, BATCHES.data, DATA)


@mixed_types
def test_initial_keeps_moments_and_starts_schedules_anew():
    optimizer = lrjax.adamw(lrjax.linear_decay(0.1, 50), b1=0.9)
    params = network_init(KEY)
    opt_state = optimizer.init(params)
    for step in range(10):
        grads = jax.grad(plain_loss)(params, BATCHES(step))
        updates, opt_state = optimizer.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
    before = jax.tree.map(np.array, opt_state)

    run = functools.partial(
        lrjax.range_test, TASK, BATCHES, lrjax.adamw, start=1e-3, end=1e-2, steps=4
    )
    warm = run(initial=(params, {}, opt_state))
    cold = run(initial=(params, {}))
    np.testing.assert_allclose(warm.learning_rate[[0, -1]], [1e-3, 1e-2], rtol=1e-6)
    np.testing.assert_array_equal(warm.loss[:, 0], cold.loss[:, 0])
    assert abs(warm.loss[0, 1] - cold.loss[0, 1]) > 1e-6
    jax.tree.map(np.testing.assert_array_equal, opt_state, before)

    # The second loss is that of one more update of the same optimizer at the ramp's start.
    grads = jax.grad(plain_loss)(params, BATCHES(0))
    moments = opt_state.inner_state
    updates, _ = optax.adamw(1e-3).update(grads, moments, params)
    expected, _ = network_loss(optax.apply_updates(params, updates), BATCHES(1))
    np.testing.assert_allclose(warm.loss[0, 1], expected, rtol=1e-5)


@mixed_types
def test_initial_starts_a_schedule_of_the_decay_anew():
    params, fall = network_init(KEY), lrjax.linear_decay(1.0, 5)

    def make(learning_rate):
        return optax.chain(optax.add_decayed_weights(fall), optax.sgd(learning_rate))

    optimizer = make(0.1)
    state = optimizer.init(params)
    for _ in range(6):
        _, state = optimizer.update(params, state, params)
    run = functools.partial(lrjax.range_test, TASK, BATCHES, make, start=1e-2, end=1e-1, steps=5)
    warm, cold = run(initial=(params, {}, state)), run(initial=(params, {}))
    np.testing.assert_array_equal(warm.loss, cold.loss)


@mixed_types
def test_initial_takes_moments_whoever_made_them_and_whatever_the_rate_was():
    params, factories = network_init(KEY), [optax.adamw, lrjax.adamw]
    grads = jax.grad(plain_loss)(params, BATCHES(3))
    run = functools.partial(lrjax.range_test, TASK, BATCHES, start=1e-3, end=1e-2, steps=3)

    def warm(given, rate, wanted):
        optimizer = given(rate)
        _, state = optimizer.update(grads, optimizer.init(params), params)
        return run(wanted, initial=(params, {}, state)).loss

    rates = [1e-3, lrjax.linear_decay(1e-3, 9)]
    first, *others = itertools.starmap(warm, itertools.product(factories, rates, factories))
    assert np.abs(first - run(lrjax.adamw, initial=(params, {})).loss)[0, 1] > 1e-6
    for other in others:
        np.testing.assert_allclose(other, first, rtol=1e-6)


def test_moments_that_have_no_place_are_refused():
    params = network_init(KEY)
    with pytest.raises(ValueError, match="opt_state"):
        lrjax.range_test(
            TASK,
            BATCHES,
            lambda learning_rate: optax.sgd(learning_rate),
            steps=3,
            initial=(params, {}, optax.sgd(0.1, 0.9).init(params)),
        )
