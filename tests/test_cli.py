import inspect
import json
import os
import shlex
import subprocess
import sys
import textwrap

import jax
import numpy as np
import pytest
from helpers import falling_and_rising, make_curves, python

import lrjax
from lrjax import _problems, _schedule_arguments, cli
from lrjax.suggestions.methods import METHODS

TASK_FILE = """
    import jax.numpy as jnp
    import numpy as np

    import lrjax
    import optax

    rng = np.random.default_rng(0)
    x = rng.normal(size=(96, 5)).astype(np.float32)
    y = x @ np.arange(5, dtype=np.float32)
    batches = x[:80], y[:80]
    eval_batches = x[80:], y[80:]


    def loss(params, batch):
        x, y = batch
        return jnp.mean((x @ params - y) ** 2)


    task = lrjax.task(loss, jnp.zeros(5))
    other = lrjax.task(loss, jnp.ones(5))


    def problem():
        print("what a task prints")
        return {"task": task, "batches": batches, "optimizer": lrjax.adamw}


    def incomplete():
        return {"task": task}


    def unknown():
        return {"task": task, "batches": batches, "optimiser": lrjax.sgd}


    def unjudged():
        return {"task": task, "batches": batches}


    def broken():
        task = lrjax.task(lambda params, batch: params + nonsense, jnp.zeros(()))
        return {"task": task, "batches": x}


    def plain():
        return {**problem(), "eval_batches": eval_batches, "optimizer": optax.sgd}
"""


def lrjax_command(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "lrjax", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a task file, in which the command runs."""
    (tmp_path / "lines.py").write_text(textwrap.dedent(TASK_FILE))
    (tmp_path / "failing.py").write_text("import lines\n\nlines.nonsense\n")
    (tmp_path / "importing.py").write_text("import no_such_module\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield tmp_path
    for name in {"lines", "failing", "importing"} - before:
        sys.modules.pop(name, None)


@pytest.fixture(autouse=True)
def no_cache(monkeypatch, tmp_path):
    """The command must not change how other tests compile."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "cache"))


def curves_file(folder, **fields):
    rate = np.geomspace(1e-5, 10, 100)
    fall = falling_and_rising(rate, 0.5, onset=1e-3, edge=0.5, drop=1.8, power=2)
    curves = make_curves(rate, np.stack([fall, fall + 0.1]), **fields)
    curves.save(folder / "curves.npz")
    return curves


# The range test.


def test_a_range_test_writes_curves_picture_result_and_report(here, capsys):
    arguments = (
        "range-test lines:task --weight-decay 0 1e-3 --seeds 2 --steps 60 --start 1e-4 --end 10 "
        "--eval-every 6 --falling-momentum 0.9 0.8 --out out --report pages/report.html"
    )
    status = cli.main(arguments.split())
    printed = capsys.readouterr()
    assert (status, printed.err) == (0, "")
    curves = lrjax.Curves.load("out/curves.npz")
    assert {name: len(values) for name, values in curves.axes.items()} == {
        "weight_decay": 2,
        "seed": 2,
    }
    assert curves.loss.shape == (2, 2, 60)
    assert curves.eval_loss.shape == (2, 2, 10)
    np.testing.assert_allclose(curves.learning_rate[[0, -1]], [1e-4, 10], rtol=1e-5)
    np.testing.assert_allclose(curves.momentum[[0, -1]], [0.9, 0.8], rtol=1e-5)
    agreed = lrjax.suggest(curves).consensus
    result = json.loads((here / "out/result.json").read_text())
    rates = [row["learning_rate"] for row in result["lanes"]]
    np.testing.assert_allclose(rates, agreed.learning_rate, rtol=1e-5)
    assert result["arguments"]["lanes"] == {"weight_decay": [0.0, 1e-3]}
    assert result["environment"]["jax"] == jax.__version__
    assert (here / "out/curves.png").read_bytes().startswith(b"\x89PNG")
    assert "lines:task" in (here / "pages/report.html").read_text()
    assert f"Learning rate {result['chosen']['learning_rate']:.3g}" in printed.out
    for file in result["files"]:
        assert file in printed.out
        assert (here / file).exists()


def test_a_picture_that_fails_costs_no_result(here, monkeypatch, capsys):
    monkeypatch.setattr("lrjax._commands.save", None)
    assert cli.main(["range-test", "lines", "--steps", "30", "--out", "out"]) == 2
    assert json.loads((here / "out/result.json").read_text())["steps_done"] == 30
    assert "error" in capsys.readouterr().err


def test_a_broken_pipe_says_nothing():
    code = "import sys; from lrjax import cli; sys.exit(cli.main(['plot-schedule', 'constant', "
    code += "'--value', '1', '--steps', '9', '--json']))"
    command = f"{sys.executable} -c {shlex.quote(code)} | true"
    environment = {**os.environ, "PYTHONUNBUFFERED": ""}
    done = subprocess.run(command, shell=True, capture_output=True, env=environment, check=False)
    assert done.stderr == b""


def test_json_is_all_that_is_printed(here, capsys):
    arguments = "range-test lines:problem --lanes b2 0.9 0.99 --steps 12 --json --batch-size 16"
    assert cli.main(arguments.split()) == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out, parse_constant=pytest.fail)
    assert result["arguments"]["lanes"] == {"b2": [0.9, 0.99]}
    assert result["lanes"][0]["spread_decades"] is None
    assert "what a task prints" in printed.err
    assert (here / "lrjax-range-test/curves.npz").exists()


