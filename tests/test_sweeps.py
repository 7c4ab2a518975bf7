import functools
import itertools
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import (
    BATCHES,
    DATA,
    HELD_OUT,
    KEY,
    TASK,
    compilations,
    line_init,
    line_loss,
    network_init,
    network_loss,
    plain_loss,
)

import lrjax
from lrjax.sweeps import memory

# Optax's own arithmetic mixes types, which the tests forbid to ours.
mixed_types = jax.numpy_dtype_promotion("standard")
GRID = {"weight_decay": [0.0, 1e-3, 0.1], "momentum": [0.0, 0.9]}


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


def test_every_lane_of_a_grid_equals_a_plain_loop():
    # Linear, so that its way into divergence is not chaotic and can be compared to its end.
    task = lrjax.task(line_loss, line_init)
    steps, start, end = 60, 1e-3, 10.0
    curves = lrjax.range_test(task, BATCHES, lanes=GRID, seeds=2, start=start, end=end, steps=steps)
    rates = start * (end / start) ** (np.arange(steps) / (steps - 1))
    np.testing.assert_allclose(curves.learning_rate, rates, rtol=2e-6)
    assert curves.loss.shape == (3, 2, 2, steps)
    assert curves.diverged.all()
    for (i, decay), (j, momentum), seed in itertools.product(
        enumerate(GRID["weight_decay"]), enumerate(GRID["momentum"]), range(2)
    ):
        lane, until = curves.loss[i, j, seed], curves.diverged_at[i, j, seed]
        params = line_init(jax.random.key(seed))
        expected = plain_loop(line_loss, params, curves.learning_rate, momentum, decay)
        np.testing.assert_allclose(lane[:until], expected[:until], rtol=1e-5)
        assert np.isnan(lane[until:]).all()
        assert expected[until] > 4 * expected[:until].min()


def test_constant_lanes_equal_a_plain_loop():
    lanes = [
        {"learning_rate": 0.3, "momentum": 0.9, "weight_decay": 1e-3},
        {"learning_rate": 0.1, "momentum": 0.5, "weight_decay": 0.0},
    ]
    curves = lrjax.sweep(TASK, BATCHES, lrjax.sgd, steps=20, lanes=lanes, seeds=[3, 5])
    assert list(curves.axes) == ["lane", "seed"]
    for (k, lane), (s, seed) in itertools.product(enumerate(lanes), enumerate([3, 5])):
        expected = plain_loop(
            plain_loss,
            network_init(jax.random.key(seed)),
            [lane["learning_rate"]] * 20,
            lane["momentum"],
            lane["weight_decay"],
        )
        np.testing.assert_allclose(curves.loss[k, s], expected, rtol=1e-5)
        np.testing.assert_array_equal(curves.lanes["momentum"][k], np.float32(lane["momentum"]))
    np.testing.assert_array_equal(curves.learning_rate[:, 0, 0], np.float32([0.3, 0.1]))
    np.testing.assert_array_equal(curves.momentum[:, 1, 7], np.float32([0.9, 0.5]))


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


def test_other_values_of_the_same_shape_compile_nothing():
    def run(decays, start):
        return lrjax.range_test(
            TASK,
            BATCHES,
            lanes={"weight_decay": decays},
            seeds=2,
            start=start,
            steps=30,
            momentum=(0.95, 0.85),
            eval_batches=HELD_OUT,
        )

    first = run([0.0, 1e-4], 1e-5)
    with compilations() as compiled, compilations("jaxpr_to_mlir_module") as lowered:
        second = run([1e-3, 1e-2], 1e-4)
    assert compiled == lowered == []
    assert not np.array_equal(first.loss, second.loss)


@pytest.mark.parametrize("run", [lrjax.sweep, lrjax.range_test])
def test_equal_partial_optimizers_have_one_program(run):
    def optimizer(**arguments):
        return functools.partial(lrjax.sgd, weight_decay=0.0, **arguments)

    lanes = {"momentum": [0.5, 0.9]} | ({"learning_rate": [0.1]} if run is lrjax.sweep else {})
    run = functools.partial(run, TASK, BATCHES, steps=7, lanes=lanes)
    plain = run(optimizer=optimizer())
    with compilations() as compiled:
        same = run(optimizer=optimizer())
    assert compiled == []
    np.testing.assert_array_equal(same.loss, plain.loss)
    assert not np.array_equal(run(optimizer=optimizer(nesterov=True)).loss, plain.loss)


