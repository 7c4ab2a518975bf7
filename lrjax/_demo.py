"""The demo: a weight-decay range test on scikit-learn's digits, and a 1cycle run that uses it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

from lrjax._tables import text_table, without_nan
from lrjax.batches import array_batches
from lrjax.curves import Curves
from lrjax.plotting import plot_curves, plot_schedule
from lrjax.schedules import onecycle, onecycle_momentum
from lrjax.suggestions import Suggestion, suggest
from lrjax.sweeps import range_test, sweep
from lrjax.tasks import Task, linen_task
from lrjax.transforms import onecycle_sgd

WEIGHT_DECAYS = (0.0, 1e-5, 1e-4, 1e-3, 1e-2)
SEEDS = 4
RANGE_STEPS, RUN_STEPS = 200, 300


def digits() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """scikit-learn's 1,797 digits, shuffled: 1,437 to train on, 360 held out."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError("the demo needs scikit-learn: pip install 'lrjax[demo]'") from error
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    x, y = (images[order] / 16).astype(np.float32), labels[order].astype(np.int32)
    return (x[:1437], y[:1437]), (x[1437:], y[1437:])


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
    train, held_out = digits()
    task, batches = digits_task(), array_batches(train, 64)
    common: dict[str, Any] = {
        "seeds": SEEDS,
        "eval_batches": array_batches(held_out, 180),
        "progress": progress,
    }

    say(f"Range test: {len(WEIGHT_DECAYS)} weight decays x {SEEDS} seeds, {RANGE_STEPS} updates")
    curves = range_test(
        task,
        batches,
        start=1e-4,
        end=10.0,
        steps=RANGE_STEPS,
        momentum=(0.95, 0.85),
        lanes={"weight_decay": WEIGHT_DECAYS},
        eval_every=4,
        **common,
    )
    suggestion = suggest(curves)
    rows = _suggestion_rows(curves, suggestion)
    say(text_table(rows))
    best = min(
        (row for row in rows if np.isfinite(row["learning_rate"])),
        key=lambda row: row["best_held_out_loss"],
    )

    rate, decay = best["learning_rate"], best["weight_decay"]
    say(f"\n{RUN_STEPS} updates at weight decay {decay:g}, {SEEDS} seeds")
    plans = {"1cycle": rate, "constant": rate, "constant, 10 x lower": rate / 10}
    plans["constant, 10 x higher"] = rate * 10
    runs = sweep(
        task,
        batches,
        _planned,
        steps=RUN_STEPS,
        lanes=[_plan(name, rate, decay) for name, rate in plans.items()],
        **common,
    )
    run_rows = _run_rows(runs, plans)
    say(text_table(run_rows))

    out.mkdir(parents=True, exist_ok=True)
    curves.save(out / "curves.npz")
    runs.save(out / "runs.npz")
    _draw_curves(curves, suggestion, out / "curves.png")
    _draw_schedule(rate, out / "schedule.png")
    report = {"range_test": rows, "chosen": best, "runs": run_rows}
    (out / "report.json").write_text(json.dumps(without_nan(report), indent=2) + "\n")
    names = ("curves.npz", "runs.npz", "curves.png", "schedule.png", "report.json")
    say("\nWrote " + ", ".join(str(out / name) for name in names))
    return report


def _plan(name: str, rate: float, decay: float) -> dict[str, float]:
    """A lane: a 1cycle, or one of no height, which is a constant."""
    shape = (25.0, 1e4, 0.85, 0.95) if name == "1cycle" else (1.0, 1.0, 0.9, 0.9)
    names = ("div_factor", "final_div_factor", "low", "high")
    return {"peak_value": rate, "weight_decay": decay, **dict(zip(names, shape, strict=True))}


def _planned(peak_value, weight_decay, div_factor, final_div_factor, low, high):
    return onecycle_sgd(
        peak_value,
        RUN_STEPS,
        momentum=(low, high),
        weight_decay=weight_decay,
        div_factor=div_factor,
        final_div_factor=final_div_factor,
    )


def _suggestion_rows(curves: Curves, suggestion: Suggestion) -> list[dict[str, Any]]:
    agreed = suggestion.consensus
    best = np.nanmin(curves.eval_loss, -1)
    return [
        {
            "weight_decay": float(f"{decay:.6g}"),
            "learning_rate": float(agreed.learning_rate[k]),
            "max_learning_rate": float(agreed.max_learning_rate[k]),
            "spread_decades": float(agreed.spread[k]),
            "best_held_out_loss": float(best[k].mean()),
            "reason": str(agreed.reason[k]),
        }
        for k, decay in enumerate(curves.axes["weight_decay"])
    ]


def _run_rows(runs: Curves, plans: dict[str, float]) -> list[dict[str, Any]]:
    accuracy, loss = runs.eval_metrics["accuracy"][..., -1], runs.eval_loss[..., -1]
    return [
        {
            "run": name,
            "learning_rate": rate,
            "held_out_accuracy": float(accuracy[k].mean()),
            "deviation": float(accuracy[k].std()),
            "held_out_loss": float(loss[k].mean()),
            "diverged": f"{runs.diverged[k].sum()} of {SEEDS}",
        }
        for k, (name, rate) in enumerate(plans.items())
    ]


def _draw_curves(curves: Curves, suggestion: Suggestion, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    plot_curves(curves, "loss", suggestion=suggestion, ax=left)
    plot_curves(curves, "eval_loss", suggestion=suggestion, ax=right)
    left.set_ylabel("training loss (cross-entropy, nats)")
    right.set_ylabel("held-out loss (cross-entropy, nats)")
    right.get_legend().remove()
    figure.savefig(path, dpi=150)


def _draw_schedule(rate: float, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.2), layout="constrained")
    momentum = onecycle_momentum(RUN_STEPS)
    plot_schedule(onecycle(rate, RUN_STEPS), RUN_STEPS, momentum=momentum, ax=figure.subplots())
    figure.savefig(path, dpi=150)
