"""The demo: Smith's recipe on scikit-learn's digits, and its 1cycle against constant rates."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

from lrjax._tables import joint_rows, text_table, without_nan
from lrjax.batches import array_batches
from lrjax.curves import Curves
from lrjax.plotting import plot_curves
from lrjax.plotting.recipes import recipe_page
from lrjax.plotting.style import blank_figure, require_matplotlib, save
from lrjax.recipes import Recipe, smith_recipe
from lrjax.recipes.cycles import MAX_OVER_MIN
from lrjax.suggestions import suggest
from lrjax.sweeps import sweep
from lrjax.tasks import Task, linen_task
from lrjax.transforms import onecycle_sgd

WEIGHT_DECAYS = (0.0, 1e-5, 1e-4, 1e-3, 1e-2)
SEEDS = 4
TEST_STEPS, RUN_STEPS = 200, 300
MOMENTUM = 0.9  # of the constant rates

Arrays = tuple[np.ndarray, np.ndarray]


def digits() -> tuple[Arrays, Arrays, Arrays]:
    """scikit-learn's 1,797 digits, shuffled: to train on, to choose by, and to judge by."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError("the demo needs scikit-learn: pip install 'lrjax[demo]'") from error
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    x, y = (images[order] / 16).astype(np.float32), labels[order].astype(np.int32)
    return (x[:1150], y[:1150]), (x[1150:1437], y[1150:1437]), (x[1437:], y[1437:])


def digits_task() -> Task:
    """A small network (64-64-32-10, ReLU) and the cross-entropy."""
    from flax import linen as nn

    network = nn.Sequential([nn.Dense(64), nn.relu, nn.Dense(32), nn.relu, nn.Dense(10)])

    def loss(logits, batch):
        labels = batch[1]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.mean(), {"accuracy": jnp.mean(logits.argmax(-1) == labels)}

    return linen_task(network, loss, (np.zeros((1, 64), np.float32), np.zeros(1, np.int32)))


def run(out: Path, *, progress: bool = True, say: Callable = print) -> dict[str, Any]:
    """Run the demo, say its tables, and write its files into the folder `out`.

    Returns:
        What `report.json` holds.
    """
    require_matplotlib()
    out.mkdir(parents=True, exist_ok=True)  # before what takes long
    train, validation, test = digits()
    task, batches = digits_task(), array_batches(train, 64)
    common: dict[str, Any] = {"seeds": SEEDS, "progress": progress}

    say(f"Range tests: {len(WEIGHT_DECAYS)} weight decays x {SEEDS} seeds, {TEST_STEPS} updates")
    recipe = smith_recipe(
        task,
        batches,
        array_batches(validation, len(validation[0])),
        total_steps=RUN_STEPS,
        weight_decays=WEIGHT_DECAYS,
        start=1e-4,
        test_steps=TEST_STEPS,
        eval_every=4,
        **common,
    )
    curves = recipe.evidence["range_test"]
    rows = joint_rows(curves, suggest(curves))
    say(text_table(rows))
    say(f"\n{recipe.describe()}")

    curves.save(out / "curves.npz")
    _draw_curves(curves, out / "curves.png")
    save(recipe_page(recipe), out / "recipe.png")
    (out / "recipe.json").write_text(recipe.to_json() + "\n")
    names = ["curves.npz", "curves.png", "recipe.png", "recipe.json"]
    report: dict[str, Any] = {
        "range_test": rows,
        "recipe": recipe.describe().splitlines(),
        "interrupted": recipe.interrupted,
    }
    if not recipe.reason:
        say(f"\n{RUN_STEPS} updates, judged by {len(test[0])} other digits, {SEEDS} new seeds")
        plans = _plans(recipe)
        runs = sweep(
            task,
            batches,
            _planned,
            steps=RUN_STEPS,
            lanes=list(plans.values()),
            eval_batches=array_batches(test, len(test[0])),
            **common | {"seeds": range(SEEDS, 2 * SEEDS)},
        )
        runs.save(out / "runs.npz")
        names.append("runs.npz")
        report["interrupted"] = runs.interrupted
        report["runs"] = _run_rows(runs.done(), plans)
        say(text_table(report["runs"]))
    (out / "report.json").write_text(json.dumps(without_nan(report), indent=2) + "\n")
    say("\nWrote " + ", ".join(str(out / name) for name in [*names, "report.json"]))
    return report


def _plans(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Lanes: the recipe's 1cycle, and constant rates, which are cycles of no height."""
    decay = {"weight_decay": recipe.weight_decay}
    shape = {"div_factor": MAX_OVER_MIN, "final_div_factor": 1e4}
    momentum = {"low": recipe.min_momentum, "high": recipe.momentum}
    plans = {"1cycle": {"peak_value": recipe.max_learning_rate, **decay, **shape, **momentum}}
    flat = {"div_factor": 1.0, "final_div_factor": 1.0, "low": MOMENTUM, "high": MOMENTUM}
    # The best constant rate is "within a factor of two" of the largest that converges.
    constant = recipe.max_learning_rate / 2
    for name, factor in (("", 1.0), (", 10 x lower", 0.1), (", 10 x higher", 10.0)):
        plans[f"constant{name}"] = {"peak_value": constant * factor, **decay, **flat}
    return plans


def _planned(peak_value, weight_decay, div_factor, final_div_factor, low, high):
    return onecycle_sgd(
        peak_value,
        RUN_STEPS,
        momentum=(low, high),
        weight_decay=weight_decay,
        div_factor=div_factor,
        final_div_factor=final_div_factor,
    )


def _run_rows(runs: Curves, plans: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    if not len(runs.eval_steps):
        return []
    accuracy, loss = runs.eval_metrics["accuracy"][..., -1], runs.eval_loss[..., -1]
    return [
        {
            "run": name,
            "learning_rate": plan["peak_value"],
            "held_out_accuracy": float(accuracy[k].mean()),
            "deviation": float(accuracy[k].std(ddof=1)),
            "held_out_loss": float(loss[k].mean()),
            "diverged": f"{runs.diverged[k].sum()} of {SEEDS}",
        }
        for k, (name, plan) in enumerate(plans.items())
    ]


def _draw_curves(curves: Curves, path: Path) -> None:
    figure = blank_figure(10, 4)
    left, right = figure.subplots(1, 2, sharey=True)
    suggestion = suggest(curves)
    plot_curves(curves, "loss", suggestion=suggestion, ax=left)
    plot_curves(curves, "eval_loss", suggestion=suggestion, ax=right)
    left.set_ylabel("training loss (cross-entropy, nats)")
    right.set_ylabel("held-out loss (cross-entropy, nats)")
    right.get_legend().remove()
    save(figure, path)
