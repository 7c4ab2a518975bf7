"""Is a 1cycle run at the settings of `smith_recipe` better than what a user would pick instead?

    pip install ".[demo]" optuna
    python benchmarks/recipe.py                              digits
    python benchmarks/recipe.py --data mnist.npz             MNIST, in the file that Keras has
    python benchmarks/recipe.py --only digits-mlp-sgd --describe

Every number is a test accuracy in per cent, mean ± sample standard deviation over 5 seeds, with
which nothing but c was chosen. All choices but one are by the loss on validation data. N updates:
1,000 of 64 samples on digits; of 128 on MNIST 2,000 for the MLP (784-64-10), 1,000 for the CNN
(3x3 convolutions of stride 2 to 8 and 16 channels); fixed before the first run.

cost: of the recipe, the updates of all its lanes in units of N.
a: 1cycle over N updates at the recipe's settings. b: the same plan over N/2 updates.
c: the best of 13 constant rates over N updates, chosen by this very test accuracy; then the
one of the lowest validation loss. Momentum 0.9, and for AdamW a decay of 1e-4.
d: Optuna's TPE over rate, decay and momentum, with as many runs of N updates as the recipe and
its final run cost; the best trial's settings. e: random search likewise, all lanes in one sweep.
a:c, b:c: is the mean of a (b) not below c, "tied" if it is by no more than the larger deviation?
The optimizers without a rate have one row for each network: Prodigy and DoG as they are in
optax.contrib, which leaves nothing to tune; Prodigy with the linear decay that it recommends;
schedule-free AdamW at its own rate, and at the best of 12 random rates, decays and momenta, both
at the averaged parameters.

The last answers, with JAX 0.10.2 and Optuna 5.0.0 on a 2-core x86-64 CPU. Of TPE's 11 or 12
trials ten are its random start. After all updates the recipe is ahead or tied in every row, and
after half of them in every row but MNIST's CNN with SGD. Prodigy with a linear decay, which costs
one run, is level with the recipe on the MLPs and on MNIST's CNN.

                 cost  a: recipe     b: N/2          c  by valid.     d: TPE  e: random  a:c  b:c
digits-mlp-sgd   10.5  98.11±.53  98.06±.52  98.56±.46  98.56±.46  98.33±.39  98.33±.28 tied tied
digits-mlp-adamw 11.0  98.22±.15  98.28±.46  98.22±.32  98.22±.32  97.89±.64  97.94±.25  yes  yes
digits-cnn-sgd   11.0  98.33±.28  97.94±.64  97.56±.23  96.33±.53  96.83±.37  97.56±.63  yes  yes
digits-cnn-adamw 11.0  97.83±.36  97.44±.36  97.78±.44 97.17±1.14  97.72±.36  97.83±.63  yes tied
mnist-mlp-sgd    10.5  97.64±.13  97.24±.09  96.93±.25  96.93±.25  95.42±.31  96.94±.15  yes  yes
mnist-mlp-adamw  10.5  97.59±.02  97.22±.08  96.88±.18  96.88±.18  96.76±.09  96.93±.20  yes  yes
mnist-cnn-sgd    11.0  98.00±.07  97.16±.19  97.77±.20  97.77±.20  97.28±.31  97.58±.18  yes   no
mnist-cnn-adamw  10.5  98.41±.13  97.91±.17  97.97±.07  97.92±.10  97.62±.20  97.85±.02  yes tied
                        Prodigy     with decay            DoG  schedule-free          tuned
digits-mlp-free       97.89±.75      98.22±.37      98.39±.12      97.33±.15      97.61±.25
digits-cnn-free       97.11±.87      97.50±.52      97.33±.85      96.50±.70      97.28±.82
mnist-mlp-free        96.66±.18      97.73±.11      96.94±.16      96.30±.10      97.45±.12
mnist-cnn-free        97.80±.22      98.37±.15      97.05±.18      96.86±.27      98.40±.11
"""

import argparse
import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optuna
from flax import linen as nn
from sklearn.datasets import load_digits

import lrjax

TEST_SEEDS = tuple(range(100, 105))  # of every number in the table; only c is chosen with them
SEARCH_SEEDS = (0,)  # the recipe takes 0 and 1
RATE_FREE_TRIALS = 12  # the recipe's usual cost, 11 runs, and its final run
DECAYS, MOMENTA = (1e-6, 1e-2), (0.8, 0.99)


class Family(NamedTuple):
    """An optimizer, the rates that are searched, and what holds beside the constant ones."""

    optimizer: object
    rates: tuple[float, float]
    momentum: str
    held: dict[str, float]


