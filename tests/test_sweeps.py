"""Sweeps and range tests: what they are given, run and give back."""

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
    HELD_OUT,
    KEY,
    TASK,
    compilations,
    line_init,
    line_loss,
    network_init,
    network_loss,
    plain_loop,
    plain_loss,
)

import lrjax

GRID = {"weight_decay": [0.0, 1e-3, 0.1], "momentum": [0.0, 0.9]}


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


def test_bad_input_is_refused_before_training():
    consumed = itertools.count()
    batches = (BATCHES(next(consumed)) for _ in itertools.repeat(None))
    with pytest.raises(ValueError, match="loss"):
        lrjax.range_test(bad_loss(lambda params, batch: jnp.zeros(3)), batches, steps=5)
    assert next(consumed) == 1


def test_without_evaluations_there_are_no_metrics_of_them():
    curves = lrjax.range_test(TASK, BATCHES, steps=3)
    assert (list(curves.metrics), list(curves.eval_metrics)) == (["accuracy"], [])


DECAYS = np.zeros(4, np.float32)


def decaying_by_array(learning_rate):
    return lrjax.sgd(learning_rate, weight_decay=float(DECAYS[0]))


def test_an_array_that_was_changed_meanwhile_counts(monkeypatch):
    def run():
        return lrjax.range_test(TASK, BATCHES, decaying_by_array, end=1.0, steps=10).loss

    before = run()
    monkeypatch.setitem(globals(), "DECAYS", np.ones(4, np.float32))
    assert np.abs(run() - before).max() > 1e-3
