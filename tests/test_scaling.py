"""Sweeps over blocks of lanes, devices and dispatches: the same curves whatever they are."""

import contextlib
import functools
import itertools
import os
import re
import signal
import threading
import types
from concurrent.futures import Future

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from helpers import (
    BATCHES,
    DATA,
    HELD_OUT,
    KEY,
    TASK,
    compilations,
    network_init,
    network_loss,
    plain_loss,
)

import lrjax
from lrjax.batches.readers import reader
from lrjax.sweeps import dispatches, driver, engine, memory, programs, workers
from lrjax.sweeps.runs import Program

SWEEP = functools.partial(
    lrjax.range_test,
    task=TASK,
    batches=BATCHES,
    lanes={"weight_decay": [0.0, 1e-3, 0.1]},
    seeds=2,
    start=1e-3,
    end=10.0,
    steps=23,
    eval_batches=HELD_OUT,
    eval_every=6,
)


@pytest.fixture(scope="module")
def whole():
    return SWEEP()


def assert_close(curves, expected, rtol=1e-5):
    np.testing.assert_array_equal(curves.diverged_at, expected.diverged_at)
    assert list(curves.axes) == list(expected.axes)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=rtol), curves, expected)


def mesh_of(lanes, data=1):
    devices = np.array(jax.devices()[: lanes * data]).reshape((lanes, data) if data > 1 else lanes)
    names = ("lanes", "data") if data > 1 else ("lanes",)
    return jax.sharding.Mesh(devices, names)


@pytest.mark.parametrize(
    "options",
    [
        {"lane_batch": 1},
        {"lane_batch": 4},
        {"lane_batch": 6},
        {"lane_batch": 100},
        {"chunk_steps": 1},
        {"chunk_steps": 4, "lane_batch": 5},
        {"mesh": mesh_of(1)},
        {"mesh": mesh_of(4)},
        {"mesh": mesh_of(2), "lane_batch": 2},
        {"mesh": mesh_of(4), "lane_batch": 2},
        {"mesh": mesh_of(2, data=2)},
        {"mesh": mesh_of(1, data=4), "lane_batch": 3, "chunk_steps": 5},
    ],
    ids=lambda options: ", ".join(options),
)
def test_curves_are_the_same_however_lanes_and_steps_are_cut(options, whole):
    assert_close(SWEEP(**options), whole)


@pytest.mark.parametrize(
    ("devices", "lane_batch", "expected"),
    [(4, 3, 4), (4, 7, 4), (4, 8, 8), (2, 5, 4), (1, 5, 5)],
)
def test_no_more_lanes_run_at_once_than_asked_for(devices, lane_batch, expected, monkeypatch):
    sizes = block_sizes(monkeypatch)
    SWEEP(mesh=mesh_of(devices), lane_batch=lane_batch, steps=2)
    assert sizes[0] == expected


def test_a_stream_over_devices_gives_the_same_curves(whole):
    stream = (jax.tree.map(np.asarray, BATCHES(step)) for step in range(23))
    assert_close(SWEEP(batches=stream, mesh=mesh_of(4), lane_batch=4), whole)


class Pointwise(nn.Module):
    """With a 1x1 convolution, whose lanes XLA mixes up where it splits them itself."""

    @nn.compact
    def __call__(self, images):
        features = nn.Conv(6, (1, 1))(nn.Conv(4, (3, 3))(images))
        return nn.Dense(3)(nn.relu(features).mean((1, 2)))


@pytest.mark.parametrize("mesh", [mesh_of(4), mesh_of(2, data=2)], ids=["lanes", "data"])
def test_convolutional_lanes_are_the_same_on_a_mesh(mesh):
    images = np.random.default_rng(0).normal(size=(32, 6, 6, 2)).astype(np.float32)
    data = images, np.arange(32) % 3

    def loss(logits, batch):
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]).mean()

    task = lrjax.linen_task(Pointwise(), loss, data)
    run = functools.partial(
        lrjax.range_test, task, data, batch_size=16, seeds=4, start=1e-2, end=1.0, steps=5
    )
    assert_close(run(eval_batches=data, mesh=mesh), run(eval_batches=data), rtol=1e-4)