FAMILIES = {
    "sgd": Family(lrjax.sgd, (1e-4, 1.0), "momentum", {"momentum": 0.9}),
    "adamw": Family(lrjax.adamw, (1e-5, 0.1), "b1", {"b1": 0.9, "weight_decay": 1e-4}),
}


class Problem(NamedTuple):
    """What is trained on what, and for how long."""

    task: lrjax.Task
    train: object
    validation: object
    test: object
    steps: int


class Score(NamedTuple):
    """Of lanes: the mean loss on the validation data, and the test accuracies of every seed."""

    validation_loss: np.ndarray
    accuracy: np.ndarray

    @property
    def lowest(self):
        """The lane of the lowest validation loss."""
        return np.argmin(np.where(np.isfinite(self.validation_loss), self.validation_loss, np.inf))


def patches(images):
    """What a 3x3 convolution of stride 2 sees, along the last axis: a dense layer makes it one."""
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = images.shape[1:3]
    return jnp.concatenate(
        [padded[:, i : i + height : 2, j : j + width : 2] for i in range(3) for j in range(3)], -1
    )


def flat(images):
    return images.reshape(len(images), -1)


NETWORKS = {
    "mlp": [flat, nn.Dense(64), nn.relu, nn.Dense(10)],
    "cnn": [patches, nn.Dense(8), nn.relu, patches, nn.Dense(16), nn.relu, flat, nn.Dense(10)],
}


def loss(logits, batch):
    labels = batch[1]
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return losses.mean(), {"accuracy": jnp.mean(logits.argmax(-1) == labels)}


def digits():
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    x, y = images[order].reshape(-1, 8, 8, 1) / 16, labels[order]
    return (x[:1077], y[:1077]), (x[1077:1437], y[1077:1437]), (x[1437:], y[1437:])


def mnist(path):
    with np.load(path) as file:
        (x, y), test = [(file[f"x_{part}"], file[f"y_{part}"]) for part in ("train", "test")]
    order = np.random.default_rng(0).permutation(len(y))
    train, validation = order[5000:], order[:5000]
    return [
        (images[..., None] / 255, labels)
        for images, labels in ((x[train], y[train]), (x[validation], y[validation]), test)
    ]


def problem(model, data, batch_size, steps):
    data = [(x.astype(np.float32), y.astype(np.int32)) for x, y in data]
    train, validation, test = data
    task = lrjax.linen_task(nn.Sequential(NETWORKS[model]), loss, (train[0][:1], train[1][:1]))
    batches = lrjax.array_batches(train, batch_size)
    return Problem(task, batches, lrjax.array_batches(validation, 180), test, steps)


def last_params(state):
    return state.params


def averaged_params(state):
    return optax.contrib.schedule_free_eval_params(state.opt_state, state.params)


@functools.partial(jax.jit, static_argnames=("task", "params"))
def measured(states, datasets, task, params):
    """The losses and accuracies of models on whole datasets, one model after another."""

    def one(state):
        def on(data):
            key = jax.random.key(0)
            loss, (_, metrics) = task.loss(params(state), state.model_state, data, key, False)
            return loss, metrics["accuracy"]

        return [on(data) for data in datasets]

    return jax.lax.map(one, states)


def score(problem, optimizer, lanes=None, *, seeds=TEST_SEEDS, steps=None, params=last_params):
    """Train lanes, and look at the parameters that they come to.

    A lane goes on as long as its loss is finite, so that none is stopped that might recover.
    """
    curves, state = lrjax.sweep(
        problem.task,
        problem.train,
        optimizer,
        steps=steps or problem.steps,
        lanes=lanes,
        seeds=seeds,
        divergence=None,
        return_state=True,
    )
    shape = curves.diverged_at.shape
    states = jax.tree.map(lambda array: array.reshape(-1, *array.shape[len(shape) :]), state)
    data = problem.validation.data, problem.test
    found = measured(states, data, problem.task, params)
    (losses, _), (_, accuracies) = jax.tree.map(np.asarray, found)
    return Score(losses.reshape(shape).mean(-1), accuracies.reshape(shape))


def recipe(problem, family):
    return lrjax.smith_recipe(
        problem.task,
        problem.train,
        problem.validation,
        total_steps=problem.steps,
        optimizer=family.optimizer,
    )


def constants(problem, family):
    """The scores of 13 constant rates."""
    rates = np.geomspace(*family.rates, 13)
    return score(problem, family.optimizer, [{"learning_rate": r, **family.held} for r in rates])


def tpe(problem, family, trials):
    """Optuna's TPE, one run after another."""

    def objective(trial):
        lane = {
            "learning_rate": trial.suggest_float("learning_rate", *family.rates, log=True),
            "weight_decay": trial.suggest_float("weight_decay", *DECAYS, log=True),
            family.momentum: trial.suggest_float(family.momentum, *MOMENTA),
        }
        found = score(problem, family.optimizer, [lane], seeds=SEARCH_SEEDS).validation_loss[0]
        return float(found) if np.isfinite(found) else 1e9

    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0))
    study.optimize(objective, n_trials=trials)
    return score(problem, family.optimizer, [study.best_params]).accuracy[0]


