"""How many updates does 1cycle save, on digits and MNIST?

    python benchmarks/published/superconvergence_small.py [--data mnist.npz] [--checkpoints DIR]

Super-convergence (Smith & Topin 2017, arXiv 1708.07120) at a scale that a laptop has: a
two-layer network is trained for N updates, N over two decades, three ways. 1cycle takes its
peak, its momenta and its weight decay from `lrjax.smith_recipe` for N updates, which chooses by
samples that are held out from training and from testing. The others are a constant rate, and
one that is divided by 10 after N/2 and after 3N/4 updates, with momentum 0.9 and weight decay
1e-4: each the best of a grid of rates *by its test accuracy*, which is in their favour. The grid
and 8 seeds are lanes of one sweep.

`search` is what the recipe itself costs, in updates of all its lanes; a grid costs its own. Of a
run that is too short for the recipe to see anything, its reason stands in place of a peak. The
factor says how many times as many updates the best other way takes, between the N tried, to come
to 1cycle's accuracy; "<" where its shortest run is there already, ">" where its longest is not.

Last answer, on a 2-core x86-64 CPU with JAX 0.10.2:

    digits: 1,437 samples, batches of 64, 8 seeds
    updates            peak  search     1cycle, %   constant, %   rate      steps, %   rate  factor
    10       too_few_points      80             -  74.93 ± 3.51    0.1  75.73 ± 8.40      1       -
    30                0.469   1,260  93.89 ± 1.14  92.57 ± 1.76  0.316  94.55 ± 0.94  0.316     1.0
    100               0.691   4,400  97.81 ± 0.48  97.15 ± 0.51  0.316  97.88 ± 0.47  0.316     1.0
    300               0.691   4,400  99.03 ± 0.21  98.89 ± 0.39  0.316  98.96 ± 0.25  0.316     2.2
    1,000             0.298  10,500  98.99 ± 0.36  99.06 ± 0.25  0.316  98.96 ± 0.25  0.316     0.4

    MNIST: 60,000 samples, batches of 128, 8 seeds
    updates   peak  search     1cycle, %   constant, %   rate      steps, %   rate  factor
    30       0.256   1,260  86.88 ± 0.48  87.12 ± 1.47  0.316  85.28 ± 0.73  0.316   < 1.0
    100       0.22   4,400  92.18 ± 0.16  91.75 ± 0.34    0.1  92.61 ± 0.32  0.316     0.9
    300       0.22   4,400  95.36 ± 0.16  94.75 ± 0.16    0.1  95.34 ± 0.19  0.316     1.0
    1,000    0.325  10,500  97.72 ± 0.09  97.08 ± 0.11    0.1  97.21 ± 0.09  0.316     2.1
    3,000    0.381  31,500  98.24 ± 0.08  97.82 ± 0.10    0.1  97.96 ± 0.06  0.316   > 1.0

On MNIST 1cycle is at 97.7 % after 1,000 updates, for which the best of the grid takes some 2,100;
after 3,000 it is ahead of all that was tried. In shorter runs, and on digits, it comes to what the
best of the grid does: on digits each difference of the last two rows is less than one of the 360
test samples, so that their factors say nothing. What the search for its settings costs is in none
of the factors.
"""

import functools

import numpy as np
from flax import linen as nn
from shared import classification, folder, load, machine, options, percent, show

import lrjax

RATES = [0.01, 0.0316, 0.1, 0.316, 1.0]
DROP = {"constant": 1.0, "steps": 0.1}
UPDATES = {"digits": [10, 30, 100, 300, 1000], "MNIST": [30, 100, 300, 1000, 3000]}
BATCH = {"digits": 64, "MNIST": 128}
SEEDS = 8


def digits():
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images = np.uint8(images * 15.9375).reshape(-1, 8, 8, 1)  # from 0..16 to 0..255
    order = np.random.default_rng(0).permutation(len(labels))
    x, y = images[order], labels[order].astype(np.int32)
    return (x[:1437], y[:1437]), (x[1437:], y[1437:])


