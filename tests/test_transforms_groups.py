import json
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

import lrjax


class Attention(NamedTuple):
    query: jax.Array
    key: jax.Array
    value: jax.Array


class Linen(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.Dense(1, name="head")(linen.Dense(3, name="body")(x))


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.body = nnx.List([nnx.Linear(2, 3, rngs=rngs), nnx.BatchNorm(3, rngs=rngs)])
        self.head = nnx.Linear(3, 1, rngs=rngs)


# Parameters of the kinds that people have, each with a body and a head.
TREES = {
    "dict": {"body": {"kernel": jnp.ones((2, 3))}, "head": {"kernel": jnp.ones(3)}},
    "linen": Linen().init(jax.random.key(0), jnp.ones((1, 2)))["params"],
    "nnx": nnx.state(Nnx(nnx.Rngs(0)), nnx.Param),
    "list": [{"body": jnp.ones(2)}, {"head": jnp.ones(3)}],
}
every_tree = pytest.mark.parametrize("params", list(TREES.values()), ids=list(TREES))


def steps(optimizer, params, count=2):
    """The updates of gradients of 1, one after another, by the parameters' paths."""
    optimizer = optax.with_extra_args_support(optimizer)
    grads = jax.tree.map(jnp.ones_like, params)
    state, updates = optimizer.init(params), []
    for _ in range(count):
        update, state = jax.jit(optimizer.update)(grads, state, params)
        named = jax.tree_util.tree_leaves_with_path(update)
        updates.append({jax.tree_util.keystr(path): leaf for path, leaf in named})
    return updates, lrjax.get_hyperparams(state)


@every_tree
def test_every_group_has_its_rate(params):
    rates = {"head": lrjax.linear_decay(1.0, 2), "^(0/)?body": 0.25}
    updates, told = steps(lrjax.discriminative(lrjax.sgd, rates, momentum=0.0), params)
    for update, head in zip(updates, [1.0, 0.5], strict=True):
        for path, leaf in update.items():
            np.testing.assert_array_equal(
                leaf, jnp.full_like(leaf, -head if "head" in path else -0.25)
            )
    assert told == {"learning_rate/head": 0.5, "learning_rate/^(0/)?body": 0.25}


@every_tree
def test_zero_freezes(params):
    params = jax.tree.map(lambda p: p * jnp.nan, params)
    optimizer = lrjax.discriminative(optax.adamw, {"body": 0, ".": 0.25}, b1=0.5)
    updates, told = steps(optimizer, params)
    for path, leaf in updates[-1].items():
        assert np.all(leaf == 0) if "body" in path else np.all(np.isnan(leaf))
    assert told == {"learning_rate/.": 0.25, "b1/.": 0.5}


def test_a_frozen_group_has_no_state():
    params = TREES["dict"]
    frozen = lrjax.discriminative(lrjax.sgd, {"body": 0.0, "head": 0.1}, momentum=0.9)
    alone = lrjax.sgd(0.1, 0.9).init(params["head"])
    assert [leaf.shape for leaf in jax.tree.leaves(frozen.init(params))] == [
        leaf.shape for leaf in jax.tree.leaves(alone)
    ]


@pytest.mark.parametrize("factory", [lrjax.sgd, optax.sgd])
def test_a_group_is_what_the_factory_makes_of_it_alone(factory):
    params = TREES["dict"]
    rates = {"body": lrjax.linear_decay(0.5, 4), "head": lrjax.constant(0.25)}
    momentum = lrjax.linear_decay(0.5, 8)
    updates, _ = steps(lrjax.discriminative(factory, rates, momentum=momentum), params)
    for name, rate in rates.items():
        alone, _ = steps(lrjax.sgd(rate, momentum), {name: params[name]})
        for together, by_itself in zip(updates, alone, strict=True):
            path = f"['{name}']['kernel']"
            np.testing.assert_array_equal(together[path], by_itself[path])


def test_the_first_pattern_decides():
    params = {"body": {"kernel": jnp.ones(2), "bias": jnp.ones(2)}, "head": jnp.ones(2)}
    rates = {"bias$": 0.5, "body/": 0.25, "": 0.125}
    (update,), _ = steps(lrjax.discriminative(lrjax.sgd, rates), params, count=1)
    told = {path: -float(leaf[0]) for path, leaf in update.items()}
    assert list(told.values()) == [0.5, 0.25, 0.125]  # body/bias, body/kernel, head


def test_nothing_need_be_left_for_a_default():
    params = {"body": jnp.ones(2), "head": jnp.ones(2)}
    rates = {"body": 0.5, "head": 0.25, ".": 0.125}
    (update,), _ = steps(lrjax.discriminative(lrjax.sgd, rates), params, count=1)
    assert [-float(leaf[0]) for leaf in jax.tree.leaves(update)] == [0.5, 0.25]


@pytest.mark.parametrize("rates", [{"embed": 0, ".": 0.5}, {".": 0.5, "head": 0.25}], ids=str)
def test_a_pattern_that_decides_for_nothing_is_refused(rates):
    with pytest.raises(ValueError, match=r"no earlier one does, got \['(embed|head)'\]"):
        lrjax.discriminative(lrjax.sgd, rates).init({"body": jnp.ones(2), "head": jnp.ones(2)})


def test_a_mask_sees_the_parameters_of_its_group():
    params = {"body": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}, "head": jnp.ones((2, 2))}
    optimizer = lrjax.discriminative(
        lrjax.sgd,
        {"body": 0.5, "head": 0.25},
        weight_decay=1.0,
        mask=lambda params: jax.tree.map(lambda p: p.ndim > 1, params),
    )
    (update,), _ = steps(optimizer, params, count=1)
    assert [-float(leaf.ravel()[0]) for leaf in update.values()] == [0.5, 1.0, 0.5]


