import pathlib
import re
import shlex

import jax
import matplotlib.pyplot as plt
import numpy as np
import optax
import pytest

import lrjax
from lrjax import cli

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)


def blocks(language):
    return [code for found, code in BLOCKS if found == language]


def named(code):
    """The file that a block of code is, which its first line says."""
    match = re.match(r"# (\w+\.py)\b", code)
    return match and match[1]


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A folder of its own, with the files that the README shows."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "cache"))
    # One process here; tests/test_processes.py runs two.
    monkeypatch.setattr(jax.distributed, "initialize", lambda: None)
    for code in filter(named, blocks("python")):
        (tmp_path / named(code)).write_text(code)
    yield tmp_path
    plt.close("all")


def test_there_are_exactly_two_commands_for_a_shell():
    assert [code.strip() for code in blocks("sh")] == [
        'pip install ".[demo]" && lrjax demo',
        'pip install -e ".[test]" && pytest',
    ]


def test_every_block_is_run_by_a_test():
    assert {language for language, _ in BLOCKS} == {"sh", "python", "console"}


def test_the_code_runs_from_top_to_bottom(elsewhere):
    names = {}
    for code in blocks("python"):
        exec(code, names)
    assert names["curves"].loss.shape == (64, 100)
    assert lrjax.Curves.load(elsewhere / "curves.npz").loss.shape == (64, 100)
    assert isinstance(names["optimizer"], optax.GradientTransformation)
    hyperparams = lrjax.get_hyperparams(names["optimizer"].init(np.zeros(3)))
    assert {"learning_rate", "momentum"} <= set(hyperparams)


def test_the_terminal_sessions_run(elsewhere, capsys):
    for line in "".join(blocks("console")).splitlines():
        assert line.startswith("$ lrjax ")
        assert cli.main(shlex.split(line)[2:]) == 0, capsys.readouterr().err
    written = {path.name for path in elsewhere.iterdir()}
    assert {"lrjax-range-test", "report.html", "lrjax-recipe", "onecycle.png"} <= written


def test_the_task_file_is_short():
    (code,) = [code for code in blocks("python") if named(code) == "digits.py"]
    assert len(code.splitlines()) <= 22


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\((?!https?:)([^)#]+)\)", README))))
def test_links_lead_to_files(link):
    assert (ROOT / link).exists()
