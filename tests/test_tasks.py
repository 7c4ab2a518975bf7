import functools

import equinox
import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx
from helpers import BATCHES, KEY, clouds, cross_entropy, network_init, network_loss

import lrjax

DATA = clouds()
BATCH = jax.tree.map(jnp.asarray, DATA)


class LinenNetwork(nn.Module):
    """A network whose flag for training has one of the usual names."""

    @nn.compact
    def __call__(self, x, train):
        x = nn.BatchNorm(use_running_average=not train, momentum=0.5)(nn.Dense(16)(x))
        return nn.Dense(3)(nn.Dropout(0.5, deterministic=not train)(nn.relu(x)))


class Deterministic(nn.Module):
    @nn.compact
    def __call__(self, x, deterministic):
        return LinenNetwork()(x, train=not deterministic)


class NnxNetwork(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(5, 16, rngs=rngs)
        self.norm = nnx.BatchNorm(16, momentum=0.5, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.second = nnx.Linear(16, 3, rngs=rngs)

    def __call__(self, x):
        return self.second(self.dropout(nnx.relu(self.norm(self.first(x)))))


def linen_loss(logits, batch):
    return cross_entropy(logits, batch[1]), {"largest": jnp.abs(logits).max()}


def nnx_loss(model, batch):
    return linen_loss(model(batch[0]), batch)


TASKS = {
    "linen": lambda: lrjax.linen_task(LinenNetwork(), linen_loss, BATCH),
    "linen, deterministic": lambda: lrjax.linen_task(Deterministic(), linen_loss, BATCH),
    "linen, dict": lambda: lrjax.linen_task(
        LinenNetwork(),
        lambda logits, batch: linen_loss(logits, (batch["x"], batch["y"])),
        {"x": BATCH[0], "y": BATCH[1]},
        inputs=lambda batch: batch["x"],
    ),
    "nnx": lambda: lrjax.nnx_task(NnxNetwork, nnx_loss),
}


def batch_for(name):
    return {"x": BATCH[0], "y": BATCH[1]} if "dict" in name else BATCH


@pytest.mark.parametrize("name", TASKS)
def test_batch_norm_and_dropout_train_and_evaluate(name):
    task, batch = TASKS[name](), batch_for(name)
    params, model_state = task.init(KEY)
    loss = jax.jit(task.loss, static_argnums=4)
    first, second = jax.random.split(KEY)

    trained, (changed, metrics) = loss(params, model_state, batch, first, True)
    assert trained.shape == ()
    assert set(metrics) == {"largest"}
    # Dropout draws from the key, and batch normalization moves its averages.
    assert loss(params, model_state, batch, first, True)[0] == trained
    assert loss(params, model_state, batch, second, True)[0] != trained
    before, after = (np.concatenate(jax.tree.leaves(s)) for s in (model_state, changed))
    assert np.abs(after - before).max() > 1e-3
    assert jax.tree.structure(changed) == jax.tree.structure(model_state)

    # Evaluation does neither.
    evaluated, (kept, _) = loss(params, changed, batch, first, False)
    assert loss(params, changed, batch, second, False)[0] == evaluated != trained
    jax.tree.map(np.testing.assert_array_equal, kept, changed)


@pytest.mark.parametrize("name", TASKS)
def test_batch_norm_and_dropout_train_in_lanes(name):
    task = TASKS[name]()
    data = {"x": DATA[0], "y": DATA[1]} if "dict" in name else DATA
    batches = lrjax.array_batches(data, 32)
    curves = lrjax.sweep(
        task, batches, lrjax.sgd, steps=60, lanes={"learning_rate": [0.0, 0.3]}, seeds=2,
        eval_batches=batches, eval_every=20,
    )  # fmt: skip
    assert not curves.diverged.any()
    # The untrained lane's averages move all the same, and dropout's noise stays in its loss.
    assert curves.eval_loss[0, 0, 0] != curves.eval_loss[0, 0, -1]
    assert np.ptp(curves.loss[0, 0]) > 1e-3
    assert (curves.eval_loss[1, :, -1] < 0.5 * curves.loss[1, :, 0]).all()


def test_lanes_draw_their_dropout_from_the_task():
    task, batches = TASKS["linen"](), lrjax.array_batches(DATA, 32)
    params, model_state = task.init(jax.random.key(3))
    curves = lrjax.sweep(
        task, batches, lrjax.sgd, steps=1, lanes={"learning_rate": [0.1]}, seeds=[3]
    )
    draws = jax.vmap(lambda key: task.loss(params, model_state, batches(0), key, True)[0])
    dropped = draws(jax.random.split(KEY, 50))
    assert dropped.min() < curves.loss[0, 0, 0] < dropped.max()


@pytest.mark.parametrize("make", [TASKS["linen"], TASKS["nnx"]])
def test_initial_parameters_depend_on_the_key_alone(make):
    task, again = make(), make()
    jax.tree.map(np.testing.assert_array_equal, task.init(KEY), again.init(KEY))
    one, other = (jax.tree.leaves(task.init(jax.random.key(k))[0]) for k in (0, 1))
    assert any((a != b).any() for a, b in zip(one, other, strict=True))


def test_linen_parameters_are_those_of_a_plain_init():
    params, _ = TASKS["linen"]().init(KEY)
    plain = LinenNetwork().init(KEY, BATCH[0], train=False)["params"]
    jax.tree.map(np.testing.assert_array_equal, params, plain)


def tried(result):
    return lrjax.task(lambda params, batch: result, 0.0).loss(0.0, {}, BATCH, KEY, True)


def test_a_loss_may_be_a_constant():
    loss, (_, metrics) = tried((1.0, {"two": 2}))
    assert (loss.dtype, float(loss), int(metrics["two"])) == (jnp.float32, 1.0, 2)


def test_a_task_of_a_plain_function():
    task = lrjax.task(network_loss, network_init)
    params, model_state = task.init(KEY)
    value, (kept, metrics) = task.loss(params, model_state, BATCH, KEY, True)
    loss, expected = network_loss(params, BATCH)
    assert (value, metrics, kept) == (loss, expected, model_state)
    given = lrjax.task(lambda params, batch: params.sum(), jnp.ones(3))
    np.testing.assert_array_equal(given.init(KEY)[0], np.ones(3))
    assert given.loss(jnp.ones(3), {}, None, KEY, False) == (3, ({}, {}))


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("loss_fn", lambda: lrjax.task(None, jnp.ones(3))),
        ("loss_fn", lambda: lrjax.linen_task(nn.Dense(1), None, BATCH)),
        ("loss_fn", lambda: lrjax.nnx_task(NnxNetwork, None)),
        ("make_model", lambda: lrjax.nnx_task(None, nnx_loss)),
        ("make_model", lambda: lrjax.nnx_task(NnxNetwork(nnx.Rngs(0)), nnx_loss)),
        ("module", lambda: lrjax.linen_task(nn.Dense, network_loss, BATCH)),
        ("inputs", lambda: lrjax.linen_task(nn.Dense(1), network_loss, BATCH, inputs=0)),
        ("rngs", lambda: lrjax.linen_task(nn.Dense(1), network_loss, BATCH, rngs="dropout")),
        ("mutable", lambda: lrjax.linen_task(nn.Dense(1), network_loss, BATCH, mutable="stats")),
        *(
            ("loss_fn must return", lambda result=result: tried(result))
            for result in (
                None,
                (1.0, 0.5),
                (1.0, (0.5, 0.5)),
                (1.0, {"a": {"b": 0.5}}),
                (1.0, {}, 1),
                (None, {}),
            )
        ),
    ],
)
def test_bad_input_names_the_argument(name, call):
    with pytest.raises(TypeError, match=name):
        call()


