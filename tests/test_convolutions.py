import functools
from unittest import mock

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from helpers import compilations
from jax import lax

import lrjax
from lrjax.convolutions import Rewritten, convolves, planes, rewrite, samples

LAYOUTS = {1: ("NWC", "WIO", "NWC"), 2: ("NHWC", "HWIO", "NHWC"), 3: ("NDHWC", "DHWIO", "NDHWC")}


def normal(seed, shape, dtype=jnp.float32):
    return jax.random.normal(jax.random.key(seed), shape, dtype)


@pytest.fixture(scope="module", autouse=True)
def unoptimized():
    """Many small programs, each of which runs once."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def optimized():
    """For tests of what the optimizations do."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


def assert_same(function, *args, rtol=1e-5):
    """Values and gradients of a function are the same, plain and rewritten."""

    @jax.jit
    def both(*args):
        def one(f):
            value, back = jax.vjp(f, *args)
            grads = jax.tree.map(lambda leaf: normal(9, leaf.shape, leaf.dtype), value)
            return value, back(grads)

        return one(function), one(rewrite(function))

    expected, got = both(*args)
    for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(got), strict=True):
        assert a.dtype == b.dtype
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        np.testing.assert_allclose(b, a, rtol=rtol, atol=rtol * (np.abs(a).max() + 1e-30))


def is_rewritten(function, *args):
    plain, new = (str(jax.make_jaxpr(f)(*args)) for f in (function, rewrite(function)))
    return plain != new


# The shapes of an input and of a kernel, and what else there is to say.
CONVOLUTIONS = {
    "valid": ((2, 7, 6, 3), (3, 3, 3, 4), {}),
    "same": ((2, 7, 6, 3), (3, 2, 3, 4), {"padding": "SAME"}),
    "strides": ((2, 8, 7, 3), (3, 3, 3, 4), {"window_strides": (2, 3), "padding": "SAME"}),
    "strides beyond the kernel": ((2, 8, 9, 3), (1, 2, 3, 4), {"window_strides": (2, 3)}),
    "explicit padding": ((2, 7, 6, 3), (3, 3, 3, 4), {"padding": [(2, 0), (4, 3)]}),
    "negative padding": ((2, 7, 6, 3), (3, 3, 3, 4), {"padding": [(-1, 0), (2, -2)]}),
    "kernel dilation": ((2, 9, 8, 3), (3, 3, 3, 4), {"rhs_dilation": (2, 3)}),
    "input dilation": (
        (2, 4, 5, 3),
        (3, 3, 3, 4),
        {"lhs_dilation": (2, 3), "padding": [(1, 2)] * 2},
    ),
    "all at once": (
        (2, 8, 9, 4),
        (3, 2, 2, 6),
        {
            "window_strides": (2, 1),
            "padding": [(3, 1), (0, 2)],
            "lhs_dilation": (2, 1),
            "rhs_dilation": (1, 2),
            "feature_group_count": 2,
        },
    ),
    "one by one": ((2, 5, 5, 3), (1, 1, 3, 4), {}),
    "whole image": ((2, 5, 4, 3), (5, 4, 3, 4), {}),
    "many outputs": (
        (2, 6, 5, 3),
        (3, 2, 3, planes.MANY_OUTPUTS),
        {"window_strides": (2, 1), "padding": [(1, 2), (0, 1)], "rhs_dilation": (1, 2)},
    ),
    "groups": ((2, 6, 6, 6), (3, 3, 2, 9), {"feature_group_count": 3}),
    "depthwise": ((2, 6, 6, 3), (3, 3, 1, 3), {"feature_group_count": 3, "padding": "SAME"}),
    "depthwise twice": (
        (2, 7, 6, 3),
        (3, 3, 1, 6),
        {"feature_group_count": 3, "window_strides": (2, 1)},
    ),
    "many groups": ((2, 4, 5, 80), (3, 2, 2, 80), {"feature_group_count": 40}),
    "depthwise, cut off": (
        (2, 7, 6, 3),
        (2, 3, 1, 6),
        {"feature_group_count": 3, "padding": [(-1, 2), (1, -1)], "rhs_dilation": (2, 1)},
    ),
    "1-d": ((2, 9, 3), (4, 3, 5), {"window_strides": (2,), "padding": [(1, 2)]}),
    "1-d transposed": ((2, 5, 3), (4, 3, 5), {"lhs_dilation": (2,), "padding": [(2, 3)]}),
    "3-d": (
        (2, 5, 6, 4, 2),
        (3, 2, 3, 2, 3),
        {"window_strides": (2, 1, 1), "padding": "SAME", "rhs_dilation": (1, 2, 1)},
    ),
    "no space": ((3, 4), (4, 5), {"window_strides": (), "padding": ()}),
}


