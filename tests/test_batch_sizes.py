import numpy as np
import pytest
from helpers import DATA, TASK

import lrjax
from lrjax import compare_batch_sizes
from lrjax.recipes import batch_sizes


def test_every_size_sees_as_many_samples():
    curves = compare_batch_sizes(TASK, DATA, [8, 32, 16], steps=12, seeds=2)
    assert {size: one.loss.shape for size, one in curves.items()} == {
        8: (2, 48),
        32: (2, 12),
        16: (2, 24),
    }
    alone = lrjax.range_test(TASK, lrjax.array_batches(DATA, 16), steps=24, seeds=2)
    np.testing.assert_allclose(curves[16].loss, alone.loss, rtol=1e-6)


def test_every_size_takes_as_long(monkeypatch):
    monkeypatch.setattr(batch_sizes, "_seconds", lambda test, size: 1.0 + size / 8)
    curves = compare_batch_sizes(TASK, DATA, [8, 24], steps=10, equal="time")
    assert {size: one.steps for size, one in curves.items()} == {8: 20, 24: 10}


def test_seconds_are_those_of_an_update():
    calls = []
    assert batch_sizes._seconds(lambda *arguments: calls.append(arguments), 8) > 0
    assert calls == [(8, batch_sizes.PROBE_STEPS)] * 2


def test_time_is_measured():
    batches = lrjax.array_batches(DATA, 5)
    curves = compare_batch_sizes(TASK, batches, [4, 64], steps=20, equal="time", eval_batches=DATA)
    assert curves[64].steps == 20
    assert curves[4].eval_loss.size


@pytest.mark.parametrize(
    ("error", "name", "arguments"),
    [
        (ValueError, "batch_sizes", {"batch_sizes": []}),
        (TypeError, "batch_sizes", {"batch_sizes": 8}),
        (ValueError, r"batch_sizes\[1\]", {"batch_sizes": [8, 0]}),
        (ValueError, "batch_size", {"batch_sizes": [8, 1000]}),
        (ValueError, "steps", {"steps": 0}),
        (ValueError, "equal", {"equal": "updates"}),
        (TypeError, "data", {"data": [DATA]}),
        (TypeError, "data", {"data": iter([DATA])}),
    ],
)
def test_bad_input_names_the_argument(error, name, arguments):
    with pytest.raises(error, match=name):
        compare_batch_sizes(TASK, **{"data": DATA, "batch_sizes": [8, 16]} | arguments)


def test_every_size_has_checkpoints_of_its_own(tmp_path):
    pytest.importorskip("orbax.checkpoint")
    options = {"steps": 6, "eval_batches": iter([DATA]), "checkpoint_dir": tmp_path}
    first = compare_batch_sizes(TASK, DATA, [16, 32], **options)
    assert {path.name for path in tmp_path.iterdir()} == {"16", "32"}
    options["eval_batches"] = iter([DATA])
    again = compare_batch_sizes(TASK, DATA, [16, 32], **options)
    for size, curves in first.items():
        np.testing.assert_array_equal(again[size].eval_loss, curves.eval_loss)
