"""Curves and suggestions as rows: for a terminal, a page, or a script."""

from __future__ import annotations

import html
from typing import Any

import numpy as np

from lrjax._texts import aligned, as_words, shortened
from lrjax.curves import Curves
from lrjax.curves.axes import coordinates, seeds_last, without_seed
from lrjax.suggestions import Suggestion, rank
from lrjax.suggestions.grids import grid_values

Row = dict[str, Any]


def curve_rows(curves: Curves) -> list[Row]:
    """A row per lane: over its seeds, the mean of the lowest losses, and how many diverged."""
    diverged = seeds_last(curves.axes, curves.diverged)
    columns = {"lowest_loss": grid_values(curves, "loss")}
    if len(curves.eval_steps):
        columns["lowest_eval_loss"] = grid_values(curves, "eval_loss")
    return [
        lane
        | {name: shortened(column[index]) for name, column in curves.lanes.items()}
        | {name: shortened(values[index]) for name, values in columns.items()}
        | {"diverged": int(diverged[index].sum()), "seeds": diverged.shape[-1]}
        for index, lane in _lanes(curves.axes)
    ]


def suggestion_rows(suggestion: Suggestion) -> list[Row]:
    """A row per lane: what its seeds agree on."""
    agreed = suggestion.consensus
    return [
        lane
        | {
            "learning_rate": shortened(agreed.learning_rate[index]),
            "min_learning_rate": shortened(agreed.min_learning_rate[index]),
            "max_learning_rate": shortened(agreed.max_learning_rate[index]),
            "spread_decades": shortened(agreed.spread[index]),
            "reason": str(agreed.reason[index]),
            "extend": str(agreed.extend[index]),
        }
        for index, lane in _lanes(suggestion.axes)
    ]


def seed_rows(suggestion: Suggestion) -> list[Row]:
    """A row per lane: what each of its seeds says, a rate or a reason."""
    if "seed" not in suggestion.axes:
        return []
    rates, reasons = (
        seeds_last(suggestion.axes, array)
        for array in (suggestion.learning_rate, suggestion.reason)
    )
    return [
        lane
        | {
            f"seed {name}": as_words(str(reason)) or shortened(rate)
            for name, rate, reason in zip(
                suggestion.axes["seed"], rates[index], reasons[index], strict=True
            )
        }
        for index, lane in _lanes(suggestion.axes)
    ]


def joint_rows(curves: Curves, suggestion: Suggestion) -> list[Row]:
    """A row per lane: what is suggested for it, and how far it came."""
    pairs = zip(suggestion_rows(suggestion), curve_rows(curves), strict=True)
    return [suggested | reached for suggested, reached in pairs]


def chosen_row(curves: Curves, rows: list[Row]) -> Row | None:
    """The row of the lane to take, and whether it is better beyond the noise; None for none.

    Where no rate can be named for the lane that `rank` takes, that of the next lowest loss.
    """
    order, significant = [0], True
    if len(rows) > 1:
        ranking = rank(curves)
        lanes = (coordinates(ranking.axes, index) for index in np.ndindex(ranking.loss.shape))
        best = [{n: v.item() for n, v in lane.items()} for lane in lanes].index(ranking.best)
        order, significant = [best, *ranking.order], ranking.significant
    named = [k for k in order if np.isfinite(rows[k]["learning_rate"])]
    if not named:
        return None
    return rows[named[0]] | {"significant": significant and named[0] == order[0]}


def verdict(curves: Curves, rows: list[Row]) -> str:
    """A sentence for people: the rate of the lane to take, and how sure the choice is."""
    chosen = chosen_row(curves, rows)
    if chosen is None:
        return "No learning rate can be named."
    lane = {name: chosen[name] for name in without_seed(curves.axes)}
    text = f"Learning rate {chosen['learning_rate']:.3g}"
    text += "".join(f", {as_words(name)} {value:g}" for name, value in lane.items())
    if not all(np.isfinite(row["learning_rate"]) for row in rows):
        text += ", of the lanes for which one can be named"
    doubt = "" if chosen["significant"] else " (which may be chance: the seeds cannot tell)"
    return text + doubt


def text_table(rows: list[Row]) -> str:
    """For a terminal, without the columns that are empty."""
    return "\n".join(aligned(_cells(rows)))


def html_table(rows: list[Row]) -> str:
    """For a page, without the columns that are empty."""
    header, *body = ([html.escape(cell) for cell in row] for row in _cells(rows))
    lines = ["<table>", "<thead><tr>" + "".join(f"<th>{c}</th>" for c in header) + "</tr></thead>"]
    lines += ["<tbody>"]
    lines += ["<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in body]
    return "\n".join([*lines, "</tbody>", "</table>"])


def without_nan(value: Any) -> Any:
    """The same with None for NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {key: without_nan(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(entry) for entry in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _lanes(axes: dict[str, np.ndarray]) -> list[tuple[tuple[int, ...], Row]]:
    """The index and the coordinates of every lane, whatever its seed."""
    axes = without_seed(axes)
    lanes = ((index, coordinates(axes, index)) for index in np.ndindex(*map(len, axes.values())))
    return [(index, {n: _plain(v) for n, v in lane.items()}) for index, lane in lanes]


def _plain(value: Any) -> int | float:
    """As a number to print: of a seed or another integer all digits count."""
    return int(value) if isinstance(value, int | np.integer) else shortened(value)


def _cells(rows: list[Row]) -> list[list[str]]:
    columns = {name: [_text(row[name]) for row in rows] for name in rows[0]}
    shown = {name: cells for name, cells in columns.items() if set(cells) != {"-"}}
    return [[as_words(name) for name in shown], *map(list, zip(*shown.values(), strict=True))]


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if np.isfinite(value) else "-"
    return str(value) or "-"