@pytest.mark.parametrize("chunk_steps", [1, 7, 50])
def test_chunks_change_nothing(chunk_steps):
    run = functools.partial(
        lrjax.range_test, TASK, BATCHES, steps=23, seeds=3, eval_batches=HELD_OUT, eval_every=5
    )
    whole, chunked = run(), run(chunk_steps=chunk_steps)
    np.testing.assert_array_equal(chunked.eval_steps, [5, 10, 15, 20, 23])
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), whole, chunked)


@pytest.mark.parametrize(
    ("steps", "eval_every", "expected"),
    [(7, 3, [3, 6, 7]), (6, 3, [3, 6]), (2, 5, [2]), (50, None, range(2, 51, 2))],
)
def test_evaluation_counts_updates_and_takes_every_sample(steps, eval_every, expected):
    rate, params = 0.2, {}
    curves = lrjax.sweep(
        TASK,
        BATCHES,
        lrjax.sgd,
        steps=steps,
        lanes={"learning_rate": [rate]},
        eval_batches=HELD_OUT,
        eval_every=eval_every,
    )
    np.testing.assert_array_equal(curves.eval_steps, expected)
    params = network_init(KEY)
    grad = jax.jit(jax.grad(plain_loss))
    for step in range(steps):
        grads = grad(params, BATCHES(step))
        params = jax.tree.map(lambda p, g: p - rate * g, params, grads)
    loss, metrics = network_loss(params, HELD_OUT.data)
    np.testing.assert_allclose(curves.eval_loss[0, 0, -1], loss, rtol=1e-5)
    np.testing.assert_allclose(
        curves.eval_metrics["accuracy"][0, 0, -1], metrics["accuracy"], rtol=1e-6
    )


def test_an_iterable_gives_what_its_batches_give():
    stream = [jax.tree.map(np.asarray, BATCHES(step)) for step in range(12)]
    held_out = [
        jax.tree.map(lambda a, s=s: a[s], HELD_OUT.data) for s in (slice(16), slice(16, 40))
    ]
    run = functools.partial(lrjax.range_test, TASK, steps=12, seeds=2, chunk_steps=5)
    arrays = run(BATCHES, eval_batches=HELD_OUT)
    listed = run(stream, eval_batches=held_out)
    generated = run((batch for batch in itertools.cycle(stream)), eval_batches=iter(held_out))
    for curves in (listed, generated):
        np.testing.assert_allclose(curves.loss, arrays.loss, rtol=1e-5)
        np.testing.assert_allclose(curves.eval_loss, arrays.eval_loss, rtol=1e-5)


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


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_evaluations_of_narrow_types_are_summed_in_float32(dtype):
    def loss(params, batch):
        return params.astype(dtype), {"metric": jnp.asarray(1e4, dtype)}

    curves = lrjax.sweep(
        lrjax.task(loss, jnp.float32(1.0078125)),
        BATCHES,
        lrjax.sgd,
        steps=1,
        lanes={"learning_rate": [1e-9]},
        eval_batches=[np.zeros(1)] * 300,
    )
    np.testing.assert_allclose(curves.eval_loss, 1.0078125, rtol=1e-6)
    np.testing.assert_allclose(curves.eval_metrics["metric"], float(jnp.asarray(1e4, dtype)))


@pytest.mark.parametrize(
    ("init", "first"),
    [(0.5, 0.25), (lambda key: 0.5, 0.25), ({"w": 0.5, "n": np.float64(1)}, 1.25)],
)
def test_parameters_may_be_python_s_numbers(init, first):
    def loss(params, batch):
        return sum(jnp.square(leaf) for leaf in jax.tree.leaves(params))

    curves = lrjax.range_test(lrjax.task(loss, init), BATCHES, steps=3)
    assert curves.loss[0, 0] == first > curves.loss[0, -1]