class Sown(nn.Module):
    @nn.compact
    def __call__(self, x, scale=1.0, mask=None):
        x = nn.Dense(3)(x) * scale
        self.sow("losses", "size", jnp.sum(x))
        return x if mask is None else x * mask


def test_a_linen_module_may_sow_and_take_several_inputs():
    batch = {"x": jnp.ones((4, 2)), "mask": jnp.float32([[1.0, 1.0, 0.0]]), "y": jnp.zeros(4)}

    def loss(outputs, batch):
        return jnp.sum(outputs**2)

    def named(batch):
        return {name: batch[name] for name in ("x", "mask")}

    task = lrjax.linen_task(Sown(), loss, batch, inputs=named, mutable=("losses",))
    params, model_state = task.init(KEY)
    value, (after, _) = task.loss(params, model_state, batch, KEY, True)
    outputs = nn.Dense(3).apply({"params": params["Dense_0"]}, batch["x"])
    expected = outputs * batch["mask"]
    np.testing.assert_allclose(value, jnp.sum(expected**2), rtol=1e-6)
    assert jax.tree.structure(after) == jax.tree.structure(model_state)
    batches = [jax.tree.map(np.asarray, batch)] * 3
    assert lrjax.range_test(task, batches, end=1e-2, steps=3).loss.shape == (1, 3)


class Silent(nn.Module):
    """Tells by the random numbers that it is given whether it trains."""

    @nn.compact
    def __call__(self, x):
        return nn.Dropout(0.5, deterministic=not self.has_rng("dropout"))(nn.Dense(3)(x))


def test_no_random_numbers_are_given_in_evaluation_where_none_are_asked_for():
    task = lrjax.linen_task(Silent(), linen_loss, BATCH)
    params, model_state = task.init(KEY)
    one, other = (
        task.loss(params, model_state, BATCH, jax.random.key(seed), False)[0] for seed in (1, 2)
    )
    assert one == other


class Noisy(nn.Module):
    """Draws whether it trains or not."""

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(3)(x)
        return x + 0.1 * jax.random.normal(self.make_rng("noise"), x.shape)


def test_a_linen_module_may_draw_in_evaluation():
    task = lrjax.linen_task(Noisy(), linen_loss, BATCH, rngs=("noise",))
    params, model_state = task.init(KEY)
    one, same, other = (
        task.loss(params, model_state, BATCH, jax.random.key(seed), False)[0] for seed in (1, 1, 2)
    )
    assert one == same != other