def convolution(shape, **options):
    axes = len(shape) - 2
    options = {"window_strides": (1,) * axes, "padding": "VALID"} | options
    layout = LAYOUTS.get(axes, ("NC", "IO", "NC"))
    return functools.partial(lax.conv_general_dilated, dimension_numbers=layout, **options)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_equal_the_plain_ones(name):
    shape, kernel_shape, options = CONVOLUTIONS[name]
    function = convolution(shape, **options)
    x, kernel = normal(0, shape), normal(1, kernel_shape)
    assert is_rewritten(lambda kernel: function(x, kernel).sum(), kernel)
    assert_same(function, x, kernel)


@pytest.mark.parametrize("name", ["strides", "depthwise", "1-d transposed"])
def test_batches_of_kernels_equal_the_plain_ones(name):
    shape, kernel_shape, options = CONVOLUTIONS[name]
    function = convolution(shape, **options)
    x, kernels = normal(0, shape), normal(1, (3, *kernel_shape))
    assert_same(jax.vmap(function, (None, 0)), x, kernels)

    @jax.jit
    def lanes(kernels):
        def gradients(f):
            return jax.vmap(jax.grad(lambda kernel: jnp.sin(f(x, kernel)).sum()))(kernels)

        return gradients(function), gradients(rewrite(function))

    expected, got = lanes(kernels)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "layout", [("NCHW", "OIHW", "NCHW"), ("HWNC", "HOWI", "CNWH")], ids="".join
)
def test_layouts(layout):
    sizes = dict(zip("NHWC", (2, 6, 5, 3), strict=True))
    kernel_sizes = dict(zip("HWIO", (3, 2, 3, 4), strict=True))
    x = normal(0, [sizes[axis] for axis in layout[0]])
    kernel = normal(1, [kernel_sizes[axis] for axis in layout[1]])
    function = functools.partial(
        lax.conv_general_dilated,
        window_strides=(2, 1),
        padding=[(1, 0), (0, 1)],
        dimension_numbers=layout,
    )
    assert_same(function, x, kernel)


def window(reducer, first, **options):
    def pooled(x):
        return lax.reduce_window(x, first, reducer, **options)

    return pooled


# The shape of an input, and a window over all of its axes.
POOLS = {
    "disjoint": ((2, 6, 4, 3), (1, 2, 2, 1), (1, 2, 2, 1), "VALID"),
    "disjoint with a rest": ((2, 7, 5, 3), (1, 2, 3, 1), (1, 2, 3, 1), "VALID"),
    "overlapping": ((2, 7, 8, 3), (1, 3, 3, 1), (1, 2, 1, 1), "SAME"),
    "with gaps": ((2, 7, 8, 3), (1, 2, 1, 1), (1, 3, 2, 1), "VALID"),
    "padded": ((2, 5, 6, 3), (1, 2, 2, 1), (1, 2, 2, 1), [(0, 0), (1, 0), (1, 1), (0, 0)]),
    "global": ((2, 5, 4, 3), (1, 5, 4, 1), (1, 1, 1, 1), "VALID"),
    "1-d": ((2, 9, 3), (1, 3, 1), (1, 3, 1), "VALID"),
    "3-d": ((2, 4, 4, 5, 2), (1, 2, 2, 2, 1), (1, 2, 2, 2, 1), "VALID"),
    "samples and channels": ((4, 5, 6), (2, 1, 3), (2, 1, 3), "VALID"),
    "as many elements as covered": ((2, 300, 3), (1, 128, 1), (1, 128, 1), "VALID"),
    "as many in two axes": ((2, 32, 9, 3), (1, 32, 4, 1), (1, 32, 4, 1), "VALID"),
}


@pytest.mark.parametrize("kind", [(lax.max, -np.inf), (lax.add, 0.0)], ids=["max", "sum"])
@pytest.mark.parametrize("name", POOLS)
def test_pools_equal_the_plain_ones(name, kind):
    shape, size, strides, padding = POOLS[name]
    pooled = window(*kind, window_dimensions=size, window_strides=strides, padding=padding)
    # With many equal elements, of which one gets the gradient.
    x = jnp.round(2 * normal(0, shape))
    assert_same(pooled, x)
    assert is_rewritten(pooled, x)


