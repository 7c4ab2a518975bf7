"""The `lrjax` command: what it takes. What it does is in `_commands.py`."""

from __future__ import annotations

import argparse
import os
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from lrjax import __version__

__all__ = ["main"]

METHODS = (
    "robust, smith, valley, steep, minimum, slide, lightning, torch_lr_finder, ignite or surmenok"
)

VALUES: dict[str, Any] = {"type": float, "nargs": "+", "metavar": "VALUE"}

TASK_HELP = """\
TASK is MODULE:NAME, looked up in the current folder first. NAME (default: task) is an
lrjax.Task, and the module holds next to it

  batches        the training data: arrays, or an iterable of batches
  eval_batches   held-out data, if any
  optimizer      makes an optimizer from hyperparameters, such as lrjax.adamw; default lrjax.sgd

or NAME is a function without arguments that returns these as a dict, the task among them.
"""


class Parser(argparse.ArgumentParser):
    """A parser that answers bad use with one line, and whose help may take long to make."""

    more_help: Callable[[], str] | None = None

    def format_help(self) -> str:
        """The help, with what is known only to modules that load slowly."""
        return super().format_help() + (f"\n{self.more_help()}\n" if self.more_help else "")

    def error(self, message: str) -> NoReturn:
        """One line, and status 2."""
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    options = build_parser().parse_args(arguments)
    try:
        status = run(options)
        sys.stdout.flush()  # whose failure is to be told here, and not when Python ends
        return status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # as of `lrjax … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if options.traceback:
            raise
        print(f"{options.prog}: error: {_line(error)}", file=sys.stderr)
        return 2


def run(options: argparse.Namespace) -> int:
    """Do what was asked for."""
    # Imported here: JAX takes a second or two, which `lrjax --help` need not.
    from lrjax import _commands

    return getattr(_commands, options.function)(options)


def build_parser() -> Parser:
    """The whole command line."""
    parser = Parser(
        prog="lrjax",
        description="Learning-rate range tests and schedules for JAX.",
        epilog="Each command has its own --help.",
    )
    parser.add_argument("--version", action="version", version=f"lrjax {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_range_test(commands)
    _add_recipe(commands)
    _add_suggest(commands)
    _add_plot(commands)
    _add_plot_schedule(commands)
    _add_demo(commands)
    return parser


def _command(commands: Any, name: str, summary: str, **texts: str) -> Parser:
    command = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        **texts,
    )
    command.set_defaults(function=f"run_{name.replace('-', '_')}", prog=f"lrjax {name}")
    command.add_argument("--traceback", action="store_true", help="show where an error comes from")
    return command


def _add_range_test(commands: Any) -> None:
    command = _command(
        commands,
        "range-test",
        "train at a rising learning rate, many lanes at once",
        epilog=TASK_HELP,
    )
    _add_task(command)
    lanes = command.add_argument_group("lanes", "every combination is trained at every seed")
    lanes.add_argument("--weight-decay", **VALUES, help="one lane per weight decay")
    lanes.add_argument("--momentum", **VALUES, help="one lane per momentum")
    lanes.add_argument(
        "--lanes",
        nargs="+",
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="one lane per value of any other hyperparameter; may be repeated",
    )
    lanes.add_argument(
        "--seeds", type=int, default=1, help="seeds of every lane (default: %(default)s)"
    )

    test = command.add_argument_group("range test")
    _add_range(test)
    test.add_argument("--steps", type=int, default=100, help="updates (default: %(default)s)")
    test.add_argument(
        "--ramp",
        choices=("exponential", "linear"),
        default="exponential",
        help="how the rate rises (default: %(default)s)",
    )
    test.add_argument(
        "--falling-momentum",
        type=float,
        nargs=2,
        metavar=("HIGH", "LOW"),
        help="lower the momentum, or Adam's b1, as the rate rises",
    )
    _add_running(test)

    output = command.add_argument_group("output")
    _add_method(output)
    _add_folder(output, "lrjax-range-test", "curves.npz, curves.png and result.json")
    output.add_argument(
        "--report",
        type=Path,
        metavar="FILE",
        help="write a page to read in a browser, such as report.html",
    )
    add_json(output)
    _add_cache(output)


def _add_recipe(commands: Any) -> None:
    command = _command(
        commands,
        "recipe",
        "go through Smith's protocol, from range tests to the plan of a 1cycle run",
        epilog=TASK_HELP,
    )
    _add_task(command)
    stages = command.add_argument_group("stages")
    stages.add_argument(
        "--total-steps", type=int, required=True, metavar="STEPS", help="updates of the run to plan"
    )
    tried = {**VALUES, "nargs": "*"}
    stages.add_argument(
        "--weight-decay",
        **tried,
        help="weight decays to try (default: 0 1e-5 1e-4 1e-3); no values for an optimizer without",
    )
    stages.add_argument(
        "--momentum",
        **tried,
        help="momenta to try (default: 0.9 0.95 0.97 0.99); no values for an optimizer without",
    )
    stages.add_argument(
        "--seeds", type=int, default=2, help="seeds of every lane (default: %(default)s)"
    )
    _add_range(stages)
    stages.add_argument(
        "--test-steps",
        type=int,
        metavar="STEPS",
        help="updates of every test (default: a quarter of the run, but 100 to 1000)",
    )
    _add_running(stages)
    output = command.add_argument_group("output")
    _add_folder(output, "lrjax-recipe", "recipe.json and recipe.png")
    add_json(output)
    _add_cache(output)