INDEXED = {
    "rows in another order": lambda x, key: x[jax.random.permutation(key, len(x))],
    "some columns": lambda x, key: x[:, jnp.array([0, 2])],
    "changed entries": lambda x, key: x.at[:, 0].set(0.5),
}


@pytest.mark.parametrize("indexed", INDEXED.values(), ids=INDEXED)
def test_batches_that_are_split_may_be_indexed(indexed):
    def loss(params, model_state, batch, key, train):
        return jnp.mean((batch[0] @ params - indexed(batch[0], key).sum(-1)) ** 2), ({}, {})

    task = lrjax.Task(lambda key: (jax.random.normal(key, (5,)), {}), loss)
    run = functools.partial(
        lrjax.range_test, task, DATA, seeds=2, steps=4, start=1e-3, end=0.1, eval_batches=HELD_OUT
    )
    assert_close(run(mesh=mesh_of(2, data=2)), run())


@pytest.mark.parametrize("kind", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_lanes_of_one_seed_are_the_same_run_with_any_kind_of_keys(kind):
    """Of `rbg`, what is drawn under `vmap` depends on the lanes beside."""

    def loss(params, model_state, batch, key, train):
        kept = jax.random.bernoulli(key, 0.5, batch[0].shape)
        return plain_loss(params, (jnp.where(kept, batch[0], 0.0), batch[1])), ({}, {})

    task = lrjax.Task(lambda key: (network_init(key), {}), loss)
    with jax.default_prng_impl(kind):
        run = functools.partial(
            lrjax.range_test, task, DATA, seeds=2, steps=4, eval_batches=HELD_OUT
        )
        curves = run(lanes={"weight_decay": [0.0, 0.0, 0.0]}, mesh=mesh_of(2))
        alone = run(lanes={"weight_decay": [0.0]})
    for lane in range(3):
        np.testing.assert_allclose(curves.loss[lane], alone.loss[0], rtol=1e-5)
        np.testing.assert_allclose(curves.eval_loss[lane], alone.eval_loss[0], rtol=1e-5)


@pytest.mark.parametrize("size", [15, 16])
def test_what_does_not_divide_is_not_split(size):
    """Neither a batch of 15 samples over two devices, nor the number that comes with it."""

    def loss(params, batch):
        *samples, factor = batch
        return factor * plain_loss(params, samples)

    task = lrjax.task(loss, network_init)
    samples = lrjax.array_batches(DATA, size)
    batches = [(*jax.tree.map(np.asarray, samples(step)), np.float32(2)) for step in range(5)]
    run = functools.partial(lrjax.range_test, task, batches, start=1e-3, end=1.0, steps=5, seeds=2)
    assert_close(run(mesh=mesh_of(2, data=2)), run())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mesh": mesh_of(4)},
        {"lane_batch": 4},
        {
            "batches": [jax.tree.map(np.asarray, BATCHES(step)) for step in range(46)],
            "accumulate": 2,
        },
    ],
    ids=lambda options: ", ".join(options),
)
def test_a_sweep_compiles_each_of_its_programs_once(options):
    task = lrjax.task(lambda params, batch: network_loss(params, batch), network_init)
    with compilations() as compiled:
        SWEEP(task=task, **options)
    ours = [name for name in compiled if "_lanes" in str(name)]
    assert sorted(ours) == ["jit(evaluate_lanes)", "jit(init_lanes)", "jit(train_lanes)"]


def test_a_mesh_moves_no_data_between_devices():
    mesh = lrjax.lane_mesh()
    assert mesh.shape == {"lanes": 4}
    text = lowered(TASK, mesh).compile().as_text()
    assert "num_partitions=4" in text
    collectives = r"(all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)\("
    moved = re.findall(rf"= (\w+\[[\d,]*\])\S* {collectives}", text)
    # The records of four lanes and three updates, for every process to have them: no state.
    assert set(moved) == {("f32[4,3]", "all-gather")}


