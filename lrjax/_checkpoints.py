"""Checkpoints of a long computation: they survive a kill, damage, and a change of devices.

A folder holds the last two checkpoints, each a folder that Orbax writes and a list of its files:

    identity.json       says which run the checkpoints are of
    300/    300.json    step 300, and the checksums of its files
    400/    400.json

The list is written last: a checkpoint without one was never finished, and one whose files are
not those of its list is damaged. So process 0 alone can tell which checkpoint to use, before
any process reads it.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]

import jax
import numpy as np
from jax.experimental import multihost_utils

Identity = Mapping[str, Any]
FORMAT, IDENTITY = 1, "identity.json"
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
        """Write a checkpoint, at once or not at all, and remove all but the last two.

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
        tree = _as_arrays(tree)
        content = {"leaves": _filled(tree), "arrays": _packed(arrays)}
        self.manager.save(step, args=args.StandardSave(content), force=True)
        if jax.process_index() == 0:
            listed = {"tree": _described(tree), "files": _checksums(self.folder / str(step))}
            _write_json(self.folder / f"{step}.json", listed)
            for old in set(_listed_steps(self.folder)) - set(self.manager.all_steps()):
                (self.folder / f"{old}.json").unlink()

    def note(self, name: str, value: Any) -> None:
        """Change an entry of the identity, which an argument does not set."""
        known = _known(self.folder / IDENTITY)
        if jax.process_index() == 0 and known is not None and known.get(name) != value:
            _write_identity(self.folder, {**known, name: value})

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
        like = jax.tree.map(_placed, _as_arrays(like))
        self._check_like(like)
        # An array's length is read from the checkpoint, not from the target.
        target = {"leaves": _filled(like), "arrays": np.zeros(0, np.uint8)}
        content = self.manager.restore(self.step, args=args.StandardRestore(target))
        leaves, structure = jax.tree.flatten(like)
        for k, leaf in enumerate(leaves):
            leaves[k] = _empty(leaf) if _is_empty(leaf) else content["leaves"][str(k)]
        tree = jax.tree.unflatten(structure, leaves)
        return Restored(self.step, tree, _unpacked(content["arrays"]))

    def _check_like(self, like: Any) -> None:
        saved = json.loads((self.folder / f"{self.step}.json").read_text())["tree"]
        wanted = _described(like)
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
    folder = _folder(directory)
    _make_writable(folder)
    _check_identity(folder, identity)
    with _locked(folder):
        check_processes(identity)
        step = _newest(folder, identity)
        ocp = _orbax()
        options = ocp.CheckpointManagerOptions(
            max_to_keep=KEEP, enable_async_checkpointing=False, cleanup_tmp_directories=True
        )
        with ocp.CheckpointManager(folder, options=options) as manager:
            yield Checkpoints(folder, manager, step)


def recorded(directory: str | os.PathLike, name: str) -> Any:
    """What a folder's checkpoints say of their run under a name; None where there are none.

    Example:
        >>> recorded("nowhere", "steps") is None
        True
    """
    path = _folder(directory) / IDENTITY
    return (_known(path) or {}).get(name) if path.exists() else None


# The folder


def _orbax() -> Any:
    try:
        import orbax.checkpoint as ocp
    except ImportError as error:
        raise ImportError("checkpoint_dir needs Orbax: pip install 'lrjax[checkpoint]'") from error
    return ocp


def _folder(directory: str | os.PathLike) -> Any:
    """A path, which may be of a cloud's storage."""
    _orbax()  # which brings `etils` along
    from etils import epath

    return epath.Path(directory if "://" in str(directory) else os.path.abspath(directory))


def _known(path: Any) -> Identity | None:
    """The identity in a file, if it can be read."""
    try:
        content = json.loads(path.read_text())
        known = content["identity"] if content["lrjax.checkpoints"] == FORMAT else None
    except (ValueError, KeyError, TypeError):
        return None
    return known if isinstance(known, dict) else None


def _write_identity(folder: Any, identity: Identity) -> None:
    content = {"lrjax.checkpoints": FORMAT, "identity": dict(identity)}
    _write_json(folder / IDENTITY, content)


def _make_writable(folder: Any) -> None:
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
def _locked(folder: Any) -> Iterator[None]:
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


def _check_identity(folder: Any, identity: Identity) -> None:
    """The folder must be empty, or of this run."""
    path = folder / IDENTITY
    if not path.exists():
        # Hidden files are of the system, or of a run that was killed before it wrote anything.
        if any(not entry.name.startswith(".") for entry in folder.iterdir()):
            raise ValueError(
                "checkpoint_dir must be empty or hold the checkpoints of this run, got "
                f"{str(folder)!r}, which holds something else."
            )
        return
    known = _known(path)
    if known is None:
        raise ValueError(
            "checkpoint_dir must be empty or hold the checkpoints of this run, got "
            f"{str(folder)!r}, whose identity.json cannot be read."
        )
    differences = [
        f"{name} (expected {_shown(identity, name)}, got {_shown(known, name)})"
        for name in dict.fromkeys([*identity, *known])
        if _shown(identity, name) != _shown(known, name)
    ]
    if differences:
        raise ValueError(
            f"checkpoint_dir must hold the checkpoints of this run, got {str(folder)!r}, "
            f"which differs in {', '.join(differences)}."
        )


