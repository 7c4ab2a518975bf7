"""How many lanes fit the device, or a CPU's cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import jax
from jax.sharding import Mesh


def free_bytes(mesh: Mesh | None) -> int | None:
    """Memory that is free on the fullest of this process's devices; None where nobody tells."""
    devices = jax.local_devices()[:1] if mesh is None else mesh.local_devices
    free = [_device_free(device, sharing=len(devices)) for device in devices]
    known = [number for number in free if number is not None]
    return min(known) if known else None


def _device_free(device: jax.Device, sharing: int) -> int | None:
    statistics = device.memory_stats()
    if statistics and "bytes_limit" in statistics:
        return statistics["bytes_limit"] - statistics["bytes_in_use"]
    meminfo = Path("/proc/meminfo")
    if device.platform != "cpu" or not meminfo.exists():
        return None
    available = next(line for line in meminfo.read_text().splitlines() if "MemAvailable" in line)
    return int(available.split()[1]) * 1024 // sharing


def program_bytes(compiled: jax.stages.Compiled) -> int:
    """What a compiled program takes on each device, its arguments included."""
    analysis = compiled.memory_analysis()
    if analysis is None:
        return 0
    return (
        analysis.argument_size_in_bytes
        + analysis.output_size_in_bytes
        + analysis.temp_size_in_bytes
        - analysis.alias_size_in_bytes
    )


CACHE_BYTES = 2**21  # for each core of a CPU, about


def fitting_cache(lanes: int, lane_bytes: int) -> int:
    """How many lanes, in blocks of about the same size, keep their states in a core's cache.

    The updates of more wait for the memory. One, where the cache is too small for any.
    """
    most = max(1, CACHE_BYTES // max(lane_bytes, 1))
    return -(-lanes // -(-lanes // most))


# The compiler's figures leave out what the allocator loses between arrays.
USABLE = 0.9


def fitting(
    size: int, multiple: int, compiled: Callable[[int], jax.stages.Compiled], free: int | None
) -> int:
    """The largest block of lanes, up to `size` and a multiple of `multiple`, that fits.

    Args:
        size: lanes to begin with.
        multiple: devices along the axis of lanes.
        compiled: compiles the program of so many lanes.
        free: bytes that are free on each device; None to leave the size as it is.
    """
    while free is not None and size > multiple:
        needed = program_bytes(compiled(size))
        if needed <= USABLE * free:
            break
        share = int(size * USABLE * free / needed)
        size = max(multiple, min(share, size - 1) // multiple * multiple)
    return size