def _add_suggest(commands: Any) -> None:
    command = _command(commands, "suggest", "read learning rates from saved curves")
    _add_curves(command)
    _add_method(command)
    add_json(command)


def _add_plot(commands: Any) -> None:
    command = _command(commands, "plot", "draw saved curves, with the rates they suggest")
    _add_curves(command)
    command.add_argument(
        "--quantity",
        nargs="+",
        metavar="NAME",
        help="loss, eval_loss, a metric, or eval_ and its name (default: all of them)",
    )
    command.add_argument(
        "--grid",
        action="store_true",
        help="draw heat maps of two axes of lanes instead of curves",
    )
    _add_method(command)
    add_picture(command, "the curves' name with .png")


def _add_plot_schedule(commands: Any) -> None:
    command = _command(
        commands,
        "plot-schedule",
        "draw a schedule over its updates",
        epilog="lrjax plot-schedule SCHEDULE --help lists its parameters. For example:\n"
        "  lrjax plot-schedule onecycle --peak-value 0.1 --total-steps 1000",
    )
    command.more_help = _schedule_names
    command.add_argument("schedule", metavar="SCHEDULE", help="its name, such as onecycle")
    command.add_argument(
        "parameters", nargs=argparse.REMAINDER, help="its parameters, and more options"
    )


def _schedule_names() -> str:
    from lrjax._schedule_arguments import schedule_names

    return textwrap.fill(f"SCHEDULE is one of {', '.join(schedule_names())}.", 80)


def _add_demo(commands: Any) -> None:
    command = _command(
        commands,
        "demo",
        "the whole protocol on scikit-learn's digits, and its 1cycle compared with constant rates",
    )
    _add_folder(command, "lrjax-demo", "the curves, pictures and report")
    add_json(command)
    _add_cache(command)


def _add_task(command: Any) -> None:
    command.add_argument("task", metavar="TASK", help="what to train, as MODULE:NAME")


def _add_range(command: Any) -> None:
    command.add_argument(
        "--start", type=float, default=1e-6, help="first rate (default: %(default)s)"
    )
    command.add_argument("--end", type=float, default=10.0, help="last rate (default: %(default)s)")


def _add_folder(command: Any, default: str, files: str) -> None:
    command.add_argument(
        "--out",
        type=Path,
        default=Path(default),
        metavar="DIR",
        help=f"folder for {files} (default: %(default)s)",
    )


def _add_running(command: Any) -> None:
    command.add_argument(
        "--batch-size", type=int, help="for plain arrays (default: 64)", metavar="SIZE"
    )
    command.add_argument(
        "--eval-every", type=int, metavar="STEPS", help="updates between evaluations"
    )
    command.add_argument(
        "--accumulate",
        type=int,
        default=1,
        metavar="BATCHES",
        help="batches per update (default: %(default)s)",
    )
    command.add_argument(
        "--lane-batch",
        type=int,
        metavar="LANES",
        help="lanes that run at once (default: what fits)",
    )
    command.add_argument(
        "--checkpoint-dir", type=Path, metavar="DIR", help="where to save and resume a long test"
    )


def _add_curves(command: Any) -> None:
    command.add_argument("curves", type=Path, metavar="CURVES", help="a file such as curves.npz")


def _add_method(command: Any) -> None:
    command.add_argument(
        "--method", default="robust", metavar="NAME", help=f"{METHODS} (default: %(default)s)"
    )
    command.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an option of the method, such as sma=5; may be repeated",
    )


def add_json(command: Any) -> None:
    """`--json`."""
    command.add_argument(
        "--json", action="store_true", help="print the result as JSON and nothing else"
    )


def add_picture(command: Any, default: str) -> None:
    """`--out`, for a picture."""
    command.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help=f"picture to write, whose suffix sets the format (default: {default})",
    )


def _add_cache(command: Any) -> None:
    command.add_argument(
        "--no-cache",
        action="store_true",
        help="do not keep compiled programs (else in $JAX_COMPILATION_CACHE_DIR, or in lrjax under "
        "$XDG_CACHE_HOME or ~/.cache)",
    )


MAX_LINE = 1000  # characters: JAX can say very much


def _line(error: Exception) -> str:
    """An error as one line, with its kind and place unless it speaks for itself."""
    text = " ".join(str(error).split())
    text = text if len(text) <= MAX_LINE else f"{text[:MAX_LINE]} …"
    place = _users_place(error)
    if place or not isinstance(error, ValueError | TypeError | OSError | ImportError):
        text = f"{type(error).__name__}: {text} ({place}--traceback shows where)"
    return text


def _users_place(error: Exception) -> str:
    """The innermost line of the user's own code that an error went through, if any."""
    place, traceback, package = "", error.__traceback__, Path(__file__).parent
    while traceback:
        file = Path(traceback.tb_frame.f_code.co_filename)
        here = file.is_relative_to(Path.cwd()) and "site-packages" not in file.parts
        if here and not file.is_relative_to(package):
            place = f"{file.relative_to(Path.cwd())}, line {traceback.tb_lineno}; "
        traceback = traceback.tb_next
    return place
