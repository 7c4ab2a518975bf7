"""How many lanes fill an accelerator, and what is the best way to run them on it?

    python benchmarks/gpu.py                            what fits in nine minutes; again goes on
    python benchmarks/gpu.py lanes --workloads cnn --lanes 1 64 --types float32
    python benchmarks/gpu.py --quick --rows quick.jsonl     all questions, at the smallest size

lanes: updates of lanes per second, for 1 to 4,096 lanes at once; "of peak", their share of the
rate of a large matrix product of the same type; and how many times as many they are as of single
runs one after another, each a jitted scan. "-": the lanes do not fit the memory.
loops: milliseconds per update of 16 lanes, of a `fori_loop` whose number of turns is an argument,
as lrjax has it, of a `scan`, and of a dispatch per update: does the host take part in every turn?
convolutions: milliseconds per lane of the gradient of a 3 x 3 convolution, 128 images of 14 x 14
pixels, 32 to 64 channels, with a kernel per lane: grouped, as `vmap` makes it, and as nine
batched matrix products.

Every row is measured once, and kept in a file, so that a call that `--seconds` ends is gone on
with by the next one. The tables of all rows so far are printed at the end of each.

This script has not been run on a GPU yet, only, at its smallest, on a CPU.
"""

import argparse
import functools
import json
import pathlib
import time

import jax
import jax.numpy as jnp
from workloads import (
    WORKLOADS,
    decays,
    hand_written,
    load,
    matrix_product,
    medians,
    rates,
    single_run,
    update,
)

import lrjax
from lrjax.sweeps.measures import flops

LANES = [1, 4, 16, 64, 256, 1024, 4096]
TYPES = ["float32", "bfloat16"]
LOOP_LANES = 16
IMAGES, PIXELS, CHANNELS = 128, 14, (32, 64)
SECONDS, OPERATIONS = 0.5, {"cpu": 2e10}  # of the shorter of two runs, and assumed per second
ACCELERATOR_OPERATIONS = 2e13
REPEATS = 3


def typed(name, dtype):
    """A workload with parameters of a type, and its batches."""
    workload = WORKLOADS[name]

    def init(key):
        return jax.tree.map(lambda leaf: leaf.astype(dtype), workload.init(key))

    x, y = load(workload)
    batches = lrjax.array_batches((jnp.asarray(x, dtype), jnp.asarray(y)), workload.batch)
    return workload._replace(init=init), batches


def update_flops(workload, batches):
    params = jax.eval_shape(workload.init, jax.random.key(0))
    return flops(jax.make_jaxpr(jax.grad(workload.loss))(params, batches(0)))


def length(operations):
    """How many updates of so many operations to time."""
    assumed = OPERATIONS.get(jax.default_backend(), ACCELERATOR_OPERATIONS)
    return int(min(200, max(2, SECONDS * assumed / operations)))


def per_update(run, steps):
    """Seconds per update: a run of three times the steps, without one of the steps."""
    short, long = functools.partial(run, steps), functools.partial(run, 3 * steps)
    took = medians({"short": short, "long": long}, REPEATS)
    return (took["long"] - took["short"]) / (2 * steps)


def peak(dtype):
    """Operations per second of a large matrix product."""
    product, operations = matrix_product(dtype)
    return operations / medians({"product": product}, 10)["product"]


def lane_updates(name, dtype, lanes):
    """Updates of lanes per second, and operations per second."""
    workload, batches = typed(name, dtype)
    task = lrjax.task(workload.loss, workload.init)
    each = update_flops(workload, batches)
    steps = length(each * lanes)
    grid = [{"learning_rate": 1e-4, "weight_decay": float(decay)} for decay in decays(lanes)]

    def run(count):
        return lrjax.sweep(
            task, batches, lrjax.sgd, steps=count, lanes=grid, lane_batch=lanes, chunk_steps=steps
        ).loss

    rate = lanes / per_update(run, steps)
    return {"rate": rate, "flops": rate * each}


def single_updates(name, dtype):
    """The same of runs one after another."""
    workload, batches = typed(name, dtype)
    each = update_flops(workload, batches)
    program = jax.jit(functools.partial(single_run, workload))

    def run(count):
        return program(decays(1)[0], rates(count), batches.rows(0, count), batches.data)

    rate = 1 / per_update(run, length(each))
    return {"rate": rate, "flops": rate * each}


def loop_times(name):
    """Seconds per update of some lanes, by the kind of the loop."""
    workload, batches = typed(name, jnp.float32)
    steps = length(LOOP_LANES * update_flops(workload, batches))
    one, scanned = functools.partial(update, workload), hand_written(workload)
    all_lanes = jax.vmap(one, in_axes=(0, 0, None, None, None))
    dispatched = jax.jit(all_lanes, donate_argnums=0)

    def start():
        return jax.vmap(workload.init)(jax.random.split(jax.random.key(0), LOOP_LANES))

    @jax.jit
    def counted(count, rates, rows, data):
        def turn(k, params):
            return all_lanes(params, decays(LOOP_LANES), rates[k], rows[k], data)[0]

        return jax.lax.fori_loop(0, count, turn, start())

    rows = batches.rows(0, 3 * steps)

    def by_dispatch(count):
        params = start()
        for rate, row in zip(rates(count), rows[:count], strict=True):
            params, _ = dispatched(params, decays(LOOP_LANES), rate, row, batches.data)
        return params

    return {
        "fori_loop": per_update(lambda n: counted(n, rates(3 * steps), rows, batches.data), steps),
        "scan": per_update(
            lambda n: scanned(decays(LOOP_LANES), rates(n), rows[:n], batches.data), steps
        ),
        "dispatches": per_update(by_dispatch, steps),
    }