def test_an_interrupted_test_keeps_its_curves_and_says_so(here, monkeypatch, capsys):
    partial = curves_file(here, steps_done=np.int32(50))
    monkeypatch.setattr("lrjax._commands.range_test", lambda *args, **kwargs: partial)
    assert cli.main(["range-test", "lines", "--out", "out"]) == 130
    assert "interrupted after 50" in capsys.readouterr().out
    assert lrjax.Curves.load("out/curves.npz").steps_done == 50


def test_an_interrupted_recipe_and_demo_keep_what_there_is_and_say_so(here, monkeypatch, capsys):
    evaluated = {"eval_steps": [25], "eval_loss": np.ones((2, 1))}
    partial = curves_file(here, axes={"weight_decay": [0, 1e-3]}, steps_done=50, **evaluated)
    ended = lrjax.Recipe(
        max_learning_rate=np.nan,
        weight_decay=None,
        momentum=None,
        min_momentum=None,
        total_steps=400,
        reason="interrupted",
        evidence={"range_test": partial},
    )
    monkeypatch.setattr("lrjax._commands.smith_recipe", lambda *args, **kwargs: ended)
    monkeypatch.setattr("lrjax._demo.smith_recipe", lambda *args, **kwargs: ended)
    for command in ("recipe lines --total-steps 400", "demo"):
        assert cli.main([*command.split(), "--out", "out"]) == 130
        assert "interrupted" in capsys.readouterr().out
        recipe = lrjax.Recipe.from_json((here / "out/recipe.json").read_text())
        assert recipe.evidence["range_test"].steps_done == 50


def test_a_reader_that_goes_away_is_no_error():
    command = "plot-schedule constant --value 1 --steps 100000 --json"
    code = f"import sys; from lrjax.cli import main; sys.exit(main({command.split()!r}))"
    shell = f"{sys.executable} -c {shlex.quote(code)} | head -1"
    done = subprocess.run(shell, shell=True, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("{\n", "")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--method", "nonsense"],
        ["--option", "sma=5"],
        ["--option", "width=0"],
        ["--method", "slide", "--option", "trim=no"],
    ],
)
def test_a_bad_method_is_refused_before_the_test(here, monkeypatch, arguments):
    monkeypatch.setattr(
        "lrjax._commands.range_test", lambda *args, **kwargs: pytest.fail("it began")
    )
    assert cli.main(["range-test", "lines", *arguments]) == 2