@pytest.mark.parametrize(
    ("setting", "name"),
    [
        (jax.debug_nans, "jax_debug_nans"),
        (jax.debug_infs, "jax_debug_infs"),
        (jax.disable_jit, "jax_disable_jit"),
    ],
)
def test_settings_under_which_no_sweep_can_run_are_named(setting, name):
    with setting(True), pytest.raises(RuntimeError, match=name):
        lrjax.range_test(TASK, BATCHES, steps=3)


def test_an_ignored_ctrl_c_stays_ignored():
    def stream():
        for k in itertools.count():
            if k == 10:
                os.kill(os.getpid(), signal.SIGINT)
            yield BATCHES(k)

    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        curves = lrjax.range_test(TASK, stream(), steps=40, chunk_steps=5)
    finally:
        signal.signal(signal.SIGINT, previous)
    assert curves.steps_done == 40


def test_what_fails_on_the_host_leaves_the_curves_before():
    calls = itertools.count()

    def measured(x):
        if next(calls) > 12:
            raise OSError("the instrument is gone")
        return np.float32(x)

    def loss(params, batch):
        seen = jax.pure_callback(measured, jax.ShapeDtypeStruct((), jnp.float32), batch[0].sum())
        return jnp.mean(params**2) + 0 * jax.lax.stop_gradient(seen)

    with pytest.raises(Exception, match="the instrument is gone") as told:
        lrjax.range_test(lrjax.task(loss, jnp.ones(3)), BATCHES, steps=40, chunk_steps=5)
    done = told.value.curves.done()
    assert done.steps in (5, 10)
    assert np.isfinite(done.loss).all()


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


DECAY = 0.0


def decaying(learning_rate):
    return lrjax.sgd(learning_rate, weight_decay=DECAY)


def test_a_constant_that_was_changed_meanwhile_counts(monkeypatch):
    def run():
        return lrjax.range_test(TASK, BATCHES, decaying, end=1.0, steps=10).loss

    before = run()
    monkeypatch.setitem(globals(), "DECAY", 1.0)
    assert np.abs(run() - before).max() > 1e-3
    monkeypatch.setitem(globals(), "DECAY", 0.0)
    with compilations() as compiled:
        np.testing.assert_array_equal(run(), before)
    assert not compiled


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


def test_progress_is_quiet_in_a_pipe(capfd):
    lrjax.range_test(TASK, BATCHES, steps=5, progress=True)
    assert capfd.readouterr() == ("", "")


def bad_loss(value):
    return lrjax.task(lambda params, batch: value(params, batch), network_init)


def changing():
    yield from [BATCHES(0), BATCHES(1), jax.tree.map(lambda a: a[:4], BATCHES(2))]


def any_sgd(**hyperparams):
    return lrjax.sgd(**hyperparams)


COUNT = np.int32(0)