def _shown(identity: Identity, name: str) -> str:
    # As JSON, in which a tuple equals a list, and NaN itself.
    return json.dumps(identity[name]) if name in identity else "nothing"


def subfolder(directory: str | os.PathLike, name: str) -> str:
    """A folder in a folder, joined as text, because it may be an address of a cloud's storage."""
    return f"{os.fspath(directory)}/{name}"


def check_processes(identity: Identity) -> None:
    """Refuse processes that were given different arguments; every process calls this.

    Args:
        identity: the arguments, as for `open_checkpoints`.

    Raises:
        ValueError: in every process, naming the entries that differ.
    """
    if jax.process_count() == 1:
        return
    names = sorted(identity)
    own = [hashlib.sha256(_shown(identity, name).encode()).digest() for name in names]
    gather = multihost_utils.process_allgather
    # First the names, so that what is gathered then has one shape.
    all_names = gather(np.frombuffer(hashlib.sha256(repr(names).encode()).digest(), np.uint8))
    if (all_names != all_names[0]).any():
        raise ValueError(f"all processes must be given the same arguments, got {names} here.")
    values = gather(np.frombuffer(b"".join(own), np.uint8).reshape(len(own), -1))
    differ = (values != values[:1]).any((0, 2))
    if differ.any():
        listed = ", ".join(name for name, differs in zip(names, differ, strict=True) if differs)
        raise ValueError(f"all processes must be given the same arguments, got several {listed}.")


NO_CHECKPOINT, NONE_INTACT = -1, -2


def _newest(folder: Any, identity: Identity) -> int | None:
    """The step of the newest intact checkpoint; process 0 looks, and tells the others."""
    step = NO_CHECKPOINT
    if jax.process_index() == 0:
        _write_identity(folder, identity)
        step = _find_newest(folder)
    step = int(multihost_utils.broadcast_one_to_all(np.int32(step)))
    if step == NONE_INTACT:
        raise ValueError(
            "checkpoint_dir must hold a checkpoint that is intact, got only damaged ones in "
            f"{str(folder)!r}; remove the folder to start anew."
        )
    return None if step == NO_CHECKPOINT else step


def _find_newest(folder: Any) -> int:
    steps = _listed_steps(folder)
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


def _listed_steps(folder: Any) -> list[int]:
    """The steps whose checkpoints were finished once."""
    stems = (path.name.removesuffix(".json") for path in folder.glob("*.json"))
    return [int(stem) for stem in stems if stem.isdecimal()]


def _is_intact(folder: Any, step: int) -> bool:
    try:
        listed = json.loads((folder / f"{step}.json").read_text())
        return listed["files"] == _checksums(folder / str(step))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _checksums(folder: Any) -> dict[str, str]:
    return {str(path.relative_to(folder)): _checksum(path) for path in _files(folder)}


def _files(folder: Any) -> Iterator[Any]:
    for entry in folder.iterdir():
        yield from _files(entry) if entry.is_dir() else (entry,)


def _checksum(path: Any) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_json(path: Any, content: Any) -> None:
    unfinished = path.parent / f".{path.name}"
    unfinished.write_text(json.dumps(content, indent=1))
    unfinished.replace(path)


# What goes into a checkpoint


def _filled(tree: Any) -> dict[str, Any]:
    """The leaves by number, without the empty ones, which Orbax does not take."""
    leaves = enumerate(jax.tree.leaves(tree))
    return {str(k): leaf for k, leaf in leaves if not _is_empty(leaf)}


def _is_empty(leaf: Any) -> bool:
    return 0 in leaf.shape


def _as_arrays(tree: Any) -> Any:
    known = jax.Array | jax.ShapeDtypeStruct
    return jax.tree.map(lambda leaf: leaf if isinstance(leaf, known) else np.asarray(leaf), tree)


def _placed(leaf: Any) -> Any:
    """The shape, the dtype and the devices of a JAX array to restore."""
    if isinstance(leaf, np.ndarray):
        return leaf
    # Without a sharding Orbax would ask for the devices that the array was on when saved.
    sharding = leaf.sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _empty(leaf: Any) -> Any:
    if isinstance(leaf, np.ndarray):
        return np.empty_like(leaf)
    return jax.numpy.empty(leaf.shape, leaf.dtype, device=leaf.sharding)


def _described(tree: Any) -> dict[str, str]:
    """Every leaf's dtype and shape by its path."""
    return {
        jax.tree_util.keystr(path): f"{leaf.dtype}{list(leaf.shape)}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


PREFIX = "arrays/"


def _packed(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """Arrays of any names, shapes and dtypes as one array of bytes, never empty."""
    file = io.BytesIO()
    # With a prefix, as savez has arguments of its own.
    named = {f"{PREFIX}{name}": array for name, array in arrays.items()}
    np.savez(file, allow_pickle=False, **named)
    return np.frombuffer(file.getvalue(), np.uint8)


def _unpacked(packed: np.ndarray) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(packed.tobytes()), allow_pickle=False) as file:
        return {name.removeprefix(PREFIX): array for name, array in file.items()}