@pytest.mark.parametrize(
    ("name", "optimizer", "evaluated"),
    [
        ("lines", lrjax.sgd, True),
        ("lines:task", lrjax.sgd, True),
        ("lines:other", lrjax.sgd, True),
        ("lines:problem", lrjax.adamw, False),
    ],
)
def test_what_a_name_stands_for(here, name, optimizer, evaluated):
    problem = _problems.load_problem(name)
    assert isinstance(problem.task, lrjax.Task)
    assert problem.batches[0].shape == (80, 5)
    assert problem.optimizer is optimizer
    assert (problem.eval_batches is not None) == evaluated
    start = 1.0 if name == "lines:other" else 0.0
    assert float(problem.task.init(jax.random.key(0))[0][0]) == start


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_a_recipe_is_what_the_library_makes_of_the_same_task(here, monkeypatch, capsys, arguments):
    asked = {}
    tested = curves_file(here, eval_steps=np.int32([50, 100]), eval_loss=np.ones((2, 2)))
    recipe = lrjax.Recipe(
        max_learning_rate=0.2,
        weight_decay=1e-3,
        momentum=0.9,
        min_momentum=0.85,
        total_steps=200,
        account=("Once.",),
        evidence={"range_test": tested},
    )
    monkeypatch.setattr(
        "lrjax._commands.smith_recipe", lambda *data, **given: asked.update(given) or recipe
    )
    line = "recipe lines:task --total-steps 200 --weight-decay 0 1e-3 --seeds 3 --out out"
    assert cli.main([*line.split(), *arguments]) == 0
    asked = {name: value for name, value in asked.items() if name not in ("progress", "optimizer")}
    assert asked == {
        "total_steps": 200,
        "weight_decays": [0.0, 1e-3],
        "seeds": 3,
        "start": 1e-6,
        "end": 10.0,
        "accumulate": 1,
    }
    assert (here / "out/recipe.png").read_bytes().startswith(b"\x89PNG")
    assert lrjax.Recipe.from_json((here / "out/recipe.json").read_text()).momentum == 0.9
    printed = capsys.readouterr().out
    if arguments:
        result = json.loads(printed)
        assert result["max_learning_rate"] == 0.2
        assert result["stages"] == ["range_test"]
    else:
        assert printed.startswith(recipe.describe())


def test_a_recipe_of_an_optimizer_without_weight_decay_and_momentum(here, capsys):
    line = "recipe lines:plain --total-steps 60 --weight-decay --momentum --seeds 1 --json"
    assert cli.main(line.split()) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["weight_decay"], result["momentum"]) == (None, None)
    assert result["stages"] == ["range_test", "cycles"]
    assert result["max_learning_rate"] > 0


def test_a_whole_recipe_runs(here, capsys):
    line = (
        "recipe lines --total-steps 60 --test-steps 40 --weight-decay 1e-3 --momentum 0.9 "
        "--seeds 1 --start 1e-4 --json"
    )
    assert cli.main(line.split()) == 0
    result = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert result["total_steps"] == 60
    assert result["max_learning_rate"] > 0
    assert result["stages"][-1] == "cycles"


# Curves that were saved.


