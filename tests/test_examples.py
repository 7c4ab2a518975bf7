import pathlib
import re
import subprocess
import sys

import pytest

FOLDER = pathlib.Path(__file__).parent.parent / "examples"

ROUNDING = r"(0|\de-0[6-9])"

# What each prints, and then the names of the files that it leaves behind.
PRINTS = {
    "01_schedules": r"schedules\.png",
    "02_range_test": r"learning rate 0\.\d+, cycle from 0\.\d+ to .*range_test\.png",
    "03_flax_linen": r" 90  1\.000     0\.850 .* 300  0\.000     0\.950 .* 0\.9\d\d\n",
    "04_flax_nnx": r" 90  0\.0200  0\.850 .* 300  0\.0000  0\.950 .* 0\.9\d\d\n",
    "05_equinox": r"0\.0001 .* 0\.[0-5]\d\d\n.* 0\.01 .* 0\.9\d\d\n +0\.1 ",
    "06_cyclical_momentum": rf" 20  0\.100     0\.850 .*to cyclical_sgd: {ROUNDING}\n",
    "07_discriminative_rates": r"0\.01 +0\.\d% +0\.\d+ .*\n +1 +\d\d\.\d% +0\.[89]\d+ ",
    "08_grain": r"weight_decay 0: learning rate 0\.\d+.*weight_decay 0\.1: learning rate 0\.0",
    "09_devices": rf"4 devices.* 0\.3  .*one device: {ROUNDING}\n",
    "10_resume": r"first call:  [123]\d\d of 400.*second call: 400 of 400.*undisturbed: True",
    "11_recipe": r"1cycle over 400 .*Cost: .*1cycle +test accuracy 0\.9.* 0\.003 .* 0\.8",
    "12_random_search": r"lane: 24, seed: 2; .*weight decay\n +0\.[12]\d\d .*\d\n",
    "13_log_hyperparams": r"step,learning_rate,loss,.*\n30,0\.29.*,0\.85.*hyperparams\.csv",
    "14_best_epoch": r"\*\n.*a patience of 2 stops here\n.*back to epoch \d+ with loss 0\.[12]",
    "15_range_test_in_training": r" 0 +2\.\d+ +0\.[1-9].* 800 +0\.\d+ +0\.0\d+ +0\.0\d+ .* 3200 ",
    "16_mnist_learning_rates": r" 0\.5 .* 2\.32 .* 1e-07 .* 2\.27 .* 16\.2%",
}


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_the_example_is_short_and_prints_what_it_says(path, tmp_path):
    assert len(path.read_text().splitlines()) < 80
    assert path.name in (FOLDER / "README.md").read_text()
    warnings = ["-W", "error", "-W", "ignore:Error reading persistent compilation cache entry"]
    command = [sys.executable, *warnings, str(path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answer = done.stdout + "\n".join(entry.name for entry in tmp_path.iterdir())
    assert re.search(PRINTS[path.stem], answer, re.DOTALL), answer
