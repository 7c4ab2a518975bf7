"""How much memory there is, and what of it a sweep plans with."""

import functools
import types

import jax
import numpy as np
from helpers import BATCHES, TASK

import lrjax
from lrjax.sweeps import arguments, engine, memory, workers

MESH = jax.make_mesh((4,), ("lanes",))
SWEEP = functools.partial(
    lrjax.range_test, TASK, BATCHES, lanes={"weight_decay": [0.0, 1e-3, 0.1]}, seeds=2, steps=2
)


def test_the_fullest_device_of_a_process_tells_what_is_free():
    def device(**statistics):
        return types.SimpleNamespace(platform="gpu", memory_stats=lambda: statistics)

    devices = [
        device(bytes_limit=100, bytes_in_use=20),
        device(bytes_limit=200, bytes_in_use=170),
        device(),
    ]
    mesh = types.SimpleNamespace(local_devices=devices)
    assert memory.free_bytes(mesh) == 30
    assert memory.free_bytes(types.SimpleNamespace(local_devices=devices[2:])) is None


def test_a_cpu_s_devices_share_its_memory(tmp_path, monkeypatch):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:       16000 kB\nMemAvailable:    8000 kB\nBuffers: 9 kB\n")
    monkeypatch.setattr(memory, "Path", lambda path: meminfo)
    assert memory.free_bytes(None) == 8000 * 1024
    assert memory.free_bytes(MESH) == 2000 * 1024


def test_donated_arguments_are_counted_once():
    analysis = types.SimpleNamespace(
        argument_size_in_bytes=100,
        output_size_in_bytes=60,
        temp_size_in_bytes=7,
        alias_size_in_bytes=50,
    )
    compiled = types.SimpleNamespace(memory_analysis=lambda: analysis)
    assert memory.program_bytes(compiled) == 100 + 60 + 7 - 50


def test_cores_share_the_memory(monkeypatch):
    monkeypatch.setattr(workers, "_cores", lambda: 3)
    monkeypatch.setattr(memory, "free_bytes", lambda mesh: 9_000)
    shares = []
    monkeypatch.setattr(memory, "fitting", lambda size, *others: shares.append(others[-1]) or size)
    SWEEP()
    assert shares == [3_000]


def test_blocks_are_as_small_as_the_process_with_the_least_memory_needs(monkeypatch):
    several = types.SimpleNamespace(**vars(jax) | {"process_count": lambda: 2})
    monkeypatch.setattr(memory, "jax", several)
    monkeypatch.setattr(memory, "process_allgather", lambda size: np.stack([size, size // 3]))
    monkeypatch.setattr(workers, "_cores", lambda: 1)
    sizes, cut = [], memory.block_size
    monkeypatch.setattr(engine, "block_size", lambda *given: sizes.append(cut(*given)) or sizes[0])
    SWEEP()
    assert sizes == [2]


def test_dispatches_count_all_batches_of_an_update():
    settings = arguments.checked_settings(10, None, None, 4, None, None)
    assert settings.most_steps(0.0, 2**22) == 4
    assert settings.most_steps(1e9, 0) == 25
