"""Real loops: trained without a break, or saved in mid-cycle, restored elsewhere and continued."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import linen, nnx
from flax.training.train_state import TrainState

import lrjax

STEPS, SAVED_AT = 10, 4
INPUTS = jnp.sin(jnp.arange(16.0)).reshape(8, 2)
TARGETS = jnp.cos(jnp.arange(8.0)).reshape(8, 1)
OPTIMIZERS = {
    "onecycle_sgd": lambda: lrjax.onecycle_sgd(0.1, STEPS, nesterov=True, weight_decay=0.01),
    "onecycle_adamw": lambda: lrjax.onecycle_adamw(0.1, STEPS),
    "cyclical_sgd": lambda: lrjax.cyclical_sgd(0.01, 0.1, 3, 2, mode="triangular2"),
    "discriminative": lambda: lrjax.discriminative(
        lrjax.adamw, {"bias": 0, "body": 0.05, "head": lrjax.linear_decay(0.1, STEPS)}
    ),
    "plateau": lambda: optax.chain(
        optax.clip_by_global_norm(1.0), lrjax.sgd(0.1, 0.9), lrjax.plateau(0.5, 0, atol=0.05)
    ),
    "inject": lambda: lrjax.inject(optax.lion, learning_rate=lrjax.cosine_decay(0.1, STEPS)),
}


def mean_squared_error(outputs):
    return jnp.mean((outputs - TARGETS) ** 2)


class Linen(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.Dense(1, name="head")(jnp.tanh(linen.Dense(4, name="body")(x)))


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.body, self.head = nnx.Linear(2, 4, rngs=rngs), nnx.Linear(4, 1, rngs=rngs)

    def __call__(self, x):
        return self.head(jnp.tanh(self.body(x)))


class Loop(NamedTuple):
    state: Any
    step: Callable  # state -> state
    opt_state: Callable  # state -> the optimizer's state
    saved: Callable = lambda state: state  # state -> what is saved of it
    restored: Callable = lambda state, saved: saved  # a fresh state, what was saved -> state


def plain(optimizer):
    optimizer = optax.with_extra_args_support(optimizer)
    params = Linen().init(jax.random.key(0), INPUTS)["params"]

    def loss_fn(params):
        return mean_squared_error(Linen().apply({"params": params}, INPUTS))

    @jax.jit
    def step(state):
        params, opt_state = state
        loss, grads = jax.value_and_grad(loss_fn)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params, value=loss)
        return optax.apply_updates(params, updates), opt_state

    return Loop((params, optimizer.init(params)), step, lambda state: state[1])


def linen_train_state(optimizer):
    params = Linen().init(jax.random.key(0), INPUTS)["params"]

    @jax.jit
    def step(state):
        def loss_fn(params):
            return mean_squared_error(state.apply_fn({"params": params}, INPUTS))

        return state.apply_gradients(grads=jax.grad(loss_fn)(state.params))

    state = TrainState.create(apply_fn=Linen().apply, params=params, tx=optimizer)
    return Loop(state, step, lambda state: state.opt_state)


def nnx_optimizer(optimizer):
    model = Nnx(nnx.Rngs(0))

    @nnx.jit
    def update(model, optimizer):
        loss, grads = nnx.value_and_grad(lambda model: mean_squared_error(model(INPUTS)))(model)
        optimizer.update(model, grads, value=loss)

    def step(state):
        update(*state)
        return state

    def restored(state, saved):
        for part, values in zip(state, saved, strict=True):
            nnx.update(part, values)
        return state

    return Loop(
        (model, nnx.Optimizer(model, optimizer, wrt=nnx.Param)),
        step,
        opt_state=lambda state: state[1].opt_state,
        saved=lambda state: [nnx.state(part) for part in state],
        restored=restored,
    )


LOOPS = [plain, linen_train_state, nnx_optimizer]
CASES = [
    pytest.param(start, make, id=f"{start.__name__}-{name}")
    for start in LOOPS
    for name, make in OPTIMIZERS.items()
    if (start, name) != (linen_train_state, "plateau")  # which hands no metric to the optimizer
]


def run(loop, state, steps):
    told = []
    for _ in range(steps):
        state = loop.step(state)
        told.append(lrjax.get_hyperparams(loop.opt_state(state)))
    return state, told


@pytest.mark.parametrize(("start", "make"), CASES)
def test_saved_in_mid_cycle_and_restored_it_goes_on_bit_for_bit(start, make, tmp_path):
    loop = start(make())
    first, told_first = run(loop, loop.state, SAVED_AT)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "saved", loop.saved(first))
    loop = start(make())
    with ocp.StandardCheckpointer() as checkpointer:
        saved = checkpointer.restore(tmp_path / "saved", loop.saved(loop.state))
    second, told_second = run(loop, loop.restored(loop.state, saved), STEPS - SAVED_AT)

    loop = start(make())
    whole, told = run(loop, loop.state, STEPS)
    assert told == told_first + told_second
    for a, b in zip(*(jax.tree.leaves(loop.saved(end)) for end in (whole, second)), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("start", LOOPS)
def test_every_update_is_on_schedule(start):
    loop = start(lrjax.onecycle_sgd(0.1, STEPS))
    _, told = run(loop, loop.state, STEPS)
    rates, momentums = lrjax.onecycle(0.1, STEPS), lrjax.onecycle_momentum(STEPS)
    for count, now in enumerate(told):
        np.testing.assert_allclose(now["learning_rate"], rates(count), rtol=1e-6)
        np.testing.assert_allclose(now["momentum"], momentums(count), rtol=1e-6)


def test_the_rate_of_a_train_state_can_be_set():
    loop = linen_train_state(lrjax.sgd(0.1))
    before, _ = run(loop, loop.state, 2)
    programs = loop.step._cache_size()
    opt_state = lrjax.set_hyperparams(before.opt_state, learning_rate=0)
    after = loop.step(before.replace(opt_state=opt_state))
    jax.tree.map(np.testing.assert_array_equal, before.params, after.params)
    assert loop.step._cache_size() == programs


def test_the_rate_of_an_nnx_optimizer_can_be_set():
    loop = nnx_optimizer(lrjax.sgd(0.1))
    (model, optimizer), _ = run(loop, loop.state, 2)
    before = jax.tree.map(jnp.copy, nnx.state(model))
    opt_state = lrjax.set_hyperparams(optimizer.opt_state, learning_rate=0)
    nnx.update(optimizer.opt_state, nnx.state(opt_state))
    loop.step((model, optimizer))
    assert lrjax.get_hyperparams(optimizer.opt_state)["learning_rate"] == 0
    jax.tree.map(np.testing.assert_array_equal, before, nnx.state(model))