def test_dilated_windows_have_gradients_that_jax_lacks():
    options = {"window_dimensions": (2,), "window_strides": (3,), "padding": "VALID"}
    pooled = window(lax.max, -np.inf, window_dilation=(2,), **options)
    x = jnp.array([1.0, 5.0, 3.0, 2.0, 9.0, 2.0, 7.0])
    np.testing.assert_array_equal(rewrite(pooled)(x), pooled(x))
    gradient = jax.grad(lambda x: rewrite(pooled)(x).sum())(x)
    np.testing.assert_array_equal(gradient, [0, 0, 1, 1, 0, 0, 0])


def test_uncovered_operations_stay():
    x, kernel = normal(0, (4, 6, 6, 2)), normal(1, (3, 3, 2, 4))
    grouped = convolution(x.shape, batch_group_count=2)
    dilated = window(
        lax.max,
        -np.inf,
        window_dimensions=(1, 2, 2, 1),
        window_strides=(1, 1, 1, 1),
        padding="VALID",
        base_dilation=(1, 2, 1, 1),
    )
    wide = functools.partial(convolution((1, 200, 1)), normal(0, (1, 200, 1)))
    assert not is_rewritten(lambda kernel: grouped(x, kernel).sum(), kernel)
    assert not is_rewritten(lambda x: dilated(x).sum(), x)
    assert not is_rewritten(lambda kernel: wide(kernel).sum(), normal(1, (150, 1, 1)))
    integers = [jnp.ones(array.shape, jnp.int32) for array in (x, kernel)]
    np.testing.assert_array_equal(
        rewrite(convolution(x.shape))(*integers), convolution(x.shape)(*integers)
    )


def test_precision_and_types():
    x, kernel = normal(0, (2, 6, 6, 3)), normal(1, (3, 3, 3, 4))
    function = convolution(x.shape, window_strides=(2, 2), padding="SAME")
    half = [array.astype(jnp.bfloat16) for array in (x, kernel)]
    assert_same(function, *half, rtol=2e-2)
    wider = functools.partial(function, preferred_element_type=jnp.float32)
    assert_same(wider, *half, rtol=2e-2)
    assert_same(functools.partial(function, precision="highest"), x, kernel)
    with jax.enable_x64(True):
        exact = [array.astype(jnp.float64) for array in (x, kernel)]
        assert_same(function, *exact, rtol=1e-12)


@pytest.mark.parametrize("cache", [1, samples.CACHE_BYTES])
@pytest.mark.parametrize("groups", [1, 8], ids=["dense", "depthwise"])
def test_kernels_have_the_gradients_of_wide_sums(groups, cache):
    """A sum over all pixels, of which bfloat16 would keep two digits, or one."""
    shape, kernel_shape = (8, 16, 16, 8), (3, 3, 8 // groups, 8)
    half = [normal(k, s, jnp.bfloat16) for k, s in enumerate([shape, kernel_shape])]
    weights = normal(2, shape)

    def loss(x, kernel):
        function = convolution(shape, padding="SAME", feature_group_count=groups)
        return (function(x, kernel).astype(jnp.float32) * weights).sum()

    expected = jax.grad(loss, 1)(*(array.astype(jnp.float32) for array in half))
    with mock.patch.object(samples, "CACHE_BYTES", cache):
        found = jax.grad(rewrite(loss), 1)(*half).astype(jnp.float32)
    np.testing.assert_allclose(found, expected, atol=0.01 * np.abs(expected).max())


def test_a_depthwise_layer_keeps_its_input_and_no_more():
    x, kernels = normal(0, (4, 16, 16, 8)), normal(1, (3, 5, 5, 1, 8))
    convolve = convolution(x.shape, padding="SAME", feature_group_count=8)

    def loss(kernels):
        return functools.reduce(convolve, kernels, x).sum()

    _, back = jax.vjp(rewrite(loss), kernels)
    assert sum(leaf.size for leaf in jax.tree.leaves(back)) < 4 * x.size


@st.composite
def some_convolution(draw):
    axes = draw(st.integers(1, 2))
    per_axis = functools.partial(st.lists, min_size=axes, max_size=axes)
    kernel = draw(per_axis(st.integers(1, 3)))
    apart = draw(per_axis(st.integers(1, 2)))
    gaps = draw(per_axis(st.integers(1, 2)))
    strides = draw(per_axis(st.integers(1, 3)))
    padding = draw(per_axis(st.tuples(st.integers(-1, 3), st.integers(-1, 3))))
    # Large enough for a window, whatever is cut off.
    space = [
        draw(st.integers((k - 1) * d + 3, (k - 1) * d + 5))
        for k, d in zip(kernel, apart, strict=True)
    ]
    groups, inputs, outputs = (draw(st.integers(1, 3)) for _ in range(3))
    options = {
        "window_strides": strides,
        "padding": padding,
        "lhs_dilation": gaps,
        "rhs_dilation": apart,
        "feature_group_count": groups,
    }
    return (2, *space, groups * inputs), (*kernel, inputs, groups * outputs), options


@hypothesis.settings(max_examples=5)
@hypothesis.given(some_convolution(), st.booleans())
def test_any_convolution_equals_the_plain_one(case, large):
    shape, kernel_shape, options = case
    # As for large arrays: by matrix products, of a few samples each.
    outputs, cache = (0, 1) if large else (48, samples.CACHE_BYTES)
    with (
        mock.patch.object(planes, "MANY_OUTPUTS", outputs),
        mock.patch.object(samples, "CACHE_BYTES", cache),
    ):
        assert_same(convolution(shape, **options), normal(0, shape), normal(1, kernel_shape))


def block(kernel, x):
    x = jnp.tanh(lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=LAYOUTS[2]))
    return nn.max_pool(x, (2, 2), (1, 1), "SAME")


