import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lrjax.lanes import make_lanes


def test_a_grid_has_its_axes_in_order_and_seeds_last():
    lanes = make_lanes({"b": [1, 2, 3], "a": [0.5, 0.25]}, seeds=[4, 7])
    assert list(lanes.axes) == ["b", "a", "seed"]
    assert lanes.shape == (3, 2, 2)
    assert len(lanes) == 12
    expected = np.meshgrid([1, 2, 3], [0.5, 0.25], [4, 7], indexing="ij")
    flat = lanes.hyperparams["b"], lanes.hyperparams["a"], lanes.seeds
    for values, grid in zip(flat, expected, strict=True):
        np.testing.assert_array_equal(values.reshape(lanes.shape), grid)
    assert lanes.listed == {}


def test_a_list_has_an_axis_of_lanes():
    lanes = make_lanes([{"a": 1, "b": 2}, {"b": 3, "a": 4}], seeds=2)
    assert {name: axis.tolist() for name, axis in lanes.axes.items()} == {
        "lane": [0, 1],
        "seed": [0, 1],
    }
    assert lanes.hyperparams["a"].tolist() == [1, 1, 4, 4]
    assert lanes.hyperparams["b"].tolist() == [2, 2, 3, 3]
    assert lanes.listed["b"].tolist() == [2, 3]
    assert lanes.seeds.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("array", [list, tuple, np.array, jnp.array, lambda seeds: range(3, 5)])
def test_seeds_may_be_any_list(array):
    np.testing.assert_array_equal(make_lanes(None, array([3, 4])).seeds, [3, 4])


def test_without_lanes_there_is_one_per_seed():
    lanes = make_lanes(None, seeds=3)
    assert (lanes.shape, lanes.hyperparams, lanes.listed) == ((3,), {}, {})


@pytest.mark.parametrize("lanes", [{}, [], [{}], {"a": []}, {"seed": [1]}, {1: [1]}, {"a": [[1]]}])
def test_lanes_that_are_none_are_refused(lanes):
    with pytest.raises(ValueError, match="lanes"):
        make_lanes(lanes, seeds=1)


def test_lanes_have_the_digits_of_x64():
    with jax.enable_x64(True):
        lanes = make_lanes({"learning_rate": [0.1]}, 1)
    assert lanes.hyperparams["learning_rate"].tolist() == [0.1]
