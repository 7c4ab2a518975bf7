"""What tells one run from another, and the file that says so."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from lrjax._checkpoints.folders import as_folder, write_json

Identity = Mapping[str, Any]
FORMAT, FILE = 1, "identity.json"


def recorded(directory: str | os.PathLike, name: str) -> Any:
    """What a folder's checkpoints say of their run under a name; None where there are none.

    Example:
        >>> recorded("nowhere", "steps") is None
        True
    """
    path = as_folder(directory) / FILE
    return (known_identity(path) or {}).get(name) if path.exists() else None


def known_identity(path: Any) -> Identity | None:
    """The identity in a file, if it can be read."""
    try:
        content = json.loads(path.read_text())
        known = content["identity"] if content["lrjax.checkpoints"] == FORMAT else None
    except (ValueError, KeyError, TypeError):
        return None
    return known if isinstance(known, dict) else None


def write_identity(folder: Any, identity: Identity) -> None:
    content = {"lrjax.checkpoints": FORMAT, "identity": dict(identity)}
    write_json(folder / FILE, content)


def check_identity(folder: Any, identity: Identity) -> None:
    """The folder must be empty, or of this run."""
    path = folder / FILE
    if not path.exists():
        # Hidden files are of the system, or of a run that was killed before it wrote anything.
        if any(not entry.name.startswith(".") for entry in folder.iterdir()):
            raise ValueError(
                "checkpoint_dir must be empty or hold the checkpoints of this run, got "
                f"{str(folder)!r}, which holds something else."
            )
        return
    known = known_identity(path)
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
