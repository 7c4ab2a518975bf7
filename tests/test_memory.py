"""How much memory there is, and how lanes and steps are cut to fit it."""

import functools
import types
import unittest.mock

import jax
import numpy as np
import pytest
from helpers import BATCHES, TASK

import lrjax
from lrjax.sweeps import arguments, engine, memory, spans, workers

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


@pytest.fixture
def compiled():
    """A compiled program that tells what it takes."""
    sizes = {"argument": 100, "output": 60, "temp": 7, "alias": 50}
    stats = types.SimpleNamespace(**{f"{name}_size_in_bytes": sizes[name] for name in sizes})
    executable = unittest.mock.Mock()
    executable.get_compiled_memory_stats.return_value = stats
    return unittest.mock.Mock(runtime_executable=lambda: executable)


def test_donated_arguments_are_counted_once(compiled):
    assert memory.program_bytes(compiled) == 100 + 60 + 7 - 50


def test_a_program_is_asked_once_for_what_it_takes(compiled):
    for _ in range(2):
        memory.program_bytes(compiled)
    assert compiled.runtime_executable().get_compiled_memory_stats.call_count == 1


def test_a_compiler_need_not_tell(compiled):
    error = jax.errors.JaxRuntimeError("UNIMPLEMENTED")
    compiled.runtime_executable().get_compiled_memory_stats.side_effect = error
    assert memory.program_bytes(compiled) == 0


def test_a_compiled_program_tells_what_it_takes():
    program = jax.jit(lambda x: x + 1).lower(np.zeros(1000, np.float32)).compile()
    assert memory.program_bytes(program) >= 8000


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


@pytest.mark.parametrize(
    ("free", "multiple", "expected"),
    [
        *[(None, 1, 64), (10_000, 1, 64), (7_000, 1, 63), (4_000, 1, 36)],
        *[(4_000, 8, 32), (10, 1, 1), (10, 4, 4)],
    ],
)
def test_as_many_lanes_run_as_fit_the_memory(free, multiple, expected, monkeypatch):
    monkeypatch.setattr(memory, "program_bytes", lambda lanes: 100 * lanes)
    assert memory.fitting(64, multiple, lambda size: size, free) == expected


@pytest.mark.parametrize(
    ("lanes", "lane_bytes", "expected"),
    [(64, 0, 64), (64, 2**10, 64), (64, 2**18, 8), (9, 2**18, 5), (7, 2**20, 2), (7, 2**30, 1)],
)
def test_blocks_keep_their_states_in_the_cache(lanes, lane_bytes, expected):
    assert memory.fitting_cache(lanes, lane_bytes) == expected


@pytest.mark.parametrize(
    ("flops", "read", "expected"),
    [(0.0, 0, 200), (1e9, 0, 100), (1e10, 0, 10), (1e12, 0, 4), (0.0, 2**24, 4), (1e12, 2**30, 1)],
)
def test_dispatches_are_short_for_large_models_and_batches(flops, read, expected):
    assert spans.dispatch_steps(flops, read) == expected
