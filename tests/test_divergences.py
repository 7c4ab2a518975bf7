"""When a lane has diverged, and what becomes of it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import (
    BATCHES,
    HELD_OUT,
    TASK,
    network_init,
    plain_loss,
)

import lrjax


def test_a_diverged_lane_does_not_touch_its_neighbours():
    def sweep(middle):
        def ramped(learning_rate, growth):
            return lrjax.sgd(lrjax.exponential_decay(learning_rate, growth))

        lanes = [{"learning_rate": 0.1, "growth": growth} for growth in (1.0, middle, 0.9)]
        return lrjax.sweep(
            TASK, BATCHES, ramped, steps=40, lanes=lanes, eval_batches=HELD_OUT, eval_every=10
        )

    curves, quiet = sweep(2.0), sweep(1.0)
    at = curves.diverged_at[1, 0]
    assert 0 < at < 40
    assert np.isfinite(curves.loss[1, 0, :at]).all()
    assert np.isnan(curves.loss[1, 0, at:]).all()
    assert np.isnan(curves.metrics["accuracy"][1, 0, at:]).all()
    assert np.isnan(curves.eval_loss[1, 0, curves.eval_steps > at]).all()
    for k in (0, 2):
        np.testing.assert_array_equal(curves.loss[k], quiet.loss[k])
        np.testing.assert_array_equal(curves.eval_loss[k], quiet.eval_loss[k])
        assert curves.diverged_at[k, 0] == 40


def shifted(offset, scale=1.0):
    def loss_fn(params, batch):
        return plain_loss(params, batch) * scale + offset

    return lrjax.task(loss_fn, network_init)


@pytest.mark.parametrize(("offset", "scale"), [(-10, 1), (0, 1e3), (-1e3, 1e3)])
def test_divergence_does_not_depend_on_scale_or_sign(offset, scale):
    # With the loss scaled, its gradient is too: so the rate is scaled down.
    run = functools.partial(lrjax.range_test, batches=BATCHES, seeds=4, steps=60)
    plain = run(TASK, start=1e-3, end=1e3)
    other = run(shifted(offset, scale), start=1e-3 / scale, end=1e3 / scale)
    assert plain.diverged.any()
    assert np.abs(plain.diverged_at - other.diverged_at).max() <= 1


def test_without_divergence_only_infinite_losses_end_a_lane():
    run = functools.partial(lrjax.range_test, TASK, BATCHES, start=1e-3, end=1e3, steps=60)
    assert run().diverged.all()
    free = run(divergence=None)
    assert not free.diverged.any()
    assert free.loss.max() > 2 * free.loss[0, 0]


def test_nan_losses_are_data():
    def loss_fn(params, batch):
        return jnp.where(params > 0.35, jnp.nan, -params) + 0.0 * batch.sum()

    task = lrjax.task(loss_fn, jnp.zeros(()))
    batches = lrjax.array_batches(np.zeros(8, np.float32), 4)
    lanes = {"learning_rate": [0.01, 0.1]}
    curves = lrjax.sweep(task, batches, lrjax.sgd, steps=10, lanes=lanes)
    np.testing.assert_array_equal(curves.diverged_at[:, 0], [10, 4])
    np.testing.assert_allclose(curves.loss[1, 0, :4], [0, -0.1, -0.2, -0.3], atol=1e-6)


@pytest.mark.parametrize("size", [4, 16, 64])
def test_a_trained_model_does_not_diverge_at_odd_batches(size):
    losses = np.random.default_rng(0).lognormal(-4, 2, 20_000).astype(np.float32)
    task = lrjax.task(lambda params, batch: batch.mean() + 0.0 * params, jnp.zeros(()))
    batches = lrjax.array_batches(losses, size)
    assert not lrjax.sweep(task, batches, lambda: lrjax.sgd(0.1), steps=2000).diverged.any()


def test_a_drift_by_a_millionth_is_no_divergence():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(256, 8)).astype(np.float32)
    y = (x @ rng.normal(size=8) + rng.normal(size=256)).astype(np.float32)
    best = jnp.asarray(np.linalg.lstsq(x, y)[0])
    task = lrjax.task(lambda w, batch: jnp.mean((batch[0] @ w - batch[1]) ** 2), best)
    lanes = {"learning_rate": [0.01], "weight_decay": [1e-3, 1e-2]}
    curves = lrjax.sweep(task, lrjax.array_batches((x, y), 256), lrjax.sgd, steps=200, lanes=lanes)
    assert not curves.diverged.any()
    ended = lrjax.range_test(task, lrjax.array_batches((x, y), 256), start=1e-3, end=10.0)
    assert ended.diverged.all()


def test_a_flat_noisy_loss_does_not_diverge():
    noise = np.random.default_rng(0).laplace(size=4096).astype(np.float32)
    task = lrjax.task(lambda params, batch: batch.mean() + 0.0 * params, jnp.zeros(()))
    curves = lrjax.range_test(task, lrjax.array_batches(noise, 4), steps=1000)
    assert not curves.diverged.any()


@pytest.mark.parametrize(
    ("noise", "steps", "most"),
    [
        (lambda key: 2.3 + 0.05 * jax.random.normal(key), 40, 0.0005),
        (lambda key: jnp.exp(jax.random.normal(key)), 100, 0.001),
        (lambda key: 1e-2 * jnp.abs(jax.random.t(key, 3.0)), 100, 0.001),
        # Its variance is infinite.
        (lambda key: (jax.random.t(key, 1.5, (16,)) ** 2).mean(), 100, 0.04),
    ],
    ids=["normal", "lognormal", "of a trained model", "with outliers"],
)
def test_noise_does_not_look_like_divergence(noise, steps, most):
    def loss(params, model_state, batch, key, train):
        return noise(key) + 0.0 * params, (model_state, {})

    task = lrjax.Task(lambda key: (jnp.zeros(()), {}), loss)
    curves = lrjax.range_test(task, BATCHES, steps=steps, seeds=2000)
    assert curves.diverged.mean() < most


@pytest.mark.parametrize(("factor", "latest"), [(1.5, 16), (2.0, 17), (25.0, 5), (1e3, 5)])
def test_a_blow_up_from_the_start_is_seen_soon(factor, latest):
    task = lrjax.task(lambda params, batch: jnp.mean((params - batch) ** 2), jnp.float32(1.0))
    rate = (1 + factor**0.5) / 2  # the parameter is multiplied by 1 - 2 * rate
    curves = lrjax.sweep(task, jnp.zeros(8), lrjax.sgd, steps=20, lanes={"learning_rate": [rate]})
    assert curves.loss[0, 0, 1] == pytest.approx(factor, rel=1e-4)
    assert 2 <= curves.diverged_at.item() <= latest


def test_a_few_odd_batches_are_no_divergence():
    def loss(params, batch):
        return 0.3 + batch.mean() + 0.0 * params

    noise = 0.01 * np.random.default_rng(0).normal(size=(200, 1)).astype(np.float32)
    noise[[50, 90, 91, 150]] += [[1e6], [50.0], [20.0], [np.float32(3e38)]]
    curves = lrjax.sweep(
        lrjax.task(loss, jnp.zeros(())),
        list(noise),
        lrjax.sgd,
        steps=200,
        lanes={"learning_rate": [0.1]},
    )
    assert not curves.diverged.any()


def test_a_loss_that_only_x64_can_hold_is_a_divergence():
    with jax.enable_x64(True):
        task = lrjax.task(lambda w, x: jnp.mean((x * w) ** 2), jnp.ones((), jnp.float64))
        curves = lrjax.sweep(
            *(task, np.ones((64, 1)), lrjax.sgd),
            steps=30,
            lanes={"learning_rate": [10.0]},
            divergence=None,
            eval_batches=np.ones((64, 1)),
            eval_every=5,
        )
    (ended,) = curves.diverged_at.ravel()
    assert 0 < ended < 29
    assert np.isfinite(curves.loss[..., :ended]).all()
    assert np.isnan(curves.loss[..., ended:]).all()
    assert np.isnan(curves.eval_loss[..., curves.eval_steps > ended]).all()


def test_a_diverged_lane_keeps_its_parameters():
    def loss(params, batch):
        return jnp.where(params < 0.75, jnp.nan, 1.0) * params

    # 1, 0.9, 0.8, 0.7: of which the loss is the first that is not finite.
    curves, state = lrjax.sweep(
        lrjax.task(loss, jnp.float32(1)),
        np.zeros(8),
        lrjax.sgd,
        steps=9,
        lanes={"learning_rate": [0.1]},
        return_state=True,
        chunk_steps=2,
    )
    assert curves.diverged_at.item() == 3
    np.testing.assert_allclose(state.params, [[0.7]], rtol=1e-6)


def test_a_drift_of_a_negative_loss_is_no_divergence():
    # Rises by a millionth of itself at every update, without any noise.
    task = lrjax.task(lambda params, batch: -10.0 + 1e-5 * params, jnp.zeros(()))

    def rising():
        return optax.GradientTransformation(
            lambda params: optax.EmptyState(),
            lambda updates, state, params=None: (jnp.ones(()), state),
        )

    curves = lrjax.sweep(task, np.zeros(8, "f"), rising, steps=50)
    assert curves.loss[0, -1] > curves.loss[0, 0]
    assert not curves.diverged.any()
