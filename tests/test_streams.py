import collections
import contextlib
import functools
import itertools
import os
import signal
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import BATCHES, DATA, TASK, network_init, network_loss

import lrjax
from lrjax.batches.evaluations import evaluation_groups, reread
from lrjax.batches.readers import reader

LISTED = [jax.tree.map(np.asarray, BATCHES(step)) for step in range(24)]


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "lrjax batches"]


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    yield
    assert not threads()


def until(condition):
    """Wait for a thread to do something."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.parametrize(
    ("prefetch", "options"), [(1, {"chunk_steps": 5}), (3, {"chunk_steps": 1, "accumulate": 2})]
)
def test_a_stream_gives_the_curves_of_its_batches(prefetch, options):
    run = functools.partial(lrjax.range_test, TASK, steps=12, seeds=2, **options)
    streamed = run(lrjax.stream_batches((batch for batch in LISTED), prefetch=prefetch))
    np.testing.assert_allclose(streamed.loss, run(BATCHES).loss, rtol=1e-5)


def test_ctrl_c_does_not_wait_for_what_is_read_ahead():
    taken = []

    def stream():
        for k in itertools.count():
            taken.append(k)
            if k == 110:
                os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2 if k > 110 else 0)
            yield LISTED[k % 24]

    curves = lrjax.range_test(
        TASK, lrjax.stream_batches(stream(), prefetch=1), steps=300, chunk_steps=100
    )
    assert curves.interrupted
    assert curves.steps_done == 100
    assert len(taken) < 190  # of the 200 of two dispatches


def test_a_stream_is_read_once_and_only_so_far_ahead():
    taken, seen = [], []

    def stream():
        for k in range(40):
            taken.append(k)
            yield np.float32(k)

    with contextlib.closing(reader(lrjax.stream_batches(stream(), prefetch=2), 30)) as ahead:
        assert taken == [0]  # for its looks
        for start in range(0, 30, 3):
            seen += ahead.read(start, 3, 3).batches.tolist()
            expected = min(start + 3 + 2 * 3, 30)
            until(lambda expected=expected: len(taken) == expected)
            time.sleep(0.002)
            assert len(taken) == expected
    assert seen == taken == list(range(30))


def test_one_thread_reads_all_of_a_stream():
    threads = set()

    def stream():
        while True:
            threads.add(threading.get_ident())
            yield BATCHES(0)

    lrjax.range_test(TASK, stream(), steps=12, chunk_steps=5)
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_a_stream_may_reuse_its_memory():
    def overwriting():
        buffer = np.zeros(2, np.float32)
        for k in range(6):
            buffer[:] = k
            yield buffer

    [source] = read_all(overwriting(), 6, 6)
    np.testing.assert_array_equal(source.batches[:, 0], range(6))


def test_a_stream_resumes_by_leaving_batches_out_and_cannot_go_back():
    with contextlib.closing(reader(np.arange(10.0), 10)) as ahead:
        assert ahead.read(3, 2, 2).batches.tolist() == [3, 4]
        assert ahead.read(8, 1, 2).batches.tolist() == [8, 8]
        with pytest.raises(ValueError, match="go back from batch 9 to 3"):
            ahead.read(3, 2, 2)


def read_all(batches, total, length):
    with contextlib.closing(reader(batches, total)) as ahead:
        return [ahead.read(start, length, length) for start in range(0, total, length)]


def slow(count, seconds=0.004):
    for k in range(count):
        time.sleep(seconds)
        yield np.float32(k)


@pytest.mark.parametrize(
    ("idle", "share"), [((True, True), 1), ((False, False), 0), ((False, True), 0.5)]
)
def test_waiting_counts_while_the_device_is_idle(idle, share):
    with contextlib.closing(reader(slow(4, 0.02), 4)) as ahead:
        began = time.perf_counter()
        ahead.read(0, 4, 4, itertools.cycle(idle).__next__)
        took = time.perf_counter() - began
    assert took * share * 0.8 <= ahead.waited <= took * share
    assert reader(BATCHES, 4).waited == 0


def failing(after):
    yield from LISTED[:after]
    raise OSError("no disk")


def first_four(batch):
    return jax.tree.map(lambda array: array[:4], batch)


def longer(batch):
    return jax.tree.map(lambda array: np.concatenate([array, array[:8]]), batch)


class Failing:
    """A loader that cannot begin again."""

    def __init__(self, passes):
        self.batches = LISTED[:passes]

    def __iter__(self):
        if not self.batches:
            raise OSError("no disk")
        batches, self.batches = self.batches, []
        return iter(batches)


class Once(list):
    """What can be read once, though it is no iterator."""

    def __iter__(self):
        while self:
            yield self.pop(0)


def changed(change):
    return [*LISTED[:3], jax.tree.map(change, LISTED[3]), *LISTED[4:]]


BAD_STREAMS = [
    (
        ValueError,
        "provide the 20 batches that the steps take, got 7 .*yield from",
        lambda: iter(LISTED[:7]),
    ),
    (ValueError, r"provide the 20 batches that the steps take, got 0\.", lambda: iter(())),
    (ValueError, r"provide the 20 batches that the steps take, got 0\.", list),
    (ValueError, r"got .*\[24, 5\].* as number 3", lambda: [*LISTED[:3], longer(LISTED[3])]),
    (ValueError, "float32.* as number 1", lambda: [np.float32(1), np.ones(3, np.float32)]),
    (RuntimeError, "batches raised at number 7: OSError: no disk", lambda: Failing(7)),
    (ValueError, "provide the 20 batches that the steps take, got 7", lambda: Once(LISTED[:7])),
    (
        ValueError,
        r"got .*\[4, 5\].* as number 3",
        lambda: iter([*LISTED[:3], first_four(LISTED[3])]),
    ),
    (
        ValueError,
        r"first, .*\[16, 5\].*, got .*\[4, 5\].* as number 3",
        lambda: changed(first_four),
    ),
    (ValueError, "first, .*float32.*, got .*float16.* as number 3", lambda: changed(np.float16)),
    (ValueError, r"first, \(.*\), got \[.*\] as number 3", lambda: [*LISTED[:3], [*LISTED[3]]] * 5),
    (RuntimeError, "batches raised at number 0: OSError: no disk", lambda: failing(0)),
    (RuntimeError, "batches raised at number 9: OSError: no disk", lambda: failing(9)),
    (TypeError, "valid JAX array", lambda: itertools.repeat(np.array(["text"]))),
]


@pytest.mark.parametrize("wrap", [lrjax.stream_batches, lambda iterable: iterable])
@pytest.mark.parametrize(("error", "message", "make"), BAD_STREAMS)
def test_a_bad_stream_says_what_is_wrong_and_where(error, message, make, wrap):
    with pytest.raises(error, match=message) as raised:
        read_all(wrap(make()), 20, 4)
    if error is RuntimeError:
        assert isinstance(raised.value.__cause__, OSError)


def shuffled(tail):
    """A loader with another order in every pass, and perhaps a short batch at the end."""

    class Loader:
        passes = 0

        def __iter__(self):
            order = np.random.default_rng(self.passes).permutation(7)
            self.passes += 1
            yield from [LISTED[k] for k in order] + tail

    return Loader()


TAILS = {"whole": [], "short": [first_four(LISTED[9])], "of workers": [first_four(LISTED[9])] * 2}


@pytest.mark.parametrize("tail", TAILS.values(), ids=TAILS)
@pytest.mark.parametrize("wrap", [lrjax.stream_batches, lambda iterable: iterable])
def test_a_loader_is_begun_again_when_it_ends(tail, wrap):
    loader = shuffled(tail)
    got = [source.batches for source in read_all(wrap(loader), 20, 4)]
    orders = [np.random.default_rng(number).permutation(7) for number in range(3)]
    expected = [LISTED[k] for k in np.concatenate(orders)[:20]]
    for k in (0, 1):
        stacked = np.stack([batch[k] for batch in expected])
        np.testing.assert_array_equal(np.concatenate([each[k] for each in got]), stacked)
    assert loader.passes == 3


class Numbered:
    """What a `for` loop goes through by numbers."""

    def __getitem__(self, k):
        return LISTED[:7][k]


def test_a_table_beside_the_samples_is_as_long_in_a_short_tail():
    batches = [{"x": np.zeros((n, 2)), "y": np.zeros(n), "table": np.ones(3)} for n in (4, 4, 2)]
    with contextlib.closing(reader(batches, 4)) as ahead:
        assert ahead.read(0, 4, 4).batches["x"].shape == (4, 4, 2)


def test_a_batch_with_one_shorter_array_is_no_short_tail():
    whole = {"x": np.zeros((4, 2)), "y": np.zeros(4)}
    odd = {"x": np.zeros((3, 2)), "y": np.zeros(4)}
    refused = pytest.raises(ValueError, match="look like the first")
    with contextlib.closing(reader([whole, odd], 4)) as ahead, refused:
        ahead.read(0, 4, 4)


class Counted:
    """An iterator that knows its length."""

    def __iter__(self):
        return self

    def __next__(self):
        return np.zeros(2)

    def __len__(self):
        return 3


def test_an_iterator_that_knows_its_length_is_refused_before_training():
    with pytest.raises(ValueError, match="got 3"):
        reader(Counted(), 10)


def test_a_sequence_needs_no_iterator():
    got = np.concatenate([source.batches[1] for source in read_all(Numbered(), 20, 4)])
    np.testing.assert_array_equal(got, [LISTED[k % 7][1] for k in range(20)])


def test_a_list_of_one_batch_is_enough():
    run = functools.partial(lrjax.range_test, TASK, steps=6)
    expected = run(batch for batch in [LISTED[0]] * 6)
    np.testing.assert_array_equal(run([LISTED[0]]).loss, expected.loss)


def test_a_loader_may_not_know_its_length():
    class Loader(list):
        def __len__(self):
            raise TypeError("unknown")

    assert len(read_all(Loader(LISTED), 20, 4)) == 5


@pytest.mark.parametrize(
    ("error", "name", "arguments"),
    [
        (TypeError, "iterable", {"iterable": 3}),
        (TypeError, "iterable", {"iterable": {"x": np.zeros(3)}}),
        (ValueError, "prefetch", {"iterable": [], "prefetch": 0}),
        (TypeError, "prefetch", {"iterable": [], "prefetch": 1.5}),
    ],
)
def test_bad_input_names_the_argument(error, name, arguments):
    with pytest.raises(error, match=name):
        lrjax.stream_batches(**arguments)


def test_the_thread_ends_when_a_sweep_stops_early_or_fails():
    task = lrjax.task(lambda params, batch: params * batch.sum(), jnp.ones(()))
    run = functools.partial(lrjax.range_test, task, steps=100, chunk_steps=1)
    assert run(itertools.repeat(np.array([np.nan]))).diverged.all()
    assert not threads()
    with pytest.raises(RuntimeError, match="number 9"):
        run(itertools.chain([np.zeros(1)] * 9, failing(0)))


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="signals to threads")
def test_an_interrupt_reaches_who_waits_for_a_stream_that_stalls(monkeypatch):
    monkeypatch.setattr("lrjax.batches.streams.PATIENCE", 0.01)
    answered = threading.Event()

    def stalling():
        yield np.zeros(1)
        answered.wait()

    main = threading.main_thread().ident
    ahead = reader(stalling(), 2)
    interrupt = threading.Timer(0.05, signal.pthread_kill, [main, signal.SIGINT])
    interrupt.start()
    with pytest.raises(KeyboardInterrupt):
        ahead.read(0, 2, 2)
    ahead.close()
    answered.set()
    until(lambda: not threads())
    interrupt.join()


def overwritten(batches):
    """Batches in one and the same memory."""
    buffer = jax.tree.map(np.empty_like, batches[0])
    for batch in batches:
        jax.tree.map(np.copyto, buffer, batch)
        yield buffer


def test_a_stream_to_evaluate_on_may_reuse_its_memory():
    expected = evaluation_groups(LISTED[:3])
    for read in (lambda batches: batches, reread):
        jax.tree.map(
            np.testing.assert_array_equal,
            evaluation_groups(read(lrjax.stream_batches(overwritten(LISTED[:3])))),
            expected,
        )


def test_a_stream_around_an_iterator_can_be_read_again():
    batches = reread(lrjax.stream_batches(batch for batch in LISTED[:3]))
    assert [len(list(batches)) for _ in range(2)] == [3, 3]


def test_a_stream_of_finite_length_is_evaluated_on():
    groups = evaluation_groups(lrjax.stream_batches(LISTED[:3]))
    assert [group.batches[1].shape for group in groups] == [(3, 16)]


class Clouds:
    """A source of samples, as Grain takes it."""

    def __len__(self):
        return len(DATA[1])

    def __getitem__(self, number):
        return {"points": DATA[0][number], "label": DATA[1][number]}


def grain_loader(grain, epochs):
    sampler = grain.samplers.IndexSampler(len(Clouds()), shuffle=True, seed=0, num_epochs=epochs)
    batch = grain.transforms.Batch(16, drop_remainder=True)
    return grain.DataLoader(data_source=Clouds(), sampler=sampler, operations=[batch])


def grain_dataset(grain, epochs):
    return grain.MapDataset.source(Clouds()).shuffle(0).batch(16).repeat(epochs).to_iter_dataset()


@pytest.mark.parametrize("make", [grain_loader, grain_dataset])
def test_grain_loads_batches(make):
    make = functools.partial(make, pytest.importorskip("grain"))

    def loss(params, batch):
        return network_loss(params, (batch["points"], batch["label"]))

    task = lrjax.task(loss, network_init)
    run = functools.partial(lrjax.range_test, task, steps=12, chunk_steps=5)
    expected = run(list(itertools.islice(make(None), 12)))
    np.testing.assert_array_equal(run(lrjax.stream_batches(make(None))).loss, expected.loss)
    assert np.isfinite(run(make(1)).loss).all()  # begun again after the 6 batches of an epoch
    with pytest.raises(ValueError, match="got 6"):
        run(iter(make(1)))


def test_evaluations_count_samples_along_the_axis_that_differs():
    def batch(samples, time_major=False):
        rows = np.ones((samples, 3), np.float32)
        return {"adjacency": np.eye(10, dtype=np.float32), "x": rows.T if time_major else rows}

    for time_major in (False, True):
        batches = [batch(8, time_major), batch(8, time_major), batch(5, time_major)]
        assert [group.weight for group in evaluation_groups(batches)] == [8, 5]
    assert [group.weight for group in evaluation_groups([batch(8)])] == [10]  # of one shape


def test_evaluations_do_not_count_the_length_of_sequences():
    batches = [np.ones((8, 10)), np.ones((8, 1000)), np.ones((4, 20))]
    assert [group.weight for group in evaluation_groups(batches)] == [8, 8, 4]


def test_a_stream_that_fails_after_the_last_divergence_is_not_a_failure():
    task = lrjax.task(lambda params, batch: params * batch.sum(), jnp.ones(()))
    batches = itertools.chain([np.array([np.nan])], failing(0))
    curves = lrjax.range_test(task, batches, steps=100, chunk_steps=1)
    assert curves.diverged.all()
    assert curves.steps_done == 100


@pytest.mark.parametrize(("one", "other"), [("a", "b"), ("b", "a")])
def test_evaluations_count_the_first_axis_where_several_differ(one, other):
    def batch(nodes, edges):
        return {one: np.ones((nodes, 2)), other: np.ones((edges, 3))}

    groups = evaluation_groups([batch(8, 20), batch(5, 11)])
    assert [group.weight for group in groups] == ([8, 5] if one == "a" else [20, 11])


def test_samples_of_batches_that_cannot_be_compared():
    batches = [np.ones((4, 2)), np.ones((4, 2)), np.ones(3)]
    assert [group.weight for group in evaluation_groups(batches)] == [4, 3]
    batches = [{"a": np.float32(1), "x": np.ones(4)}]
    assert [group.weight for group in evaluation_groups(batches)] == [4]
    assert [group.weight for group in evaluation_groups([np.float32(1)] * 3)] == [1]


def test_an_iterator_that_knows_its_length_may_be_just_long_enough():
    class Counted(collections.UserList):
        def __init__(self):
            super().__init__([np.zeros(2)] * 3)
            self.items = iter(self.data)

        def __iter__(self):
            return self

        def __next__(self):
            return next(self.items)

    ahead = reader(Counted(), 3)
    assert len(ahead.read(0, 3, 3).batches) == 3
    ahead.close()


def test_an_evaluation_without_samples_is_refused():
    with pytest.raises(ValueError, match="eval_batches must hold samples"):
        evaluation_groups([np.ones((4, 2)), np.ones((0, 2))])
