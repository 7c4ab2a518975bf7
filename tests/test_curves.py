import dataclasses
import functools

import jax
import numpy as np
import pytest
from helpers import make_curves
from hypothesis import given
from hypothesis import strategies as st

import lrjax
from lrjax.curves.results import joined
from lrjax.curves.smoothing import smoothed


def full_curves():
    """Curves with every field filled: 3 weight decays, 2 seeds, 8 steps, 2 evaluations."""
    rng = np.random.default_rng(0)
    loss = rng.normal(size=(3, 2, 8)).astype(np.float32)
    loss[1, 0, 5:] = np.nan
    return make_curves(
        np.geomspace(0.01, 1, 8),
        loss,
        axes={"weight_decay": np.float32([0, 1e-4, 1e-2]), "seed": np.int32([3, 5])},
        momentum=rng.normal(size=loss.shape).astype(np.float32),
        metrics={"z": loss + 1, "a": loss + 2},
        eval_steps=np.int32([4, 8]),
        eval_loss=loss[..., :2] + 3,
        eval_metrics={"z": loss[..., :2] + 4},
    )


def assert_same(one, other):
    assert list(one.axes) == list(other.axes)
    for entry in dataclasses.fields(one):
        left, right = getattr(one, entry.name), getattr(other, entry.name)
        jax.tree.map(np.testing.assert_array_equal, left, right)
        assert jax.tree.map(lambda a: a.dtype, left) == jax.tree.map(lambda a: a.dtype, right)


def test_saved_curves_load_as_they_were(tmp_path):
    for k, curves in enumerate([full_curves(), make_curves([0.1, 0.2], [1.0, 2.0])]):
        path = tmp_path / f"{k}.npz"
        curves.save(path)
        assert_same(lrjax.Curves.load(path), curves)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["0.npz", "1.npz"]


@pytest.mark.parametrize(("axis", "values"), [("weight_decay", [0, 1e-4, 1e-2]), ("seed", [3, 5])])
@pytest.mark.parametrize("changed", [{}, {"momentum": np.float32(range(8))}, {"momentum": None}])
def test_the_parts_of_curves_join_to_the_whole(axis, values, changed):
    whole = dataclasses.replace(full_curves(), **changed)
    parts = [whole.select(**{axis: part}) for part in (values[:1], values[1:])]
    found = joined(*parts, axis)
    assert found.learning_rate.shape == whole.loss.shape
    np.testing.assert_array_equal(found.rates(), whole.rates())
    if whole.momentum is not None:
        np.testing.assert_array_equal(found.momentum, np.broadcast_to(whole.momentum, (3, 2, 8)))
    same = {"learning_rate": whole.learning_rate, "momentum": whole.momentum}
    assert_same(dataclasses.replace(found, **same), whole)


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "curves.npz"
    full_curves().save(path)
    before = path.read_bytes()

    def fail(file, **arrays):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez_compressed", fail)
    with pytest.raises(OSError, match="disk full"):
        full_curves().save(path)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [before]


def test_others_may_read_a_saved_file_as_any_new_one(tmp_path):
    full_curves().save(tmp_path / "curves.npz")
    (tmp_path / "new").touch()
    assert (tmp_path / "curves.npz").stat().st_mode == (tmp_path / "new").stat().st_mode


def _npz(path, **arrays):
    np.savez(path, **arrays)


def _npy(path):
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


def _cut(path):
    full_curves().save(path)
    path.write_bytes(path.read_bytes()[:-100])


def _flipped(at, path):
    full_curves().save(path)
    damaged = bytearray(path.read_bytes())
    damaged[at] ^= 0xFF
    path.write_bytes(damaged)


@pytest.mark.parametrize(
    "write",
    [
        functools.partial(_npz, loss=np.zeros(3)),
        functools.partial(_npz, format=np.array('{"lrjax.Curves": 2, "order": {}}')),
        functools.partial(_npz, format=np.array('{"lrjax.Curves": 1, "order": {}}')),
        _cut,
        lambda path: path.write_bytes(b""),
        *(functools.partial(_flipped, at) for at in (40, 318)),
        lambda path: path.write_text("learning_rate,loss"),
        _npy,
    ],
)
def test_other_files_are_refused(tmp_path, write):
    path = tmp_path / "other.npz"
    write(path)
    with pytest.raises(ValueError, match=r"path must name a file that Curves\.save wrote"):
        lrjax.Curves.load(path)


def test_curves_are_a_pytree_that_keeps_the_order_of_axes():
    curves = full_curves()
    assert list(jax.tree.map(lambda a: a, curves).axes) == ["weight_decay", "seed"]
    doubled = jax.tree.map(lambda a: 2 * a, curves)
    np.testing.assert_array_equal(doubled.metrics["z"], 2 * curves.metrics["z"])


