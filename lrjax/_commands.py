"""What the `lrjax` command does, once its arguments are known."""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib.util
import inspect
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lrjax import _checks, _demo, _report, _tables
from lrjax._problems import load_problem
from lrjax._schedule_arguments import add_parameters, schedule_factory
from lrjax.cli import Parser, add_json, add_picture
from lrjax.curves import Curves
from lrjax.plotting import plot_grid, plot_schedule
from lrjax.plotting.curves import panels, rises
from lrjax.plotting.grids import grid_quantities
from lrjax.plotting.recipes import recipe_page
from lrjax.plotting.style import blank_figure, save
from lrjax.recipes import smith_recipe
from lrjax.suggestions import Suggestion, suggest
from lrjax.suggestions.methods import METHODS
from lrjax.sweeps import range_test

RUNNING = ("batch_size", "eval_every", "accumulate", "lane_batch", "checkpoint_dir")
RANGE_TEST = ("start", "end", "steps", "ramp", "seeds", *RUNNING)
RECIPE = ("total_steps", "start", "end", "test_steps", "seeds", *RUNNING)


def run_range_test(options: argparse.Namespace) -> int:
    """`lrjax range-test`."""
    _use_cache(options)
    arguments, method = _range_test_arguments(options), _suggest_arguments(options)
    _check_options(method)
    with contextlib.redirect_stdout(sys.stderr):  # what the task prints is not a result
        problem = load_problem(options.task)
        for folder in [options.out, *([options.report.parent] if options.report else [])]:
            folder.mkdir(parents=True, exist_ok=True)  # before what may take long
        curves = range_test(
            problem.task,
            problem.batches,
            problem.optimizer,
            eval_batches=problem.eval_batches,
            progress=_has_terminal(),
            **arguments,
        )
    saved, told, picture = (options.out / n for n in ("curves.npz", "result.json", "curves.png"))
    curves.save(saved)  # before anything else, for they may have taken long
    suggestion = suggest(curves, **method)
    given = {"task": options.task, **arguments, **method}
    pictures = [picture] if _is_installed("matplotlib") else []
    files = [saved, *pictures, *([options.report] if options.report else []), told]
    result = {
        "arguments": given,
        "steps_done": int(curves.steps_done),
        **_result(curves, suggestion),
        "environment": _report.environment(),
        "files": files,
    }
    told.write_text(_json(result) + "\n", encoding="utf-8")  # before pictures, which may fail
    for path in pictures:
        save(panels(curves, suggestion), path)
    if options.report:
        page = _report.report_html(curves, suggestion, given)
        options.report.write_text(page, encoding="utf-8")
    if options.json:
        print(_json(result))
    else:
        print(curves)
        _print_rates(curves, suggestion)
        _wrote(*files)
    return 130 if curves.interrupted else 0


def run_recipe(options: argparse.Namespace) -> int:
    """`lrjax recipe`."""
    _use_cache(options)
    arguments = _given(options, RECIPE)
    lanes = {"weight_decays": options.weight_decay, "momentums": options.momentum}
    arguments |= {name: values or None for name, values in lanes.items() if values is not None}
    with contextlib.redirect_stdout(sys.stderr):
        problem = load_problem(options.task)
        options.out.mkdir(parents=True, exist_ok=True)
        recipe = smith_recipe(
            problem.task,
            problem.batches,
            problem.eval_batches,
            optimizer=problem.optimizer,
            progress=_has_terminal(),
            **arguments,
        )
    files = [options.out / "recipe.json"]
    files[0].write_text(recipe.to_json() + "\n", encoding="utf-8")
    if _is_installed("matplotlib"):
        files.append(save(recipe_page(recipe), options.out / "recipe.png"))
    if options.json:
        values = {n: v for n, v in vars(recipe).items() if n not in ("evidence", "factory")}
        values["min_learning_rate"] = recipe.min_learning_rate
        print(_json({**values, "stages": list(recipe.evidence), "files": files}))
    else:
        print(recipe.describe())
        _wrote(*files)
    return 130 if recipe.interrupted else 0


def run_suggest(options: argparse.Namespace) -> int:
    """`lrjax suggest`."""
    curves = _load(options.curves)
    suggestion = suggest(curves, **_suggest_arguments(options))
    if options.json:
        print(_json(_result(curves, suggestion)))
    else:
        _print_rates(curves, suggestion)
    return 0


def run_plot(options: argparse.Namespace) -> int:
    """`lrjax plot`."""
    curves = _load(options.curves)
    suggestion = suggest(curves, **_suggest_arguments(options)) if rises(curves) else None
    if options.grid:
        names = options.quantity or grid_quantities(curves)
        figure = blank_figure(4.4 * len(names), 3.6)
        for name, ax in zip(names, figure.subplots(1, len(names), squeeze=False)[0], strict=True):
            plot_grid(curves, name, suggestion=suggestion, ax=ax)
    else:
        figure = panels(curves, suggestion, options.quantity)
    _wrote(save(figure, options.out or options.curves.with_suffix(".png")))
    return 0


