"""Meshes: the devices that lanes are placed on."""

from __future__ import annotations

from typing import Any

import jax
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from lrjax import _checks

__all__ = ["lane_mesh"]

LANES, DATA = "lanes", "data"  # the names of the axes


def lane_mesh(data: int = 1) -> Mesh:
    """A mesh of all devices, of all processes, to place lanes on.

    Args:
        data: how many devices share each lane's batches, for batches that do not fit one device.

    Returns:
        A mesh with the axes `lanes` and, if `data` is above 1, `data`.

    Raises:
        ValueError: if the devices do not divide by `data`.

    Example:
        >>> lane_mesh().axis_names
        ('lanes',)
    """
    devices = jax.device_count()
    if devices % _checks.integer("data", data, minimum=1):
        raise ValueError(f"data must divide the number of devices ({devices}), got {data}.")
    shape: tuple[int, ...] = (devices,) if data == 1 else (devices // data, data)
    names = (LANES, DATA)[: len(shape)]
    return jax.make_mesh(shape, names, axis_types=(AxisType.Auto,) * len(names))


def check_mesh(mesh: Any, lanes: int) -> None:
    """A mesh must have an axis `lanes`, not longer than there are lanes."""
    _checks.instance("mesh", mesh, Mesh, "a jax.sharding.Mesh")
    if LANES not in mesh.axis_names or not set(mesh.axis_names) <= {LANES, DATA}:
        raise ValueError(f"mesh must have the axes 'lanes' and perhaps 'data', got {mesh}.")
    if any(kind != AxisType.Auto for kind in mesh.axis_types):
        raise ValueError(f"mesh must have axes of the type Auto, got {mesh.axis_types}.")
    if mesh.shape[LANES] > lanes:
        raise ValueError(
            f"mesh must not have more devices along 'lanes' than there are lanes ({lanes}), "
            f"got {mesh.shape[LANES]}."
        )


def on_one_cpu(mesh: Mesh | None) -> bool:
    """Whether lanes run on one CPU, and on no other device."""
    return mesh is None and jax.default_backend() == "cpu"


def sharding(mesh: Mesh | AbstractMesh | None, *axes: str) -> NamedSharding | None:
    """The sharding of arrays along some axes of a mesh; whole on every device without any."""
    return None if mesh is None else NamedSharding(mesh, PartitionSpec(*axes))