@pytest.mark.parametrize("wanted", [[], slice(0, 1), [[3], [5]]], ids=repr)
def test_select_needs_values(wanted):
    with pytest.raises(ValueError, match="seed must be"):
        full_curves().select(seed=wanted)


def test_select_takes_values_and_lists():
    curves = full_curves()
    one = curves.select(weight_decay=1e-4, seed=5)
    np.testing.assert_array_equal(one.loss, curves.loss[1, 1])
    np.testing.assert_array_equal(one.momentum, curves.momentum[1, 1])
    np.testing.assert_array_equal(one.eval_metrics["z"], curves.eval_metrics["z"][1, 1])
    np.testing.assert_array_equal(one.learning_rate, curves.learning_rate)
    assert (one.axes, one.diverged_at) == ({}, 8)
    some = curves.select(weight_decay=[1e-2, 0])
    np.testing.assert_array_equal(some.loss, curves.loss[[2, 0]])
    np.testing.assert_array_equal(some.axes["weight_decay"], np.float32([1e-2, 0]))


@pytest.mark.parametrize(
    ("axis", "values"),
    [("seed", [123456, 123457]), ("lane", [99_999, 100_000]), ("momentum", [0.99999, 0.999995])],
)
def test_select_tells_close_values_apart(axis, values):
    curves = make_curves([0.1, 0.2], [[1.0, 1.0], [2.0, 2.0]], axes={axis: np.array(values)})
    for value, loss in zip(values, [1, 2], strict=True):
        assert curves.select(**{axis: value}).loss.tolist() == [loss, loss]
    np.testing.assert_array_equal(curves.select(**{axis: values}).axes[axis], values)


def test_curves_on_a_device_are_selected_and_averaged():
    here = full_curves()
    there = jax.jit(lambda curves: curves)(here)
    for change in (
        lambda curves: curves.select(seed=3),
        lambda curves: curves.select(weight_decay=[0, 1e-2]),
        lambda curves: curves.mean("seed"),
    ):
        assert_same(change(there), change(here))


def test_what_was_not_done_has_not_diverged():
    curves = lrjax.Curves(learning_rate=[0.1] * 4, loss=[3, 2, 1, np.nan], steps_done=3)
    assert not curves.diverged


def test_what_is_done_of_an_interrupted_sweep():
    whole = full_curves()
    assert whole.done() is whole
    done = dataclasses.replace(whole, steps_done=np.int32(6)).done()
    assert (done.steps, done.eval_steps.tolist()) == (6, [4])
    np.testing.assert_array_equal(done.diverged_at, [[6, 6], [5, 6], [6, 6]])
    for name in ("loss", "momentum"):
        np.testing.assert_array_equal(getattr(done, name), getattr(whole, name)[..., :6])
    np.testing.assert_array_equal(done.metrics["z"], whole.metrics["z"][..., :6])
    np.testing.assert_array_equal(done.eval_metrics["z"], whole.eval_metrics["z"][..., :1])


def test_the_evaluation_after_the_last_update_was_done():
    curves = lrjax.Curves(
        learning_rate=[0.1] * 4,
        loss=[3, 2, np.nan, np.nan],
        steps_done=2,
        eval_steps=[2, 4],
        eval_loss=[1.0, np.nan],
    )
    assert curves.done().eval_loss.tolist() == [1.0]


def test_a_mean_over_listed_lanes_has_no_hyperparameters():
    curves = lrjax.Curves(
        axes={"lane": [0, 1]},
        lanes={"momentum": [0.8, 0.9]},
        learning_rate=[0.1],
        loss=[[1.0], [2.0]],
    )
    assert curves.mean("lane").lanes == {}


def test_a_summary_has_the_best_and_the_last_evaluation():
    curves = lrjax.Curves(
        learning_rate=[0.1] * 3, loss=[3, 2, 1], eval_steps=[1, 2, 3], eval_loss=[0.9, 0.25, 0.5]
    )
    header, row = curves.summary().splitlines()
    assert header.endswith("best eval  last eval  diverged at")
    assert row.split()[-3:] == ["0.25", "0.5", "-"]


def test_a_summary_names_no_rate_where_there_is_no_loss():
    curves = lrjax.Curves(learning_rate=[0.1, 0.2], loss=[np.nan, np.nan], diverged_at=0)
    assert curves.summary().splitlines()[1].split() == ["-", "-", "-", "0"]


