"""Checkpoints in an open folder: written, listed and read."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from lrjax._checkpoints.contents import (
    as_arrays,
    described,
    empty,
    filled,
    is_empty,
    packed,
    placed,
    unpacked,
)
from lrjax._checkpoints.folders import (
    as_folder,
    checksums,
    listed_steps,
    locked,
    make_writable,
    newest,
    orbax,
    write_json,
)
from lrjax._checkpoints.identities import (
    FILE,
    Identity,
    check_identity,
    check_processes,
    known_identity,
    write_identity,
)

KEEP = 2


class Restored(NamedTuple):
    """What a checkpoint held."""

    step: int
    tree: Any
    arrays: dict[str, np.ndarray]


@dataclass(frozen=True)
class Checkpoints:
    """An open folder of checkpoints; every process calls the same methods.

    Attributes:
        folder: where they are.
        manager: Orbax's, which writes and reads them.
        step: of the newest intact checkpoint that was there when the folder was opened, or None.
    """

    folder: Any
    manager: Any
    step: int | None

    def save(self, step: int, tree: Any, arrays: Mapping[str, np.ndarray]) -> None:
        """Write a checkpoint, atomically, and remove all but the last two.

        Args:
            step: a number above those of the checkpoints before; of the last one again, nothing
                is written.
            tree: a pytree of JAX arrays, on one device, on many, or on many processes' devices;
                anything else in it is taken as a numpy array.
            arrays: numpy arrays of any lengths, the same in every process.
        """
        from orbax.checkpoint import args

        if step == self.manager.latest_step():
            return
        tree = as_arrays(tree)
        content = {"leaves": filled(tree), "arrays": packed(arrays)}
        self.manager.save(step, args=args.StandardSave(content), force=True)
        if jax.process_index() == 0:
            listed = {"tree": described(tree), "files": checksums(self.folder / str(step))}
            write_json(self.folder / f"{step}.json", listed)
            for old in set(listed_steps(self.folder)) - set(self.manager.all_steps()):
                (self.folder / f"{old}.json").unlink()

    def note(self, name: str, value: Any) -> None:
        """Change an entry of the identity, which an argument does not set."""
        known = known_identity(self.folder / FILE)
        if jax.process_index() == 0 and known is not None and known.get(name) != value:
            write_identity(self.folder, {**known, name: value})

    def restore(self, like: Any) -> Restored | None:
        """Read the checkpoint of `self.step`.

        Args:
            like: a pytree of arrays, or of shapes and dtypes, as the saved one; where it names
                shardings, the arrays are placed so.

        Returns:
            Its step, tree and arrays; None if there is no checkpoint.

        Raises:
            ValueError: if the saved tree has other leaves, shapes or dtypes.
        """
        from orbax.checkpoint import args

        if self.step is None:
            return None
        like = jax.tree.map(placed, as_arrays(like))
        self._check_like(like)
        # An array's length is read from the checkpoint, not from the target.
        target = {"leaves": filled(like), "arrays": np.zeros(0, np.uint8)}
        content = self.manager.restore(self.step, args=args.StandardRestore(target))
        leaves, structure = jax.tree.flatten(like)
        for k, leaf in enumerate(leaves):
            leaves[k] = empty(leaf) if is_empty(leaf) else content["leaves"][str(k)]
        tree = jax.tree.unflatten(structure, leaves)
        return Restored(self.step, tree, unpacked(content["arrays"]))

    def _check_like(self, like: Any) -> None:
        saved = json.loads((self.folder / f"{self.step}.json").read_text())["tree"]
        wanted = described(like)
        for name in sorted(saved.keys() | wanted.keys()):
            if saved.get(name) != wanted.get(name):
                raise ValueError(
                    f"the checkpoint {self.folder / str(self.step)} must hold "
                    f"{wanted.get(name, 'nothing')} at {name or 'its root'}, "
                    f"got {saved.get(name, 'nothing')}."
                )


@contextlib.contextmanager
def open_checkpoints(directory: str | os.PathLike, identity: Identity) -> Iterator[Checkpoints]:
    """Open a folder of checkpoints, or make one.

    A damaged newest checkpoint is reported and removed, and the one before it is used.

    Args:
        directory: the folder; with several processes, one that all of them see.
        identity: which run the checkpoints are of, as what JSON can hold.

    Yields:
        The checkpoints.

    Raises:
        ImportError: if Orbax is not installed.
        OSError: if the folder cannot be written to.
        RuntimeError: if another run uses it.
        ValueError: if it holds something else, or checkpoints of another run, or none that is
            intact; or if the processes were given different identities.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> with open_checkpoints(folder.name, {"steps": 100}) as checkpoints:
        ...     checkpoints.save(50, {"count": np.int32(50)}, {"loss": np.ones(50)})
        >>> with open_checkpoints(folder.name, {"steps": 100}) as checkpoints:
        ...     step, tree, arrays = checkpoints.restore({"count": np.int32(0)})
        >>> step, int(tree["count"]), arrays["loss"].shape
        (50, 50, (50,))
        >>> folder.cleanup()
    """
    folder = as_folder(directory)
    make_writable(folder)
    check_identity(folder, identity)
    with locked(folder):
        check_processes(identity)
        if jax.process_index() == 0:
            write_identity(folder, identity)
        step = newest(folder)
        ocp = orbax()
        options = ocp.CheckpointManagerOptions(
            max_to_keep=KEEP, enable_async_checkpointing=False, cleanup_tmp_directories=True
        )
        with ocp.CheckpointManager(folder, options=options) as manager:
            yield Checkpoints(folder, manager, step)
