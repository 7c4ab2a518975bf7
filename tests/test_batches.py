import contextlib
import functools

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lrjax
from lrjax.batches.arrays import as_batches
from lrjax.batches.evaluations import evaluation_groups
from lrjax.batches.readers import reader


class Tensor:
    """An array of another library."""

    def __init__(self, array):
        self.array, self.shape, self.dtype = array, array.shape, "float32 of its own"

    def __array__(self, dtype=None, copy=None):
        return self.array


DATA = {"x": np.arange(20, dtype=np.float32).reshape(10, 2), "y": np.arange(10)}


@pytest.mark.parametrize("batch_size", [1, 3, 5, 10])
def test_every_epoch_takes_each_sample_at_most_once_in_a_new_order(batch_size):
    batches = lrjax.array_batches(DATA, batch_size)
    epochs = []
    for epoch in range(3):
        steps = range(epoch * batches.steps_per_epoch, (epoch + 1) * batches.steps_per_epoch)
        epochs.append(np.concatenate([batches(step)["y"] for step in steps]))
        assert len(set(epochs[-1].tolist())) == 10 - 10 % batch_size
    assert not np.array_equal(epochs[0], epochs[1])
    assert not np.array_equal(epochs[1], epochs[2])


def test_a_batch_is_a_pure_function_of_seed_and_step():
    batches, other = lrjax.array_batches(DATA, 3), lrjax.array_batches(DATA, 3, seed=1)
    traced = jax.jit(lambda step: batches(step))
    for step in (0, 1, 7, 1000):
        jax.tree.map(np.testing.assert_array_equal, batches(step), traced(step))
        np.testing.assert_array_equal(batches(step)["x"], DATA["x"][batches(step)["y"]])
    assert any(not np.array_equal(batches(k)["y"], other(k)["y"]) for k in range(3))


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize(("start", "count", "length"), [(0, 1, 1), (0, 12, 12), (2, 3, 5)])
def test_a_reader_reads_the_batches_of_its_steps(start, count, length, shuffle):
    batches = lrjax.array_batches(DATA, 3, shuffle=shuffle)
    listed = [batches(k) for k in range(12)]
    for given in (batches, listed, iter(listed), lrjax.stream_batches(listed, prefetch=1)):
        with contextlib.closing(reader(given, 12)) as ahead:
            assert ahead.sample == jax.eval_shape(batches, 0)
            source = ahead.read(start, count, length)
        for k in range(length):
            expected = batches(start + min(k, count - 1))
            jax.tree.map(np.testing.assert_array_equal, source.fetch(k), expected)


def test_it_may_be_jitted_itself():
    batches = lrjax.array_batches({"x": jnp.arange(10)}, 4)
    np.testing.assert_array_equal(jax.jit(batches)(3)["x"], batches(3)["x"])


def test_without_shuffling_samples_come_in_order():
    batches = lrjax.array_batches(DATA, 4, shuffle=False)
    assert [batches(k)["y"].tolist() for k in range(3)] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [0, 1, 2, 3],
    ]


def test_evaluation_takes_every_sample_by_its_weight():
    arrays = evaluation_groups(lrjax.array_batches(DATA, 4))
    listed = evaluation_groups([jax.tree.map(lambda a, s=s: a[s], DATA) for s in SLICES])
    for groups in (arrays, listed):
        seen = np.concatenate([np.ravel(group.batches["y"]) for group in groups])
        np.testing.assert_array_equal(np.sort(seen), DATA["y"])
        assert [group.weight for group in groups] == [4, 2]
        assert [len(group.batches["y"]) for group in groups] == [2, 1]


@pytest.mark.parametrize(
    "data", [DATA, tuple(DATA.values()), DATA["x"], jnp.arange(10), {"nested": (DATA, DATA["y"])}]
)
def test_arrays_as_they_are_make_batches(data):
    for size, batches in ((10, as_batches("batches", data)), (3, as_batches("batches", data, 3))):
        expected = lrjax.array_batches(data, size)
        jax.tree.map(np.testing.assert_array_equal, batches(0), expected(0))
    (group,) = evaluation_groups(data)
    assert group.weight == 10
    many = jax.tree.map(lambda array: np.concatenate([array] * 7), data)
    assert as_batches("batches", many).batch_size == 64
    assert [group.weight for group in evaluation_groups(many)] == [64, 6]