@jax.custom_jvp
def doubled(kernel, x):
    return block(kernel, x)


@doubled.defjvp
def _doubled_jvp(primals, tangents):
    value, tangent = jax.jvp(block, primals, tangents)
    return value, 2 * tangent


@jax.custom_vjp
def halved(kernel, x):
    return block(kernel, x)


halved.defvjp(
    lambda kernel, x: (block(kernel, x), (kernel, x)),
    lambda saved, grad: jax.tree.map(lambda g: 0.5 * g, jax.vjp(block, *saved)[1](grad)),
)


def times(kernel, x):
    return lax.fori_loop(0, 3, lambda _, x: block(kernel, x), x)


def until(kernel, x):
    body = functools.partial(block, kernel)
    return lax.while_loop(lambda x: jnp.sum(x) < 1e3, lambda x: body(x) + 100, lax.stop_gradient(x))


NESTS = {
    "jit": jax.jit(block),
    "checkpoint": jax.checkpoint(block),
    "checkpoint with a policy": jax.checkpoint(
        block, policy=jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    ),
    "custom_jvp": doubled,
    "custom_vjp": halved,
    "scan": times,
    "cond": lambda kernel, x: lax.cond(x.sum() > 0, block, lambda k, x: 2 * block(k, x), kernel, x),
    "vmap": lambda kernel, x: jax.vmap(lambda x: block(kernel, x[None])[0])(x),
    "jit in checkpoint in scan": lambda kernel, x: lax.scan(
        lambda x, _: (jax.checkpoint(jax.jit(block))(kernel, x), x.sum()), x, length=2
    ),
    "a gradient": lambda kernel, x: jax.grad(lambda x: block(kernel, x).sum())(x),
    "a closure": lambda kernel, x: jax.jit(lambda x: block(kernel, x))(x),
    "constants": lambda kernel, x: jax.jit(lambda k: block(k, jnp.asarray(IMAGES)))(kernel),
}
IMAGES = np.ones((2, 5, 5, 3), np.float32)


@pytest.mark.parametrize("name", NESTS)
def test_transformations_are_seen_through(name):
    function = NESTS[name]
    kernel, x = normal(0, (3, 3, 3, 3)), normal(1, (2, 5, 5, 3))
    assert_same(function, kernel, x)
    assert is_rewritten(function, kernel, x)
    assert convolves(jax.make_jaxpr(function)(kernel, x))


def test_while_loops_are_seen_through():
    kernel, x = normal(0, (3, 3, 3, 3)), normal(1, (2, 5, 5, 3))
    np.testing.assert_allclose(rewrite(until)(kernel, x), until(kernel, x), rtol=1e-5)
    assert is_rewritten(until, kernel, x)