def lowered(task, mesh=None, platforms=None):
    """The training program of four lanes, from shapes alone."""
    program = Program(task, length=3, divergence=4.0, accumulate=1, mesh=mesh)
    optimizer = jax.tree_util.Partial(lrjax.sgd)
    lanes = {"learning_rate": np.float32([0.1] * 4)}, np.arange(4, dtype=np.int32)
    states = jax.eval_shape(programs.init_lanes, *lanes, optimizer, None, program)
    source = reader(BATCHES, 3).read(0, 3, 3)
    arguments = *lanes, states, optimizer, source, (0, 3), program
    if platforms:
        return jax.export.export(programs.train_lanes, platforms=platforms)(*arguments)
    return programs.train_lanes.lower(*arguments)


def convolution_init(key):
    return {"kernel": 0.1 * jax.random.normal(key, (3, 1, 1, 3)), "norm": jnp.ones(())}


def convolution_loss(params, batch):
    points, labels = batch
    images = points[:, :, None, None]
    features = jax.lax.conv_general_dilated(
        images, params["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return optax.softmax_cross_entropy_with_integer_labels(features.mean((1, 2)), labels).mean()


class Stateful(nn.Module):
    """With averages that training moves, and dropout."""

    @nn.compact
    def __call__(self, x, train):
        x = nn.BatchNorm(use_running_average=not train)(nn.Dense(8)(x))
        return nn.Dense(3)(nn.Dropout(0.5, deterministic=not train)(x))


def stateful():
    def loss(logits, batch):
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]).mean()

    return lrjax.linen_task(Stateful(), loss, DATA)


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
@pytest.mark.parametrize(
    ("task", "mesh"),
    [
        (TASK, None),
        (lrjax.task(convolution_loss, convolution_init), None),
        (stateful(), None),
        (TASK, mesh_of(4)),
        (TASK, mesh_of(2, data=2)),
    ],
    ids=["dense", "convolutional", "stateful", "meshed", "split batches"],
)
def test_the_program_lowers_for_accelerators(platform, task, mesh):
    exported = lowered(task, mesh, platforms=[platform])
    assert exported.platforms == (platform,)
    assert len(exported.mlir_module_serialized) > 0


@pytest.fixture
def one_core(monkeypatch):
    monkeypatch.setattr(workers, "_cores", lambda: 1)


@pytest.mark.parametrize("cores", [1, 2, 3, 64])
@pytest.mark.parametrize("lane_batch", [None, 1, 4, 100])
def test_curves_are_the_same_on_any_number_of_cores(cores, lane_batch, whole, monkeypatch):
    monkeypatch.setattr(workers, "_cores", lambda: cores)
    sizes = block_sizes(monkeypatch)
    assert_close(SWEEP(lane_batch=lane_batch), whole)
    at_once = lane_batch or 6
    assert sum(sizes[: min(cores, at_once)]) <= at_once


def test_an_error_cancels_what_has_not_begun(monkeypatch):
    monkeypatch.setattr(workers, "_cores", lambda: 2)
    begun, release = [], threading.Event()

    def block(number):
        begun.append(number)
        release.wait(60)

    running = []

    def interrupted():
        with workers.open_workers(None, lanes=8) as team:
            running.extend(team.submit(block, number) for number in range(8))
            threading.Timer(0.5, release.set).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(begun) <= 2
    assert running[-1].cancelled()


def test_settings_of_a_with_block_hold_in_a_sweep():
    task = lrjax.task(lambda params, x: ((x - params) ** 2).mean(), jnp.zeros(()))
    with jax.enable_x64(True):
        _, state = lrjax.sweep(
            task._replace(init=lambda _: (jnp.zeros((), jnp.float64), {})),
            np.linspace(0.0, 1.0, 64),
            lrjax.sgd,
            steps=5,
            lanes={"learning_rate": [0.1, 0.2]},
            return_state=True,
        )
    assert state.params.dtype == np.float64


