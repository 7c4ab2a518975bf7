"""The ramps of a range test, and which rates and momenta are reported."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import (
    BATCHES,
    KEY,
    TASK,
    mixed_types,
    network_init,
    plain_loss,
)

import lrjax


def slowed(learning_rate, optimizer=lrjax.sgd):
    return optax.MultiSteps(optimizer(learning_rate), 4)


def by_layer(learning_rate):
    return lrjax.discriminative(lrjax.sgd, {"first": learning_rate, "second": learning_rate})


@pytest.mark.parametrize("optimizer", [lrjax.sgd, optax.sgd, optax.adamw, by_layer])
def test_rates_that_were_not_used_are_not_told(optimizer):
    """Whether or not the optimizer tells the rates that it does use."""
    make = functools.partial(slowed, optimizer=optimizer)
    with jax.numpy_dtype_promotion("standard"):
        curves = lrjax.range_test(TASK, BATCHES, make, start=1e-3, end=1e-1, steps=40)
    ramp = lrjax.exponential_ramp(1e-3, 1e-1, 40)
    used = np.asarray(ramp(np.maximum(np.arange(1, 41) // 4 - 1, 0)))
    np.testing.assert_allclose(curves.learning_rate, used, rtol=1e-5)


def test_the_ramp_goes_on_where_the_last_lane_has_diverged():
    """So that curves have a rate for every step, also of an optimizer that uses few of them."""
    task = lrjax.task(lambda params, batch: params * batch.mean(), jnp.ones(()))
    batches = np.repeat(np.float32([1, np.nan]), 20)[:, None]
    with jax.numpy_dtype_promotion("standard"):
        curves = lrjax.range_test(task, list(batches), slowed, start=1e-3, end=1e-1, steps=40)
    assert curves.diverged_at == 20
    assert np.isfinite(curves.learning_rate).all()


def test_an_optimizer_may_calculate_with_the_ramp():
    def halved(learning_rate):
        return lrjax.sgd(lrjax.scale(learning_rate, 0.5))

    given = {"start": 1e-3, "end": 1e-1, "steps": 20}
    curves = lrjax.range_test(TASK, BATCHES, halved, **given)
    ramp = lrjax.exponential_ramp(5e-4, 5e-2, 20)
    np.testing.assert_allclose(curves.learning_rate, ramp(np.arange(20)), rtol=1e-5)
    same = lrjax.range_test(TASK, BATCHES, start=5e-4, end=5e-2, steps=20)
    np.testing.assert_allclose(curves.loss, same.loss, rtol=1e-5)


@pytest.mark.parametrize("chunk_steps", [1, 3, None])
def test_rates_are_told_up_to_the_update_that_ended_the_last_lane(chunk_steps):
    def falling(peak):
        return lrjax.sgd(lrjax.linear_decay(peak, 30), momentum=0.9)

    task = lrjax.task(lambda params, batch: jnp.mean((params - batch) ** 2), jnp.float32(1.0))
    run = functools.partial(lrjax.sweep, task, jnp.zeros(8), falling, steps=30)
    curves = run(lanes={"peak": [1e12]}, chunk_steps=chunk_steps)
    last = curves.diverged_at.item()
    assert last < 10
    for told in (curves.learning_rate, curves.momentum):
        np.testing.assert_array_equal(np.isfinite(told), np.arange(30) <= last)
    whole = run(lanes={"peak": [1e12, 0.1]}, chunk_steps=chunk_steps)
    assert np.isfinite(whole.learning_rate).all()


def test_learning_rate_is_unknown_where_the_optimizer_does_not_tell():
    optimizer = functools.partial(optax.sgd, 0.1)
    curves = lrjax.sweep(TASK, BATCHES, lambda: optimizer(), steps=3)
    assert np.isnan(curves.learning_rate).all()
    assert curves.momentum is None
    ramp = lrjax.range_test(TASK, BATCHES, lambda learning_rate: optax.sgd(learning_rate), steps=3)
    np.testing.assert_allclose(ramp.learning_rate, [1e-6, 10**-2.5, 10], rtol=1e-5)


@mixed_types
def test_a_falling_momentum_is_told_and_used():
    run = functools.partial(lrjax.range_test, TASK, BATCHES, start=1e-2, end=1.0, steps=11)
    falling = run(momentum=(0.95, 0.85))
    np.testing.assert_allclose(falling.momentum, np.linspace(0.95, 0.85, 11), rtol=1e-6)
    adam = run(lrjax.adamw, momentum=(0.95, 0.85))
    np.testing.assert_allclose(adam.momentum, falling.momentum)
    assert not np.array_equal(falling.loss, run().loss)
    linear = run(ramp="linear")
    np.testing.assert_allclose(linear.learning_rate, np.linspace(1e-2, 1.0, 11), rtol=1e-6)


OPTAX = (
    *("adabelief", "adadelta", "adafactor", "adagrad", "adam", "adamax", "adamaxw", "adamw"),
    *("adan", "amsgrad", "fromage", "lamb", "lars", "lion", "nadam", "nadamw", "novograd"),
    *("optimistic_gradient_descent", "radam", "rmsprop", "rprop", "sgd", "sign_sgd", "sm3", "yogi"),
)


@mixed_types
@pytest.mark.parametrize("name", OPTAX)
def test_a_range_test_of_any_optimizer_of_optax_equals_a_plain_loop(name):
    factory = getattr(optax, name)
    curves = lrjax.range_test(TASK, BATCHES, factory, start=1e-3, end=1e-1, steps=4)
    ramp = lrjax.exponential_ramp(1e-3, 1e-1, 4)
    optimizer, params = optax.inject_hyperparams(factory)(learning_rate=ramp), network_init(KEY)
    state, losses = optimizer.init(params), []
    for step in range(4):
        loss, grads = jax.value_and_grad(plain_loss)(params, BATCHES(step))
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        losses.append(loss)
    np.testing.assert_allclose(curves.loss[0], losses, rtol=1e-5)


def assembled(learning_rate, weight_decay, momentum):
    decay = optax.add_decayed_weights(weight_decay)
    return optax.chain(decay, optax.sgd(learning_rate, momentum))


def called(learning_rate):
    """Of a rate that must be a schedule."""
    return optax.scale_by_schedule(lambda count: -learning_rate(count))


@mixed_types
def test_own_optimizers_get_numbers_or_schedules_as_they_ask():
    options = {"start": 1e-3, "end": 1e-1, "steps": 5}
    lanes = {"weight_decay": [0.1]}
    run = functools.partial(lrjax.range_test, TASK, BATCHES, lanes=lanes, **options)
    one, other = (run(make, momentum=(0.95, 0.8)) for make in (assembled, lrjax.sgd))
    np.testing.assert_allclose(one.loss, other.loss, rtol=1e-6)
    np.testing.assert_allclose(one.momentum, other.momentum)
    run = functools.partial(lrjax.range_test, TASK, BATCHES, **options)
    injected = optax.inject_hyperparams(optax.sgd)
    for make in (called, injected, lambda learning_rate: optax.chain(lrjax.sgd(learning_rate))):
        np.testing.assert_allclose(run(make).loss, run(lrjax.sgd).loss, rtol=1e-6)


@mixed_types
@pytest.mark.parametrize(
    ("of_optax", "ours"),
    [
        (optax.sgd, lrjax.sgd),
        (optax.adamw, lrjax.adamw),
        (functools.partial(optax.adamw, eps=1e-7), functools.partial(lrjax.adamw, eps=1e-7)),
    ],
)
def test_optimizers_of_optax_follow_ramps_of_their_momentum(of_optax, ours):
    options = {"start": 1e-3, "end": 1e-1, "steps": 5, "momentum": (0.95, 0.8)}
    one, other = (lrjax.range_test(TASK, BATCHES, each, **options) for each in (of_optax, ours))
    np.testing.assert_allclose(one.loss, other.loss, rtol=1e-6)
    np.testing.assert_allclose(one.momentum, other.momentum)


def test_the_rates_of_the_update_that_ended_all_lanes_are_told():
    task = lrjax.task(lambda params, batch: jnp.nan * params, jnp.ones(()))
    lanes = {"learning_rate": [0.5]}
    curves = lrjax.sweep(task, np.zeros(8), lrjax.sgd, steps=3, lanes=lanes, seeds=2)
    assert curves.diverged.all()
    np.testing.assert_array_equal(curves.learning_rate, [0.5, np.nan, np.nan])


def test_a_momentum_may_stay():
    curves = lrjax.range_test(TASK, BATCHES, steps=3, momentum=(0.9, 0.9))
    np.testing.assert_allclose(curves.momentum, [0.9] * 3, rtol=1e-6)


def test_the_momentum_of_adam_is_told():
    lanes = {"learning_rate": [0.1], "b1": [0.5, 0.9]}
    curves = lrjax.sweep(TASK, BATCHES, lrjax.adamw, steps=2, lanes=lanes)
    np.testing.assert_allclose(curves.momentum[0, :, 0, 0], [0.5, 0.9], rtol=1e-6)
