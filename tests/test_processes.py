"""One sweep over two real processes."""

import pathlib
import signal
import socket
import subprocess
import sys
import time
import unittest.mock

import jax
import numpy as np
import pytest
from helpers import BATCHES, TASK, clouds, network

import lrjax
from lrjax._checkpoints import identities
from lrjax.sweeps import engine, interrupts
from lrjax.sweeps import processes as between

WORKER = pathlib.Path(__file__).parent / "process_worker.py"


def start(out, *arguments):
    """Two processes of one sweep, of which the second may get other arguments."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [
        subprocess.Popen(
            [sys.executable, str(WORKER), str(port), str(number), "2", str(out), *own],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number, own in enumerate(arguments)
    ]


@pytest.fixture
def processes(request):
    started = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


def test_every_process_returns_the_whole_curves(tmp_path, processes):
    processes += start(tmp_path, ["30"], ["30"])
    for process in processes:
        printed, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        assert "steps/s" not in printed + errors
    task, data = network()
    expected = lrjax.range_test(
        task,
        lrjax.array_batches(data, 16),
        lanes={"weight_decay": [0.0, 1e-3, 0.1]},
        seeds=2,
        steps=30,
        start=1e-3,
        eval_batches=lrjax.array_batches(clouds(40, seed=1), 16),
        chunk_steps=10,
        divergence=None,
    )
    for number in range(2):
        curves = lrjax.Curves.load(tmp_path / f"{number}.npz")
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), curves, expected)


@pytest.mark.parametrize("last", ["0", "15"])
def test_a_stream_that_ends_in_one_process_ends_all(tmp_path, processes, last):
    processes += start(tmp_path, ["30", "1e-3", "30"], ["30", "1e-3", last])
    told = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [1, 1]
    assert "process 1 could not read its batches" in told[0]
    assert f"batches must provide the 30 batches that the steps take, got {last}" in told[1]


def test_processes_with_different_arguments_are_refused(tmp_path, processes):
    processes += start(tmp_path, ["30", "1e-3"], ["30", "1e-4"])
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode != 0
        assert "must be given the same arguments, got several lanes" in errors


@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_process_ends_the_other_with_a_clear_error(tmp_path, processes, killed):
    processes += start(tmp_path, ["100000"], ["100000"])
    until = time.monotonic() + 180
    while len(list(tmp_path.glob("*.running"))) < 2 and time.monotonic() < until:
        time.sleep(0.5)
    assert [process.poll() for process in processes] == [None, None]
    processes[killed].send_signal(signal.SIGKILL)
    other, begun = processes[1 - killed], time.monotonic()
    _, errors = other.communicate(timeout=60)
    assert other.returncode != 0
    assert time.monotonic() - begun < 60
    # Where the first process dies, JAX may end the others before lrjax can say anything.
    said = {0: "another task died", 1: "another process of the sweep has probably ended"}
    assert said[killed] in errors


def test_the_first_process_says_when_to_save(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    told = []
    monkeypatch.setattr(
        between.multihost_utils, "broadcast_one_to_all", lambda wish: told.append(wish) or True
    )
    assert between.agreed(False) is True
    assert told == [False]


# What one of several processes does, as far as it needs no other.


@pytest.fixture
def one_of_two(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)


@pytest.mark.usefixtures("one_of_two")
def test_processes_that_were_given_other_names_are_refused(monkeypatch):
    gather = unittest.mock.Mock(side_effect=lambda own: np.stack([own, own ^ 1]))
    monkeypatch.setattr(identities.multihost_utils, "process_allgather", gather)
    with pytest.raises(ValueError, match=r"the same arguments, got \['seeds', 'steps'\] here"):
        identities.check_processes({"steps": 3, "seeds": 2})


@pytest.mark.usefixtures("one_of_two")
@pytest.mark.parametrize("options", [{}, {"checkpoint_dir": "folder"}], ids=["without", "with"])
def test_processes_must_agree_on_whether_there_are_checkpoints(monkeypatch, options):
    checked = unittest.mock.Mock(side_effect=InterruptedError)
    monkeypatch.setattr(engine, "check_processes", checked)
    with pytest.raises(InterruptedError):
        lrjax.range_test(TASK, BATCHES, steps=3, **options)
    assert checked.call_args[0][0]["checkpoint_dir"] == bool(options)


@pytest.mark.usefixtures("one_of_two")
def test_ctrl_c_ends_every_process_as_it_always_did():
    before = signal.getsignal(signal.SIGINT)
    with interrupts.interruptible() as stopped:
        assert signal.getsignal(signal.SIGINT) is before
        assert not stopped()


@pytest.mark.parametrize("number", [0, 1])
def test_the_first_process_alone_shows_progress(monkeypatch, number):
    bar = unittest.mock.Mock(side_effect=engine.progress_bar)
    monkeypatch.setattr(engine, "progress_bar", bar)
    monkeypatch.setattr(jax, "process_index", lambda: number)
    lrjax.range_test(TASK, BATCHES, steps=3, progress=True)
    assert bar.call_args[1] == {"enabled": number == 0}
