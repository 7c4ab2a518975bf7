"""In which order do Smith's policies come at equal updates, on CIFAR-10 with Caffe's network?

    python benchmarks/published/clr_policies.py --data cifar10_10k.npz [--checkpoints DIR]
        [--updates 2500] [--network full] [--peak 0.003]

Smith 2015 (arXiv 1506.01186), Table 1: "fixed" (Caffe's own: 0.001, a tenth and a hundredth of
it at the end), "triangular2" (from 0.001 to 0.006 in half cycles of 4 epochs), "decay" (from
0.007 to 0.001 in the time of one cycle, and constant after it) and "exp_range" (whose cycles
shrink by 0.99994 per update). His runs take 25,000 to 70,000 updates, of 50,000 samples; his
81.4 % for "fixed" is what Caffe's "full" network comes to, where "quick" comes to 76 %. Here all
take the same number of updates, and of fewer than 25,000 every policy is squeezed to the same
fractions of the run. Batches of 100, momentum 0.9, weight decay 0.004, Caffe's initialization
and doubled rates for biases. A lane's hyperparameter is its policy's number.

Last answer, on a 2-core x86-64 CPU with JAX 0.10.2, of `--updates 25000`, the number of his
triangular2, 250 epochs, where his are 50 of his larger set:

    quick: 10,000 samples, 2 seeds, accuracies in %
    policy       15,000 updates  25,000 updates         Smith's
    fixed          66.01 ± 0.04    66.72 ± 0.03  81.4 at 70,000
    triangular2    66.73 ± 0.33    66.31 ± 0.01  81.4 at 25,000
    decay          55.83 ± 6.89    57.08 ± 5.83  78.5 at 25,000
    exp_range      67.22 ± 1.33    67.11 ± 0.83  82.2 at 42,000

As his, exp_range comes first, and decay is far behind; two seeds can tell no more than the latter.
"fixed", to which he gave 2.8 times the updates of triangular2 for the same accuracy, needs no more
of them here: it is behind triangular2 after 15,000 updates, and ahead after 25,000. So his order
comes out, and that cycles are faster than "fixed" does not. Decay has been at 0.001, the rate of
"fixed", from update 4,000 on, and stays 10 points behind it: its start at 0.007 does lasting harm
here, more in one seed than in the other. The cycles' 0.006 may do so in shorter runs.

With `--updates 8000`, and with `--updates 8000 --peak 0.003` (and a decay from 0.004), the one
lower peak that was tried, after 0.006 had disagreed:

    fixed          65.72 ± 0.23    65.72 ± 0.23
    triangular2    63.55 ± 1.43    64.90 ± 1.64
    decay          56.84 ± 0.65    60.03 ± 1.99
    exp_range      64.37 ± 0.30    65.94 ± 0.40

Of `--updates 1200` the lead of "fixed" over cycles to 0.006 is larger: 64.11 ± 1.00, triangular2
55.60 ± 3.45, decay 52.86 ± 0.74, exp_range 54.89 ± 0.44; of 600 one of two seeds of triangular2 did
not survive.
"""

import functools

import jax.numpy as jnp
from shared import (
    CaffeCifar,
    caffe_sgd,
    classification,
    folder,
    load,
    machine,
    options,
    percent,
    show,
)

import lrjax

BATCH, WEIGHT_DECAY, PEAK = 100, 0.004, 0.006
LENGTH = 25_000  # updates of Smith's run of triangular2
PUBLISHED = {
    "fixed": "81.4 at 70,000",
    "triangular2": "81.4 at 25,000",
    "decay": "78.5 at 25,000",
    "exp_range": "82.2 at 42,000",
}


def policies(updates, peak):
    half = max(round(2000 * updates / LENGTH), 1)
    drops = [round(updates * part / 14) for part in (12, 13)]
    shrink = 0.99994 ** (LENGTH / updates)
    return {
        "fixed": lrjax.multistep_decay(0.001, drops),
        "triangular2": lrjax.triangular2(0.001, peak, half),
        "decay": lrjax.linear_decay(peak + 0.001, 2 * half, end_value=0.001),
        "exp_range": lrjax.exp_range(0.001, peak, half, gamma=shrink),
    }


def follow(policy, updates, peak, last_decay):
    """The optimizer of a lane, whose rate is that of the policy of this number."""
    schedules = policies(updates, peak).values()

    def rate(count):
        return jnp.stack([schedule(count) for schedule in schedules])[policy.astype(int)]

    return caffe_sgd(rate, 0.9, weight_decay=WEIGHT_DECAY, last_decay=last_decay)


def main(arguments=None):
    parser = options(__doc__)
    parser.add_argument("--network", choices=["quick", "full"], default="quick")
    parser.add_argument("--updates", type=int, default=LENGTH)
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--peak", type=float, default=PEAK, help="the highest rate of the cycles")
    given = parser.parse_args(arguments)
    train, test = load(given.data)
    network = CaffeCifar(quick=given.network == "quick")
    task = classification(network, train[0], scale=1.0, mean=train[0].mean(0, keepdims=True))
    curves = lrjax.sweep(
        task,
        lrjax.array_batches(train, given.batch),
        functools.partial(
            follow,
            updates=given.updates,
            peak=given.peak,
            last_decay=1 if network.quick else 250,
        ),
        steps=given.updates,
        lanes={"policy": range(len(PUBLISHED))},
        seeds=given.seeds,
        eval_batches=lrjax.array_batches(test, min(500, len(test[0]))),
        eval_every=max(given.updates // 10, 1),
        divergence=None,
        checkpoint_dir=folder(given.checkpoints, f"{given.network}-{given.updates}-{given.peak}"),
    )
    print(machine())
    print(f"{given.network}: {len(train[0]):,} samples, {given.seeds} seeds, accuracies in %")
    accuracy = curves.eval_metrics["accuracy"]
    halfway = len(curves.eval_steps) // 2
    head = ["policy", *(f"{steps:,} updates" for steps in curves.eval_steps[[halfway, -1]])]
    rows = [
        [name, percent(accuracy[k, :, halfway]), percent(accuracy[k, :, -1]), published]
        for k, (name, published) in enumerate(PUBLISHED.items())
    ]
    show([*head, "Smith's"], *rows)


if __name__ == "__main__":
    main()