BAD_CALLS = [
    (ValueError, "steps", {"steps": 0}),
    (ValueError, "steps", {"steps": -1}),
    (TypeError, "steps", {"steps": 10.5}),
    (TypeError, "steps", {"steps": True}),
    (TypeError, "return_state", {"return_state": "no"}),
    (ValueError, "seeds must be different", {"seeds": [3, 5, 3]}),
    (ValueError, "start", {"start": 1.0, "end": 1.0}),
    (ValueError, "start", {"start": 2.0, "end": 1.0}),
    (ValueError, "start", {"start": 0.0}),
    (ValueError, "start", {"start": np.nan}),
    (ValueError, "end", {"end": np.inf}),
    (ValueError, "ramp", {"ramp": "cubic"}),
    (ValueError, "momentum", {"momentum": (0.9, np.nan)}),
    (ValueError, "momentum", {"momentum": (1.5, 0.8)}),
    (ValueError, "momentum", {"momentum": (0.9, -0.5)}),
    (TypeError, "momentum", {"momentum": 0.9}),
    (ValueError, "momentum", {"momentum": (0.9, 0.8, 0.7)}),
    (ValueError, "momentum", {"momentum": (0.8, 0.9)}),
    (TypeError, "start", {"start": [1e-3, 1e-2]}),
    (ValueError, "learning_rate", {"lanes": {"learning_rate": [0.1, 1.0]}, "optimizer": any_sgd}),
    (
        ValueError,
        "'momentum'",
        {"lanes": {"momentum": [0.0]}, "momentum": (0.9, 0.8), "optimizer": any_sgd},
    ),
    (ValueError, "weight_decay", {"lanes": {"weight_decay": [1e39]}}),
    (TypeError, "rewrite_convolutions", {"rewrite_convolutions": "no"}),
    (TypeError, "progress", {"progress": "no"}),
    (ValueError, "eval_every", {"eval_every": 0}),
    (ValueError, "eval_batches", {"eval_every": 2}),
    (ValueError, "lanes", {"lanes": {}}),
    (ValueError, "lanes", {"lanes": []}),
    (ValueError, "lanes", {"lanes": [{}]}),
    (ValueError, "weight_decay", {"lanes": {"weight_decay": []}}),
    (ValueError, "weight_decay", {"lanes": {"weight_decay": [0.0, np.nan]}}),
    (ValueError, "weight_decay", {"lanes": {"weight_decay": [np.inf]}}),
    (ValueError, "weight_decay", {"lanes": {"weight_decay": 0.1}}),
    (TypeError, "weight_decay", {"lanes": {"weight_decay": ["0.1"]}}),
    (TypeError, "weight_decay", {"lanes": {"weight_decay": [True]}}),
    (ValueError, "weight", {"lanes": {"weight": [0.1]}}),
    (ValueError, "learning_rate.* ramp", {"lanes": {"learning_rate": [0.1]}}),
    (ValueError, "learning_rate.* ramp", {"lanes": [{"learning_rate": 0.1}]}),
    (ValueError, "seed", {"lanes": {"seed": [0]}}),
    (ValueError, "lanes", {"lanes": [{"momentum": 0.9}, {"weight_decay": 0.1}]}),
    (TypeError, "lanes", {"lanes": 3}),
    (ValueError, "seeds", {"seeds": 0}),
    (ValueError, "seeds", {"seeds": []}),
    (TypeError, "seeds", {"seeds": 1.5}),
    (ValueError, "divergence", {"divergence": 0.0}),
    (ValueError, "accumulate", {"accumulate": 0}),
    (ValueError, "chunk_steps", {"chunk_steps": 0}),
    (ValueError, "eval_every", {"eval_every": 0, "eval_batches": HELD_OUT}),
    (ValueError, "eval_batches", {"eval_batches": []}),
    (TypeError, "eval_batches", {"eval_batches": {"x": 1}}),
    (TypeError, "task", {"task": network_loss}),
    (TypeError, "optimizer", {"optimizer": 0.1}),
    (TypeError, "optax.adam itself", {"optimizer": optax.adam(1e-3)}),
    (ValueError, "'learning_rate'", {"optimizer": optax.polyak_sgd}),
    (TypeError, "batches", {"batches": 3}),
    (ValueError, "batches", {"batches": iter([BATCHES(0)] * 3)}),
    (ValueError, "batches", {"batches": itertools.repeat(BATCHES(0), 3)}),
    (ValueError, "batches", {"batches": iter([])}),
    (ValueError, "batches", {"batches": changing()}),
    (TypeError, "initial", {"initial": network_init(KEY)}),
    (TypeError, "initial must be", {"initial": (network_init(KEY),)}),
    (ValueError, "initial .* with .*'n'", {"initial": (network_init(KEY), {"n": jnp.ones(2)})}),
    (ValueError, "takes, momentum, ", {"lanes": {"weight": [0.1]}}),
    (ValueError, "opt_state", {"initial": (network_init(KEY), {}, lrjax.adamw(0.1).init(0.0))}),
    (ValueError, "loss", {"task": bad_loss(lambda params, batch: jnp.zeros(3))}),
    (ValueError, "loss", {"task": bad_loss(lambda params, batch: batch[1][0])}),
    (ValueError, "metrics", {"task": bad_loss(lambda p, batch: (jnp.zeros(()), {"m": batch[1]}))}),
    (TypeError, "task.init.*params, model_state", {"task": TASK._replace(init=network_init)}),
    (TypeError, "int32.* at ids", {"task": TASK._replace(init=lambda _: ({"ids": COUNT}, {}))}),
    (TypeError, "'relu' at act", {"task": TASK._replace(init=lambda _: ({"act": "relu"}, {}))}),
    (TypeError, "task.loss.*model_state", {"task": TASK._replace(loss=lambda *_: 0.0)}),
    (ValueError, "task.loss.*state", {"task": TASK._replace(loss=lambda *_: (0.0, (1, {})))}),
]


