"""The progress bar of a sweep."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import numpy as np

Report = Callable[[int, np.ndarray, np.ndarray], None]


@contextlib.contextmanager
def progress_bar(steps: int, lanes: int, *, enabled: bool) -> Iterator[Report]:
    """A bar on a terminal, and nothing elsewhere.

    Yields:
        A function of the updates done, the losses since the last call, f32[lanes, updates], and
        which lanes have diverged, bool[lanes].
    """
    if not enabled:
        yield lambda done, losses, diverged: None
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

        def report(done: int, losses: np.ndarray, diverged: np.ndarray) -> None:
            state = bar.tasks[0]
            best = np.fmin(state.fields["best"], np.fmin.reduce(losses, axis=None))
            speed = done / state.elapsed if state.elapsed else 0.0
            alive = int(lanes - diverged.sum())
            bar.update(
                task, description="training", completed=done, alive=alive, best=best, speed=speed
            )

        yield report