def run_plot_schedule(options: argparse.Namespace) -> int:
    """`lrjax plot-schedule`."""
    factory = schedule_factory(options.schedule)
    prog = f"{options.prog} {options.schedule}"
    parser = Parser(prog=prog, description=(factory.__doc__ or "").splitlines()[0])
    names = add_parameters(parser, factory)
    if "steps" not in names:
        default = "default: total steps" if "total_steps" in names else "needed"
        parser.add_argument("--steps", type=int, help=f"updates to draw ({default})")
    add_picture(parser, f"{options.schedule}.png")
    add_json(parser)
    given = parser.parse_args(options.parameters)
    parameters = {name: getattr(given, name) for name in names}
    steps = parameters.get("total_steps") if given.steps is None else given.steps
    if steps is None:
        raise ValueError("--steps must say how many updates to draw.")
    _checks.integer("--steps", steps, minimum=1)
    schedule = factory(**parameters)
    if given.json:
        values = np.asarray(schedule(np.arange(steps))).tolist()
        print(_json({"schedule": options.schedule, "parameters": parameters, "values": values}))
        return 0
    figure = blank_figure(6.0, 4.0)
    plot_schedule(schedule, steps, ax=figure.subplots())
    _wrote(save(figure, given.out or Path(f"{options.schedule}.png")))
    return 0


def run_demo(options: argparse.Namespace) -> int:
    """`lrjax demo`."""
    _use_cache(options)
    say = (lambda *lines: None) if options.json else print
    report = _demo.run(options.out, progress=_has_terminal(), say=say)
    if options.json:
        print(_json(report))
    return 130 if report["interrupted"] else 0


def _range_test_arguments(options: argparse.Namespace) -> dict[str, Any]:
    """Those of `range_test`, where they were given."""
    arguments = _given(options, RANGE_TEST)
    if options.falling_momentum:
        arguments["momentum"] = tuple(options.falling_momentum)
    lanes = {"weight_decay": options.weight_decay, "momentum": options.momentum}
    lanes = {name: values for name, values in lanes.items() if values is not None}
    for name, *texts in options.lanes:
        if name in lanes:
            raise ValueError(f"--lanes {name} must be given once, got it again.")
        lanes[name] = _numbers(name, texts)
    return {**arguments, "lanes": lanes} if lanes else arguments


def _given(options: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    """Those that have a value; the library knows what to do without."""
    values = {name: getattr(options, name) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def _numbers(name: str, texts: list[str]) -> list[float]:
    try:
        return [float(text) for text in texts]
    except ValueError:
        raise ValueError(f"--lanes {name} must be numbers, got {' '.join(texts)}.") from None


def _suggest_arguments(options: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `suggest`, checked before a test that may take long."""
    method = {"method": _checks.one_of("method", options.method, METHODS)}
    taken = list(inspect.signature(METHODS[options.method]).parameters)[1:]
    for text in options.option:
        name, equals, value = text.partition("=")
        if not equals or name not in taken:
            raise ValueError(
                f"--option must be NAME=VALUE, of {options.method} with one of these names: "
                f"{', '.join(taken) or 'none'}; got {text!r}."
            )
        try:
            method[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            method[name] = value
    return method


def _check_options(method: dict[str, Any]) -> None:
    """Refuse an option's value before a test that may take long; only that shows its metrics."""
    rates = np.geomspace(1e-4, 1, 50)
    example = Curves(learning_rate=rates, loss=1 / (1 + 100 * rates) + rates)
    suggest(example, **{name: value for name, value in method.items() if name != "metric"})


def _load(path: Path) -> Curves:
    try:
        return Curves.load(path)
    except FileNotFoundError:
        raise ValueError(f"there is no file {path}.") from None


def _print_rates(curves: Curves, suggestion: Suggestion) -> None:
    rows = _tables.joint_rows(curves, suggestion)
    print(_tables.text_table(rows))
    print(_tables.verdict(curves, rows))


def _result(curves: Curves, suggestion: Suggestion) -> dict[str, Any]:
    rows = _tables.joint_rows(curves, suggestion)
    return {"lanes": rows, "chosen": _tables.chosen_row(curves, rows)}


def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _wrote(*files: Path) -> None:
    print("Wrote " + ", ".join(map(str, files)))


def _json(value: Any) -> str:
    return json.dumps(_tables.without_nan(value), indent=2, default=str, allow_nan=False)


def _has_terminal() -> bool:
    """Whether a progress bar can be shown, and rich, which draws it, is there."""
    return sys.stderr.isatty() and _is_installed("rich")


def _use_cache(options: argparse.Namespace) -> None:
    """Keep compiled programs, where the user's own settings do not say otherwise."""
    if options.no_cache:
        jax.config.update("jax_enable_compilation_cache", False)
    elif "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", str(Path(home) / "lrjax"))
