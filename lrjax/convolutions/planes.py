"""Convolutions, as plain ones over two axes of channels-last arrays, and matrix products."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from lrjax._dtypes import wider
from lrjax.convolutions.samples import part_by_part, parts
from lrjax.convolutions.windows import MAX_TAPS, Window, only, pad, put_back, taps

# Below, `x` is [samples, *space, channels] and a kernel [*space, inputs, outputs].


class Geometry(NamedTuple):
    """How a kernel is laid over the axes of space, and how products are added up."""

    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    precision: Any
    dtype: Any

    def axes(self, which: slice) -> Geometry:
        """Of some axes only."""
        strides, padding, dilation, *sums = self
        return Geometry(strides[which], padding[which], dilation[which], *sums)

    def window(self, size: tuple[int, ...]) -> Window:
        """A kernel's window over all of `x`."""
        return Window(
            (1, *size, 1),
            (1, *self.strides, 1),
            ((0, 0), *self.padding, (0, 0)),
            (1, *self.dilation, 1),
        )

    def only(self, axis: int) -> Geometry:
        """The same along one axis, and nothing along the others."""
        strides, padding, dilation, *sums = self
        return Geometry(
            only(strides, axis, 1), only(padding, axis, (0, 0)), only(dilation, axis, 1), *sums
        )


def rule(
    _: tuple[int, ...],
    kernel: tuple[int, ...],
    __: tuple[int, ...],
    *,
    window_strides,
    padding,
    lhs_dilation,
    rhs_dilation,
    dimension_numbers,
    feature_group_count,
    batch_group_count,
    precision,
    preferred_element_type,
    out_sharding=None,
) -> Callable | None:
    """A convolution of any layout, over any number of axes, with any gaps and groups."""
    space = [kernel[axis] for axis in dimension_numbers.rhs_spec[2:]]
    if math.prod(space) > MAX_TAPS or batch_group_count > 1 or out_sharding:
        return None
    return functools.partial(
        _any_layout,
        dimension_numbers=dimension_numbers,
        gaps=tuple(lhs_dilation),
        groups=feature_group_count,
        geometry=Geometry(
            tuple(window_strides),
            tuple(padding),
            tuple(rhs_dilation),
            precision,
            preferred_element_type,
        ),
    )


def _any_layout(x, kernel, *, dimension_numbers, gaps, groups, geometry):
    def channels_last(spec):
        return spec[0], *spec[2:], spec[1]

    x_spec, (outputs, inputs, *space), out_spec = dimension_numbers
    x = x.transpose(channels_last(x_spec))
    kernel = kernel.transpose(*space, inputs, outputs)
    if max(gaps, default=1) > 1:
        x = pad(x, ((0, 0), *geometry.padding, (0, 0)), (1, *gaps, 1))
        geometry = geometry._replace(padding=((0, 0),) * len(gaps))
    out = _grouped(x, kernel, groups, geometry)
    places = channels_last(out_spec)
    return out.transpose([places.index(axis) for axis in range(out.ndim)])


