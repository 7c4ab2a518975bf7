import pathlib
import re

import jax
import matplotlib.pyplot as plt
import numpy as np

import lrjax

README = (pathlib.Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)


def test_there_are_exactly_two_commands():
    commands = [code.strip() for language, code in BLOCKS if language == "sh"]
    assert commands == [
        'pip install ".[demo]" && lrjax demo',
        'pip install -e ".[test]" && pytest',
    ]


def test_the_code_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # One process here; tests/test_processes.py runs two.
    monkeypatch.setattr(jax.distributed, "initialize", lambda: None)
    first, second = (code for language, code in BLOCKS if language == "python")
    names = {}
    exec(first, names)
    assert names["curves"].loss.shape == (3, 4, 100)
    assert 1e-3 < names["peak"] < 1
    hyperparams = lrjax.get_hyperparams(names["optimizer"].init(np.zeros(3)))
    assert set(hyperparams) == {"learning_rate", "momentum", "weight_decay"}
    exec(second, names)
    assert lrjax.Curves.load("curves.npz").loss.shape == (64, 100)
    plt.close("all")