def test_suggest_prints_what_the_library_suggests(here, capsys):
    curves = curves_file(here, axes={"weight_decay": np.float32([0, 1e-3])})
    arguments = ["suggest", "curves.npz", "--method", "surmenok", "--option", "sma=7"]
    assert cli.main([*arguments, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    expected = lrjax.suggest(curves, "surmenok", sma=7)
    rates = [row["learning_rate"] for row in result["lanes"]]
    np.testing.assert_allclose(rates, expected.learning_rate, rtol=1e-5)
    assert cli.main(arguments) == 0
    assert f"{expected.learning_rate[0]:.3g}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "file", "beginning"),
    [
        ([], "curves.png", b"\x89PNG"),
        (["--quantity", "loss", "--out", "a.svg"], "a.svg", b"<?xml"),
        (["--out", "b.pdf"], "b.pdf", b"%PDF"),
    ],
)
def test_plot_writes_a_picture(here, capsys, arguments, file, beginning):
    curves_file(here)
    assert cli.main(["plot", "curves.npz", *arguments]) == 0
    assert (here / file).read_bytes().startswith(beginning)
    assert capsys.readouterr().out == f"Wrote {file}\n"


def test_plot_draws_curves_of_a_constant_rate_and_grids(here):
    curves_file(here, learning_rate=np.full(100, 0.1, np.float32))
    assert cli.main(["plot", "curves.npz"]) == 0
    rate = np.geomspace(1e-5, 10, 100).astype(np.float32)
    axes = {"weight_decay": np.float32([0, 1e-3]), "momentum": np.float32([0.8, 0.9])}
    loss = np.float32(2.3 - 1.8 / (1 + 1e-3 / rate) + np.zeros((2, 2, 1)))
    lrjax.Curves(axes=axes, learning_rate=rate, loss=loss).save("grid.npz")
    assert cli.main(["plot", "grid.npz", "--grid"]) == 0
    assert (here / "grid.png").exists()


# Schedules.


@pytest.mark.parametrize(
    ("arguments", "schedule"),
    [
        ("onecycle --peak-value 0.1 --total-steps 50", lrjax.onecycle(0.1, 50)),
        (
            "onecycle --peak-value 0.1 --total-steps 50 --three-phase --anneal linear",
            lrjax.onecycle(0.1, 50, three_phase=True, anneal="linear"),
        ),
        (
            "triangular --base-value 0.01 --peak-value 1 --steps-up 5 --steps 50",
            lrjax.triangular(0.01, 1.0, 5),
        ),
        (
            "multistep_decay --init-value 1 --milestones 10 20 --steps 50",
            lrjax.multistep_decay(1.0, [10, 20]),
        ),
        ("linear_ramp --start 0 --end 1 --steps 50", lrjax.linear_ramp(0.0, 1.0, 50)),
    ],
)
def test_a_schedule_by_its_name_and_parameters(here, capsys, arguments, schedule):
    assert cli.main(["plot-schedule", *arguments.split(), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    np.testing.assert_array_equal(np.float32(result["values"]), schedule(np.arange(50)))
    assert cli.main(["plot-schedule", *arguments.split()]) == 0
    assert (here / f"{result['schedule']}.png").read_bytes().startswith(b"\x89PNG")


def test_schedules_that_numbers_make_are_offered_with_all_their_parameters(capsys):
    names = _schedule_arguments.schedule_names()
    assert {"onecycle", "triangular2", "wsd", "constant"} <= set(names)
    assert set(lrjax.schedules.__all__) - set(names) >= {"join", "scale", "with_warmup"}
    for name in names:
        with pytest.raises(SystemExit) as ended:
            cli.main(["plot-schedule", name, "--help"])
        assert ended.value.code == 0
        shown = capsys.readouterr().out
        for parameter in inspect.signature(getattr(lrjax, name)).parameters:
            if parameter not in {"scale_fn"}:
                assert f"--{parameter.replace('_', '-')}" in shown


# Help and bad use.


def test_help_comes_without_loading_jax():
    code = (
        "import sys, lrjax.cli; lrjax.cli.build_parser().format_help(); print(sorted(sys.modules))"
    )
    loaded = python(code)
    assert "'lrjax.cli'" in loaded
    assert "'jax'" not in loaded
    assert "'numpy'" not in loaded


@pytest.mark.parametrize(
    "command", ["range-test", "recipe", "suggest", "plot", "plot-schedule", "demo"]
)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    assert f"usage: lrjax {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "functions"),
    [
        ("range-test lines", [lrjax.range_test, lrjax.sweep]),
        ("recipe lines --total-steps 400", [lrjax.smith_recipe, lrjax.sweep]),
    ],
)
def test_defaults_are_those_of_the_library(command, functions):
    options = vars(cli.build_parser().parse_args(command.split()))
    defaults = {}
    for function in reversed(functions):  # the first one's count where both have one
        parameters = inspect.signature(function).parameters.values()
        defaults |= {parameter.name: parameter.default for parameter in parameters}
    shared = options.keys() & defaults.keys() - {"task", "total_steps", "lanes"}
    given = {name: options[name] for name in shared if options[name] is not None}
    assert given == {name: defaults[name] for name in given}
    assert {"start", "end", "seeds", "accumulate"} <= given.keys()


def test_help_names_every_method():
    assert cli.METHODS.replace(" or ", ", ").split(", ") == list(METHODS)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("", "COMMAND"),
        ("nonsense", "nonsense"),
        ("demo --nonsense", "--nonsense"),
        ("range-test", "TASK"),
        ("range-test nowhere:task", "nowhere"),
        ("range-test lines.py:task", "without .py"),
        ("range-test lines:nowhere", "other"),
        ("range-test lines:loss", "Task"),
        ("range-test lines:x", "Task"),
        ("range-test lines:incomplete", "batches"),
        ("range-test lines:unknown", "optimiser"),
        ("range-test lines:broken", "lines.py, line 42"),
        ("range-test failing", "failing.py, line 3"),
        ("range-test importing", "no_such_module"),
        ("range-test lines --weight-decay much", "much"),
        ("range-test lines --lanes momentum much", "momentum must be numbers"),
        (
            "range-test lines --lanes momentum 0.5 --lanes momentum 0.9",
            "momentum must be given once",
        ),
        ("range-test lines --momentum 0.5 --lanes momentum 0.9", "momentum must be given once"),
        ("range-test lines --lanes size 3", "size"),
        ("range-test lines --steps 0", "steps"),
        ("range-test lines --steps 1.5", "--steps"),
        ("range-test lines --start 1 --end 0.1", "start"),
        ("range-test lines --batch-size 100", "batch_size"),
        ("range-test lines --option width", "NAME=VALUE"),
        ("recipe lines", "--total-steps"),
        ("recipe lines:unjudged --total-steps 100", "eval_batches"),
        ("suggest nowhere.npz", "nowhere.npz"),
        ("suggest lines.py", "lines.py"),
        ("suggest curves.npz --method nonsense", "robust"),
        ("suggest curves.npz --option width=no", "width"),
        ("plot curves.npz --quantity speed", "speed"),
        ("plot curves.npz --grid", "two axes"),
        ("plot curves.npz --out picture.nonsense", "nonsense"),
        ("plot-schedule nonsense", "onecycle"),
        ("plot-schedule join", "onecycle"),
        ("plot-schedule onecycle --peak-value 1", "--total-steps"),
        ("plot-schedule onecycle --peak-value 1 --total-steps ten", "ten"),
        ("plot-schedule onecycle --peak-value 1 --total-steps 9 --pct-start 2", "pct_start"),
        ("plot-schedule constant --value 1", "--steps"),
        ("plot-schedule constant --value 1 --steps -5 --json", "--steps"),
    ],
)
def test_bad_use_is_answered_with_one_line_and_status_2(here, capsys, arguments, said):
    curves_file(here)
    try:
        status = cli.main(arguments.split())
    except SystemExit as ended:
        status = ended.code
    printed = capsys.readouterr()
    assert (status, printed.out) == (2, "")
    assert printed.err.count("\n") == 1
    assert printed.err.startswith("lrjax")
    assert said in printed.err