def convolution_times(dtype, lanes):
    """Seconds per lane of the gradient of a convolution, by how it is computed."""

    def grouped(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def products(x, kernel):
        padded = jnp.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
        taps = [(i, j) for i in range(3) for j in range(3)]
        return sum(
            padded[:, i : i + x.shape[1], j : j + x.shape[2]] @ kernel[i, j] for i, j in taps
        )

    inputs, outputs = CHANNELS
    x = jnp.ones((lanes, IMAGES, PIXELS, PIXELS, inputs), dtype)
    kernel = jnp.ones((lanes, 3, 3, inputs, outputs), dtype)

    def gradient(convolve):
        def loss(x, kernel):
            return jnp.square(convolve(x, kernel).astype(jnp.float32)).mean()

        return jax.jit(jax.vmap(jax.grad(loss, (0, 1))))

    functions = {
        convolve.__name__: functools.partial(gradient(convolve), x, kernel)
        for convolve in (grouped, products)
    }
    return {way: seconds / lanes for way, seconds in medians(functions, REPEATS).items()}


MEASURES = {
    "peak": lambda dtype: {"flops": peak(dtype)},
    "single": single_updates,
    "lanes": lane_updates,
    "loops": loop_times,
    "convolutions": convolution_times,
}


def wanted(options):
    """The names and arguments of all rows, in order."""
    if "lanes" in options.questions:
        yield from (("peak", dtype) for dtype in options.types)
        for name in options.workloads:
            for dtype in options.types:
                yield "single", name, dtype
                yield from (("lanes", name, dtype, lanes) for lanes in options.lanes)
    if "loops" in options.questions:
        yield from (("loops", name) for name in options.workloads)
    if "convolutions" in options.questions:
        for dtype in options.types:
            yield from (("convolutions", dtype, lanes) for lanes in options.lanes)


def measured(measure, *arguments):
    """A row; an empty one where the memory is too small."""
    try:
        return MEASURES[measure](*arguments)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return {}


def print_tables(rows):
    print(f"\n{'lanes':10}{'type':10}{'':>8}{'updates/s':>14}{'of peak':>9}{'of single':>11}")
    for (measure, *arguments), row in rows.items():
        if measure in ("single", "lanes"):
            name, dtype, *lanes = arguments
            print(f"{name:10}{dtype:10}{lanes[0] if lanes else 'single':>8}", end="")
            if not row:
                print(f"{'-':>14}")
                continue
            share = row["flops"] / rows["peak", dtype]["flops"]
            single = rows["single", name, dtype]["rate"]
            print(f"{row['rate']:14,.0f}{share:9.3f}{row['rate'] / single:11.1f}")
    for question in ("loops", "convolutions"):
        print(f"\n{question}")
        for (measure, *arguments), row in rows.items():
            if measure == question:
                cells = "".join(f"{way:>12} {1e3 * each:9.4f}" for way, each in row.items())
                print(f"{' '.join(map(str, arguments)):16}{cells or '-':>12}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    questions = ["lanes", "loops", "convolutions"]
    parser.add_argument("questions", nargs="*", metavar="QUESTION", help=", ".join(questions))
    parser.add_argument("--workloads", nargs="+", default=list(WORKLOADS), choices=WORKLOADS)
    parser.add_argument("--types", nargs="+", default=TYPES, choices=TYPES)
    parser.add_argument("--lanes", type=int, nargs="+", default=LANES)
    parser.add_argument("--seconds", type=float, default=540.0, help="begin no row after so many")
    parser.add_argument(
        "--rows", type=pathlib.Path, default="gpu.jsonl", help="where rows are kept"
    )
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    options.questions = options.questions or questions
    if unknown := set(options.questions) - set(questions):
        parser.error(f"a question is one of {', '.join(questions)}, got {', '.join(unknown)}")
    if options.quick:
        options.workloads, options.types, options.lanes = ["tiny", "mlp"], ["float32"], [1, 2]
    begun = time.monotonic()
    lines = options.rows.read_text().splitlines() if options.rows.exists() else []
    rows = {tuple(key): row for key, row in map(json.loads, lines)}
    print(f"{jax.devices()[0].device_kind}, JAX {jax.__version__}")
    for key in wanted(options):
        if key in rows:
            continue
        if time.monotonic() - begun > options.seconds:
            print("out of time: the same call goes on from here")
            break
        rows[key] = measured(*key)
        with options.rows.open("a") as file:
            file.write(json.dumps([key, rows[key]]) + "\n")
        print(*key, rows[key], flush=True)
    print_tables(rows)


if __name__ == "__main__":
    main()
