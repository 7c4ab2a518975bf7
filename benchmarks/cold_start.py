"""From the start of a process to the first suggestion: where does the time go?

    python benchmarks/cold_start.py                     mlp: 16 lanes, 100 updates, random data
    python benchmarks/cold_start.py tiny cnn --steps 50

Every row is a new process: lrjax's range test and `suggest`; the same sweep as a program written
by hand, `jit(vmap(scan))`, whose steepest rates NumPy finds; and lrjax with JAX's persistent
compilation cache, filled by a process before. The processes take turns; medians of the seconds.

Last answer, on a 2-core x86-64 CPU with JAX 0.10.2:

    tiny, 16 lanes, 100 updates
                 import    trace    lower  compile      run  suggest  process    ratio
    lrjax          0.49     0.18     0.19     1.15     0.24     0.01     2.50     1.23
    by hand        0.48     0.07     0.14     1.07     0.08     0.00     2.04     1.00
    cached         0.47     0.17     0.19     0.07     0.24     0.01     1.37     0.67
    mlp, 16 lanes, 100 updates
                 import    trace    lower  compile      run  suggest  process    ratio
    lrjax          0.53     0.17     0.20     1.20     1.34     0.01     3.74     1.01
    by hand        0.53     0.07     0.14     1.13     1.55     0.00     3.72     1.00
    cached         0.52     0.17     0.19     0.09     1.37     0.01     2.65     0.71
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

LANES = 16
PARTS = ["import", "trace", "lower", "compile", "run", "suggest"]
STAGES = {
    "jaxpr_trace": "trace",
    "jaxpr_to_mlir_module": "lower",
    "backend_compile": "compile",
}


def suggested_by_lrjax(name, steps):
    """The suggestion's time, as is printed by `in_this_process`."""
    from workloads import END, START, WORKLOADS, decays, load

    import lrjax

    workload = WORKLOADS[name]
    imported = time.monotonic()
    curves = lrjax.range_test(
        lrjax.task(workload.loss, workload.init),
        lrjax.array_batches(load(workload), workload.batch),
        lanes={"weight_decay": decays(LANES)},
        start=START,
        end=END,
        steps=steps,
    )
    swept = time.monotonic()
    lrjax.suggest(curves)
    return imported, swept


def suggested_by_hand(name, steps):
    import jax.numpy as jnp
    import numpy as np
    from workloads import WORKLOADS, decays, hand_written, load, rates

    workload = WORKLOADS[name]
    imported = time.monotonic()
    data = tuple(map(jnp.asarray, load(workload)))
    order = np.random.default_rng(0).permutation(len(data[0]))
    rows = np.resize(order, (steps, workload.batch))
    losses = np.asarray(hand_written(workload)(decays(LANES), rates(steps), rows, data))
    swept = time.monotonic()
    rates(steps)[np.gradient(losses, axis=1).argmin(1)]
    return imported, swept


WAYS = {"lrjax": suggested_by_lrjax, "by hand": suggested_by_hand, "cached": suggested_by_lrjax}


def in_this_process(way, name, steps, began):
    """Print the seconds of every part since the process began."""
    import jax

    spent = {stage: [] for stage in STAGES.values()}

    def listen(event, duration, **_):
        stage = event.removeprefix("/jax/core/compile/").removesuffix("_duration")
        if stage in STAGES:
            now = time.monotonic()
            spent[STAGES[stage]].append((now - duration, now))

    jax.monitoring.register_event_duration_secs_listener(listen)
    imported, swept = WAYS[way](name, steps)
    ended = time.monotonic()
    parts = {"import": imported - began} | {stage: covered(each) for stage, each in spent.items()}
    parts["run"] = swept - imported - sum(map(parts.get, STAGES.values()))
    parts["suggest"] = ended - swept
    print(*(parts[part] for part in PARTS))


def covered(intervals):
    """The length of their union, because a program may be traced inside another."""
    total, end = 0.0, float("-inf")
    for start, stop in sorted(intervals):
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total


def seconds(way, name, steps, cache):
    """The parts' seconds, and all of them, of a new process."""
    environment = os.environ | (cache if way == "cached" else {})
    began = time.monotonic()
    command = [sys.executable, __file__, name, "--steps", str(steps), "--child", way, str(began)]
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return [*map(float, printed.stdout.split()), time.monotonic() - began]


def compare(name, steps, repeats):
    took = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        cache = {
            "JAX_COMPILATION_CACHE_DIR": folder,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        seconds("cached", name, steps, cache)
        for _ in range(repeats):
            for way, rows in took.items():
                rows.append(seconds(way, name, steps, cache))
    print(f"{name}, {LANES} lanes, {steps} updates")
    print(f"{'':10}" + "".join(f"{part:>9}" for part in [*PARTS, "process", "ratio"]))
    whole = {way: statistics.median(row[-1] for row in rows) for way, rows in took.items()}
    for way, rows in took.items():
        row = "".join(f"{statistics.median(part):9.2f}" for part in zip(*rows, strict=True))
        print(f"{way:10}{row}{whole[way] / whole['by hand']:9.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("workloads", nargs="*", default=["mlp"])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    for name in options.workloads:
        if options.child:
            way, began = options.child
            in_this_process(way, name, options.steps, float(began))
        else:
            compare(name, options.steps, options.repeats)


if __name__ == "__main__":
    main()