def random_search(problem, optimizer, rates, momentum, trials, params=last_params):
    """Random lanes, side by side."""
    lanes = lrjax.random_lanes(
        jax.random.key(0),
        trials,
        learning_rate=lrjax.log_uniform(*rates),
        weight_decay=lrjax.log_uniform(*DECAYS),
        **{momentum: lrjax.uniform(*MOMENTA)},
    )
    best = lanes[score(problem, optimizer, lanes, seeds=SEARCH_SEEDS, params=params).lowest]
    return score(problem, optimizer, [best], params=params).accuracy[0]


def cell(accuracy):
    """Mean and sample standard deviation over the seeds, in per cent."""
    mean, deviation = 100 * accuracy.mean(), 100 * accuracy.std(ddof=1)
    return f"{mean:.2f}±{f'{deviation:.2f}'.lstrip('0')}"


def reached(accuracy, target):
    """Whether a mean is not below another; or tied, below it within the larger deviation."""
    behind = target.mean() - accuracy.mean()
    spread = max(accuracy.std(ddof=1), target.std(ddof=1))
    return "yes" if behind <= 0 else "tied" if behind <= spread else "no"


TUNED = "cost", "a: recipe", "b: N/2", "c", "by valid.", "d: TPE", "e: random", "a:c", "b:c"
RATE_FREE = "Prodigy", "with decay", "DoG", "schedule-free", "tuned"


def line(name, cells):
    """A row of the table, whose accuracies take 11 characters and the rest 5."""
    widths = (5, *[11] * 6, 5, 5) if len(cells) == len(TUNED) else [15] * len(RATE_FREE)
    return f"{name:16}" + "".join(map(str.rjust, cells, widths))


def tuned_row(problem, family, describe):
    found = recipe(problem, family)
    half = dataclasses.replace(found, total_steps=problem.steps // 2)
    a = score(problem, found.optimizer).accuracy
    b = score(problem, half.optimizer, steps=half.total_steps).accuracy
    constant = constants(problem, family)
    generous = constant.accuracy.mean(-1).argmax()
    c = constant.accuracy[generous]
    if describe:
        print(found.describe())
        print(f"The best constant rates: numbers {generous} and {constant.lowest} of 0 to 12.")
    trials = found.updates // problem.steps + 1
    d = tpe(problem, family, trials)
    e = random_search(problem, family.optimizer, family.rates, family.momentum, trials)
    cells = map(cell, (a, b, c, constant.accuracy[constant.lowest], d, e))
    return [f"{found.updates / problem.steps:.1f}", *cells, reached(a, c), reached(b, c)]


def rate_free_row(problem):
    prodigy, free = optax.contrib.prodigy, optax.contrib.schedule_free_adamw
    decayed = functools.partial(
        prodigy, learning_rate=optax.linear_schedule(1.0, 0.0, problem.steps)
    )
    scores = [score(problem, optimizer) for optimizer in (prodigy, decayed, optax.contrib.dog)]
    scores.append(score(problem, free, params=averaged_params))
    rates = FAMILIES["adamw"].rates
    tuned = random_search(problem, free, rates, "b1", RATE_FREE_TRIALS, averaged_params)
    return [*(cell(each.accuracy) for each in scores), cell(tuned)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", metavar="FILE.npz", help="MNIST: x_train, y_train, x_test, …")
    parser.add_argument("--only", nargs="+", metavar="ROW", help="such as digits-mlp-sgd")
    parser.add_argument("--describe", action="store_true", help="print each recipe's account")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if options.data:
        dataset, data, batch_size = "mnist", mnist(options.data), 128
        steps = {"mlp": 2000, "cnn": 1000}
    else:
        dataset, data, batch_size = "digits", digits(), 64
        steps = {"mlp": 1000, "cnn": 1000}

    for title, kinds in ((TUNED, FAMILIES), (RATE_FREE, ["free"])):
        names = {f"{dataset}-{model}-{kind}": (model, kind) for model in NETWORKS for kind in kinds}
        wanted = [name for name in names if not options.only or name in options.only]
        if wanted:
            print(line("", title), flush=True)
        for name in wanted:
            model, kind = names[name]
            given = problem(model, data, batch_size, steps[model])
            if kind in FAMILIES:
                row = tuned_row(given, FAMILIES[kind], options.describe)
            else:
                row = rate_free_row(given)
            print(line(name, row), flush=True)


if __name__ == "__main__":
    main()
