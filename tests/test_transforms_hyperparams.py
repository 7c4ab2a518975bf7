import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lrjax

PARAMS = {"body": jnp.ones((2, 3)), "head": jnp.ones(3)}
GRADIENTS = jax.tree.map(lambda p: 0.1 * p, PARAMS)
LABELS = {"body": "slow", "head": "fast"}


def partition(slow, fast):
    return optax.partition({"slow": slow, "fast": fast}, LABELS)


def nested(optimizer):
    return optax.MultiSteps(optax.apply_if_finite(optax.chain(optax.clip(1.0), optimizer), 3), 1)


# What may stand around an optimizer, and what that makes of its hyperparameters' names.
WRAPPERS = {
    "bare": (lambda tx: tx, "{}"),
    "chain": (lambda tx: optax.chain(optax.clip(1.0), tx, optax.identity()), "{}"),
    "named_chain": (lambda tx: optax.named_chain(("a", optax.clip(1.0)), ("b", tx)), "{}"),
    "masked": (lambda tx: optax.masked(tx, {"body": True, "head": False}), "{}"),
    "multi_steps": (lambda tx: optax.MultiSteps(tx, 1), "{}"),
    "apply_if_finite": (lambda tx: optax.apply_if_finite(tx, 3), "{}"),
    "conditionally_mask": (lambda tx: optax.conditionally_mask(tx, lambda step: step >= 0), "{}"),
    "partition": (lambda tx: partition(tx, optax.set_to_zero()), "{}/slow"),
    "partitions": (lambda tx: optax.partition({3: partition(tx, tx)}, 3), "{}/3/fast"),
    "everything": (lambda tx: nested(partition(tx, tx)), "{}/fast"),
    "twice": (lambda tx: optax.chain(tx, tx), "{}/1"),
}
every_wrapper = pytest.mark.parametrize(
    ("wrap", "name"), list(WRAPPERS.values()), ids=list(WRAPPERS)
)


def update_fn(optimizer):
    @jax.jit
    def update(state):
        with jax.numpy_dtype_promotion("standard"):  # MultiSteps mixes its counters with floats
            return optimizer.update(GRADIENTS, state, PARAMS)

    return update


@every_wrapper
def test_hyperparameters_are_those_of_the_last_update(wrap, name):
    schedule = lrjax.linear_decay(1.0, 4)
    optimizer = wrap(lrjax.sgd(schedule, 0.5))
    update, state = update_fn(optimizer), optimizer.init(PARAMS)
    for used in [1.0, 1.0, 0.75, 0.5]:
        told = lrjax.get_hyperparams(state)
        assert told[name.format("learning_rate")] == used
        assert told[name.format("momentum")] == 0.5
        assert list(told) == sorted(told)
        _, state = update(state)


@every_wrapper
def test_set_hyperparams_changes_the_next_update_and_compiles_nothing(wrap, name):
    optimizer = wrap(lrjax.sgd(0.5, lrjax.constant(0.25)))
    update, state = update_fn(optimizer), optimizer.init(PARAMS)
    _, state = update(state)
    name = name.format("learning_rate")
    for value in [0.25, 1, np.float64(0.125), jnp.float32(2.0), jnp.int32(3)]:
        before = lrjax.get_hyperparams(state)
        changed = lrjax.set_hyperparams(state, **{name: value})
        assert lrjax.get_hyperparams(changed) == before | {name: jnp.float32(value)}
        assert lrjax.get_hyperparams(state) == before
        assert jax.tree.map(jnp.shape, changed) == jax.tree.map(jnp.shape, state)
        _, state = update(changed)
        assert lrjax.get_hyperparams(state)[name] == jnp.float32(value)
    assert update._cache_size() == 1


def test_a_value_that_was_set_is_used():
    optimizer = lrjax.sgd(0.5)
    state = lrjax.set_hyperparams(optimizer.init(PARAMS), learning_rate=0.25)
    updates, _ = optimizer.update(GRADIENTS, state)
    jax.tree.map(lambda u, g: np.testing.assert_allclose(u, -0.25 * g), updates, GRADIENTS)


