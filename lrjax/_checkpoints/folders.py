"""The folder of checkpoints: its lock, its lists, and which checkpoint is intact."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]

import jax
import numpy as np
from jax.experimental import multihost_utils


def orbax() -> Any:
    try:
        import orbax.checkpoint as ocp
    except ImportError as error:
        raise ImportError("checkpoint_dir needs Orbax: pip install 'lrjax[checkpoint]'") from error
    return ocp


def as_folder(directory: str | os.PathLike) -> Any:
    """A path, which may be of a cloud's storage."""
    orbax()  # which brings `etils` along
    from etils import epath

    return epath.Path(directory if "://" in str(directory) else os.path.abspath(directory))


def subfolder(directory: str | os.PathLike, name: str) -> str:
    """A folder in a folder, joined as text, because it may be an address of a cloud's storage."""
    return f"{os.fspath(directory)}/{name}"


def make_writable(folder: Any) -> None:
    """Make the folder, and try to write to it, before hours are spent on what goes there."""
    trial = folder / f".trial-{jax.process_index()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial.write_text("")
        trial.unlink()
    except OSError as error:
        message = f"checkpoint_dir must be a folder that can be written to, got {str(folder)!r}"
        raise OSError(error.errno, f"{message} ({error.strerror})") from error


@contextlib.contextmanager
def locked(folder: Any) -> Iterator[None]:
    """Keep other runs out of a folder, where the file system knows of locks."""
    if fcntl is None or "://" in str(folder) or jax.process_index() > 0:
        yield
        return
    with open(folder / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError(
                f"checkpoint_dir must be a folder that no other run uses, got {str(folder)!r}."
            ) from None
        except OSError:  # a file system without locks
            pass
        yield  # and closing the file unlocks it, as the end of a process does


NO_CHECKPOINT, NONE_INTACT = -1, -2


def newest(folder: Any) -> int | None:
    """The step of the newest intact checkpoint; process 0 looks, and tells the others."""
    step = _find_newest(folder) if jax.process_index() == 0 else NO_CHECKPOINT
    step = int(multihost_utils.broadcast_one_to_all(np.int32(step)))
    if step == NONE_INTACT:
        raise ValueError(
            "checkpoint_dir must hold a checkpoint that is intact, got only damaged ones in "
            f"{str(folder)!r}; remove the folder to start anew."
        )
    return None if step == NO_CHECKPOINT else step


def _find_newest(folder: Any) -> int:
    steps = listed_steps(folder)
    intact = [step for step in steps if _is_intact(folder, step)]
    if steps and not intact:
        return NONE_INTACT
    newest = max(intact, default=NO_CHECKPOINT)
    for step in steps:
        # An older one may be half removed, as is right.
        if step > newest:
            warnings.warn(
                f"the checkpoint {folder / str(step)} is damaged; the one before it, "
                f"{newest}, is used.",
                UserWarning,
                stacklevel=2,
            )
    _remove_all_but(folder, intact)
    return newest


def _remove_all_but(folder: Any, steps: Sequence[int]) -> None:
    """Remove damaged and unfinished checkpoints, in whose places new ones will be written."""
    for entry in list(folder.iterdir()):
        name = entry.name.removesuffix(".json")
        if name.isdecimal() and int(name) not in steps:
            entry.rmtree() if entry.is_dir() else entry.unlink()


def listed_steps(folder: Any) -> list[int]:
    """The steps whose checkpoints were finished once."""
    stems = (path.name.removesuffix(".json") for path in folder.glob("*.json"))
    return [int(stem) for stem in stems if stem.isdecimal()]


def _is_intact(folder: Any, step: int) -> bool:
    try:
        listed = json.loads((folder / f"{step}.json").read_text())
        return listed["files"] == checksums(folder / str(step))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def checksums(folder: Any) -> dict[str, str]:
    return {str(path.relative_to(folder)): _checksum(path) for path in _files(folder)}


def _files(folder: Any) -> Iterator[Any]:
    for entry in folder.iterdir():
        yield from _files(entry) if entry.is_dir() else (entry,)


def _checksum(path: Any) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Any, content: Any) -> None:
    unfinished = path.parent / f".{path.name}"
    unfinished.write_text(json.dumps(content, indent=1))
    unfinished.replace(path)
