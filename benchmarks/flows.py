"""Is a sweep faster than the ways to write one in JAX without it?

    python benchmarks/flows.py                          tiny and mlp, on random data
    python benchmarks/flows.py cnn --data mnist.npz     on a file with x_train and y_train

16 range tests over weight decays, the same updates in every way. warm: milliseconds per lane and
update, medians of calls that take turns in one process; first: seconds of the first call, which
traces and compiles.

Last answer, on a 2-core x86-64 CPU with JAX 0.10.2; in three runs each of 25 repeats of tiny,
`jit(vmap(scan))` was at 0.90 to 0.92 on one such machine, and at 0.82 to 0.85 on another:

    tiny, 16 lanes, 100 updates
                                          warm, ms   ratio  first, s
    lrjax.range_test                        0.0159    1.00      1.18
    jit(vmap(scan))                         0.0155    0.98      1.03
    jit(vmap(update)) in a loop             0.0195    1.23      2.13
    jit(scan), run after run                0.0233    1.47      0.92
    jit(update), step after step            0.0684    4.31      1.09

    mlp, 16 lanes, 50 updates
                                          warm, ms   ratio  first, s
    lrjax.range_test                        0.6739    1.00      1.54
    jit(vmap(scan))                         0.9123    1.35      1.76
    jit(vmap(update)) in a loop             0.9603    1.43      2.61
    jit(scan), run after run                0.7366    1.09      1.44
    jit(update), step after step            0.8928    1.32      1.63
"""

import argparse
import functools
import time

import jax
import numpy as np
from workloads import (
    END,
    START,
    WORKLOADS,
    decays,
    hand_written,
    load,
    medians,
    rates,
    single_run,
    update,
)

import lrjax

LANES = 16
STEPS = {"tiny": 100, "mlp": 50, "cnn": 4}


def ways(workload, data, steps):
    """Functions that give the losses f32[lanes, steps]."""
    batches = lrjax.array_batches(data, workload.batch)
    rows, x_y = batches.rows(0, steps), batches.data
    task = lrjax.task(workload.loss, workload.init)
    init = jax.jit(workload.init)
    run = jax.jit(functools.partial(single_run, workload))
    one = functools.partial(update, workload)
    step = jax.jit(one, donate_argnums=0)
    steps_of_all = jax.jit(jax.vmap(one, in_axes=(0, 0, None, None, None)), donate_argnums=0)
    program = hand_written(workload)

    def sweep():
        lanes = {"weight_decay": decays(LANES)}
        return lrjax.range_test(task, batches, lanes=lanes, start=START, end=END, steps=steps).loss

    def run_after_run():
        return jax.block_until_ready([run(d, rates(steps), rows, x_y) for d in decays(LANES)])

    def step_after_step():
        losses = []
        for decay in decays(LANES):
            params = init(jax.random.key(0))
            for rate, row in zip(rates(steps), rows, strict=True):
                params, loss = step(params, decay, rate, row, x_y)
                losses.append(loss)
        return np.reshape(jax.device_get(losses), (LANES, steps))

    def step_of_all_lanes():
        params = jax.vmap(init)(jax.random.split(jax.random.key(0), LANES))
        losses = []
        for rate, row in zip(rates(steps), rows, strict=True):
            params, loss = steps_of_all(params, decays(LANES), rate, row, x_y)
            losses.append(loss)
        return np.transpose(jax.device_get(losses))

    return {
        "lrjax.range_test": sweep,
        "jit(vmap(scan))": lambda: program(decays(LANES), rates(steps), rows, x_y),
        "jit(vmap(update)) in a loop": step_of_all_lanes,
        "jit(scan), run after run": run_after_run,
        "jit(update), step after step": step_after_step,
    }


def compare(name, path, steps, repeats):
    workload = WORKLOADS[name]
    functions = ways(workload, load(workload, path), steps)
    first = {}
    for way, function in functions.items():
        start = time.perf_counter()
        jax.block_until_ready(function())
        first[way] = time.perf_counter() - start
    took = medians(functions, repeats)
    ours = took["lrjax.range_test"]
    print(f"\n{name}, {LANES} lanes, {steps} updates")
    print(f"{'':36}{'warm, ms':>10}{'ratio':>8}{'first, s':>10}")
    for way, seconds in took.items():
        each = 1e3 * seconds / LANES / steps
        print(f"{way:36}{each:10.4f}{seconds / ours:8.2f}{first[way]:10.2f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("workloads", nargs="*", default=["tiny", "mlp"])
    parser.add_argument("--data", help="a .npz file with x_train and y_train")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    for name in options.workloads:
        compare(name, options.data, options.steps or STEPS[name], options.repeats)


if __name__ == "__main__":
    main()
