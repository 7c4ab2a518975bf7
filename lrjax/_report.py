"""Curves and suggestions as HTML: in a notebook, and as a page that needs nothing else."""

from __future__ import annotations

import base64
import datetime
import html
import io
import platform
from collections.abc import Callable
from importlib import metadata
from typing import Any

import jax

from lrjax import __version__, _tables
from lrjax._texts import as_words
from lrjax.curves import Curves
from lrjax.curves.axes import without_seed
from lrjax.plotting.curves import plot_curves, quantities
from lrjax.plotting.grids import grid_quantities, plot_grid
from lrjax.plotting.style import blank_figure
from lrjax.plotting.suggestions import plot_suggestion
from lrjax.suggestions import Suggestion
from lrjax.suggestions.grids import QUANTITIES
from lrjax.suggestions.methods import METHODS

MAX_ROWS = 20  # in a notebook


def curves_html(curves: Curves) -> str:
    """A notebook's view of curves: what they are, a row per lane, and the losses."""
    known = quantities(curves)
    losses = [name for name in ("loss", "eval_loss") if name in known]
    pictures = [_picture(known[name].title, SIZE, plot_curves, curves, name) for name in losses]
    return _view(repr(curves), _tables.curve_rows(curves), pictures)


def suggestion_html(suggestion: Suggestion) -> str:
    """A notebook's view of a suggestion: a row per lane, and the rates."""
    name = f"Suggestion by {suggestion.method!r}"
    return _view(name, _tables.suggestion_rows(suggestion), [_rates(suggestion)])


def _view(name: str, rows: list[_tables.Row], pictures: list[str]) -> str:
    more = len(rows) - MAX_ROWS
    rest = [f"<p>and {more} more</p>"] if more > 0 else []
    table = _tables.html_table(rows[:MAX_ROWS])
    return "\n".join(["<div>", f"<p>{html.escape(name)}</p>", table, *rest, *pictures, "</div>"])


def environment() -> dict[str, str]:
    """Versions and the device."""
    names = ("jax", "jaxlib", "optax", "flax", "numpy")
    versions = {name: metadata.version(name) for name in names}
    device = jax.devices()[0]
    kind = f"{jax.device_count()} x {device.device_kind} ({device.platform})"
    return {"lrjax": __version__, "python": platform.python_version(), **versions, "device": kind}


REASONS = {
    "not_learning": "The loss did not fall by more than its noise. More steps, or evaluations, may "
    "show a smaller fall, as in mid-training.",
    "no_minimum_in_range": "The loss has its lowest point at an end of the range: move the end "
    "that is named outwards.",
    "diverged_at_start": "Even the smallest rate was too large.",
    "too_few_points": "There are too few updates to read a rate from.",
}


def report_html(curves: Curves, suggestion: Suggestion, arguments: dict[str, Any]) -> str:
    """A page of its own: curves, suggestion, how it was reached, arguments and versions.

    Args:
        curves: of a range test.
        suggestion: of these curves.
        arguments: what the range test was called with, by name.

    Returns:
        HTML that refers to nothing outside of itself.
    """
    rows = _tables.joint_rows(curves, suggestion)
    drawn = {"suggestion": suggestion}
    lines = [
        _picture(quantity.title, SIZE, plot_curves, curves, name, **drawn)
        for name, quantity in quantities(curves).items()
    ]
    grids = [
        _picture(QUANTITIES[name], (4.2, 3.4), plot_grid, curves, name, **drawn)
        for name in (grid_quantities(curves) if len(without_seed(curves.axes)) == 2 else ())
    ]
    body = [
        "<h1>Learning-rate range test</h1>",
        f"<p>{html.escape(repr(curves))}</p>",
        f"<p class=headline>{html.escape(_tables.verdict(curves, rows))}</p>",
        "<h2>Curves</h2>",
        *lines,
        *grids,
        "<p>Every line is the mean over the seeds that last at least half as long as the longest, "
        "with a band of one standard deviation; a cross marks where a seed diverged. Training "
        "losses are smoothed without a lag.</p>",
        "<h2>Lanes</h2>",
        _scrolled(_tables.html_table(rows)),
        "<h2>How the rates were reached</h2>",
        *_how(suggestion, rows),
        _rates(suggestion),
        "<h2>Arguments</h2>",
        _definitions({name: _spelled(value) for name, value in arguments.items()}),
        "<h2>Versions and device</h2>",
        _definitions(environment()),
        f"<p>Written {datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC.</p>",
    ]
    return _page("Learning-rate range test", body)