class Network(nn.Module):
    hidden: int = 128

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(self.hidden)(x.reshape(len(x), -1)))
        return nn.Dense(10)(x)


def stepped(learning_rate, drop, updates):
    rate = lrjax.multistep_decay(learning_rate, [updates // 2, 3 * updates // 4], gamma=drop)
    return lrjax.sgd(rate, 0.9, weight_decay=1e-4)


def compare(name, train, test, updates, seeds, checkpoints):
    """The recipe's 1cycle and the best of the other ways after some updates: accuracies."""
    task = classification(Network(), train[0], scale=1 / 255)
    held_out = len(train[0]) // 5
    search, chosen_by = [
        tuple(array[part] for array in train) for part in (slice(held_out, None), slice(held_out))
    ]
    batch = BATCH[name]
    recipe = lrjax.smith_recipe(
        task,
        lrjax.array_batches(search, batch),
        lrjax.array_batches(chosen_by, len(chosen_by[0])),
        total_steps=updates,
        checkpoint_dir=folder(checkpoints, f"{name}-{updates}-recipe"),
    )

    def run(label, optimizer, lanes=None):
        return lrjax.sweep(
            task,
            lrjax.array_batches(train, batch),
            optimizer,
            steps=updates,
            lanes=lanes,
            seeds=seeds,
            eval_batches=lrjax.array_batches(test, len(test[0])),
            eval_every=updates,
            divergence=None,
            checkpoint_dir=folder(checkpoints, f"{name}-{updates}-{label}"),
        ).eval_metrics["accuracy"][..., -1]

    grid = {"learning_rate": RATES, "drop": list(DROP.values())}
    others = run("others", functools.partial(stepped, updates=updates), grid)
    cycle = np.full(seeds, np.nan) if recipe.reason else run("1cycle", recipe.optimizer)
    return recipe, cycle, others


def factor(accuracy, updates, reached):
    """The updates by which others reach an accuracy, over those that were taken for it."""
    if np.isnan(accuracy):
        return "-"
    numbers, accuracies = np.array([*reached]), np.array([*reached.values()])
    if accuracy > accuracies.max():
        return f"> {numbers[-1] / updates:.1f}"
    first = int(np.argmax(accuracies >= accuracy))
    if first == 0:
        return f"< {numbers[0] / updates:.1f}"
    around = slice(first - 1, first + 1)
    needed = np.exp(np.interp(accuracy, accuracies[around], np.log(numbers[around])))
    return f"{needed / updates:.1f}"


def experiment(name, train, test, given):
    rows, cycles, best = [], {}, {}
    for updates in given.updates or UPDATES[name]:
        recipe, cycle, others = compare(name, train, test, updates, given.seeds, given.checkpoints)
        means = others.mean(-1)  # NaN where a seed diverged
        peak = recipe.reason or f"{recipe.max_learning_rate:.3g}"
        row = [f"{updates:,}", peak, f"{recipe.updates:,}", percent(cycle)]
        for k in range(len(DROP)):
            rate = np.nanargmax(means[:, k])
            row += [percent(others[rate, k]), f"{RATES[rate]:.3g}"]
        rows.append(row)
        cycles[updates], best[updates] = cycle.mean(), np.nanmax(means)
    head = ["updates", "peak", "search", "1cycle, %"]
    head += [part for way in DROP for part in (f"{way}, %", "rate")]
    factors = [factor(cycles[updates], updates, best) for updates in cycles]
    print(f"\n{name}: {len(train[0]):,} samples, batches of {BATCH[name]}, {given.seeds} seeds")
    rows = [[*row, text] for row, text in zip(rows, factors, strict=True)]
    show([*head, "factor"], *rows)


def main(arguments=None):
    parser = options(__doc__, data=False)
    parser.add_argument("--updates", type=int, nargs="+")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    given = parser.parse_args(arguments)
    print(machine())
    experiment("digits", *digits(), given)
    if given.data:
        experiment("MNIST", *load(given.data), given)


if __name__ == "__main__":
    main()