@pytest.mark.parametrize(
    ("cores", "mesh", "expected"),
    [(1, None, [6, 3, 1]), (2, None, [3, 1]), (1, mesh_of(2), [6, 2])],
)
def test_lanes_that_do_not_fit_are_halved_with_one_warning_each(
    cores, mesh, expected, whole, monkeypatch
):
    monkeypatch.setattr(workers, "_cores", lambda: cores)
    train, seen = programs.train_lanes, []

    def small(hyperparams, *arguments):
        seen.append(len(hyperparams["weight_decay"]))
        if seen[-1] > 2:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return train(hyperparams, *arguments)

    monkeypatch.setattr(dispatches, "train_lanes", small)
    monkeypatch.setattr(memory, "free_bytes", lambda mesh: None)
    with pytest.warns(UserWarning, match="do not fit in memory") as caught:
        curves = SWEEP(mesh=mesh)
    told = [f"trying {size * cores} at once" for size in expected[1:]]
    assert [str(each.message).split("; ")[1] for each in caught] == told
    assert list(dict.fromkeys(seen)) == expected
    assert_close(curves, whole)


def test_a_program_that_never_fits_fails(monkeypatch):
    sizes = iter([6, 3, 1])

    def large(hyperparams, *arguments):
        assert len(hyperparams["weight_decay"]) == next(sizes)
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")

    monkeypatch.setattr(workers, "_cores", lambda: 1)
    monkeypatch.setattr(dispatches, "train_lanes", large)
    monkeypatch.setattr(memory, "free_bytes", lambda mesh: None)
    with (
        pytest.warns(UserWarning, match="do not fit in memory"),
        pytest.raises(jax.errors.JaxRuntimeError, match="out of memory"),
    ):
        SWEEP()


def test_a_program_that_fails_otherwise_fails(monkeypatch):
    def broken(*arguments):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    monkeypatch.setattr(dispatches, "train_lanes", broken)
    monkeypatch.setattr(memory, "free_bytes", lambda mesh: None)
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        SWEEP()


def block_sizes(monkeypatch):
    """A list of the sizes of all blocks that start from here on."""
    sizes = []
    start = dispatches.start
    monkeypatch.setattr(
        dispatches, "start", lambda job, block: sizes.append(len(block.seeds)) or start(job, block)
    )
    return sizes


@pytest.mark.usefixtures("one_core")
def test_a_block_leaves_the_device_before_the_next_one_starts(monkeypatch):
    events, start, waiting = [], dispatches.start, dispatches._parked
    monkeypatch.setattr(dispatches, "start", lambda *a: events.append("start") or start(*a))
    monkeypatch.setattr(dispatches, "_parked", lambda *a: events.append("leave") or waiting(*a))
    SWEEP(lane_batch=2)
    assert events[:6] == ["start", "leave"] * 3


@pytest.mark.usefixtures("one_core")
def test_a_small_cache_makes_small_blocks(whole, monkeypatch):
    monkeypatch.setattr(memory, "CACHE_BYTES", 1000)
    sizes = block_sizes(monkeypatch)
    assert_close(SWEEP(), whole)
    assert sizes == [3, 3]


@pytest.mark.usefixtures("one_core")
def test_little_memory_makes_small_blocks(whole, monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda mesh: 10_000)
    sizes = block_sizes(monkeypatch)
    assert_close(SWEEP(), whole)
    assert sizes
    assert max(sizes) < 6


def test_the_final_state_goes_on_training():
    options = {"lanes": {"learning_rate": [0.1, 0.2]}, "seeds": 2}
    first, state = lrjax.sweep(
        TASK, BATCHES, lrjax.sgd, steps=6, return_state=True, lane_batch=3, **options
    )
    assert jax.tree.leaves(state.params)[0].shape[:2] == (2, 2)
    lane = jax.tree.map(lambda array: array[1, 0], state)
    rest = [jax.tree.map(np.asarray, BATCHES(step)) for step in range(6, 10)]
    second = lrjax.sweep(
        TASK, rest, lrjax.sgd, steps=4, initial=lane, lanes={"learning_rate": [0.2]}
    )
    straight = lrjax.sweep(TASK, BATCHES, lrjax.sgd, steps=10, **options)
    np.testing.assert_allclose(second.loss[0, 0], straight.loss[1, 0, 6:], rtol=1e-5)
    np.testing.assert_allclose(first.loss, straight.loss[..., :6], rtol=1e-5)


