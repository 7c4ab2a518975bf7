"""How near is a sweep to what the machine can do, and to a program written by hand?

    python benchmarks/floor.py                          tiny, mlp and cnn, on random data
    python benchmarks/floor.py mlp --lanes 16 256       one of them, and what a lane costs of many
    python benchmarks/floor.py mlp --data mnist.npz     a file with x_train and y_train

floor: the operations of one update of one lane over the rate of a large matrix product, or the
bytes that it must read and write, parameters and batch, over the memory's bandwidth, whichever
takes longer. Both rates are measured in the same run. by hand: `jit(vmap(scan))`, left out of cnn,
for which it takes seconds. Every figure is milliseconds per lane and update: the difference of a
long and a short run, each compiled before, over its updates; medians of runs that take turns.

Last answer, on a 2-core x86-64 CPU with JAX 0.10.2; ratios within 0.1 of each other are noise:

    mlp: 202 GFLOP/s, 45.6 GB/s
      lanes   MFLOP     MB    floor  by hand    lrjax  lrjax/hand  floor/lrjax  of 16 lanes
         16  105.71   1.65   0.5244   0.8431   0.6474        0.77         0.81         1.00
        256  105.71   1.63   0.5244   1.0696   0.6700        0.63         0.78         1.03
    tiny: 194 GFLOP/s, 51.1 GB/s
      lanes   MFLOP     MB    floor  by hand    lrjax  lrjax/hand  floor/lrjax  of 16 lanes
         16    0.67   0.02   0.0035   0.0181   0.0125        0.69         0.28         1.00
        256    0.67   0.02   0.0035   0.0106   0.0069        0.65         0.50         0.55
    cnn: 195 GFLOP/s, 54.1 GB/s
      lanes   MFLOP     MB    floor  by hand    lrjax  lrjax/hand  floor/lrjax  of 16 lanes
         16 2156.05   3.48  11.0342      nan  14.1603         nan         0.78         1.00
"""

import argparse
import functools
import math

import jax
import jax.numpy as jnp
from workloads import (
    END,
    START,
    WORKLOADS,
    decays,
    hand_written,
    load,
    matrix_product,
    medians,
    rates,
)

import lrjax

STEPS = {"tiny": (500, 2500), "mlp": (10, 50), "cnn": (2, 12)}  # of 16 lanes
BY_HAND = {"tiny", "mlp"}


def one_update(workload, lanes):
    """Operations and bytes of one update, per lane.

    Of an update alone, because XLA counts a loop once. The operations are counted before
    compilation, because calls of a vendor's library count for nothing after it.
    """

    def update(params, decays, rate, batch):
        loss, grads = jax.vmap(jax.value_and_grad(workload.loss), (0, None))(params, batch)

        def stepped(p, g):
            return p - rate * (g + decays.reshape(-1, *[1] * (p.ndim - 1)) * p)

        return jax.tree.map(stepped, params, grads), loss

    params = jax.eval_shape(jax.vmap(workload.init), jax.random.split(jax.random.key(0), lanes))
    batch = jnp.zeros((workload.batch, *workload.shape)), jnp.zeros(workload.batch, jnp.int32)
    lowered = jax.jit(update).lower(params, decays(lanes), 0.1, batch)
    memory = lowered.compile().memory_analysis()
    moved = memory.argument_size_in_bytes + memory.output_size_in_bytes
    return lowered.cost_analysis()["flops"] / lanes, moved / lanes


def memory_pass():
    """A call that reads and writes an array larger than any cache, and its bytes."""
    length = 2**28 if jax.default_backend() == "gpu" else 2**25
    # Donated, because fresh memory would cost more than its use.
    add = jax.jit(lambda array: array + 1, donate_argnums=0)
    array = [jnp.ones(length)]

    def stream():
        array[0] = add(array[0])
        return array[0]

    return stream, 8 * length


def measure(name, lanes, path, repeats):
    workload = WORKLOADS[name]
    data = load(workload, path)
    batches = lrjax.array_batches(data, workload.batch)
    task = lrjax.task(workload.loss, workload.init)
    program = hand_written(workload)

    def by_hand(lanes, steps):
        return program(decays(lanes), rates(steps), batches.rows(0, steps), batches.data)

    def by_lrjax(lanes, steps):
        return lrjax.range_test(
            task, batches, lanes={"weight_decay": decays(lanes)}, start=START, end=END, steps=steps
        ).loss

    (product, product_flops), (stream, stream_bytes) = matrix_product(), memory_pass()
    functions = {"product": product, "memory": stream}
    lengths = {}
    for count in lanes:
        lengths[count] = [max(1, steps * 16 // count) for steps in STEPS[name]]
        for length in lengths[count]:
            if name in BY_HAND:
                functions["hand", count, length] = functools.partial(by_hand, count, length)
            functions["lrjax", count, length] = functools.partial(by_lrjax, count, length)
    took = medians(functions, repeats)
    peak, bandwidth = product_flops / took["product"], stream_bytes / took["memory"]
    print(f"{name}: {peak / 1e9:.0f} GFLOP/s, {bandwidth / 1e9:.1f} GB/s")
    print(f"{'lanes':>7}{'MFLOP':>8}{'MB':>7}{'floor':>9}{'by hand':>9}{'lrjax':>9}", end="")
    print(f"{'lrjax/hand':>12}{'floor/lrjax':>13}{'of ' + str(lanes[0]) + ' lanes':>13}")
    first = None
    for count, (short, long) in lengths.items():
        flops, moved = one_update(workload, count)
        floor = max(flops / peak, moved / bandwidth)

        def per_update(which, count=count, short=short, long=long):
            seconds = took[which, count, long] - took[which, count, short]
            return seconds / (long - short) / count

        hand, ours = per_update("hand") if name in BY_HAND else math.nan, per_update("lrjax")
        first = first or ours
        print(f"{count:7,}{flops / 1e6:8.2f}{moved / 1e6:7.2f}", end="")
        print("".join(f"{1e3 * each:9.4f}" for each in (floor, hand, ours)), end="")
        print(f"{ours / hand:12.2f}{floor / ours:13.2f}{ours / first:13.2f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=", ".join(STEPS))
    parser.add_argument("--lanes", type=int, nargs="+", default=[16])
    parser.add_argument("--data", help="a .npz file with x_train and y_train")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    for name in options.workloads or STEPS:
        if name not in STEPS:
            parser.error(f"a workload is one of {', '.join(STEPS)}, got {name!r}")
        measure(name, options.lanes, options.data, options.repeats)


if __name__ == "__main__":
    main()