def test_inside_jit_vmap_and_scan():
    optimizer = lrjax.sgd(lrjax.linear_decay(1.0, 4), 0.5)

    @jax.jit
    @jax.vmap
    def lane(momentum):
        def update(state, _):
            state = lrjax.set_hyperparams(state, momentum=momentum)
            _, state = optimizer.update(GRADIENTS, state)
            return state, lrjax.get_hyperparams(state)

        return jax.lax.scan(update, optimizer.init(PARAMS), None, length=3)

    states, told = lane(jnp.array([0.1, 0.2]))
    np.testing.assert_array_equal(told["learning_rate"], [[1.0, 0.75, 0.5]] * 2)
    np.testing.assert_array_equal(told["momentum"], np.float32([[0.1] * 3, [0.2] * 3]))
    np.testing.assert_array_equal(lrjax.get_hyperparams(states)["learning_rate"], [0.5, 0.5])


@pytest.mark.parametrize("value", [0.5, [0.5, 0.25]])
def test_one_value_for_all_lanes_or_one_for_each(value):
    states = jax.vmap(lambda rate: lrjax.sgd(rate).init(PARAMS))(jnp.array([0.1, 0.2]))
    states = lrjax.set_hyperparams(states, learning_rate=np.array(value))
    expected = np.broadcast_to(value, 2)
    np.testing.assert_array_equal(lrjax.get_hyperparams(states)["learning_rate"], expected)


def test_a_state_of_optax_s_inject_hyperparams():
    optimizer = optax.inject_hyperparams(optax.adam)(lrjax.linear_decay(1.0, 4), b1=0.5)
    state = lrjax.set_hyperparams(optimizer.init(PARAMS), b1=0.25)
    told = lrjax.get_hyperparams(state)
    assert (told["learning_rate"], told["b1"]) == (1.0, 0.25)
    with pytest.raises(ValueError, match="learning_rate must not follow a schedule"):
        lrjax.set_hyperparams(state, learning_rate=0.1)


def test_a_state_that_is_placed_stays_placed():
    mesh = jax.make_mesh((2,), ("lanes",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("lanes"))
    states = jax.vmap(lambda rate: lrjax.sgd(rate).init(PARAMS))(jnp.array([0.1, 0.2]))
    states = jax.device_put(states, sharding)
    for value in (0.5, np.array([0.5, 0.25]), jnp.array([0.5, 0.25])):
        changed = lrjax.set_hyperparams(states, learning_rate=value)
        assert lrjax.get_hyperparams(changed)["learning_rate"].sharding == sharding


def test_a_donated_state_leaves_the_arrays_that_were_set():
    rate = jnp.float32(0.25)
    state = lrjax.set_hyperparams(lrjax.sgd(0.5, 0.5).init(PARAMS), learning_rate=rate)
    state = lrjax.set_hyperparams(state, momentum=rate)
    jax.jit(lambda state: jax.tree.map(jnp.copy, state), donate_argnums=0)(state)
    assert rate == 0.25


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), jnp.float32(0.5)])
def test_a_fraction_is_not_cut_to_an_integer(value):
    state = optax.inject_hyperparams(optax.sgd)(learning_rate=1).init(PARAMS)
    assert lrjax.get_hyperparams(lrjax.set_hyperparams(state, learning_rate=2.0)) == {
        "learning_rate": 2
    }
    with pytest.raises(ValueError, match="learning_rate must be a whole number"):
        lrjax.set_hyperparams(state, learning_rate=value)
    with pytest.raises(ValueError, match="learning_rate must be a whole number"):
        jax.jit(lambda value: lrjax.set_hyperparams(state, learning_rate=value))(value)


def test_names_stay_apart_where_patterns_are_numbers():
    groups = lrjax.discriminative(lrjax.sgd, {"0": 0.1, "1": 0.2})
    optimizer = optax.chain(groups, lrjax.sgd(0.3), lrjax.sgd(0.4))
    told = lrjax.get_hyperparams(optimizer.init([jnp.ones(1), jnp.ones(1)]))
    assert sorted(told.values()) == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert told["learning_rate/1"] == np.float32(0.2)


def test_no_hyperparameters():
    for optimizer in [optax.sgd(0.1), optax.adam(lrjax.constant(0.1)), optax.identity()]:
        with pytest.raises(ValueError, match="opt_state must hold hyperparameters"):
            lrjax.get_hyperparams(optimizer.init(PARAMS))