def interrupting(after):
    """Batches of which number `after` comes with a Ctrl-C."""
    for step in range(1000):
        if step == after:
            os.kill(os.getpid(), signal.SIGINT)
        yield jax.tree.map(np.asarray, BATCHES(step))


def test_an_interrupt_returns_the_curves_so_far():
    handler = signal.getsignal(signal.SIGINT)
    curves = lrjax.range_test(TASK, interrupting(25), steps=100, chunk_steps=10)
    done = int(curves.steps_done)
    assert 0 < done < 100
    assert np.isfinite(curves.loss[..., :done]).all()
    assert np.isnan(curves.loss[..., done:]).all()
    assert not curves.diverged.any()
    assert "interrupted after" in repr(curves)
    assert signal.getsignal(signal.SIGINT) is handler


@pytest.mark.parametrize("checkpointed", [False, True])
def test_what_was_computed_before_a_stream_failed_is_kept(checkpointed, whole, tmp_path):
    stream = [jax.tree.map(np.asarray, BATCHES(step)) for step in range(23)]

    def failing():
        yield from stream[:14]
        raise OSError("the disk is gone")

    folder = tmp_path if checkpointed else None
    with pytest.raises(RuntimeError, match="batches raised at number 14: OSError") as raised:
        SWEEP(batches=failing(), chunk_steps=3, checkpoint_dir=folder)
    curves = raised.value.curves
    assert int(curves.steps_done) == 12
    np.testing.assert_allclose(curves.loss[..., :12], whole.loss[..., :12], rtol=1e-5)
    np.testing.assert_array_equal(curves.learning_rate, whole.learning_rate)
    assert isinstance(raised.value.__cause__, OSError)
    if checkpointed:
        again = SWEEP(batches=iter(stream), chunk_steps=3, checkpoint_dir=folder)
        assert_close(again, whole)


@pytest.mark.usefixtures("one_core")
def test_what_was_computed_before_a_device_failed_is_kept(whole, monkeypatch):
    train, calls = programs.train_lanes, itertools.count()

    def failing(*arguments):
        if next(calls) == 2:
            raise jax.errors.JaxRuntimeError("INTERNAL: the device is gone")
        return train(*arguments)

    monkeypatch.setattr(dispatches, "train_lanes", failing)
    monkeypatch.setattr(memory, "free_bytes", lambda mesh: None)
    with pytest.raises(jax.errors.JaxRuntimeError, match="the device is gone") as raised:
        SWEEP(chunk_steps=3)
    curves = raised.value.curves
    assert int(curves.steps_done) == 6
    np.testing.assert_allclose(curves.loss[..., :6], whole.loss[..., :6], rtol=1e-5)
    assert np.isnan(curves.loss[..., 6:]).all()


def test_a_second_interrupt_aborts():
    def twice():
        for batch in interrupting(5):
            yield batch
            if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises((KeyboardInterrupt, RuntimeError)):
        lrjax.range_test(TASK, twice(), steps=100, chunk_steps=10)


def test_a_sweep_runs_outside_of_the_main_thread(whole):
    results = []
    thread = threading.Thread(target=lambda: results.append(SWEEP()))
    thread.start()
    thread.join()
    assert_close(results[0], whole)


def test_metrics_may_differ_between_training_and_evaluation():
    def loss(params, model_state, batch, key, train):
        value, metrics = network_loss(params, batch)
        return value, (model_state, metrics if train else {"error": 1 - metrics["accuracy"]})

    curves = SWEEP(task=TASK._replace(loss=loss))
    assert (set(curves.metrics), set(curves.eval_metrics)) == ({"accuracy"}, {"error"})


def test_all_lanes_may_diverge_before_the_first_evaluation():
    curves = SWEEP(start=1e3, end=1e9, steps=200, eval_every=200, chunk_steps=10)
    assert curves.eval_loss.shape == (3, 2, 1)
    assert curves.diverged.all()
    assert curves.steps_done == 200
    assert np.isnan(curves.eval_loss).all()
    np.testing.assert_allclose(curves.learning_rate[[0, -1]], [1e3, 1e9], rtol=1e-5)


