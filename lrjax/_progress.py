"""The progress bar of a sweep."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import numpy as np

ShowProgress = Callable[[int, np.ndarray, np.ndarray, float], None]


SLOW = 0.1  # share of the time spent waiting for data from which the bar shows it


@contextlib.contextmanager
def progress_bar(steps: int, lanes: int, *, enabled: bool) -> Iterator[ShowProgress]:
    """A bar on a terminal, and nothing elsewhere.

    Yields:
        A function of the updates done, the losses since the last call, f32[lanes, updates],
        which lanes have diverged, bool[lanes], and the seconds spent waiting for data.
    """
    if not enabled:
        yield lambda done, losses, diverged, waited: None
        return
    try:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )
    except ImportError as error:
        raise ImportError("progress=True needs rich: pip install 'lrjax[demo]'") from error
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]:.0f} steps/s"),
        TextColumn("{task.fields[alive]}" + f"/{lanes} lanes"),
        TextColumn("best {task.fields[best]:.4g}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("compiling", total=steps, alive=lanes, best=np.inf, speed=0.0)

        def show(done: int, losses: np.ndarray, diverged: np.ndarray, waited: float) -> None:
            state = bar.tasks[0]
            best = np.fmin(state.fields["best"], np.fmin.reduce(losses, axis=None))
            speed = done / state.elapsed if state.elapsed else 0.0
            share = waited / state.elapsed if state.elapsed else 0.0
            slow = f" (waiting for data {share:.0%})" if share > SLOW else ""
            bar.update(
                task,
                description=f"training{slow}",
                completed=done,
                alive=int(lanes - diverged.sum()),
                best=best,
                speed=speed,
            )

        yield show
