import json
import subprocess
import sys

import numpy as np
import pytest

import lrjax
from lrjax import _demo, cli


def lrjax_command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "lrjax", *arguments], capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The demo as a person runs it: what it printed and where it wrote."""
    out = tmp_path_factory.mktemp("demo")
    return lrjax_command("demo", "--out", str(out)), out


def test_the_demo_prints_its_tables_and_no_progress_bar_into_a_pipe(demo):
    done, _ = demo
    assert (done.returncode, done.stderr) == (0, "")
    assert "5 weight decays x 4 seeds" in done.stdout
    assert "1cycle" in done.stdout
    assert "\x1b" not in done.stdout


def test_the_demo_writes_curves_pictures_and_a_report(demo):
    _, out = demo
    curves = lrjax.Curves.load(out / "curves.npz")
    assert list(curves.axes) == ["weight_decay", "seed"]
    np.testing.assert_array_equal(
        curves.axes["weight_decay"], np.float32([0, 1e-5, 1e-4, 1e-3, 1e-2])
    )
    assert curves.loss.shape[:2] == (5, 4)
    assert curves.eval_loss.shape[:2] == (5, 4)
    for name in ("curves.png", "schedule.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    report = json.loads((out / "report.json").read_text())
    suggestion = lrjax.suggest(curves).consensus
    reported = [row["learning_rate"] for row in report["range_test"]]
    np.testing.assert_allclose(reported, suggestion.learning_rate, rtol=1e-6)
    assert all(row["spread_decades"] < 0.5 for row in report["range_test"])


def test_the_suggested_1cycle_beats_rates_ten_times_lower_and_higher(demo):
    _, out = demo
    runs = {row["run"]: row for row in json.loads((out / "report.json").read_text())["runs"]}
    # None stands for NaN: at least one seed diverged.
    accuracy = {name: row["held_out_accuracy"] or 0.0 for name, row in runs.items()}
    assert accuracy["1cycle"] > 0.95
    assert accuracy["1cycle"] > accuracy["constant, 10 x lower"]
    assert accuracy["constant, 10 x higher"] < 0.5


def test_nan_becomes_null_in_the_report():
    assert _demo._without_nan({"a": [float("nan"), 1.0, "x"]}) == {"a": [None, 1.0, "x"]}


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["demo", "--nonsense"]])
def test_bad_use_ends_with_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert "usage: lrjax" in capsys.readouterr().err