def test_a_module_that_only_trains_needs_no_evaluation():
    network = nn.Sequential([nn.BatchNorm(use_running_average=False), nn.Dense(3)])
    task = lrjax.linen_task(network, linen_loss, BATCH)
    run = functools.partial(lrjax.range_test, task, BATCHES, steps=3, end=1e-2)
    assert np.isfinite(run().loss).all()
    with pytest.raises(flax.errors.ModifyScopeVariableError):
        run(eval_batches=BATCHES)


def test_a_batch_without_a_first_element_needs_inputs():
    batch = {"x": jnp.ones((4, 2))}
    with pytest.raises(TypeError, match="inputs must be given"):
        lrjax.linen_task(nn.Dense(1), linen_loss, batch).init(KEY)


@pytest.mark.filterwarnings("ignore:Using 'Module.sow:DeprecationWarning")
def test_an_nnx_module_may_sow():
    class Model(nnx.Module):
        def __init__(self, rngs):
            self.dense = nnx.Linear(2, 1, rngs=rngs)

        def __call__(self, x):
            x = self.dense(x)
            self.sow(nnx.Intermediate, "outputs", x)
            return x

    task = lrjax.nnx_task(Model, lambda model, batch: jnp.mean(model(batch) ** 2))
    batches = lrjax.array_batches(jnp.ones((8, 2)), 4)
    assert lrjax.range_test(task, batches, end=1e-2, steps=3).loss.shape == (1, 3)


class Scaled(nnx.Module):
    """With arrays in containers that are no variables."""

    def __init__(self, rngs):
        self.dense = nnx.Linear(2, 1, rngs=rngs)
        self.scale = nnx.data({"x": [jnp.full((1, 1), 0.5)]})

    def __call__(self, x):
        return self.scale["x"][0] * self.dense(x)


def weight_norm(rngs):
    return nnx.WeightNorm(nnx.Linear(2, 1, rngs=rngs), rngs=rngs)


@pytest.mark.parametrize("make", [Scaled, weight_norm])
def test_an_nnx_module_may_hold_arrays(make):
    batches = lrjax.array_batches(jnp.ones((8, 2)), 4)
    task = lrjax.nnx_task(make, lambda model, batch: jnp.mean(model(batch) ** 2))
    curves = lrjax.range_test(task, batches, end=1e-2, steps=3)
    first = jnp.mean(make(nnx.Rngs(jax.random.key(0)))(batches(0)) ** 2)
    np.testing.assert_allclose(curves.loss[0, 0], first, rtol=1e-5)


@pytest.mark.parametrize("factory", [lrjax.adamw, optax.adamw])
def test_moments_may_come_from_an_nnx_optimizer(factory):
    task = lrjax.nnx_task(lambda rngs: nnx.Linear(5, 3, rngs=rngs), nnx_loss)
    params, model_state = task.init(KEY)
    grads = jax.tree.map(jnp.ones_like, params)
    with jax.numpy_dtype_promotion("standard"):
        optimizer = factory(1e-3)
        _, plain = optimizer.update(grads, optimizer.init(params), params)
        model = nnx.Linear(5, 3, rngs=nnx.Rngs(0))
        nnx.update(model, params)
        wrapped = nnx.Optimizer(model, optimizer, wrt=nnx.Param)
        wrapped.update(model, grads)
        run = functools.partial(lrjax.range_test, task, BATCHES, factory, start=1e-3, steps=4)
        one, other, fresh = (
            run(initial=(params, model_state, *state)).loss
            for state in ((plain,), (wrapped.opt_state,), ())
        )
    np.testing.assert_allclose(other, one, rtol=1e-6)
    assert np.abs(fresh - one).max() > 1e-6


def test_a_model_state_that_does_not_fit_is_named():
    task = lrjax.nnx_task(NnxNetwork, nnx_loss)
    params, model_state = task.init(KEY)
    model = NnxNetwork(nnx.Rngs(0))
    _, _, rest = nnx.split(model, nnx.Param, ...)
    for state in ({}, rest):
        with pytest.raises(ValueError, match="initial must have a model state"):
            lrjax.range_test(task, BATCHES, steps=3, initial=(params, state))

    def failing(*_):
        raise RuntimeError("of the loss itself")

    # With one that fits, or without an `init`, an error of the loss stays what it is.
    for init, state in [(task.init, model_state), (None, {})]:
        with pytest.raises(RuntimeError, match="of the loss itself"):
            lrjax.range_test(lrjax.Task(init, failing), BATCHES, steps=3, initial=(params, state))


def test_parameters_may_be_a_module_of_equinox():
    params, static = equinox.partition(
        equinox.nn.MLP(2, 1, 4, 1, key=KEY), equinox.is_inexact_array
    )

    def loss(params, batch):
        return jnp.mean(jax.vmap(equinox.combine(params, static))(batch) ** 2)

    batches = lrjax.array_batches(jnp.ones((8, 2)), 4)
    curves = lrjax.range_test(lrjax.task(loss, params), batches, end=1e-2, steps=3)
    np.testing.assert_allclose(curves.loss[0, 0], loss(params, batches(0)), rtol=1e-6)
