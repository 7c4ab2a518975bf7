"""A sweep that is stopped and called again gives the curves of one that never was."""

import functools
import pathlib
import random
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import BATCHES, HELD_OUT, KEY, TASK, network_init, plain_loss
from resume_worker import run

import lrjax
from lrjax._checkpoints import Checkpoints
from lrjax.sweeps import dispatches, driver, engine, spans, workers

WORKER = pathlib.Path(__file__).parent / "resume_worker.py"


@pytest.fixture(scope="module")
def whole():
    return run()


def assert_identical(curves, expected):
    assert repr(curves) == repr(expected)
    jax.tree.map(np.testing.assert_array_equal, curves, expected)


class Killed(BaseException):
    """Stands for the end of the process."""


def kill(monkeypatch, folder, saves, **options):
    """Let a sweep save so many times, and die in the next save."""
    save, done = Checkpoints.save, []

    def dying(self, step, tree, arrays):
        if len(done) == saves:
            raise Killed
        done.append(step)
        save(self, step, tree, arrays)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", dying)
        with pytest.raises(Killed):
            run(folder, **options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stream": True},
        {"lane_batch": 4},
        {"mesh": jax.sharding.Mesh(np.array(jax.devices()), "lanes")},
        {"accumulate": 2, "stream": False},
    ],
    ids=str,
)
def test_a_killed_sweep_goes_on_where_it_was(options, tmp_path, monkeypatch):
    expected = run(**options)
    for saves in (1, 4):
        kill(monkeypatch, tmp_path, saves, **options)
    trained = []
    first_run, run_on = driver.first_run, driver.run
    monkeypatch.setattr(driver, "first_run", lambda *a: trained.append(a) or first_run(*a))
    monkeypatch.setattr(driver, "run", lambda *a: trained.append(a) or run_on(*a))
    assert_identical(run(tmp_path, **options), expected)
    assert len(trained) == 20 - 1 - 4
    if "mesh" in options:
        _, _, states, *_ = trained[0]
        place = jax.sharding.NamedSharding(options["mesh"], jax.P("lanes"))
        assert all(a.sharding.is_equivalent_to(place, a.ndim) for a in jax.tree.leaves(states))
    # And once more: all is done.
    assert_identical(run(tmp_path, **options), expected)
    assert len(trained) == 20 - 1 - 4


def test_a_killed_process_goes_on(whole, tmp_path, monkeypatch):
    """Killed while it saves, wherever in a save that is: each process comes some saves further."""
    # Compiled once: what is tested comes after.
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    out, moments = tmp_path / "curves.npz", random.Random(0)
    command = [sys.executable, str(WORKER), str(tmp_path / "saved"), str(out)]
    for saves in (1, 1, 3, 3):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        for _ in range(saves):
            assert process.stdout.readline().startswith("saving ")
        time.sleep(moments.uniform(0, 0.05))  # about what a save takes
        assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert_identical(lrjax.Curves.load(out), whole)


def on_one_core(patch):
    patch.setattr(workers, "_cores", lambda: 1)


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        ({}, on_one_core),
        ({"lane_batch": 2}, on_one_core),
        ({"chunk_steps": None}, lambda patch: patch.setattr(spans, "MAX_DISPATCH_STEPS", 4)),
        ({"lane_batch": np.int64(3), "eval_every": np.int64(4)}, lambda patch: None),
    ],
    ids=["cores", "lanes at once", "dispatches", "NumPy's integers"],
)
def test_a_killed_sweep_goes_on_where_another_machine_would_cut_it_in_other_ways(
    options, changed, tmp_path, monkeypatch
):
    monkeypatch.setattr(workers, "_cores", lambda: 2)
    expected = run(**options)
    kill(monkeypatch, tmp_path, 2, **options)
    changed(monkeypatch)
    assert_identical(run(tmp_path, **options), expected)


def test_a_killed_sweep_whose_lanes_did_not_fit_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "_cores", lambda: 1)
    run_on = dispatches.run

    def small(job, blocks, *args):
        if len(blocks[0].seeds) > 2:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: of a test")
        return run_on(job, blocks, *args)

    monkeypatch.setattr(dispatches, "run", small)
    with pytest.warns(UserWarning, match="do not fit in memory"):
        expected = run()
    with pytest.warns(UserWarning, match="do not fit in memory"):
        kill(monkeypatch, tmp_path, 2)
    assert_identical(run(tmp_path), expected)


