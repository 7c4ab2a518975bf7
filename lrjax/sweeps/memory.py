"""How many lanes fit the device, or a CPU's cache."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental.multihost_utils import process_allgather
from jax.sharding import Mesh

from lrjax.batches.readers import ArrayReader, Loaded, Reader
from lrjax.convolutions.samples import CACHE_BYTES
from lrjax.lanes import Lanes, cut_blocks
from lrjax.meshes import on_one_cpu
from lrjax.sweeps.dispatches import Job, placed, state_shapes
from lrjax.sweeps.programs import train_lanes
from lrjax.sweeps.runs import Program
from lrjax.sweeps.spans import even_share


def block_size(job: Job, grid: Lanes, lane_batch: int | None, data: Reader) -> int:
    """How many lanes in a block: as many as asked for, or as many as fit well, by all workers."""
    number = job.workers.number
    size = math.ceil(len(grid) / number / job.multiple) * job.multiple
    if lane_batch is not None:
        most = lane_batch // number // job.multiple * job.multiple
        return min(size, max(most, job.multiple))
    if on_one_cpu(job.mesh) and not job.program.in_turn:
        states = jax.tree.leaves(state_shapes(job, cut_blocks(grid, size)[0]))
        state_bytes = sum(array.size * array.dtype.itemsize for array in states)
        size = fitting_cache(size, state_bytes // size)

    def compiled(size):
        block = cut_blocks(grid, size)[0]
        states, source = state_shapes(job, block), _source_shapes(data, job.program)
        arguments = *placed(job, block), states, job.optimizer, source, (0, 1), job.program
        return train_lanes.lower(*arguments).compile()

    free = free_bytes(job.mesh)
    size = fitting(size, job.multiple, compiled, free and free // number)
    # What fits every process.
    return size if jax.process_count() == 1 else int(np.min(process_allgather(np.int32(size))))


def _source_shapes(data: Reader, program: Program) -> Any:
    """The shapes of the batches of one dispatch, before any is read."""
    length = program.length * program.accumulate
    if isinstance(data, ArrayReader):
        return data.read(0, 1, length)
    return Loaded(
        jax.tree.map(
            lambda array: jax.ShapeDtypeStruct((length, *array.shape), array.dtype), data.sample
        )
    )


def free_bytes(mesh: Mesh | None) -> int | None:
    """Memory that is free on the fullest of this process's devices; None if no device says."""
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
    """What a compiled program takes on each device, its arguments included; 0 where none tells."""
    return _executable_bytes(compiled.runtime_executable())


@functools.lru_cache(maxsize=16)  # asked anew by every sweep, and the answer takes long
def _executable_bytes(executable: Any) -> int:
    try:
        sizes = executable.get_compiled_memory_stats()
    except jax.errors.JaxRuntimeError:  # not every compiler counts
        return 0
    return (
        sizes.argument_size_in_bytes
        + sizes.output_size_in_bytes
        + sizes.temp_size_in_bytes
        - sizes.alias_size_in_bytes
    )


def fitting_cache(lanes: int, lane_bytes: int) -> int:
    """How many lanes, in blocks of about the same size, keep their states in a core's cache.

    With more, every update waits for the memory. At least one.
    """
    most = max(1, CACHE_BYTES // max(lane_bytes, 1))
    return even_share(lanes, most)


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
