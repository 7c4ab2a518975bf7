"""The scripts that reproduce published results, at a size that only shows that they run."""

import importlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

SCRIPTS = Path(__file__).parent.parent / "benchmarks" / "published"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    with jax.numpy_dtype_promotion("standard"):  # Flax's pooling divides floats by integers
        yield importlib.import_module


def write(path, shape, samples=16):
    rng = np.random.default_rng(0)
    parts = {
        f"{name}_{part}": rng.integers(high, size=size, dtype=np.uint8)
        for part in ("train", "test")
        for name, high, size in (("x", 256, (samples, *shape)), ("y", 10, samples))
    }
    np.savez(path, **parts)
    return str(path)


TINY = {
    "lenet_mnist": "--batch 16 --rows 1cycle --timing-steps 0",
    "clr_policies": "--updates 4 --batch 4 --seeds 1",
    "weight_decay_figure": "--updates 4 --batch 4 --seeds 1",
    "superconvergence_cifar": "--rows cyclical --steps 2 --batch 4 --depth 8 --width 1 --bf16",
}
ROWS = {
    "lenet_mnist": ["1cycle"],
    "clr_policies": ["fixed", "triangular2", "decay", "exp_range"],
    "weight_decay_figure": ["0.01", "0.0032", "0.0018", "0.001"],
    "superconvergence_cifar": ["cyclical"],
}


@pytest.mark.parametrize("name", TINY)
def test_a_script_prints_its_table_and_again_from_its_checkpoints(name, script, tmp_path, capsys):
    shape = (16, 16) if name == "lenet_mnist" else (8, 8, 3)
    data = write(tmp_path / "data.npz", shape)
    call = ["--data", data, "--checkpoints", str(tmp_path / "saved"), *TINY[name].split()]
    script(name).main(call)
    table = capsys.readouterr().out
    assert set(ROWS[name]) <= {line.split()[0] for line in table.splitlines()}
    if name == "superconvergence_cifar":  # the one that is made for several calls
        script(name).main(call)
        assert capsys.readouterr().out == table


def test_the_factor_is_between_the_lengths_that_were_tried(script):
    factor = script("superconvergence_small").factor
    reached = {10: 0.5, 100: 0.8, 1000: 0.7}
    assert factor(0.8, 10, reached) == "10.0"
    assert factor(0.65, 10, reached) == f"{10**0.5:.1f}"
    assert factor(0.4, 100, reached) == "< 0.1"
    assert factor(0.9, 100, reached) == "> 10.0"
    assert factor(np.nan, 100, reached) == "-"


@pytest.mark.parametrize("nesterov", [False, True])
def test_the_optimizer_takes_caffes_steps(script, nesterov):
    params = {"last": {"kernel": jnp.array(2.0), "bias": jnp.array(-1.0)}}
    rates, momenta, decay, last_decay = [0.1, 0.3, 0.2], [0.9, 0.5, 0.7], 0.01, 5
    optimizer = script("shared").caffe_sgd(
        lambda count: jnp.array(rates)[count],
        lambda count: jnp.array(momenta)[count],
        weight_decay=decay,
        nesterov=nesterov,
        last_decay=last_decay,
    )
    state = optimizer.init(params)
    expected, history = {"kernel": 2.0, "bias": -1.0}, {"kernel": 0.0, "bias": 0.0}
    for rate, momentum in zip(rates, momenta, strict=True):
        gradients = jax.tree.map(jnp.cos, params)
        updates, state = optimizer.update(gradients, state, params)
        params = jax.tree.map(jnp.add, params, updates)
        for name, rates_times, decays_times in (("kernel", 1, last_decay), ("bias", 2, 1)):
            gradient = np.cos(expected[name]) + decays_times * decay * expected[name]
            before = history[name]
            history[name] = momentum * before + rates_times * rate * gradient
            step = history[name]
            if nesterov:
                step = (1 + momentum) * step - momentum * before
            expected[name] -= step
    np.testing.assert_allclose([params["last"][k] for k in expected], [*expected.values()], 1e-6)


def test_the_normalization_is_of_the_pixels_around(script):
    x = np.random.default_rng(0).normal(size=(1, 4, 5, 2)).astype(np.float32) * 100
    padded = np.pad(x**2, ((0, 0), (1, 1), (1, 1), (0, 0)))
    around = sum(padded[:, i : i + 4, j : j + 5] for i in range(3) for j in range(3)) / 9
    ours = script("shared").normalized_within_channels(jnp.asarray(x))
    np.testing.assert_allclose(ours, x * (1 + 5e-5 * around) ** -0.75, 1e-5)


def test_pools_reach_over_the_edge_as_caffes(script):
    x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    np.testing.assert_allclose(
        script("shared").average_pooled(x)[0, :, :, 0], [[5.0, 6.5], [11.0, 12.5]]
    )


def test_the_resnet_has_56_layers(script):
    network = script("shared").ResNet(depth=56)
    variables = jax.eval_shape(
        lambda key: network.init(key, jnp.zeros((1, 32, 32, 3)), False), jax.random.key(0)
    )
    kernels = [
        leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(variables["params"])
        if path[-1].key == "kernel"
    ]
    assert len(kernels) == 56
    assert {kernel.shape[-1] for kernel in kernels} == {16, 32, 64, 10}