def test_select_keeps_the_hyperparameters_of_listed_lanes():
    curves = make_curves([0.1, 0.2], np.zeros((3, 2)), axes={"lane": np.arange(3)})
    curves = dataclasses.replace(curves, lanes={"momentum": np.float32([0.8, 0.9, 0.95])})
    np.testing.assert_array_equal(curves.select(lane=1).lanes["momentum"], np.float32(0.9))
    np.testing.assert_array_equal(
        curves.select(lane=[2, 0]).lanes["momentum"], np.float32([0.95, 0.8])
    )


def test_mean_ends_where_the_first_lane_diverged():
    curves = full_curves()
    mean = curves.mean("seed")
    np.testing.assert_allclose(mean.loss[0], curves.loss[0].mean(0), rtol=1e-6)
    assert np.isnan(mean.loss[1, 5:]).all()
    np.testing.assert_array_equal(mean.diverged_at, [8, 5, 8])
    assert list(mean.axes) == ["weight_decay"]
    assert mean.loss.dtype == np.float32


@given(st.integers(1, 60), st.floats(0.1, 100), st.sets(st.integers(0, 59)))
def test_smoothing_has_no_direction_and_leaves_constants_and_gaps_alone(steps, width, gaps):
    values = np.random.default_rng(steps).normal(size=steps)
    gaps = [gap for gap in gaps if gap < steps]
    values[gaps] = np.nan
    average = smoothed(values, width)
    np.testing.assert_array_equal(np.isnan(average), np.isnan(values))
    np.testing.assert_allclose(smoothed(values[::-1], width), average[::-1], atol=1e-12)
    constant = np.where(np.isnan(values), np.nan, 3.0)
    np.testing.assert_allclose(smoothed(constant, width), constant, rtol=1e-12)


def test_smooth_takes_losses_and_metrics():
    curves = full_curves()
    smooth = curves.smooth(2.0)
    np.testing.assert_array_equal(smooth.metrics["a"], smoothed(curves.metrics["a"], 2.0))
    np.testing.assert_array_equal(smooth.eval_loss, curves.eval_loss)
    assert np.nanstd(smooth.loss) < np.nanstd(curves.loss)


def test_summary_and_repr_tell_every_lane():
    curves = full_curves()
    lines = curves.summary().splitlines()
    assert len(lines) == 7
    assert lines[3].split()[-1] == "5"
    assert "1 of 6 lanes diverged" in repr(curves)


@pytest.mark.parametrize(
    "lanes",
    [
        {"weight_decay": [0.0, 1e-4]},
        {"momentum": [0.0, 0.9], "learning_rate": [0.1, 0.2, 0.3]},
        [{"momentum": 0.0}, {"momentum": 0.9}],
    ],
)
def test_xarray_has_the_same_arrays_by_name(lanes):
    axes = dict(lanes) if isinstance(lanes, dict) else {"lane": [0, 1]}
    listed = {} if isinstance(lanes, dict) else {"momentum": [0.0, 0.9]}
    axes["seed"] = [3, 5]
    shape = tuple(len(values) for values in axes.values())
    loss = np.arange(4 * np.prod(shape), dtype=np.float32).reshape(*shape, 4)
    curves = lrjax.Curves(
        axes=axes,
        lanes=listed,
        learning_rate=[0.1, 0.2, 0.3, 0.4],
        momentum=loss / 100,
        loss=loss,
        metrics={"accuracy": loss + 1},
        eval_steps=[2, 4],
        eval_loss=loss[..., :2],
        eval_metrics={"accuracy": loss[..., :2] + 2},
    )
    data = curves.to_xarray()
    told = {name: f"{name}_used" if name in {*axes, *listed} else name for name in RATES}
    for name, array in (
        ("loss", loss),
        ("accuracy", loss + 1),
        ("eval_loss", loss[..., :2]),
        ("eval_accuracy", loss[..., :2] + 2),
        (told["learning_rate"], curves.learning_rate),
        (told["momentum"], curves.momentum),
        *axes.items(),
        *listed.items(),
    ):
        np.testing.assert_array_equal(data[name], np.asarray(array, data[name].dtype))
    np.testing.assert_array_equal(data["loss"].sel(seed=5, step=2), loss[..., 1, 2])


def test_xarray_of_one_listed_lane_and_of_metrics_with_taken_names():
    loss = np.arange(6, dtype=np.float32).reshape(2, 3)
    curves = lrjax.Curves(
        axes={"lane": [0, 1]},
        lanes={"momentum": [0.0, 0.9]},
        learning_rate=[0.1, 0.2, 0.3],
        loss=loss,
        metrics={"learning_rate": loss + 1, "lane": loss + 2},
    )
    data = curves.select(lane=1).to_xarray()
    assert data["momentum"] == 0.9
    np.testing.assert_array_equal(data["learning_rate"], curves.learning_rate)
    np.testing.assert_array_equal(data["metric_learning_rate"], loss[1] + 1)
    np.testing.assert_array_equal(curves.to_xarray()["metric_lane"], loss + 2)


