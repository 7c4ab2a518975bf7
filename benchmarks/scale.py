"""Do sweeps scale: with lanes, with data that fit no memory, beside a slow stream, over devices?

    python benchmarks/scale.py                      all questions: some minutes on two cores
    python benchmarks/scale.py stream overlap       some of them
    python benchmarks/scale.py lanes --lanes 1 16 64 256 1024 4096

lanes: what a lane's update costs, beside 16 lanes, for an MLP 784-256-10 with momentum; all lanes
at once, as is chosen where they fit, and 64 at a time. "of peak": the floating-point operations
of its gradient, over those that a large matrix product does in the same time. "MB": the most
memory beyond the start of the process, its compiler included; on an accelerator the device's.
Lanes that wait keep their parameters and momenta, "states", in the host's memory.
stream: the memory that a process takes for data that are streamed through it, and their speed.
overlap: milliseconds per update where reading a batch takes 5 and learning from it about 5.
devices: 8 lanes of the MLP over CPU devices that are forced, and share the same cores.

Every row is measured in a process of its own. An update takes the difference of a longer and a
shorter sweep, each compiled before: medians of both.

Last answers, on a 2-core x86-64 CPU with JAX 0.10.2, of one run but for `overlap`:

    lanes
                     all lanes at once                       lane_batch=64
      lanes   updates/s     ms ratio of peak   MB   updates/s     ms ratio of peak   MB  states, MB
          1       1,230  0.813  1.27    0.62  154       1,237  0.808  1.11    0.62  145           2
          4       1,585  0.631  0.98    0.80  170       1,522  0.657  0.91    0.76  178           7
         16       1,558  0.642  1.00    0.78  231       1,379  0.725  1.00    0.69  192          26
         64       1,541  0.649  1.01    0.77  411       1,210  0.826  1.14    0.61  446         104
        256       1,981  0.505  0.79    0.99  876       1,159  0.863  1.19    0.58 1100         417
      1,024       1,484  0.674  1.05    0.74 2317       1,267  0.789  1.09    0.64 2749        1667

    stream
    10 GB in batches of 1 MiB: 1.53 GB/s, 0.17 of the speed of a loop that copies every batch once
    process: baseline 221 MB, peak 778 MB, 557 MB above it; the target: below 1,000

    overlap
    chunk_steps  reading  computing    sum   both   lost
              1     5.26       4.27   9.54   5.49   0.23
              5     5.45       5.13  10.58   5.87   0.42
             25     5.33       5.81  11.13   6.44   0.63
    The target: both below 6.5

    devices
    devices   updates/s  ratio
          1       1,256   1.00
          2       1,514   1.21
          4       1,462   1.16
"""

import argparse
import functools
import multiprocessing
import os
import resource
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from workloads import WORKLOADS, load, matrix_product, medians

import lrjax

REPEATS = 3
MLP = WORKLOADS["mlp"]
LANE_BATCH = 64
BATCH_SHAPE, BATCH_BYTES = (256, 1024), 2**20  # of a stream
READING, CHUNKS, OVERLAP_STEPS = 0.005, (1, 5, 25), 300
DEVICES, DEVICE_LANES = (1, 2, 4), 8


def in_new_process(function, *arguments, **environment):
    """What a function returns in a process of its own, which gets some environment variables."""
    before = os.environ.copy()
    os.environ |= environment
    try:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            return pool.apply(function, arguments)
    finally:
        os.environ.clear()
        os.environ |= before


def seconds(*functions):
    """The median times of calls that take turns, after one each that compiles."""
    return list(medians(dict(enumerate(functions)), REPEATS).values())


def on_cpu():
    return jax.default_backend() == "cpu"


