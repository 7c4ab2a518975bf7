"""A function's program, run with other operations in place of some."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, jaxprs_in_params

from lrjax.convolutions import planes, pools
from lrjax.convolutions.chains import find_chains

# What an operation becomes, `(*operands, **params) -> result`, or None where that is no gain.
RULES: dict[str, Callable[..., Callable | None]] = {
    "conv_general_dilated": planes.rule,
    "reduce_window_max": functools.partial(pools.rule, pools.max_pool),
    "reduce_window_sum": functools.partial(pools.rule, pools.sum_pool),
}
# What holds programs that a rule may apply in; a custom derivative stays what it is.
TRANSPARENT = {
    *("jit", "pjit", "closed_call", "core_call", "checkpoint", "remat", "remat2"),
    *("custom_jvp_call", "custom_vjp_call", "scan", "while", "cond"),
}


@dataclass(frozen=True)
class Rewritten:
    """A function, rewritten: equal for equal functions, so that it compiles once.

    Its last argument is a constant; the others are pytrees of arrays.

    Example:
        >>> def largest(x, size):
        ...     return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (size,), (size,), "VALID")
        >>> Rewritten(largest)(jnp.array([1.0, 3.0, 2.0, 0.0]), 2)
        Array([3., 2.], dtype=float32)
    """

    function: Callable

    def __call__(self, *args: Any) -> Any:
        """The function's results."""
        *arrays, constant = args
        return rewrite(lambda *arrays: self.function(*arrays, constant))(*arrays)


def rewrite(function: Callable) -> Callable:
    """A function with its convolutions and poolings rewritten.

    That sees through `jit`, `checkpoint`, `scan`, `while_loop`, `cond` and functions with custom
    derivatives. Where outputs of a convolution that are max-pooled are equal but for rounding, the
    gradient may go to another of them. The result has no forward-mode derivatives.

    Args:
        function: of pytrees of arrays, to a pytree of arrays.

    Returns:
        A function of the same arguments, with the same results and gradients.

    Example:
        >>> def loss(kernel, images):
        ...     return jax.lax.conv(images, kernel, (1, 1), "SAME").sum()
        >>> kernel, images = jnp.ones((4, 1, 3, 3)), jnp.ones((2, 1, 5, 5))
        >>> jax.grad(rewrite(loss))(kernel, images)[0, 0, 0]
        Array([32., 40., 32.], dtype=float32)
    """

    @functools.wraps(function)
    def rewritten(*args):
        program, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
        return jax.tree.unflatten(
            jax.tree.structure(shapes), _evaluate(program, jax.tree.leaves(args))
        )

    return rewritten


def convolves(program: ClosedJaxpr | Jaxpr) -> bool:
    """Whether a program has a convolution that `rewrite` changes.

    Example:
        >>> convolves(jax.make_jaxpr(jnp.dot)(jnp.ones(3), jnp.ones(3)))
        False
    """
    return _has(program, {"conv_general_dilated"})


def _evaluate(program: ClosedJaxpr, args: Sequence[Any]) -> list[Any]:
    jaxpr = program.jaxpr
    values = dict(zip(jaxpr.constvars, program.consts, strict=True))
    values |= dict(zip(jaxpr.invars, args, strict=True))

    def read(atom):
        return atom.val if isinstance(atom, Literal) else values[atom]

    found = find_chains(jaxpr, _replacement)
    ends = {chain.result: chain for chain in found}
    inner = {var for chain in found for var in chain.inner}
    for eqn in jaxpr.eqns:
        if chain := next((ends[var] for var in eqn.outvars if var in ends), None):
            values[chain.result] = chain.evaluate(read)
        elif inner.isdisjoint(eqn.outvars):
            results = _apply(eqn, [read(atom) for atom in eqn.invars])
            values |= dict(zip(eqn.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _apply(eqn: JaxprEqn, operands: list[Any]) -> Sequence[Any]:
    if (replacement := _replacement(eqn)) is not None:
        return [replacement(*operands)]
    params = eqn.params
    if eqn.primitive.name in TRANSPARENT:
        params = {name: _seen_through(value) for name, value in params.items()}
    with eqn.ctx.manager:
        results = eqn.primitive.bind(*operands, **eqn.primitive.get_bind_params(params))
    return results if eqn.primitive.multiple_results else [results]


def _replacement(eqn: JaxprEqn) -> Callable | None:
    """What an operation becomes, of its operands; None where it stays."""
    rule = RULES.get(eqn.primitive.name)
    if rule is None:
        return None
    arrays: list[Any] = [atom.aval for atom in (*eqn.invars, *eqn.outvars)]
    if not all(jnp.issubdtype(array.dtype, jnp.floating) and array.size for array in arrays):
        return None
    return rule(*(array.shape for array in arrays), **eqn.params)


def _seen_through(value: Any) -> Any:
    """A parameter whose programs, if it has any, are rewritten."""
    if isinstance(value, tuple):
        parts = tuple(map(_seen_through, value))
        # An untouched tuple stays the one it is, whatever its class.
        same = all(new is old for new, old in zip(parts, value, strict=True))
        return value if same else parts
    if not isinstance(value, ClosedJaxpr | Jaxpr) or not _has(value, set(RULES)):
        return value
    closed = value if isinstance(value, ClosedJaxpr) else ClosedJaxpr(value, ())
    new = jax.make_jaxpr(lambda *args: _evaluate(closed, args))(*closed.in_avals)
    if isinstance(value, ClosedJaxpr):
        return new
    return value if new.consts else new.jaxpr


def _has(program: ClosedJaxpr | Jaxpr, names: set[str]) -> bool:
    """Whether one of these operations, anywhere in a program, is rewritten."""
    jaxpr = program.jaxpr if isinstance(program, ClosedJaxpr) else program
    return any(
        (eqn.primitive.name in names and _replacement(eqn) is not None)
        or (
            eqn.primitive.name in TRANSPARENT
            and any(_has(inner, names) for inner in jaxprs_in_params(eqn.params))
        )
        for eqn in jaxpr.eqns
    )
