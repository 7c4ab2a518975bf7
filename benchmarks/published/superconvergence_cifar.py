"""Does a ResNet-56 super-converge on 10,000 samples of CIFAR-10?

    python benchmarks/published/superconvergence_cifar.py --data cifar10_10k.npz
        --checkpoints DIR [--minutes 9] [--bf16] [--rows cyclical]

Smith & Topin 2017 (arXiv 1708.07120), Table 1, 10,000 training samples: a triangle from 0.1 to 3
and back in 10,000 updates of batch 1,000, against 0.35, divided by 10 at 50,000 and 70,000, in
80,000 updates. The network, its initialization, the weight decay of 1e-4, the momentum of 0.9,
the mirrored images, and what the running averages of the batch normalization keep (0.95 and
0.999) are those of his Caffe files. He split every batch over 8 devices, each with its own batch
normalization: `--parts 8` does so too. A call that is stopped after some minutes saves its state,
and the same call goes on from there.

Made for a GPU, and not yet run in full. On a 2-core x86-64 CPU with JAX 0.10.2, a ResNet-8 and a
tenth of the updates, one seed (`--depth 8 --steps 1000 --rows cyclical`), which is another set-up
than the published one beside it:

    policy    updates    of  ours, %  published, %
    cyclical     1000  1000    69.94          80.6
"""

import jax.numpy as jnp
from shared import (
    ResNet,
    classification,
    flipped,
    folder,
    last_accuracy,
    load,
    machine,
    options,
    percent,
    show,
    stopped_after,
)

import lrjax

BATCH, UPDATES = 1000, 10_000


def cyclical(updates):
    return lrjax.triangular(0.1, 3.0, updates // 2)


def piecewise(updates):
    return lrjax.multistep_decay(0.35, [updates * 5 // 8, updates * 7 // 8])


# The schedule, how many times the updates, what the running averages keep, Smith & Topin's result.
ROWS = {"cyclical": (cyclical, 1, 0.95, 80.6), "piecewise": (piecewise, 8, 0.999, 71.4)}


def main(arguments=None):
    parser = options(__doc__)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--steps", type=int, default=UPDATES, help="of the cyclical run")
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--parts", type=int, default=1, help="of a batch, normalized apart")
    parser.add_argument("--depth", type=int, default=56)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--minutes", type=float, help="stop and save after so long")
    parser.add_argument("--bf16", action="store_true", help="compute in bfloat16")
    given = parser.parse_args(arguments)
    train, test = load(given.data)

    def run(row):
        schedule, times, average, _ = ROWS[row]
        network = ResNet(
            depth=given.depth,
            width=given.width,
            # All parts update the averages, one after another.
            average=average ** (1 / given.parts),
            dtype=jnp.bfloat16 if given.bf16 else jnp.float32,
        )
        updates = times * given.steps

        def optimizer():
            return lrjax.sgd(schedule(updates), 0.9, weight_decay=1e-4)

        return lrjax.sweep(
            flipped(
                classification(
                    network, train[0], scale=1 / 64, mean=train[0].mean(0, keepdims=True)
                )
            ),
            lrjax.array_batches(train, given.batch // given.parts),
            optimizer,
            steps=updates,
            seeds=given.seeds,
            accumulate=given.parts,
            eval_batches=lrjax.array_batches(test, min(1000, len(test[0]))),
            eval_every=max(updates // 100, 1),
            divergence=None,
            checkpoint_dir=folder(given.checkpoints, row),
        )

    rows = [["policy", "updates", "of", "ours, %", "published, %"]]
    with stopped_after(given.minutes):
        for row in given.rows:
            curves = run(row)
            ours = percent(last_accuracy(curves))
            rows.append([row, int(curves.steps_done), curves.steps, ours, ROWS[row][3]])
            if curves.steps_done < curves.steps:
                break
    print(machine())
    show(*rows)


if __name__ == "__main__":
    main()