@pytest.mark.parametrize(("error", "name", "change"), BAD_CALLS)
def test_bad_input_names_the_argument(error, name, change):
    good = {"task": TASK, "batches": BATCHES, "steps": 5}
    with pytest.raises(error, match=name):
        lrjax.range_test(**good | change)


def test_an_optimizer_must_get_all_that_it_needs():
    with pytest.raises(TypeError, match="lanes must set learning_rate"):
        lrjax.sweep(TASK, BATCHES, lrjax.sgd, steps=1)


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


def test_bad_input_is_refused_before_training():
    consumed = itertools.count()
    batches = (BATCHES(next(consumed)) for _ in itertools.repeat(None))
    with pytest.raises(ValueError, match="loss"):
        lrjax.range_test(bad_loss(lambda params, batch: jnp.zeros(3)), batches, steps=5)
    assert next(consumed) == 1


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


def test_the_rates_of_the_update_that_ended_all_lanes_are_told():
    task = lrjax.task(lambda params, batch: jnp.nan * params, jnp.ones(()))
    lanes = {"learning_rate": [0.5]}
    curves = lrjax.sweep(task, np.zeros(8), lrjax.sgd, steps=3, lanes=lanes, seeds=2)
    assert curves.diverged.all()
    np.testing.assert_array_equal(curves.learning_rate, [0.5, np.nan, np.nan])


def test_without_evaluations_there_are_no_metrics_of_them():
    curves = lrjax.range_test(TASK, BATCHES, steps=3)
    assert (list(curves.metrics), list(curves.eval_metrics)) == (["accuracy"], [])


def test_a_momentum_may_stay():
    curves = lrjax.range_test(TASK, BATCHES, steps=3, momentum=(0.9, 0.9))
    np.testing.assert_allclose(curves.momentum, [0.9] * 3, rtol=1e-6)


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


def test_an_optimizer_may_ask_for_the_gradient():
    def updater(learning_rate):
        def update(updates, state, params=None, *, value, grad, **extra):
            return jax.tree.map(lambda g: -learning_rate * g, grad), state

        return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)

    run = functools.partial(lrjax.range_test, TASK, BATCHES, start=1e-3, end=0.1, steps=5)
    np.testing.assert_allclose(run(updater).loss, run().loss, rtol=1e-6)


def test_the_momentum_of_adam_is_told():
    lanes = {"learning_rate": [0.1], "b1": [0.5, 0.9]}
    curves = lrjax.sweep(TASK, BATCHES, lrjax.adamw, steps=2, lanes=lanes)
    np.testing.assert_allclose(curves.momentum[0, :, 0, 0], [0.5, 0.9], rtol=1e-6)


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


DECAYS = np.zeros(4, np.float32)


def decaying_by_array(learning_rate):
    return lrjax.sgd(learning_rate, weight_decay=float(DECAYS[0]))


def test_an_array_that_was_changed_meanwhile_counts(monkeypatch):
    def run():
        return lrjax.range_test(TASK, BATCHES, decaying_by_array, end=1.0, steps=10).loss

    before = run()
    monkeypatch.setitem(globals(), "DECAYS", np.ones(4, np.float32))
    assert np.abs(run() - before).max() > 1e-3


@pytest.mark.parametrize("number", range(4))
def test_no_run_draws_what_its_initialization_drew(number):
    def init(key):
        return jax.random.normal(jax.random.split(key, 4)[number]), {}

    def loss(params, model_state, batch, key, train):
        return jnp.abs(params - jax.random.normal(key)), (model_state, {})

    task, nothing = lrjax.Task(init, loss), np.zeros(8, np.float32)
    curves = lrjax.sweep(task, nothing, lambda: lrjax.sgd(0.0), steps=1, eval_batches=nothing)
    assert min(curves.loss.item(), curves.eval_loss.item()) > 1e-3