def test_checkpoint_still_recomputes():
    kernel, x = normal(0, (3, 3, 3, 3)), normal(1, (2, 5, 5, 3))

    def saved(function):
        loss = rewrite(lambda kernel, x: function(kernel, jnp.sin(function(kernel, x))).sum())
        _, back = jax.vjp(loss, kernel, x)
        return sum(leaf.size for leaf in jax.tree.leaves(back))

    assert saved(jax.checkpoint(block)) < saved(block)


def test_functions_without_convolutions_are_left_alone():
    def loss(x):
        return jnp.tanh(x @ x).sum()

    x = normal(0, (4, 4))
    assert str(jax.make_jaxpr(rewrite(loss))(x)) == str(jax.make_jaxpr(loss)(x))
    assert not convolves(jax.make_jaxpr(loss)(x))


@jax.custom_jvp
def straight_through(x):
    return jnp.maximum(x, 0)


@straight_through.defjvp
def _straight_through_jvp(primals, tangents):
    return straight_through(*primals), tangents[0]


def pooled(x, size=(2, 2), strides=None):
    return nn.max_pool(x, size, strides or size)


BIAS = normal(3, (1, 1, 1, 4))
# From a convolution's output to a pooling's, and whether that is one chain.
CHAINS = {
    "nothing between": (pooled, True),
    "bias and relu": (lambda x: pooled(nn.relu(x + BIAS)), True),
    "bias first, no relu": (lambda x: pooled(BIAS + x), True),
    "clipped": (lambda x: pooled(jnp.minimum(jnp.maximum(x, -0.5), 0.5)), True),
    "a rest at the end": (lambda x: pooled(x + 1, (3, 2)), True),
    "channels too": (
        lambda x: lax.reduce_window(
            nn.relu(x + 1), -jnp.inf, lax.max, (1, 2, 2, 2), (1, 2, 2, 2), "VALID"
        ),
        True,
    ),
    "used again": (lambda x: (pooled(nn.relu(x)), x.sum()), False),
    "an output": (lambda x: (pooled(x), x), False),
    "another derivative": (lambda x: pooled(straight_through(x)), False),
    "falling": (lambda x: pooled(-x), False),
    "not monotone": (lambda x: pooled(nn.gelu(x)), False),
    "a bias per pixel": (lambda x: pooled(x + normal(4, (1, *x.shape[1:]))), False),
    "a bias per channel, which is pooled": (
        lambda x: lax.reduce_window(
            x + BIAS, -jnp.inf, lax.max, (1, 2, 2, 2), (1, 2, 2, 2), "VALID"
        ),
        False,
    ),
    "overlapping": (lambda x: pooled(x, (3, 3), (2, 2)), False),
    "samples pooled": (
        lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (2, 1, 1, 1), (2, 1, 1, 1), "VALID"),
        False,
    ),
    "itself": (lambda x: pooled(x + x), False),
}


@pytest.mark.parametrize("large", [False, True], ids=["one part", "parts"])
@pytest.mark.parametrize("name", CHAINS)
def test_pooled_convolutions_equal_the_plain_ones(name, large):
    behind, chained = CHAINS[name]
    x, kernel = normal(0, (4, 7, 6, 3)), normal(1, (3, 3, 3, 4))
    convolve = convolution(x.shape, padding="SAME")

    def function(x, kernel):
        return behind(convolve(x, kernel))

    with mock.patch.object(samples, "CACHE_BYTES", 1 if large else samples.CACHE_BYTES):
        assert_same(function, x, kernel)
        program = str(jax.make_jaxpr(rewrite(function))(x, kernel))
    assert ("pooled_convolution" in program) == chained


@pytest.mark.parametrize("size", [2, 3])
def test_a_pool_larger_than_what_it_pools(size):
    def nothing(x, kernel):
        return pooled(nn.relu(convolution(x.shape)(x, kernel)), (size, size)).sum()

    assert_same(nothing, normal(0, (4, 3, 3, 3)), normal(1, (3, 3, 3, 8)))


