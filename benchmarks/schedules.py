"""What a schedule costs, beside Optax's and PyTorch's.

    python benchmarks/schedules.py

"""

import importlib.util
import statistics
import time

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import optax

import lrjax.schedules as ls

STEPS, WARMUP, PEAK = 10_000, 500, 0.1
COUNTS = jnp.arange(1_000_000, dtype=jnp.int32) % (STEPS + STEPS // 10)
ROUNDS, EAGER_CALLS = 31, 200

# name: (ours, Optax's)
PAIRS = {
    "constant": (ls.constant(PEAK), optax.constant_schedule(PEAK)),
    "linear_decay": (ls.linear_decay(PEAK, STEPS), optax.linear_schedule(PEAK, 0.0, STEPS)),
    "cosine_decay": (ls.cosine_decay(PEAK, STEPS), optax.cosine_decay_schedule(PEAK, STEPS)),
    "polynomial_decay": (
        ls.polynomial_decay(PEAK, STEPS, power=2.0),
        optax.polynomial_schedule(PEAK, 0.0, 2.0, STEPS),
    ),
    "exponential_decay": (
        ls.exponential_decay(PEAK, 0.9, decay_steps=100),
        optax.exponential_decay(PEAK, 100, 0.9),
    ),
    "step_decay": (
        ls.step_decay(PEAK, 0.5, 1000),
        optax.exponential_decay(PEAK, 1000, 0.5, staircase=True),
    ),
    "multistep_decay": (
        ls.multistep_decay(PEAK, [3000, 6000, 9000]),
        optax.piecewise_constant_schedule(PEAK, {3000: 0.1, 6000: 0.1, 9000: 0.1}),
    ),
    "with_warmup constant": (
        ls.with_warmup(ls.constant(PEAK), WARMUP),
        optax.warmup_constant_schedule(0.0, PEAK, WARMUP),
    ),
    "with_warmup cosine": (
        ls.with_warmup(ls.cosine_decay(PEAK, STEPS - WARMUP), WARMUP),
        optax.warmup_cosine_decay_schedule(0.0, PEAK, WARMUP, STEPS),
    ),
    "with_warmup exponential": (
        ls.with_warmup(ls.exponential_decay(PEAK, 0.9, decay_steps=100), WARMUP),
        optax.warmup_exponential_decay_schedule(0.0, PEAK, WARMUP, 100, 0.9),
    ),
    "join of 3": (
        ls.join([ls.linear_decay(PEAK, 900), ls.constant(PEAK), ls.constant(0.01)], [900, 5000]),
        optax.join_schedules(
            [
                optax.linear_schedule(PEAK, 0.0, 900),
                optax.constant_schedule(PEAK),
                optax.constant_schedule(0.01),
            ],
            [900, 5000],
        ),
    ),
    "onecycle cosine": (ls.onecycle(PEAK, STEPS), optax.cosine_onecycle_schedule(STEPS, PEAK)),
    "onecycle linear": (
        ls.onecycle(PEAK, STEPS, anneal="linear", three_phase=True),
        optax.linear_onecycle_schedule(STEPS, PEAK),
    ),
    "warm_restarts, 2 cycles": (
        ls.warm_restarts(PEAK, 5000, num_cycles=2),
        optax.sgdr_schedule([{"init_value": PEAK, "peak_value": PEAK, "decay_steps": 5000, "warmup_steps": 0}] * 2),
    ),
    "warm_restarts, growing": (
        ls.warm_restarts(PEAK, 1000, cycle_mult=2, num_cycles=3),
        optax.sgdr_schedule([{"init_value": PEAK, "peak_value": PEAK, "decay_steps": n, "warmup_steps": 0} for n in (1000, 2000, 4000)]),
    ),
}


def seconds(function, argument, calls):
    start = time.perf_counter()
    for _ in range(calls):
        result = function(argument)
    jax.block_until_ready(result)
    return (time.perf_counter() - start) / calls


def interleaved(functions, argument, calls):
    """The median time of each, measured in turns."""
    for function in functions:
        seconds(function, argument, 2)
    times = [[seconds(function, argument, calls) for function in functions] for _ in range(ROUNDS)]
    return [statistics.median(column) for column in zip(*times, strict=True)]


def equations(schedule):
    def count(jaxpr):
        inner = [sub for eqn in jaxpr.eqns for sub in jax.extend.core.jaxprs_in_params(eqn.params)]
        return len(jaxpr.eqns) - len(inner) + sum(map(count, inner))

    return count(jax.make_jaxpr(schedule)(jnp.int32(0)).jaxpr)


def main():
    print(f"{'':26}{'ns in jit':>20}{'':7}{'us eager':>20}{'':7}{'equations':>12}")
    for name, pair in PAIRS.items():
        # Optax's 1cycles take no array of counts.
        compiled = [jax.jit(jax.vmap(schedule)) for schedule in pair]
        inside = [t / COUNTS.size * 1e9 for t in interleaved(compiled, COUNTS, 1)]
        outside = [t * 1e6 for t in interleaved(pair, 7, 20)]
        sizes = [equations(schedule) for schedule in pair]
        print(f"{name:26}{inside[0]:10.2f}{inside[1]:10.2f}{inside[0] / inside[1]:7.2f}"
              f"{outside[0]:10.1f}{outside[1]:10.1f}{outside[0] / outside[1]:7.2f}{sizes[0]:6}{sizes[1]:6}")


if __name__ == "__main__":
    main()
