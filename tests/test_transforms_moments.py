"""What `keep_moments` keeps of an optimizer's state, and what starts anew."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import BATCHES, KEY, mixed_types, network_init, plain_loss

import lrjax

PARAMS = network_init(KEY)
GRADS = [jax.grad(plain_loss)(PARAMS, BATCHES(step)) for step in range(4)]
FALL = lrjax.linear_decay(0.1, 50)


def after(optimizer, steps):
    """The state after some updates."""
    state = optimizer.init(PARAMS)
    for grads in GRADS[:steps]:
        _, state = optimizer.update(grads, state, PARAMS)
    return state


def clipped(factory):
    return lambda rate: optax.chain(optax.clip_by_global_norm(1e3), factory(rate))


def decaying(rate):
    """With a decay in front of the momentum, too small to be seen in it."""
    matrices = functools.partial(jax.tree.map, lambda array: array.ndim > 1)
    return lrjax.sgd(rate, 0.9, weight_decay=1e-12, mask=matrices)


momentum = functools.partial(lrjax.sgd, momentum=0.9)
MOMENTUM = [momentum, clipped(momentum), decaying, functools.partial(optax.sgd, momentum=0.9)]
PARTS = optax.ema(0.9), optax.trace(0.9)
TWO = optax.chain(*PARTS)
ADAM = [lrjax.adamw, optax.adamw, clipped(lrjax.adamw), clipped(optax.adamw), optax.adam]


@mixed_types
@pytest.mark.parametrize("rate", [0.1, FALL], ids=["number", "schedule"])
@pytest.mark.parametrize(
    ("old", "new"), [pair for kind in (MOMENTUM, ADAM) for pair in itertools.product(kind, kind)]
)
def test_moments_are_kept_whoever_gathered_them(old, new, rate):
    previous = after(old(rate), 3)
    optimizer = new(lrjax.constant(0.02))
    state = lrjax.keep_moments(optimizer.init(PARAMS), previous)
    # The last update of the new optimizer's own run has the same moments, and its own rate.
    updates, _ = optimizer.update(GRADS[3], state, PARAMS)
    expected, _ = optimizer.update(GRADS[3], after(optimizer, 3), PARAMS)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), updates, expected)


@mixed_types
def test_hyperparameters_and_schedules_start_anew():
    previous = after(lrjax.adamw(FALL, 0.8), 4)
    restarted = lrjax.keep_moments(lrjax.adamw(FALL, 0.9).init(PARAMS), previous)
    values = lrjax.get_hyperparams(restarted)
    np.testing.assert_allclose([values["learning_rate"], values["b1"]], [0.1, 0.9], rtol=1e-6)
    assert restarted.count == 0
    assert restarted.inner_state[0].count == 4  # Adam's own, which belongs to its averages
    plain = lrjax.keep_moments(lrjax.adamw(0.5).init(PARAMS), previous)
    changed = lrjax.set_hyperparams(plain, learning_rate=0.25)
    assert lrjax.get_hyperparams(changed)["learning_rate"] == 0.25


@mixed_types
@pytest.mark.parametrize(
    ("new", "old", "message"),
    [
        (momentum(0.1), lrjax.sgd(0.1), r"TraceState: trace/first\[5, 8\].* got no others"),
        (lrjax.sgd(0.1), momentum(0.1), "expected no others, got TraceState: trace/first"),
        (momentum(0.1), optax.rmsprop(0.1), "trace/.* got ScaleByRmsState: nu/"),
        (lrjax.adamw(0.1), optax.lion(0.1), "nu/first"),
        (lrjax.adamw(0.1), optax.adabelief(0.1), "ScaleByAdamState.* got ScaleByBeliefState"),
        (TWO, optax.chain(*reversed(PARTS)), "got the same in another order"),
    ],
)
def test_other_moments_are_refused(new, old, message):
    with pytest.raises(ValueError, match=f"previous must hold .*{message}"):
        lrjax.keep_moments(new.init(PARAMS), old.init(PARAMS))


@mixed_types
@pytest.mark.parametrize(
    "wrap",
    [
        lambda optimizer: optax.MultiSteps(optimizer, 2),
        lambda optimizer: optax.apply_if_finite(optimizer, 2),
        lambda optimizer: optax.masked(optimizer, {"first": True, "second": False}),
        lambda optimizer: optax.partition(
            {"a": optimizer, "b": optax.set_to_zero()}, {"first": "a", "second": "b"}
        ),
    ],
    ids=["MultiSteps", "apply_if_finite", "masked", "partition"],
)
def test_moments_are_found_within_other_transforms(wrap):
    previous = after(wrap(lrjax.adamw(FALL)), 4)
    state = lrjax.keep_moments(wrap(optax.adamw(0.1)).init(PARAMS), previous)

    def moments(state):
        return [a for a in jax.tree.leaves(state) if a.shape and not jnp.issubdtype(a.dtype, bool)]

    assert len(moments(state)) >= 2
    jax.tree.map(np.testing.assert_array_equal, moments(state), moments(previous))


@mixed_types
def test_moments_keep_the_types_of_the_new_optimizer():
    narrow = optax.adam(0.1, mu_dtype=jnp.bfloat16)
    state = lrjax.keep_moments(narrow.init(PARAMS), after(optax.adam(0.1), 3))
    assert jax.tree.map(jnp.asarray, state[0].mu)["first"].dtype == jnp.bfloat16
    assert jax.tree.structure(state) == jax.tree.structure(narrow.init(PARAMS))


@mixed_types
@pytest.mark.parametrize(
    "plateau",
    [
        lambda: lrjax.plateau(0.5, patience=1),
        lambda: optax.contrib.reduce_on_plateau(0.5, patience=1),
    ],
)
def test_plateaus_start_anew(plateau):
    optimizer = optax.chain(momentum(0.1), plateau())
    previous = optimizer.init(PARAMS)
    for grads in GRADS:
        _, previous = optimizer.update(grads, previous, PARAMS, value=1.0)
    fresh = optimizer.init(PARAMS)
    state = lrjax.keep_moments(fresh, previous)
    jax.tree.map(np.testing.assert_array_equal, state[1], fresh[1])
    jax.tree.map(np.testing.assert_array_equal, state[0].inner_state, previous[0].inner_state)


@mixed_types
def test_moments_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match="previous"):
        lrjax.keep_moments(momentum(0.1).init(jnp.ones(3)), momentum(0.1).init(jnp.ones(4)))