def host_peak():
    """The most memory that this process has had, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def device_peak():
    """The most memory that the device has had; the process, where the device is the host."""
    statistics = jax.devices()[0].memory_stats()
    return statistics["peak_bytes_in_use"] if statistics else host_peak()


def mlp_rate(lanes, lane_batch=None, with_mesh=False):
    """Updates of lanes per second, and the memory at the peak beyond that before."""
    task = lrjax.task(MLP.loss, MLP.init)
    batches = lrjax.array_batches(load(MLP), MLP.batch)
    grid = {"learning_rate": np.geomspace(1e-4, 1e-2, lanes), "momentum": [0.9]}
    mesh = lrjax.lane_mesh() if with_mesh else None
    before = device_peak()

    def run(steps):
        return lrjax.sweep(
            task, batches, lrjax.sgd, steps=steps, lanes=grid, lane_batch=lane_batch, mesh=mesh
        ).loss

    steps = max(1, 256 // lanes) if on_cpu() else 100
    short, long = seconds(functools.partial(run, steps), functools.partial(run, 3 * steps))
    return 2 * steps * lanes / (long - short), device_peak() - before


def mlp_sizes():
    """Bytes of a lane's parameters and momenta, and the operations of its gradient.

    Counted before compilation, because calls of a vendor's library count for nothing after it.
    """
    params = jax.eval_shape(MLP.init, jax.random.key(0))
    batch = jnp.zeros((MLP.batch, *MLP.shape)), jnp.zeros(MLP.batch, jnp.int32)
    gradient = jax.jit(jax.grad(MLP.loss)).lower(params, batch)
    return 2 * 4 * sum(leaf.size for leaf in jax.tree.leaves(params)), flops(gradient)


def flops(lowered):
    return lowered.cost_analysis()["flops"]


def peak_flops():
    """Operations per second of a large matrix product."""
    product, operations = matrix_product()
    return operations / seconds(product)[0]


def ask_lanes(options):
    state_bytes, gradient_flops = in_new_process(mlp_sizes)
    peak = in_new_process(peak_flops)
    print(f"{'':7}{'all lanes at once':^38}{f'lane_batch={LANE_BATCH}':^38}")
    head = f"{'updates/s':>12}{'ms':>7}{'ratio':>6}{'of peak':>8}{'MB':>5}"
    print(f"{'lanes':>7}{head}{head}{'states, MB':>12}")
    rates = {
        lanes: [in_new_process(mlp_rate, lanes, lane_batch) for lane_batch in (None, LANE_BATCH)]
        for lanes in sorted({16, *options.lanes})
    }
    for lanes, row in rates.items():
        print(f"{lanes:7,}", end="")
        for (rate, memory), (usual, _) in zip(row, rates[16], strict=True):
            print(f"{rate:12,.0f}{1e3 / rate:7.3f}{usual / rate:6.2f}", end="")
            print(f"{rate * gradient_flops / peak:8.2f}{memory / 1e6:5.0f}", end="")
        print(f"{lanes * state_bytes / 1e6:12.0f}")


def stream(count, pause=0.0):
    """So many batches; which they are makes no difference to anything here."""
    several = np.random.default_rng(0).standard_normal((16, *BATCH_SHAPE), np.float32)
    for k in range(count):
        time.sleep(pause)
        yield several[k % 16]


def streamed(task, count, pause=0.0, **options):
    batches = lrjax.stream_batches(stream(count, pause))
    return lrjax.sweep(
        task, batches, lrjax.sgd, steps=count, lanes={"learning_rate": [1e-3]}, **options
    ).loss


def stream_rate(gigabytes):
    """Bytes per second of a sweep and of copying its stream, and memory at first and at most."""
    task = lrjax.task(lambda w, x: jnp.mean((x @ w - 1) ** 2), jnp.zeros(BATCH_SHAPE[1]))
    count = round(gigabytes * 1e9 / BATCH_BYTES)
    jax.devices()
    measures = {"process": host_peak} | ({} if on_cpu() else {"device": device_peak})
    before = {name: measure() for name, measure in measures.items()}
    streamed(task, 100)
    start = time.perf_counter()
    streamed(task, count)
    taken = time.perf_counter() - start
    peaks = {name: measure() for name, measure in measures.items()}
    start = time.perf_counter()
    for batch in stream(count):
        np.array(batch)
    copied = time.perf_counter() - start
    return count * BATCH_BYTES / taken, copied / taken, before, peaks


def ask_stream(options):
    rate, ratio, before, peaks = in_new_process(stream_rate, options.stream_gb)
    print(f"{options.stream_gb:g} GB in batches of 1 MiB: {rate / 1e9:.2f} GB/s, ", end="")
    print(f"{ratio:.2f} of the speed of a loop that copies every batch once")
    for name, first in before.items():
        peak = peaks[name]
        print(f"{name}: baseline {first / 1e6:,.0f} MB, peak {peak / 1e6:,.0f} MB, ", end="")
        print(f"{(peak - first) / 1e6:,.0f} MB above it; the target: below 1,000")


def overlap_times(chunk_steps):
    """Milliseconds per update: reading, computing, both in a sweep."""

    def run(task, pause, count=OVERLAP_STEPS):
        return functools.partial(streamed, task, count, pause, chunk_steps=chunk_steps)

    def problem(products):
        def loss(w, x):
            x = jax.lax.fori_loop(0, products, lambda _, x: jnp.tanh(x @ w), x[:, :256])
            return jnp.mean(x**2)

        return lrjax.task(loss, 0.01 * jnp.eye(256))

    products = 8
    for _ in range(3):
        short, long = seconds(*(run(problem(products), 0.0, count) for count in (25, 75)))
        products = max(1, round(products * READING * 50 / (long - short)))
    task = problem(products)

    def read():
        for _ in stream(OVERLAP_STEPS, READING):
            pass

    taken = seconds(read, run(task, 0.0), run(task, READING))
    return [1e3 * each / OVERLAP_STEPS for each in taken]


def ask_overlap(options):
    print(f"{'chunk_steps':>11}{'reading':>9}{'computing':>11}{'sum':>7}{'both':>7}{'lost':>7}")
    for chunk_steps in CHUNKS:
        reading, computing, both = in_new_process(overlap_times, chunk_steps)
        print(f"{chunk_steps:11}{reading:9.2f}{computing:11.2f}{reading + computing:7.2f}", end="")
        print(f"{both:7.2f}{both - max(reading, computing):7.2f}")
    print("The target: both below 6.5")


def ask_devices(options):
    print(f"{'devices':>7}{'updates/s':>12}{'ratio':>7}")
    rates = []
    for devices in DEVICES:
        forced = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
        rates.append(in_new_process(mlp_rate, DEVICE_LANES, None, True, **forced)[0])
        print(f"{devices:7}{rates[-1]:12,.0f}{rates[-1] / rates[0]:7.2f}")


QUESTIONS = {
    "lanes": ask_lanes,
    "stream": ask_stream,
    "overlap": ask_overlap,
    "devices": ask_devices,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("questions", nargs="*", metavar="QUESTION", help=", ".join(QUESTIONS))
    parser.add_argument("--lanes", type=int, nargs="+", default=[1, 4, 16, 64, 256, 1024])
    parser.add_argument("--stream-gb", type=float, default=10.0)
    options = parser.parse_args()
    for question in options.questions or QUESTIONS:
        if question not in QUESTIONS:
            parser.error(f"a question is one of {', '.join(QUESTIONS)}, got {question!r}")
        print(f"\n{question}")
        QUESTIONS[question](options)


if __name__ == "__main__":
    main()
