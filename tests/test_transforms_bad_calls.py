import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lrjax

NAN = float("nan")
PARAMS = {"body": jnp.ones((2, 3)), "head": jnp.ones(3)}
SCHEDULED = lrjax.onecycle_sgd(1.0, 10, weight_decay=0.1).init(PARAMS)
GROUPED = lrjax.discriminative(lrjax.sgd, {"body": 0.1, "head": 0.2}).init(PARAMS)
LANES = jax.vmap(lambda rate: lrjax.sgd(rate).init(PARAMS))(jnp.array([0.1, 0.2]))


def inspects(count):
    return 0.1 if count < 3 else 0.01


def discriminate(rates, params=PARAMS, **hyperparams):
    return lrjax.discriminative(lrjax.sgd, rates, **hyperparams).init(params)


# What is wrong, which error it is, and a word that its text must hold: the argument's name.
BAD_CALLS = [
    (lambda: lrjax.inject("adam", learning_rate=0.1), TypeError, "factory"),
    (lambda: lrjax.inject(lambda rate: None, rate=0.1), TypeError, "factory"),
    (
        lambda: lrjax.inject(lambda rate: optax.chain(lrjax.sgd(rate)), rate=0.1).init(PARAMS),
        ValueError,
        "factory",
    ),
    (lambda: lrjax.inject(optax.adam, lr=0.1), TypeError, "lr"),
    (lambda: lrjax.inject(optax.adam, b1=0.1), TypeError, "learning_rate"),
    (lambda: lrjax.inject(optax.adam, learning_rate=NAN), ValueError, "learning_rate"),
    (lambda: lrjax.inject(optax.adam, learning_rate=0.1, b1=jnp.inf), ValueError, "b1"),
    (lambda: lrjax.inject(optax.adam, learning_rate=inspects), TypeError, "learning_rate"),
    (
        lambda: lrjax.inject(optax.adam, learning_rate=lambda count: np.sin(count)),
        TypeError,
        "learning_rate",
    ),
    (lambda: lrjax.sgd("0.1"), TypeError, "learning_rate"),
    (lambda: lrjax.sgd(None), TypeError, "learning_rate"),
    (lambda: lrjax.sgd(True), TypeError, "learning_rate"),
    (lambda: lrjax.sgd(1j), TypeError, "learning_rate"),
    (lambda: lrjax.sgd(NAN), ValueError, "learning_rate"),
    (lambda: lrjax.sgd(lambda params: params["body"]), TypeError, "learning_rate"),
    (lambda: lrjax.sgd(0.1, -jnp.inf), ValueError, "momentum"),
    (lambda: lrjax.sgd(0.1, (0.8, 0.9)), TypeError, "momentum"),
    (lambda: lrjax.sgd(0.1, None), TypeError, "momentum"),
    (lambda: lrjax.sgd(0.1, nesterov=True), ValueError, "nesterov"),
    (lambda: lrjax.sgd(0.1, 0.9, nesterov="yes"), TypeError, "nesterov"),
    (lambda: lrjax.sgd(0.1, weight_decay=0.1, decoupled=1), TypeError, "decoupled"),
    (lambda: lrjax.sgd(0.1, weight_decay=NAN), ValueError, "weight_decay"),
    (lambda: lrjax.sgd(0.1, weight_decay=0.1, mask="bias"), TypeError, "mask"),
    (lambda: lrjax.sgd(0.1, weight_decay=0.1, mask={"body": 1, "head": 0}), TypeError, "mask"),
    (lambda: lrjax.sgd(-0.1), ValueError, "learning_rate"),
    (lambda: lrjax.sgd(0.1, 9.0), ValueError, "momentum"),
    (lambda: lrjax.sgd(0.1, -0.9), ValueError, "momentum"),
    (lambda: lrjax.sgd(0.1, weight_decay=-0.1), ValueError, "weight_decay"),
    (lambda: lrjax.adamw(-0.1), ValueError, "learning_rate"),
    (lambda: lrjax.adamw(0.1, b1=1.0), ValueError, "b1"),
    (lambda: lrjax.adamw(0.1, b2=jnp.array([0.9, 2.0])), ValueError, "b2"),
    (lambda: lrjax.adamw(0.1, eps=-1e-8), ValueError, "eps"),
    (lambda: lrjax.adamw(0.1, weight_decay=-0.1), ValueError, "weight_decay"),
    (lambda: lrjax.onecycle_sgd(1.0, 10, momentum=(85, 95)), ValueError, "momentum"),
    (lambda: lrjax.cyclical_sgd(0.1, 1.0, 4, gamma=0.9), ValueError, "gamma"),
    (lambda: lrjax.adamw(0.1, b1=None), TypeError, "b1"),
    (lambda: lrjax.adamw(0.1, b2=NAN), ValueError, "b2"),
    (lambda: lrjax.adamw(0.1, eps="1e-8"), TypeError, "eps"),
    (lambda: lrjax.adamw(0.1, weight_decay=[0.1, 0.2]), TypeError, "weight_decay"),
    (lambda: lrjax.adamw(0.1, mask="bias"), TypeError, "mask"),
    (lambda: lrjax.cyclical_sgd(0.1, 1.0, 0), ValueError, "steps_up"),
    (lambda: lrjax.cyclical_sgd(0.1, 1.0, 2.5), TypeError, "steps_up"),
    (lambda: lrjax.cyclical_sgd(0.1, 1.0, 4, -1), ValueError, "steps_down"),
    (lambda: lrjax.cyclical_sgd(0.1, NAN, 4), ValueError, "peak_value"),
    (lambda: lrjax.cyclical_sgd(0.1, 1.0, 4, mode="square"), ValueError, "mode"),
    (lambda: lrjax.cyclical_sgd(0.1, 1.0, 4, mode="exp_range", gamma=NAN), ValueError, "gamma"),
    (lambda: lrjax.cyclical_sgd(0.1, 1.0, 4, momentum=(0.8,)), ValueError, "momentum"),
    (lambda: lrjax.cyclical_sgd(0.1, 1.0, 4, momentum=(0.8, NAN)), ValueError, "momentum"),
    (lambda: lrjax.cyclical_sgd(0.1, 1.0, 4, momentum=0, nesterov=True), ValueError, "nesterov"),
    (lambda: lrjax.cyclical_sgd(0.1, 1.0, 4, dampening=0.1), TypeError, "dampening"),
    (lambda: lrjax.onecycle_sgd(1.0, 0), ValueError, "total_steps"),
    (lambda: lrjax.onecycle_sgd(1.0, 10, pct_start=1.5), ValueError, "pct_start"),
    (lambda: lrjax.onecycle_sgd(1.0, 10, anneal="square"), ValueError, "anneal"),
    (lambda: lrjax.onecycle_sgd(1.0, 10, momentum=(0.8, 0.9, 0.8)), ValueError, "momentum"),
    (lambda: lrjax.onecycle_sgd(1.0, 10, momentum=(0.95, 0.85)), ValueError, "momentum"),
    (lambda: lrjax.onecycle_adamw(1.0, 10, b1=(0.95, 0.85)), ValueError, "b1"),
    (lambda: lrjax.onecycle_adamw(1.0, 10, b1=(0.85, NAN)), ValueError, "b1"),
    (lambda: lrjax.onecycle_adamw(1.0, 10, b2="0.99"), TypeError, "b2"),
    (lambda: lrjax.onecycle_adamw(1.0, 10, final_div=3), TypeError, "final_div"),
    (lambda: discriminate({}), ValueError, "learning_rates"),
    (lambda: discriminate([("body", 0.1)]), TypeError, "learning_rates"),
    (lambda: discriminate({3: 0.1}), TypeError, "learning_rates"),
    (lambda: discriminate({"(": 0.1}), ValueError, "learning_rates"),
    (lambda: discriminate({"body": 0.1}), ValueError, "head"),
    (lambda: discriminate({"bo": 0.1, "he": 0.2, "tail": 0.3}), ValueError, "tail"),
    (lambda: discriminate({".": 0.1, "head": 0.2}), ValueError, "head"),
    (lambda: discriminate({"body": NAN, "head": 0.1}), ValueError, "body"),
    (lambda: discriminate({"body": False, "head": 0.1}), TypeError, "body"),
    (lambda: discriminate({"body": None, "head": 0.1}), TypeError, "body"),
    (lambda: discriminate({".": 0.1}, learning_rate=0.1), TypeError, "learning_rate"),
    (lambda: discriminate({".": 0}, dampening=0.1), TypeError, "dampening"),
    (lambda: discriminate({".": 0.1}, weight_decay=NAN), ValueError, "weight_decay"),
    (lambda: lrjax.geometric_learning_rates(0.1, 1.0, 0), ValueError, "num_groups"),
    (lambda: lrjax.geometric_learning_rates(0.1, 1.0, 2.5), TypeError, "num_groups"),
    (lambda: lrjax.geometric_learning_rates(0.0, 1.0, 3), ValueError, "low"),
    (lambda: lrjax.geometric_learning_rates(0.1, NAN, 3), ValueError, "high"),
    (lambda: lrjax.geometric_learning_rates([0.1, 0.2], 1.0, 3), TypeError, "low"),
    (lambda: lrjax.geometric_learning_rates(0.1, [], 3), TypeError, "high"),
    (lambda: lrjax.layerwise_decay(0.1, ["a", "b"], decay=[0.5]), TypeError, "decay"),
    (lambda: lrjax.layerwise_decay("0.1", ["head"], decay=0.5), TypeError, "learning_rate"),
    (lambda: lrjax.layerwise_decay(0.1, "head", decay=0.5), TypeError, "patterns"),
    (lambda: lrjax.layerwise_decay(0.1, [], decay=0.5), ValueError, "patterns"),
    (lambda: lrjax.layerwise_decay(0.1, ["head", "head"], decay=0.5), ValueError, "patterns"),
    (lambda: lrjax.layerwise_decay(0.1, ["head"], decay=0.0), ValueError, "decay"),
    (lambda: lrjax.plateau(0.0), ValueError, "factor"),
    (lambda: lrjax.plateau(1.5), ValueError, "factor"),
    (lambda: lrjax.plateau("half"), TypeError, "factor"),
    (lambda: lrjax.plateau(0.5, -1), ValueError, "patience"),
    (lambda: lrjax.plateau(0.5, 2.5), TypeError, "patience"),
    (lambda: lrjax.plateau(mode="auto"), ValueError, "mode"),
    (lambda: lrjax.plateau(rtol=-0.1), ValueError, "rtol"),
    (lambda: lrjax.plateau(atol=NAN), ValueError, "atol"),
    (lambda: lrjax.plateau(cooldown=-1), ValueError, "cooldown"),
    (lambda: lrjax.plateau(min_scale=2), ValueError, "min_scale"),
    (lambda: lrjax.plateau(accumulation_size=0), ValueError, "accumulation_size"),
    (lambda: lrjax.plateau(convention="fastai"), ValueError, "convention"),
    (lambda: lrjax.get_hyperparams(optax.adam(0.1).init(PARAMS)), ValueError, "opt_state"),
    (lambda: lrjax.get_hyperparams(None), ValueError, "opt_state"),
    (lambda: lrjax.set_hyperparams(optax.adam(0.1).init(PARAMS), b1=0.1), ValueError, "opt_state"),
    (lambda: lrjax.set_hyperparams(SCHEDULED, learning_rate=0.1), ValueError, "learning_rate"),
    (lambda: lrjax.set_hyperparams(SCHEDULED, b1=0.1), ValueError, "b1"),
    (lambda: lrjax.set_hyperparams(SCHEDULED, weight_decay=NAN), ValueError, "weight_decay"),
    (lambda: lrjax.set_hyperparams(SCHEDULED, weight_decay="0.1"), TypeError, "weight_decay"),
    (lambda: lrjax.set_hyperparams(SCHEDULED, weight_decay=[0.1]), TypeError, "weight_decay"),
    (lambda: lrjax.set_hyperparams(GROUPED, learning_rate=0.1), ValueError, "learning_rate"),
    (lambda: lrjax.set_hyperparams(LANES, learning_rate=np.ones(3)), ValueError, "learning_rate"),
    (
        lambda: lrjax.set_hyperparams(LANES, learning_rate=lrjax.constant(0.1)),
        TypeError,
        "learning_rate",
    ),
]


@pytest.mark.parametrize(("call", "error", "name"), BAD_CALLS)
def test_a_bad_call_is_refused_by_name(call, error, name):
    with pytest.raises(error, match=rf"\b{re.escape(name)}\b"):
        call()


def test_a_schedule_that_fails_is_refused_with_what_it_raised():
    def broken(count):
        return undefined * count  # noqa: F821

    with pytest.raises(
        TypeError, match="learning_rate must be a number, an array or a sch"
    ) as told:
        lrjax.sgd(broken)
    assert isinstance(told.value.__cause__, NameError)