def test_rates_of_groups_can_be_set():
    optimizer = lrjax.discriminative(lrjax.sgd, {"body": 0.5, "head": lrjax.constant(0.25)})
    state = lrjax.set_hyperparams(optimizer.init(TREES["dict"]), **{"learning_rate/body": 1})
    told = lrjax.get_hyperparams(state)
    assert told == {"learning_rate/body": 1.0, "learning_rate/head": 0.25}
    for name in ["learning_rate", "learning_rate/head", "learning_rate/tail"]:
        with pytest.raises(ValueError, match=name):
            lrjax.set_hyperparams(state, **{name: 1.0})


def test_optax_tells_parameters_from_the_rest_of_the_state():
    params = {"body": jnp.ones(2), "head": jnp.ones(3)}
    optimizer = lrjax.discriminative(lrjax.sgd, {"body": 0.5, "head": 0.25}, momentum=0.5)
    mapped = optax.tree.map_params(optimizer, lambda p: -jnp.ones_like(p), optimizer.init(params))
    assert sum(float(leaf.sum()) for leaf in jax.tree.leaves(mapped) if leaf.ndim) == -5
    assert lrjax.get_hyperparams(mapped) == lrjax.get_hyperparams(optimizer.init(params))


def test_lanes_may_have_rates_of_their_own():
    @jax.vmap
    def lane(rate):
        low, high = lrjax.geometric_learning_rates(rate / 4, rate, 2)
        rates = {"body": low, "head": high}
        return steps(lrjax.discriminative(lrjax.sgd, rates), TREES["dict"])[1]

    told = lane(jnp.array([1.0, 2.0]))
    np.testing.assert_array_equal(told["learning_rate/body"], [0.25, 0.5])
    np.testing.assert_array_equal(told["learning_rate/head"], [1.0, 2.0])


GOLDEN = json.loads(Path(__file__).with_name("golden").joinpath("schedules.json").read_text())


def test_geometric_learning_rates_are_fastai_s():
    (entry,) = [entry for entry in GOLDEN["entries"] if entry["id"] == "fastai.even_mults"]
    start, stop, n = entry["kwargs"].values()
    rates = lrjax.geometric_learning_rates(start, stop, n)
    np.testing.assert_allclose(rates, entry["values"], rtol=1e-12)
    assert (rates[0], rates[-1]) == (start, stop)
    assert lrjax.geometric_learning_rates(start, stop, 1) == (stop,)


def test_layerwise_decay():
    layers = ["head", "block_1", "block_0"]
    assert lrjax.layerwise_decay(2.0, layers, decay=0.5) == {
        "head": 2,
        "block_1": 1,
        "block_0": 0.5,
    }
    rates = lrjax.layerwise_decay(lrjax.linear_decay(2.0, 4), layers, decay=0.5)
    assert [float(rate(2)) for rate in rates.values()] == [1.0, 0.5, 0.25]
    params = {name: jnp.ones(2) for name in layers}
    (update,), _ = steps(lrjax.discriminative(lrjax.sgd, rates), params, count=1)
    assert [-float(leaf[0]) for leaf in update.values()] == [0.5, 1.0, 2.0]


def test_a_parameter_may_be_called_value():
    params = Attention(*(jnp.ones(2) for _ in Attention._fields))
    rates = lrjax.discriminative(lrjax.sgd, {"attention/value": 0.5, ".": 0.25})
    update, _ = rates.update({"attention": params}, rates.init({"attention": params}))
    assert [-float(leaf[0]) for leaf in update["attention"]] == [0.25, 0.25, 0.5]
