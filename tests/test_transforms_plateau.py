import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lrjax

GOLDEN = json.loads(Path(__file__).with_name("golden").joinpath("schedules.json").read_text())
ENTRIES = [
    entry
    for entry in GOLDEN["entries"]
    if entry["schedule"].lower().replace("_", "").endswith("reducelronplateau")
    or entry["schedule"].endswith("reduce_on_plateau")
]
OUR_WORDS = {
    "torch": {"threshold": "rtol"},
    "keras": {"min_delta": "atol"},
    "optax": {},
}


def train(metrics, **options):
    """The scale and the updates after every metric."""
    optimizer = optax.chain(lrjax.sgd(0.5), lrjax.plateau(**options))
    grads = jnp.ones(2)

    def update(state, metric):
        updates, state = optimizer.update(grads, state, value=metric)
        return state, (lrjax.get_hyperparams(state)["scale"], updates)

    _, (scale, updates) = jax.lax.scan(update, optimizer.init(grads), jnp.array(metrics))
    return scale, updates


def scales(metrics, **options):
    return train(metrics, **options)[0]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry["id"])
def test_plateau_is_that_of_the_peers(entry):
    words = OUR_WORDS[entry["peer"]]
    options = {words.get(name, name): value for name, value in entry["kwargs"].items()}
    if entry["peer"] == "keras":
        options["rtol"] = 0.0
    ours = scales(entry["metrics"], convention=entry["peer"], **options)
    np.testing.assert_allclose(ours, entry["values"], rtol=2e-6)


def test_there_are_peers():
    assert {entry["peer"] for entry in ENTRIES} == {"torch", "keras", "optax"}


# One metric that never improves: after how many looks the first cuts come.
@pytest.mark.parametrize(
    ("convention", "patience", "cooldown", "cuts"),
    [
        ("torch", 0, 0, [1, 2, 3]),
        ("torch", 2, 0, [3, 6, 9]),
        ("torch", 2, 2, [3, 8, 13]),
        ("keras", 0, 0, [1, 2, 3]),
        ("keras", 1, 0, [1, 2, 3]),
        ("keras", 2, 0, [2, 4, 6]),
        ("keras", 2, 2, [2, 5, 8]),
        ("optax", 2, 0, [2, 4, 6]),
        ("optax", 2, 2, [2, 6, 10]),
    ],
)
@pytest.mark.parametrize("size", [1, 3])
def test_conventions_of_patience_and_cooldown(convention, patience, cooldown, cuts, size):
    options = {"convention": convention, "patience": patience, "cooldown": cooldown}
    scale = scales([1.0] * 14 * size, factor=0.5, accumulation_size=size, **options)
    looks = np.concatenate([[1.0], scale])[::size]
    assert np.flatnonzero(np.diff(looks))[:3].tolist() == cuts


@pytest.mark.parametrize(
    ("mode", "options", "metrics", "improves"),
    [
        ("min", {"rtol": 0.1, "atol": 0.0}, [1.0, 0.91], False),
        ("min", {"rtol": 0.1, "atol": 0.0}, [1.0, 0.89], True),
        ("min", {"rtol": 0.1, "atol": 0.0}, [-1.0, -1.09], False),
        ("min", {"rtol": 0.1, "atol": 0.0}, [-1.0, -1.11], True),
        ("max", {"rtol": 0.1, "atol": 0.0}, [1.0, 1.09], False),
        ("max", {"rtol": 0.1, "atol": 0.0}, [1.0, 1.11], True),
        ("max", {"rtol": 0.1, "atol": 0.0}, [-1.0, -0.91], False),
        ("max", {"rtol": 0.0, "atol": 0.1}, [1.0, 1.11], True),
        ("min", {"rtol": 0.0, "atol": 0.1}, [1.0, 0.91], False),
        ("min", {"rtol": 0.0, "atol": 0.0}, [0.0, 0.0], False),
        ("min", {}, [1.0, np.nan], False),
    ],
)
def test_what_counts_as_an_improvement(mode, options, metrics, improves):
    cut = scales(metrics, factor=0.5, patience=0, mode=mode, **options)[1] < 1
    assert cut != improves


def test_a_loss_that_is_not_finite_is_no_improvement_and_is_not_remembered():
    metrics = [np.inf, np.nan, 1.0, 0.9]
    assert scales(metrics, factor=0.5, patience=0).tolist() == [0.5, 0.25, 0.25, 0.25]


def test_the_longest_patience_never_cuts():
    assert scales([1.0] * 4, factor=0.5, patience=2**31 - 1).tolist() == [1.0] * 4


def test_updates_are_scaled():
    scale, updates = train([1.0, 1.0, 0.5], factor=0.25, patience=0)
    np.testing.assert_array_equal(updates, [[-0.5] * 2, [-0.125] * 2, [-0.125] * 2])
    assert scale.tolist() == [1.0, 0.25, 0.25]


def test_metrics_are_averaged_over_the_updates_of_a_look():
    scale = scales([4.0, 2.0, 2.0, 3.0, 1.0, 9.0], factor=0.5, patience=0, accumulation_size=2)
    assert scale.tolist() == [1.0, 1.0, 1.0, 1.0, 1.0, 0.5]  # means of 3, 2.5 and 5


def test_the_scale_has_a_floor_and_can_be_reset():
    assert scales([1.0] * 4, factor=0.1, patience=0, min_scale=0.25).tolist() == [
        1,
        0.25,
        0.25,
        0.25,
    ]
    optimizer = lrjax.plateau(0.5, 0)
    state = optimizer.init(jnp.ones(2))
    for _ in range(3):
        _, state = optimizer.update(jnp.ones(2), state, value=1.0)
    assert lrjax.get_hyperparams(state)["scale"] == 0.25
    assert lrjax.get_hyperparams(lrjax.set_hyperparams(state, scale=1))["scale"] == 1


def test_bfloat16_parameters_keep_a_float32_scale():
    params = jnp.ones(2, jnp.bfloat16)
    optimizer = lrjax.plateau(0.9, 0)
    state = optimizer.init(params)
    for value in [1.0, 0.999, 0.9985, 0.9985]:
        updates, state = optimizer.update(params, state, value=jnp.float32(value))
    assert updates.dtype == jnp.bfloat16
    assert lrjax.get_hyperparams(state)["scale"] == np.float32(0.9)


@pytest.mark.parametrize("kind", [np.float64, np.array, jnp.float32, jnp.bfloat16])
def test_factor_and_thresholds_may_be_arrays_of_any_type(kind):
    scale = scales([1.0, 0.95], factor=kind(0.5), patience=0, rtol=kind(0.125), atol=kind(0))
    assert scale.tolist() == [1.0, 0.5]


def test_factor_and_thresholds_may_be_traced():
    @jax.vmap
    def lane(factor, rtol):
        return scales([1.0, 0.9, 0.85], factor=factor, patience=0, rtol=rtol)

    lanes = lane(jnp.array([0.5, 0.25]), jnp.array([0.0, 0.08]))
    np.testing.assert_array_equal(lanes, [[1, 1, 1], [1, 1, 0.25]])


@pytest.mark.parametrize(("given", "error"), [({}, TypeError), ({"value": [1, 2]}, ValueError)])
def test_every_update_must_be_given_a_metric(given, error):
    optimizer = optax.chain(lrjax.sgd(0.1), lrjax.plateau())
    given = jax.tree.map(jnp.float32, given, is_leaf=lambda value: isinstance(value, list))
    with pytest.raises(error, match="value"):
        optimizer.update(jnp.ones(2), optimizer.init(jnp.ones(2)), **given)