def test_what_holds_batches_stays_what_it_is():
    listed = [(DATA["x"], DATA["y"])]
    for given in (listed, iter(listed), lrjax.stream_batches(listed), lrjax.array_batches(DATA, 3)):
        assert as_batches("batches", given) is given


SLICES = slice(0, 4), slice(4, 8), slice(8, 10)


@pytest.mark.parametrize(
    ("error", "name", "data", "options"),
    [
        (ValueError, "data", {}, {"batch_size": 1}),
        (ValueError, "data", jnp.float32(1), {"batch_size": 1}),
        (ValueError, "data", (np.zeros(3), np.zeros(4)), {"batch_size": 1}),
        (ValueError, "batch_size", np.zeros(3), {"batch_size": 4}),
        (ValueError, "batch_size", np.zeros(3), {"batch_size": 0}),
        (TypeError, "batch_size", np.zeros(3), {"batch_size": 1.5}),
        (TypeError, "seed", np.zeros(3), {"batch_size": 1, "seed": 0.5}),
    ],
)
def test_bad_input_names_the_argument(error, name, data, options):
    with pytest.raises(error, match=name):
        lrjax.array_batches(data, **options)


@pytest.mark.parametrize(
    ("error", "name", "given", "batch_size"),
    [
        (ValueError, "batches", (np.zeros(3), np.zeros(4)), None),
        (ValueError, "batches", {}, None),
        (TypeError, r"batches\[1\]\[0\]", (np.zeros(3), [0, 1, 2]), None),
        (TypeError, r"batches\['name'\]", {"x": np.zeros(2), "name": np.array(["a", "b"])}, None),
        (ValueError, "batch_size", np.zeros(3), 4),
        (ValueError, "batch_size", [np.zeros(3)], 3),
    ],
)
def test_bad_data_names_the_argument(error, name, given, batch_size):
    with pytest.raises(error, match=name):
        as_batches("batches", given, batch_size)


@pytest.mark.parametrize(("error", "step"), [(ValueError, -1), (TypeError, 2.5)])
def test_a_step_counts_from_0(error, step):
    with pytest.raises(error, match="step"):
        lrjax.array_batches(np.zeros(8), 2)(step)


@pytest.mark.parametrize("dtype", ["M8[s]", "m8[s]", object])
def test_arrays_must_hold_numbers(dtype):
    with pytest.raises(TypeError, match="data must hold numbers"):
        lrjax.array_batches(np.zeros(4, dtype), 2)


def test_a_frozen_dict_is_data():
    data = flax.core.freeze({"x": np.arange(10.0, dtype=np.float32)})
    assert as_batches("batches", data).batch_size == 10


def keys_loss(params, batch):
    points, keys = batch
    noise = jax.vmap(jax.random.normal)(keys)
    return jnp.mean((points @ params - noise) ** 2)


def test_streams_and_lists_may_hold_keys():
    points = np.random.default_rng(0).normal(size=(32, 3)).astype(np.float32)
    data = points, jax.random.split(jax.random.key(0), 32)
    whole = lrjax.array_batches(data, 16, shuffle=False)
    listed = [whole(0), whole(1)]
    run = functools.partial(lrjax.range_test, lrjax.task(keys_loss, jnp.zeros(3)), steps=4)
    expected = run(whole, eval_batches=whole)
    for batches in (listed, (listed[k % 2] for k in range(4))):
        curves = run(batches, eval_batches=listed)
        np.testing.assert_allclose(curves.loss, expected.loss, rtol=1e-6)
        np.testing.assert_allclose(curves.eval_loss, expected.eval_loss, rtol=1e-6)


def test_arrays_may_be_of_other_libraries_or_keys():
    keys = jax.random.split(jax.random.key(0), 10)
    batch = lrjax.array_batches({"x": Tensor(DATA["x"]), "key": keys}, 4, shuffle=False)(0)
    np.testing.assert_array_equal(batch["x"], DATA["x"][:4])
    assert batch["key"].dtype == keys.dtype
    with pytest.raises(TypeError, match="data must hold numbers"):
        lrjax.array_batches(Tensor(np.array(["a", "b"])), 1)


@pytest.mark.parametrize("make", [as_batches, lambda name, data: lrjax.array_batches(data, 1)])
def test_data_without_samples_are_refused(make):
    with pytest.raises(ValueError, match="data must hold at least one sample"):
        make("data", {"x": np.zeros((0, 3))})