def test_xarray_of_axes_with_taken_names():
    loss = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    axes = {"step": np.float32([1, 2]), "loss": np.float32([3, 4])}
    data = lrjax.Curves(axes=axes, learning_rate=[0.1, 0.2, 0.3], loss=loss).to_xarray()
    assert data["loss"].dims == ("lane_step", "lane_loss", "step")
    np.testing.assert_array_equal(data["loss"].sel(lane_step=2, lane_loss=3), loss[1, 0])


RATES = ("learning_rate", "momentum")


def test_rates_are_those_of_every_lane():
    curves = full_curves()
    np.testing.assert_array_equal(curves.rates()[2, 1], curves.learning_rate)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("axis", lambda curves: curves.select(momentum=0.9)),
        ("weight_decay", lambda curves: curves.select(weight_decay=0.5)),
        ("seed", lambda curves: curves.select(seed=[3, 4])),
        ("axis", lambda curves: curves.mean("lane")),
        ("width", lambda curves: curves.smooth(0)),
    ],
)
def test_bad_input_names_the_argument(name, call):
    with pytest.raises(ValueError, match=name):
        call(full_curves())


@pytest.mark.parametrize(
    "counts", [{"steps_done": -1}, {"steps_done": 3}, {"diverged_at": 3}, {"eval_steps": [1, 5]}]
)
def test_counts_lie_within_the_steps(counts):
    (name,) = counts
    evaluated = {"eval_loss": [1.0, 2.0]} if name == "eval_steps" else {}
    with pytest.raises(ValueError, match=f"{name} must be from 0 to 2"):
        lrjax.Curves(learning_rate=[0.1, 0.2], loss=[3, 1], **counts, **evaluated)


@pytest.mark.parametrize("loss", [[], np.zeros((2, 0)), 1.0])
def test_curves_have_at_least_one_step(loss):
    with pytest.raises(ValueError, match="loss must have at least one step"):
        lrjax.Curves(learning_rate=[], loss=loss)


def test_curves_from_elsewhere_may_be_lists():
    curves = lrjax.Curves(learning_rate=[0.1, 0.2, 0.3], loss=[2.0, 1.0, np.nan])
    assert (curves.steps, int(curves.diverged_at), curves.eval_loss.shape) == (3, 2, (0,))
    several = lrjax.Curves(
        axes={"weight_decay": [0, 1e-4], "seed": [0, 1]},
        learning_rate=[0.1, 0.2],
        momentum=[0.9, 0.8],
        loss=[[[4, 3], [4, 2]], [[4, 2], [4, 1]]],
        metrics={"correct": [[[3, 3], [4, 4]], [[1, 1], [2, 2]]]},
        eval_steps=[2],
        eval_loss=[[[3], [2]], [[2], [1]]],
        diverged_at=[[2, 2], [2, 2]],
    )
    assert several.mean("seed").metrics["correct"].tolist() == [[3.5, 3.5], [1.5, 1.5]]
    assert several.select(weight_decay=[1e-4]).loss.tolist() == [[[4, 2], [4, 1]]]
    assert 1 < several.smooth(1.0).loss[1, 1, 1] < 4
    assert lrjax.rank(several).best == {"weight_decay": 1e-4}
    assert "0.0001" in several.summary()
    assert lrjax.suggest(several).reason[0, 0] == "too_few_points"
    empty = lrjax.Curves(learning_rate=[0.1, 0.2], loss=[1, 2], eval_steps=[], eval_loss=[])
    assert lrjax.suggest(empty).reason == "too_few_points"


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("loss", {"loss": np.zeros((3, 3, 8))}),
        ("loss", {"axes": {"seed": np.arange(2)}}),
        ("loss", {"axes": {}}),
        ("learning_rate", {"learning_rate": np.ones(7)}),
        ("learning_rate", {"learning_rate": np.ones((3, 8))}),
        ("momentum", {"momentum": np.ones(9)}),
        ("accuracy", {"metrics": {"accuracy": np.zeros((3, 8))}}),
        ("eval_loss", {"eval_steps": np.int32([4])}),
        ("recall", {"eval_metrics": {"recall": np.zeros((3, 2, 1))}}),
        ("diverged_at", {"diverged_at": np.zeros(3, np.int32)}),
        ("momentum", {"lanes": {"momentum": np.ones(3)}}),
    ],
)
def test_arrays_that_do_not_match_are_refused(name, changed):
    with pytest.raises(ValueError, match=rf"^{name} must have the shape \["):
        dataclasses.replace(full_curves(), **changed)
