"""Convolutions whose outputs are pooled at once: samples in parts that stay in the cache."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.extend.core import Jaxpr, JaxprEqn, Var

from lrjax.convolutions import pools
from lrjax.convolutions.samples import part_by_part, parts
from lrjax.convolutions.windows import Window


class Step(NamedTuple):
    """An elementwise operation, and which of its operands comes from the convolution."""

    eqn: JaxprEqn
    place: int


class Chain(NamedTuple):
    """A convolution, elementwise steps that commute with a maximum, and the max-pooling behind."""

    convolution: JaxprEqn
    steps: tuple[Step, ...]
    pool: JaxprEqn
    convolve: Callable[[jax.Array, jax.Array], jax.Array]
    window: Window

    @property
    def result(self) -> Var:
        """What the pooling gives."""
        return self.pool.outvars[0]

    @property
    def inner(self) -> list[Var]:
        """What is between the ends."""
        return [eqn.outvars[0] for eqn in (self.convolution, *(step.eqn for step in self.steps))]

    def evaluate(self, read: Callable[[Any], Any]) -> jax.Array:
        """The result, for a function that gives the values of variables.

        The steps never fall where their operand rises, so that the largest element of a window is
        still the largest after them: they come behind the pooling, where there are fewer elements.
        """
        x, kernel = map(read, self.convolution.invars)
        x = pooled_convolution(x, kernel, self.convolve, self.window)
        for eqn, place in self.steps:
            if eqn.primitive.name == "custom_jvp_call":
                x = jax.nn.relu(x)
            else:
                operands = [x if k == place else read(atom) for k, atom in enumerate(eqn.invars)]
                x = eqn.primitive.bind(*operands, **eqn.params)
        return x


def find_chains(jaxpr: Jaxpr, rule: Callable[[JaxprEqn], Callable | None]) -> list[Chain]:
    """The chains of a program: what is between their ends has no other use.

    Args:
        jaxpr: the program.
        rule: what an operation becomes, `(*operands) -> result`, or None where it stays.
    """
    uses = Counter(atom for eqn in jaxpr.eqns for atom in eqn.invars if isinstance(atom, Var))
    uses.update(atom for atom in jaxpr.outvars if isinstance(atom, Var))
    makers = {var: eqn for eqn in jaxpr.eqns for var in eqn.outvars if uses[var] == 1}
    ends = [eqn for eqn in jaxpr.eqns if eqn.primitive.name == "reduce_window_max"]
    return [chain for pool in ends if (chain := _chain(pool, makers, rule))]


def _chain(pool, makers, rule) -> Chain | None:
    """The chain that ends in a pooling, if there is one."""
    window = pools.window_of(**pool.params)
    if rule(pool) is None or window is None or not window.disjoint or window.size[0] > 1:
        return None
    steps: list[Step] = []
    maker = makers.get(pool.invars[0])
    while maker and (place := _rising(maker, window)) is not None:
        steps.insert(0, Step(maker, place))
        maker = makers.get(maker.invars[place])
    if maker is None or maker.primitive.name != "conv_general_dilated":
        return None
    specs, convolve = maker.params["dimension_numbers"], rule(maker)
    samples_first = specs.lhs_spec[0] == specs.out_spec[0] == 0
    if convolve is None or not samples_first:
        return None
    return Chain(maker, tuple(steps), pool, convolve, window)


def _rising(eqn: JaxprEqn, window: Window) -> int | None:
    """The operand that a result rises with, if the other is the same all over a window."""
    if eqn.primitive.name == "custom_jvp_call":
        return 0 if _source(eqn) is not None and _source(eqn) == _source(_relu()) else None
    if eqn.primitive.name not in {"add", "max", "min"}:
        return None
    *operands, result = (_shape(atom) for atom in (*eqn.invars, *eqn.outvars))
    for place in (0, 1):
        if operands[place] == result and _constant(operands[1 - place], window):
            return place
    return None


def _shape(atom: Any) -> tuple[int, ...]:
    return atom.aval.shape


def _constant(shape: tuple[int, ...], window: Window) -> bool:
    """Whether all elements of a window meet the same element of an operand."""
    return not shape or all(
        length == 1 or width == 1 for length, width in zip(shape, window.size, strict=True)
    )


def _source(eqn: JaxprEqn) -> str | None:
    """The function, by file and line, that an operation with a custom derivative is."""
    info = getattr(eqn.params["call_jaxpr"].jaxpr, "debug_info", None)
    return getattr(info, "func_src_info", None)


@functools.cache
def _relu() -> JaxprEqn:
    (eqn,) = jax.make_jaxpr(jax.nn.relu)(0.0).eqns
    return eqn


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def pooled_convolution(
    x: jax.Array, kernel: jax.Array, convolve: Callable, window: Window
) -> jax.Array:
    """The largest output in every window, `max_pool(convolve(x, kernel), window)`.

    What is in the windows is never all in memory, neither the outputs nor their gradient.
    """
    return _forward(x, kernel, convolve, window)[0]


def _forward(x, kernel, convolve, window):
    def pooled(x):
        return (), pools.largest_and_where(convolve(x, kernel), window)

    values, winners = part_by_part(pooled, _parts(x, kernel, convolve), x)[1]
    return values, (x, kernel, winners)


def _backward(convolve, window, saved, grad):
    x, kernel, winners = saved

    def gradients(x, winners, grad):
        out, back = jax.vjp(convolve, x, kernel)
        x_grad, kernel_grad = back(pools.put_at(winners, grad, out.shape, window))
        return kernel_grad, x_grad

    count = _parts(x, kernel, convolve)
    kernel_grad, x_grad = part_by_part(gradients, count, x, winners, grad)
    return x_grad, kernel_grad


pooled_convolution.defvjp(_forward, _backward)


def _parts(x, kernel, convolve):
    """As many parts of the samples as keep the convolution's output in the cache."""
    out = jax.eval_shape(convolve, x, kernel)
    return parts(len(x), out.size * out.dtype.itemsize * SPACE)


# Beside an output, what its gradient is made of: measured with CACHE_BYTES.
SPACE = 8
