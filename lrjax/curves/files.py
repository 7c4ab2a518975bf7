"""Named arrays in one `.npz` file, without pickles."""

from __future__ import annotations

import json
import os
import uuid
import zipfile
import zlib
from typing import Any

import numpy as np


def write(path: str | os.PathLike, fields: dict[str, Any]) -> None:
    """Arrays, dicts of arrays and None, by name, written atomically."""
    arrays: dict[str, np.ndarray] = {}
    order: dict[str, list[str]] = {}
    for name, value in fields.items():
        if isinstance(value, dict):
            order[name] = list(value)
            arrays |= {f"{name}/{key}": array for key, array in value.items()}
        elif value is not None:
            arrays[name] = value
    arrays["format"] = np.array(json.dumps({"lrjax.Curves": 1, "order": order}))
    path = os.fspath(path)
    # Not a `tempfile`, which others could not read.
    unfinished = os.path.join(os.path.dirname(path), f".curves-{uuid.uuid4().hex}")
    with open(unfinished, "xb") as file:
        try:
            np.savez_compressed(file, allow_pickle=False, **arrays)
            file.flush()
            os.fsync(file.fileno())
            os.replace(unfinished, path)
        except BaseException:
            os.unlink(unfinished)
            raise


def read(path: str | os.PathLike) -> dict[str, Any]:
    """What `write` wrote, without the None; one of `UNREADABLE` for another file."""
    with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
        header = json.loads(str(file["format"]))
        if header["lrjax.Curves"] != 1:
            raise ValueError(f"a format of its own, {header}")
        fields: dict[str, Any] = {key: file[key] for key in file.files if "/" not in key}
        del fields["format"]
        for name, keys in header["order"].items():
            fields[name] = {key: file[f"{name}/{key}"] for key in keys}
    return fields


# What NumPy raises of files that are damaged or not its own.
UNREADABLE = (
    *(ValueError, TypeError, LookupError, EOFError, NotImplementedError),
    *(zipfile.BadZipFile, zlib.error),
)