@pytest.mark.parametrize(
    "wrap",
    [
        list,
        lambda one: lrjax.stream_batches(list(one)),
        lambda one: lrjax.stream_batches(tuple(one)),
    ],
    ids=["list", "stream of a list", "stream of a tuple"],
)
def test_other_batches_in_a_list_are_refused(wrap, tmp_path):
    def test(scale):
        return lrjax.range_test(
            lrjax.task(lambda params, batch: jnp.mean((params - batch) ** 2), jnp.zeros(())),
            wrap([scale * np.ones(4, np.float32)]),
            steps=5,
            checkpoint_dir=tmp_path,
        )

    np.testing.assert_array_equal(test(1.0).loss, test(1.0).loss)
    with pytest.raises(ValueError, match=r"checkpoint_dir .*batches \("):
        test(2.0)


def test_devices_that_cannot_share_the_blocks_of_a_checkpoint_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "_cores", lambda: 2)
    run(tmp_path)
    with pytest.raises(ValueError, match=r"mesh must have a number of devices .* got 4"):
        run(tmp_path, mesh=lrjax.lane_mesh())


def test_an_interrupted_sweep_goes_on(whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        calls = iter([False, False, True])
        patch.setattr(
            engine, "interruptible", lambda: engine.contextlib.nullcontext(calls.__next__)
        )
        partial = run(tmp_path)
    assert int(partial.steps_done) == 9
    assert np.isnan(partial.loss[..., 9:]).all()
    assert not partial.diverged.any()
    assert_identical(run(tmp_path), whole)


def test_a_final_state_comes_from_a_checkpoint_too(tmp_path):
    _, state = run(tmp_path, return_state=True)
    _, again = run(tmp_path, return_state=True)
    jax.tree.map(np.testing.assert_array_equal, again, state)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("steps", {"steps": 61}),
        ("seeds", {"seeds": 1}),
        ("lanes", {"lanes": {"weight_decay": [0.0, 1e-3, 0.2]}}),
        ("optimizer", {"start": 1e-4}),
        ("batches", {"stream": True}),
        (
            "eval_batches",
            {"eval_batches": lrjax.array_batches((np.ones((9, 5), "f"), np.ones(9, int)), 9)},
        ),
        ("divergence", {"divergence": 3.0}),
        ("accumulate", {"accumulate": 2}),
        ("lane_batch", {"lane_batch": 2}),
    ],
)
def test_a_checkpoint_of_other_arguments_is_refused_by_name(name, options, tmp_path):
    run(tmp_path, steps=12, chunk_steps=6)
    with pytest.raises(ValueError, match=rf"checkpoint_dir .*{name} \("):
        run(tmp_path, **{"steps": 12, "chunk_steps": 6} | options)


@pytest.mark.parametrize("options", [{}, {"start": 1e3, "end": 1e9}], ids=["alive", "diverged"])
def test_a_short_sweep_is_saved_at_its_end(options, tmp_path, monkeypatch):
    monkeypatch.setattr(driver, "CHECKPOINT_SECONDS", np.inf)
    curves, trained = run(tmp_path, **options), []
    monkeypatch.setattr(driver, "first_run", lambda *arguments: trained.append(arguments))
    monkeypatch.setattr(driver, "run", lambda *arguments: trained.append(arguments))
    assert_identical(run(tmp_path, **options), curves)
    assert not trained


def other_loss(params, batch):
    return 2 * plain_loss(params, batch), {}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("task", {"task": lrjax.task(other_loss, network_init)}),
        ("initial", {"initial": (network_init(KEY), {})}),
        ("eval_every", {"eval_every": 4}),
        ("lanes", {"lanes": [{"weight_decay": 0.0}, {"weight_decay": 0.2}]}),
    ],
)
def test_a_checkpoint_of_another_sweep_is_refused_by_name(name, options, tmp_path):
    given = {
        "task": TASK,
        "batches": BATCHES,
        "steps": 12,
        "chunk_steps": 2,
        "eval_batches": HELD_OUT,
        "eval_every": 6,
        "checkpoint_dir": tmp_path,
        "lanes": [{"weight_decay": 0.0}, {"weight_decay": 0.1}],
    }
    lrjax.range_test(**given)
    with pytest.raises(ValueError, match=rf"checkpoint_dir .*differs in {name} \("):
        lrjax.range_test(**given | options)


def test_a_stream_that_fails_at_once_leaves_the_curves_of_a_checkpoint(tmp_path):
    def stream(length):
        for step in range(length):
            yield BATCHES(step)
        raise OSError("the disk is gone")

    test = functools.partial(lrjax.range_test, TASK, steps=40, chunk_steps=5)
    with pytest.raises(Exception, match="the disk is gone"):
        test(stream(12), checkpoint_dir=tmp_path)
    with pytest.raises(Exception, match="the disk is gone") as told:
        test(stream(12), checkpoint_dir=tmp_path)
    assert told.value.curves.steps_done == 10
