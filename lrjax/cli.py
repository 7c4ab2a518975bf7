"""The `lrjax` command."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="lrjax", description="Learning-rate range tests and schedules for JAX."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    demo = commands.add_parser(
        "demo",
        help="a range test and a 1cycle run on scikit-learn's digits",
        description="Range test over weight decays and seeds on scikit-learn's digits, the "
        "learning rates that follow from it, and a 1cycle run against constant rates.",
    )
    demo.add_argument(
        "--out",
        type=Path,
        default=Path("lrjax-demo"),
        metavar="DIR",
        help="folder for the curves, pictures and report (default: %(default)s)",
    )
    demo.set_defaults(run=_demo)
    options = parser.parse_args(arguments)
    return options.run(options)


def _demo(options: argparse.Namespace) -> int:
    # Imported here: JAX takes a second, which `lrjax --help` need not.
    from lrjax import _demo

    _demo.run(options.out)
    return 0
