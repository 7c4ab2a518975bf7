"""Smith's recipe on digits, and what its 1cycle is worth beside constant rates.

The recipe finds the rate, weight decay and momentum from range tests and short runs, on data
held out for that. Look at what it says it did, where it says that the evidence is weak, and at
the table: all runs have the same number of updates; the test data were used for nothing else.
"""

import optax
from flax import linen as nn
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import lrjax

STEPS = 400

images, labels = load_digits(return_X_y=True)
images = (images / 16).astype("float32")
x, x_test, y, y_test = train_test_split(images, labels, test_size=360, random_state=0)
x, x_held_out, y, y_held_out = train_test_split(x, y, test_size=360, random_state=0)

network = nn.Sequential([nn.Dense(32), nn.relu, nn.Dense(10)])


def loss(logits, batch):
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch[1])
    return losses.mean(), {"accuracy": (logits.argmax(-1) == batch[1]).mean()}


task = lrjax.linen_task(network, loss, (x[:1], y[:1]))
recipe = lrjax.smith_recipe(
    task,
    (x, y),
    [(x_held_out, y_held_out)],  # as one batch
    total_steps=STEPS,
    weight_decays=(0.0, 1e-4, 1e-2),
    momentums=(0.9, 0.97),
    start=1e-3,
)
print(recipe.describe())
print(f"Cost: {recipe.updates / STEPS:.1f} runs' updates.\n")


def report(names, optimizer, lanes=None):
    curves = lrjax.sweep(
        task,
        (x, y),
        optimizer,
        lanes=lanes,
        seeds=3,
        steps=STEPS,
        eval_batches=[(x_test, y_test)],
        eval_every=STEPS,
    )
    accuracies = curves.eval_metrics["accuracy"].reshape(len(names), 3)
    for name, seeds in zip(names, accuracies, strict=True):
        # NaN where a run diverged.
        print(f"{name:14}  test accuracy {seeds.mean():.3f} +- {seeds.std():.3f}")


def constant(learning_rate):
    return lrjax.sgd(learning_rate, 0.9, weight_decay=recipe.weight_decay)


rates = [0.003, 0.01, 0.03, 0.1, 0.3, 1.0]
report(["1cycle"], lambda: recipe.optimizer())
report([f"constant {rate:g}" for rate in rates], constant, {"learning_rate": rates})