def _how(suggestion: Suggestion, rows: list[_tables.Row]) -> list[str]:
    rule = (METHODS[suggestion.method].__doc__ or "").splitlines()[0]
    parts = [f"<p>Method <code>{suggestion.method}</code>: {html.escape(rule)}</p>"]
    seeds = _tables.seed_rows(suggestion)
    if seeds and len(suggestion.axes["seed"]) > 1:
        parts.append(
            "<p>A lane's rate is the median over its seeds, in decades, where at least half of "
            "them name one. Each seed for itself:</p>"
        )
        parts.append(_scrolled(_tables.html_table(seeds)))
    given = dict.fromkeys(row["reason"] for row in rows if row["reason"])
    return parts + [f"<p><b>{as_words(reason)}</b>: {REASONS[reason]}</p>" for reason in given]


SIZE = 5.0, 3.7  # inches
DOTS = 96  # per inch on the page; images have twice as many, for sharp screens


def _rates(suggestion: Suggestion) -> str:
    lanes = suggestion.consensus.learning_rate.size
    return _picture("Suggested rates", (6.5, 1.2 + 0.32 * lanes), plot_suggestion, suggestion)


def _picture(
    name: str, size: tuple[float, float], plot: Callable, *args: Any, **kwargs: Any
) -> str:
    """What a function draws as an inline image; nothing where matplotlib is not installed."""
    try:
        figure = blank_figure(*size)
    except ImportError:
        return ""
    plot(*args, ax=figure.subplots(), **kwargs)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=2 * DOTS)
    data = base64.b64encode(file.getvalue()).decode()
    style = f"width:{size[0] * DOTS:.0f}px;max-width:100%"
    return f'<img alt="{html.escape(name)}" style="{style}" src="data:image/png;base64,{data}">'


def _scrolled(table: str) -> str:
    return f"<div class=scrolled>{table}</div>"


def _spelled(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{name}: {_spelled(entry)}" for name, entry in value.items()) or "-"
    if isinstance(value, list | tuple):
        return ", ".join(map(_spelled, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _definitions(entries: dict[str, str]) -> str:
    lines = (
        f"<dt>{html.escape(as_words(name))}</dt><dd>{html.escape(text)}</dd>"
        for name, text in entries.items()
    )
    return "\n".join(["<dl>", *lines, "</dl>"])


def _page(name: str, body: list[str]) -> str:
    head = [
        "<!DOCTYPE html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<link rel="icon" href="data:,">',
        f"<title>{html.escape(name)}</title>",
        f"<style>{STYLE}</style>",
        "</head>",
        "<body>",
    ]
    return "\n".join([*head, *body, "</body>", "</html>", ""])


STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff;
       max-width: 62rem; margin: 0 auto; padding: 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.headline { font-size: 1.25rem; padding: .6rem .8rem; background: #eef4f3;
            border-left: 4px solid #21918c; }
.scrolled { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
th, td { text-align: right; padding: .25rem .6rem; border-bottom: 1px solid #ddd; }
th { font-weight: 600; vertical-align: bottom; }
dl { display: grid; grid-template-columns: minmax(7rem, max-content) 1fr; gap: .2rem 1rem; }
dt { color: #555; } dd { margin: 0; }
img { height: auto; }
"""