@pytest.mark.parametrize("shape", [(4, 9, 3), (4, 6, 5, 4, 3)], ids=["1-d", "3-d"])
def test_pooled_convolutions_over_any_axes(shape):
    axes = len(shape) - 2
    convolve = convolution(shape)

    def function(x, kernel):
        return pooled(nn.relu(convolve(x, kernel)), (2,) * axes)

    x, kernel = normal(0, shape), normal(1, (*(2,) * axes, 3, 4))
    assert "pooled_convolution" in str(jax.make_jaxpr(rewrite(function))(x, kernel))
    assert_same(function, x, kernel)
    assert_same(jax.vmap(function, (None, 0)), x, normal(1, (3, *kernel.shape)))


@pytest.mark.parametrize("cache", [1, samples.CACHE_BYTES])
def test_pooled_convolutions_in_half_precision(cache):
    """Parts are added up in float32; the largest output gets the gradient, the bias aside."""
    x, kernel = (normal(k, s, jnp.bfloat16) for k, s in enumerate([(16, 9, 8, 3), (3, 3, 3, 4)]))
    convolve = convolution(x.shape)
    with mock.patch.object(samples, "CACHE_BYTES", cache):
        assert_same(lambda x, kernel: pooled(nn.relu(convolve(x, kernel))), x, kernel, rtol=2e-2)


class Net(nn.Module):
    """One of each: what Flax makes of them is what a rewrite must cover."""

    @nn.compact
    def __call__(self, x, train):
        x = nn.Conv(4, (3, 3), strides=2)(x)
        x = nn.BatchNorm(use_running_average=not train)(x)
        x = nn.max_pool(x, (2, 2), (2, 2))
        x = nn.ConvTranspose(4, (3, 3), strides=(2, 2))(x)
        x = nn.remat(nn.Conv)(6, (3, 3), padding="CIRCULAR", kernel_dilation=2)(nn.gelu(x))
        x = nn.Dropout(0.2, deterministic=not train)(x)
        x = nn.Conv(6, (3, 3), feature_group_count=6)(x)
        x = nn.avg_pool(x, (2, 2), (2, 2), padding="SAME", count_include_pad=False)
        return nn.Dense(3)(x.reshape(len(x), -1))


def cross_entropy(logits, batch):
    picked = jnp.take_along_axis(nn.log_softmax(logits), batch[1][:, None], 1)
    return -picked.mean(), {"accuracy": (logits.argmax(-1) == batch[1]).mean()}


DATA = np.asarray(normal(2, (48, 9, 9, 1))), np.arange(48) % 3
TASK = lrjax.linen_task(Net(), cross_entropy, tuple(array[:2] for array in DATA))


def swept(**options):
    return lrjax.sweep(
        TASK,
        lrjax.array_batches(DATA, 16),
        lrjax.sgd,
        steps=6,
        lanes={"learning_rate": [0.01, 0.1]},
        seeds=2,
        eval_batches=lrjax.array_batches(DATA, 20),
        eval_every=3,
        return_state=True,
        **options,
    )


@pytest.mark.usefixtures("optimized")
def test_a_pool_has_one_largest_element():
    """Even where the compiler computes its elements twice, and rounds them in two ways."""
    batch = tuple(array[:16] for array in DATA)

    def loss(params, model_state, key):
        return TASK.loss(params, model_state, batch, key, True)[0]

    # Compiled once, and run often.
    expected, found = (jax.jit(jax.grad(function)) for function in (loss, rewrite(loss)))
    for key in jax.random.split(jax.random.key(0), 8):
        given = *TASK.init(key), key
        for a, b in zip(*(jax.tree.leaves(f(*given)) for f in (expected, found)), strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("optimized")
def test_sweeps_are_the_same():
    curves, state = swept(lane_batch=3)
    expected, expected_state = swept(rewrite_convolutions=False)
    np.testing.assert_allclose(curves.loss, expected.loss, rtol=1e-4)
    np.testing.assert_allclose(curves.eval_loss, expected.eval_loss, rtol=1e-4)
    np.testing.assert_array_equal(curves.metrics["accuracy"], expected.metrics["accuracy"])
    for a, b in zip(jax.tree.leaves(expected_state), jax.tree.leaves(state), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-3, atol=1e-5)


def test_a_second_sweep_compiles_nothing():
    swept(lane_batch=3)
    with compilations() as seen:
        swept(lane_batch=3)
    assert seen == []


def test_equal_functions_are_rewritten_to_equal_ones():
    assert Rewritten(block) == Rewritten(block)
    assert hash(Rewritten(block)) == hash(Rewritten(block))
    assert Rewritten(block) != Rewritten(times)