@pytest.mark.parametrize(
    ("error", "name", "options"),
    [
        (ValueError, "lane_batch", {"lane_batch": 0}),
        (TypeError, "lane_batch", {"lane_batch": 1.5}),
        (TypeError, "mesh", {"mesh": "all"}),
        (ValueError, "mesh", {"mesh": jax.sharding.Mesh(jax.devices(), "batch")}),
        (ValueError, "mesh", {"mesh": mesh_of(4), "seeds": 1}),
    ],
)
def test_bad_input_names_the_argument(error, name, options):
    with pytest.raises(error, match=name):
        SWEEP(**options)


def test_a_mesh_must_divide_by_the_devices_of_a_lane():
    with pytest.raises(ValueError, match="data"):
        lrjax.lane_mesh(data=3)
    assert lrjax.lane_mesh(data=2).shape == {"lanes": 2, "data": 2}


def test_progress_tells_which_lanes_have_diverged(monkeypatch):
    def loss(params, batch):
        return jnp.where(params > 0.35, jnp.nan, -params) + 0.0 * batch.sum()

    told = []

    def bar(*arguments, **options):
        return contextlib.nullcontext(lambda *progress: told.append(progress))

    monkeypatch.setattr(engine, "progress_bar", bar)
    lanes = {"learning_rate": [0.01, 0.1]}  # of which the second diverges at update 4
    task = lrjax.task(loss, jnp.zeros(()))
    curves = lrjax.sweep(task, np.zeros(8, "f"), lrjax.sgd, steps=8, lanes=lanes, chunk_steps=3)
    assert [done for done, *_ in told] == [3, 6, 8]
    assert [diverged.tolist() for _, _, diverged, _ in told] == [
        [False, False],
        [False, True],
        [False, True],
    ]
    losses = np.concatenate([losses for _, losses, _, _ in told], axis=1)
    np.testing.assert_array_equal(losses, curves.loss[:, 0])


def test_a_device_is_idle_once_all_its_blocks_are_done():
    over, running = Future(), Future()
    over.set_result((None, [jnp.zeros(3)]))
    jax.block_until_ready(over.result())
    assert driver._idle([])
    assert driver._idle([over, over])
    assert not driver._idle([over, running])


def test_keys_reach_the_devices_of_several_processes(monkeypatch):
    several = types.SimpleNamespace(**vars(jax) | {"process_count": lambda: 2})
    monkeypatch.setattr(dispatches, "jax", several)
    data = {"key": jax.random.split(KEY, 4), "x": np.arange(4.0)}
    found = dispatches.put(data, mesh_of(4))
    assert found["key"].dtype == data["key"].dtype
    assert found["key"].sharding.device_set == set(jax.devices()[:4])
    np.testing.assert_array_equal(*map(jax.random.key_data, (found["key"], data["key"])))


def test_arrays_that_lie_on_one_device_are_spread_over_a_mesh(whole):
    there = functools.partial(jax.device_put, device=jax.devices()[0])
    data, held_out = there(DATA), there(HELD_OUT.data)
    curves = SWEEP(
        batches=lrjax.array_batches(data, 16),
        eval_batches=lrjax.array_batches(held_out, 16),
        mesh=mesh_of(4),
    )
    assert_close(curves, whole)
    initial = there((network_init(KEY), {}))
    assert_close(SWEEP(initial=initial, mesh=mesh_of(4)), SWEEP(initial=initial))


@pytest.mark.usefixtures("one_core")
def test_final_states_are_those_of_the_lanes_not_of_the_filling():
    run = functools.partial(
        lrjax.sweep,
        TASK,
        BATCHES,
        lrjax.sgd,
        steps=2,
        return_state=True,
        lanes={"learning_rate": [0.1, 0.2, 0.3]},
        seeds=2,
    )
    _, whole = run()
    _, cut = run(lane_batch=4)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), cut, whole)