def _grouped(x, kernel, groups, geometry):
    if groups == 1:
        return _spatial(x, kernel, geometry)
    if kernel.shape[-2] == 1:
        return _depthwise(x, kernel, geometry)

    def first(array):
        """The groups along a new first axis."""
        return jnp.moveaxis(array.reshape(*array.shape[:-1], groups, -1), -2, 0)

    out = lax.map(lambda part: _spatial(part[0], part[1], geometry), (first(x), first(kernel)))
    return jnp.moveaxis(out, 0, -2).reshape(*out.shape[1:-1], -1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _depthwise(x, kernel, geometry):
    """Of channels that do not mix, each with some outputs: sums over elementwise products."""
    weights, wide = _weights(x, kernel), wider(x.dtype, jnp.float32)

    def outputs(x):
        seen = taps(x, geometry.window(kernel.shape[:-2]))
        out = sum(
            (tap[..., None].astype(wide) * w for tap, w in zip(seen, weights, strict=True)),
            start=jnp.zeros((), wide),
        )
        return (), out.reshape(*out.shape[:-2], kernel.shape[-1]).astype(geometry.dtype or x.dtype)

    return part_by_part(outputs, _depthwise_parts(x, kernel), x)[1]


def _depthwise_parts(x, kernel):
    """How many parts of the samples, what every place of the kernel sees of them beside them."""
    return parts(len(x), _bytes(x) * math.prod(kernel.shape[:-2]))


def _weights(x, kernel):
    """For each place in the kernel what multiplies a channel, [channels, outputs of each]."""
    shape = *(1,) * (x.ndim - 1), x.shape[-1], kernel.shape[-1] // x.shape[-1]
    return kernel.astype(wider(kernel.dtype, jnp.float32)).reshape(-1, *shape)


def _depthwise_forward(x, kernel, geometry):
    # Autodiff would keep what every place of the kernel saw.
    return _depthwise(x, kernel, geometry), (x, kernel)


def _depthwise_backward(geometry, saved, grad):
    x, kernel = saved
    weights, wide = _weights(x, kernel), wider(x.dtype, jnp.float32)
    window = geometry.window(kernel.shape[:-2])
    grad = grad.reshape(*grad.shape[:-1], x.shape[-1], -1)

    def gradients(x, grad):
        x_wide, grad = x.astype(wide), grad.astype(wide)
        products = [(tap[..., None] * grad).sum(range(x.ndim - 1)) for tap in taps(x_wide, window)]
        x_grad = put_back([(grad * weight).sum(-1) for weight in weights], x.shape, window)
        return jnp.stack(products), x_grad.astype(x.dtype)

    total, x_grad = part_by_part(gradients, _depthwise_parts(x, kernel), x, grad)
    return x_grad, total.reshape(kernel.shape).astype(kernel.dtype)


_depthwise.defvjp(_depthwise_forward, _depthwise_backward)


def _spatial(x, kernel, geometry):
    """A convolution over any number of axes, by one over two."""
    count = len(geometry.strides)
    if count < 2:
        strides, padding, dilation, *sums = geometry
        geometry = Geometry((1, *strides), ((0, 0), *padding), (1, *dilation), *sums)
        return _spatial(x[:, None], kernel[None], geometry)[:, 0]
    if count == 2:
        return planar(x, kernel, geometry)
    # What a slice of the kernel sees along the first axis goes to the samples.
    first, others = geometry.axes(slice(1)), geometry.axes(slice(1, None))
    seen = taps(x.reshape(*x.shape[:2], -1), first.window(kernel.shape[:1]))
    out = sum(
        (
            _spatial(tap.reshape(-1, *x.shape[2:]), part, others)
            for tap, part in zip(seen, kernel, strict=True)
        ),
        start=jnp.zeros((), geometry.dtype or x.dtype),
    )
    return out.reshape(*seen[0].shape[:2], *out.shape[1:])


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def planar(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """A convolution over two axes, whose gradients are one of its kind and matrix products.

    Example:
        >>> geometry = Geometry((1, 1), ((1, 1), (1, 1)), (1, 1), None, None)
        >>> planar(jnp.ones((1, 3, 3, 1)), jnp.ones((3, 3, 1, 1)), geometry)[0, :, :, 0]
        Array([[4., 6., 4.],
               [6., 9., 6.],
               [4., 6., 4.]], dtype=float32)
    """
    strides, padding, dilation, precision, dtype = geometry
    if min(map(min, padding)) < 0:
        x, padding = pad(x, ((0, 0), *padding, (0, 0))), ((0, 0), (0, 0))
    if 1 < x.shape[-1] < FEW_INPUTS:
        missing = FEW_INPUTS - x.shape[-1]
        x = pad(x, ((0, 0), (0, 0), (0, 0), (0, missing)))
        kernel = pad(kernel, ((0, 0), (0, 0), (0, missing), (0, 0)))
    return lax.conv_general_dilated(
        x,
        kernel,
        strides,
        padding,
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=precision,
        preferred_element_type=dtype,
    )


FEW_INPUTS = 4  # the three colours of a picture take up to three times as long without a fourth


def _planar_forward(x, kernel, geometry):
    return planar(x, kernel, geometry), (x, kernel)


def _planar_backward(geometry, saved, grad):
    x, kernel = saved
    geometry, grad = geometry._replace(dtype=None), grad.astype(x.dtype)
    return (
        _input_gradient(x.shape, kernel, grad, geometry),
        _kernel_gradient(x, kernel.shape, grad, geometry),
    )


planar.defvjp(_planar_forward, _planar_backward)


def _input_gradient(shape, kernel, grad, geometry):
    """A convolution of its own, or for many outputs, which it is slow with, matrix products."""
    if kernel.shape[-1] < MANY_OUTPUTS:
        return _flipped_convolution(shape, kernel, grad, geometry)

    def rows(grad):
        return (), _rows_put_back((len(grad), *shape[1:]), kernel, grad, geometry)

    columns = _bytes(grad) * kernel.shape[1] * kernel.shape[2] / kernel.shape[3]
    return part_by_part(rows, parts(len(grad), columns), grad)[1]


MANY_OUTPUTS = 48  # measured with 2 cores


def _flipped_convolution(shape, kernel, grad, geometry):
    """The output's gradient, its elements as far apart as the strides, with the flipped kernel."""
    strides, padding, dilation, *_ = geometry
    edges = []
    for length, width, count, stride, (low, _), apart in zip(
        shape[1:3], kernel.shape[:2], grad.shape[1:3], strides, padding, dilation, strict=True
    ):
        before = (width - 1) * apart - low
        edges.append((before, length + low - (count - 1) * stride - 1))
    if max(strides) > 1:
        grad, edges = pad(grad, ((0, 0), *edges, (0, 0)), (1, *strides, 1)), [(0, 0), (0, 0)]
    kernel = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
    return planar(grad, kernel, geometry._replace(strides=(1, 1), padding=tuple(edges)))


def _rows_put_back(shape, kernel, grad, geometry):
    """For each row of the kernel what it adds to the columns it saw."""
    height, width, _, outputs = kernel.shape
    down, across = geometry.only(0).window((height, 1)), geometry.only(1).window((1, width))
    flat = grad.reshape(-1, outputs)
    rows = []
    for row in kernel:
        columns = lax.dot_general(
            flat, row.reshape(-1, outputs), (((1,), (1,)), ((), ())), precision=geometry.precision
        ).reshape(*grad.shape[:3], -1)
        seen = (*grad.shape[:2], *shape[2:])
        rows.append(put_back(jnp.split(columns, width, -1), seen, across))
    return put_back(rows, shape, down)


def _bytes(x):
    return x.size * x.dtype.itemsize


def _kernel_gradient(x, shape, grad, geometry):
    """The sum over parts of the samples."""

    def product(x, grad):
        return _product_with_columns(x, shape, grad, geometry), ()

    height, width, inputs, outputs = shape
    count = parts(len(grad), _bytes(grad) * height * width * inputs / outputs)
    return part_by_part(product, count, x, grad)[0]


def _product_with_columns(x, shape, grad, geometry):
    """The matrix product of the gradient with what the elements of the kernel saw."""
    *size, inputs, outputs = shape
    columns = jnp.concatenate(taps(x, geometry.window(tuple(size))), -1)
    columns, flat = columns.reshape(-1, math.prod(size) * inputs), grad.reshape(-1, outputs)
    # The product is fast whose right side is the wider one.
    swapped = columns.shape[1] > outputs
    left, right = (flat, columns) if swapped else (columns, flat)
    product = lax.dot_general(left, right, (((0,), (0,)), ((), ())), precision=geometry.precision)
    # XLA would turn a transposed product into one with its sides swapped back.
    return (lax.optimization_barrier(product).T if swapped else product).reshape(shape)