def test_traceback_raises(here):
    with pytest.raises(AttributeError):
        cli.main(["range-test", "failing", "--traceback"])


# The cache of compiled programs.


@pytest.mark.parametrize("cached", [True, False])
def test_compiled_programs_are_kept_unless_told_not_to(tmp_path, cached):
    code = (
        "import argparse, jax; from lrjax import _commands; "
        f"_commands._use_cache(argparse.Namespace(no_cache={not cached})); "
        "print(jax.config.jax_compilation_cache_dir, jax.config.jax_enable_compilation_cache)"
    )
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    del environment["JAX_COMPILATION_CACHE_DIR"]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.split() == [str(tmp_path / "lrjax") if cached else "None", str(cached)]


# The demo.


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The demo as a person runs it: what it printed and where it wrote."""
    out, cache = tmp_path_factory.mktemp("demo"), tmp_path_factory.mktemp("cache")
    return lrjax_command("demo", "--out", str(out), JAX_COMPILATION_CACHE_DIR=str(cache)), out


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
    for name in ("curves.png", "recipe.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    report = json.loads((out / "report.json").read_text())
    suggestion = lrjax.suggest(curves).consensus
    reported = [row["learning_rate"] for row in report["range_test"]]
    np.testing.assert_allclose(reported, suggestion.learning_rate, rtol=1e-5)
    recipe = lrjax.Recipe.from_json((out / "recipe.json").read_text())
    assert report["recipe"] == recipe.describe().splitlines()
    assert all(row["spread_decades"] < 0.5 for row in report["range_test"])


def test_the_suggested_1cycle_beats_rates_ten_times_lower_and_higher(demo):
    _, out = demo
    runs = {row["run"]: row for row in json.loads((out / "report.json").read_text())["runs"]}
    # None stands for NaN: at least one seed diverged.
    accuracy = {name: row["held_out_accuracy"] or 0.0 for name, row in runs.items()}
    assert accuracy["1cycle"] > 0.95
    assert accuracy["1cycle"] > accuracy["constant, 10 x lower"]
    assert accuracy["constant, 10 x higher"] < 0.5
