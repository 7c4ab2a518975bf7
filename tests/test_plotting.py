import dataclasses

import jax
import matplotlib.pyplot as plt
import numpy as np
import optax
import pytest
from helpers import falling_and_rising, make_curves, network

import lrjax
from lrjax.plotting.curves import panels, quantities

RATE = np.geomspace(1e-5, 10, 100)
BASE = falling_and_rising(RATE, 0.5, onset=1e-3, edge=0.5, drop=1.8, power=2)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def curves(rate=RATE):
    """Two weight decays x three seeds; the second decay diverges."""
    noise = 0.05 * np.random.default_rng(0).normal(size=(2, 3, 100))
    loss = BASE + noise
    loss[1, 2, 80:] = np.nan
    steps = np.arange(10, 101, 10, dtype=np.int32)
    return make_curves(
        rate,
        loss,
        axes={"weight_decay": np.float32([0, 1e-3]), "seed": np.arange(3)},
        metrics={"accuracy": 1 / loss},
        eval_steps=steps,
        eval_loss=loss[..., steps - 1],
    )


def lines(ax):
    """The lines with a name, by it."""
    return {line.get_label(): line for line in ax.lines if not line.get_label().startswith("_")}


def test_two_lines_plot_the_range_test_of_data_as_they_are():
    task, data = network()
    ax = lrjax.plot_curves(lrjax.range_test(task, data))
    assert len(ax.lines[0].get_xdata()) == 100


def test_a_line_per_lane_with_a_band_over_seeds():
    ax = lrjax.plot_curves(curves())
    assert list(lines(ax)) == ["weight decay 0", "weight decay 0.001"]
    assert (ax.get_xscale(), ax.get_xlabel()) == ("log", "learning rate (per update)")
    assert ax.get_ylabel() == "training loss"
    assert len(ax.collections) == 2
    smooth = curves().smooth().loss
    lasting = [smooth[0].mean(0), smooth[1].mean(0)]
    for line, mean in zip(lines(ax).values(), lasting, strict=True):
        np.testing.assert_allclose(line.get_xdata(), RATE, rtol=1e-6)
        np.testing.assert_allclose(line.get_ydata(), mean, rtol=1e-6)
    (cross,) = (line for line in ax.lines if line.get_marker() == "x")
    assert cross.get_xdata()[0] == pytest.approx(RATE[79])
    assert cross.get_ydata()[0] == pytest.approx(smooth[1, 2, 79])
    low, high = ax.get_ylim()
    assert low < 0.5 < 2.3 < high < 4


@pytest.mark.parametrize(
    ("diverged_at", "in_the_mean", "end"),
    [
        ([100, 100, 8, 100], [0, 1, 3], 100),
        ([100, 70, 60, 8], [0, 1, 2], 60),
        ([60, 70], [0, 1], 60),
        ([20, 20, 90], [2], 90),
        ([60], [0], 60),
    ],
)
def test_a_line_is_the_mean_of_the_seeds_that_last_half_as_long_as_the_longest(
    diverged_at, in_the_mean, end
):
    loss = np.stack([BASE + k for k in range(len(diverged_at))])
    loss[np.arange(100) >= np.array(diverged_at)[:, None]] = np.nan
    data = make_curves(RATE, loss)
    ax = lrjax.plot_curves(data, smooth=1e-3)
    expected = np.where(np.arange(100) < end, BASE + np.mean(in_the_mean), np.nan)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), expected, rtol=1e-5)
    crosses = [line.get_xdata()[0] for line in ax.lines if line.get_marker() == "x"]
    np.testing.assert_allclose(crosses, [RATE[d - 1] for d in diverged_at if d < 100], rtol=1e-5)


def test_the_suggestion_is_marked():
    data = curves()
    suggestion = lrjax.suggest(data)
    ax = lrjax.plot_curves(data, "eval_loss", suggestion=suggestion)
    agreed = suggestion.consensus
    for marker, rates in (
        ("o", agreed.learning_rate),
        ("v", agreed.min_learning_rate),
        ("^", agreed.max_learning_rate),
    ):
        drawn = [line.get_xdata()[0] for line in ax.lines if line.get_marker() == marker]
        np.testing.assert_allclose(drawn, rates)
    entries = [text.get_text() for text in ax.get_legend().get_texts()]
    assert entries[2:] == ["suggested rate", "smallest of a cycle", "largest usable rate"]


def test_a_method_without_a_cycle_marks_the_rate_only():
    ax = lrjax.plot_curves(curves(), suggestion=lrjax.suggest(curves(), "steep"))
    assert {line.get_marker() for line in ax.lines} >= {"o"}
    assert not {line.get_marker() for line in ax.lines} & {"v", "^"}


def test_a_rate_beyond_the_end_of_a_line_is_marked_at_its_height_there():
    data = curves().select(weight_decay=0, seed=0)
    ended = dataclasses.replace(data, loss=np.where(RATE < 1e-3, data.loss, np.nan))
    ax = lrjax.plot_curves(ended, suggestion=lrjax.suggest(data))
    (circle,) = (line for line in ax.lines if line.get_marker() == "o")
    assert circle.get_xdata()[0] == lrjax.suggest(data).learning_rate > 1e-3
    line = ax.lines[0].get_ydata()
    assert circle.get_ydata()[0] == pytest.approx(line[np.isfinite(line)][-1])


@pytest.mark.parametrize(
    ("quantity", "points", "title"),
    [
        ("loss", 100, "training loss"),
        ("eval_loss", 10, "held-out loss"),
        ("accuracy", 100, "training accuracy"),
    ],
)
def test_every_quantity_is_drawn_on_the_axes_given(quantity, points, title):
    _, given = plt.subplots()
    ax = lrjax.plot_curves(curves(), quantity, ax=given)
    assert ax is given
    assert ax.get_ylabel() == title
    assert {len(line.get_xdata()) for line in lines(ax).values()} == {points}


@pytest.mark.parametrize(
    ("rate", "scale", "title"),
    [
        (RATE, "log", "learning rate (per update)"),
        (np.linspace(0.1, 1, 100), "linear", "learning rate (per update)"),
        (np.full(100, 0.1), "linear", "updates"),
    ],
)
def test_the_horizontal_axis_follows_the_rate(rate, scale, title):
    ax = lrjax.plot_curves(curves(rate))
    assert (ax.get_xscale(), ax.get_xlabel()) == (scale, title)


def test_quantities_on_one_axis_share_colours_and_differ_by_points():
    ax = lrjax.plot_curves(curves(), ["loss", "eval_loss"])
    training, held_out = (
        [line for line in ax.lines if line.get_marker() == marker] for marker in ("None", ".")
    )
    assert [line.get_color().tolist() for line in training] == [
        line.get_color().tolist() for line in held_out
    ]
    assert ax.get_ylabel() == "training loss and held-out loss"
    entries = [text.get_text() for text in ax.get_legend().get_texts()]
    assert entries[2:] == ["training loss", "held-out loss"]


def test_the_limits_of_a_metric_that_rises_hold_its_best():
    ax = lrjax.plot_curves(curves(), "accuracy")
    best = max(np.nanmax(line.get_ydata()) for line in lines(ax).values())
    assert ax.get_ylim()[1] > best


def test_a_grid_has_colours_along_one_axis_and_dashes_along_the_other():
    ax = lrjax.plot_curves(grid())
    drawn = lines(ax)
    assert len(drawn) == 6
    look = {name: (line.get_color().tolist(), line._dash_pattern) for name, line in drawn.items()}
    low, high = look["weight decay 0, momentum 0.8"], look["weight decay 0, momentum 0.9"]
    other = look["weight decay 0.001, momentum 0.8"]
    assert low[0] == high[0] != other[0]
    assert low[1] == other[1] != high[1]
    entries = [text.get_text() for text in ax.get_legend().get_texts()]
    assert entries == [
        *("weight decay 0", "weight decay 0.001"),
        *("momentum 0.8", "momentum 0.9", "momentum 0.99"),
    ]


def test_a_legend_of_many_lanes_names_some():
    many = make_curves(RATE, np.stack([BASE] * 40), axes={"lane": np.arange(40)})
    ax = lrjax.plot_curves(many)
    assert len(lines(ax)) == 40
    assert len(ax.get_legend().get_texts()) == 8


def test_panels_show_all_that_was_measured_with_one_legend():
    figure = panels(curves(), lrjax.suggest(curves()))
    assert [ax.get_ylabel() for ax in figure.axes] == [
        *("training loss", "held-out loss", "training accuracy")
    ]
    assert [ax.get_legend() for ax in figure.axes] == [None] * 3
    assert len(figure.legends[0].get_texts()) == 5
    alone = panels(make_curves(RATE, BASE))
    assert len(alone.axes) == 1
    assert not alone.legends


def grid():
    """Two weight decays x three momenta x two seeds; in one cell a seed is NaN from the start."""
    loss = np.arange(1, 7).reshape(2, 3, 1, 1) * BASE + np.zeros((2, 3, 2, 100))
    loss[1, 1, 1] = np.nan
    axes = {"weight_decay": np.float32([0, 1e-3]), "momentum": np.float32([0.8, 0.9, 0.99])}
    return lrjax.Curves(learning_rate=RATE, loss=loss, axes={**axes, "seed": np.arange(2)})


@pytest.mark.parametrize(
    ("quantity", "values", "best"),
    [
        ("loss", lambda: np.nanmin(grid().smooth().loss.mean(2), -1), (0, 0)),
        ("max_learning_rate", lambda: lrjax.suggest(grid()).consensus.max_learning_rate, None),
    ],
)
@pytest.mark.filterwarnings("ignore:All-NaN")
def test_a_grid_shows_a_number_per_cell_and_frames_the_best(quantity, values, best):
    ax = lrjax.plot_grid(grid(), quantity)
    expected = values()
    np.testing.assert_allclose(ax.images[0].get_array().filled(np.nan), expected, rtol=1e-6)
    shown = {(t.get_position()[1], t.get_position()[0]): t.get_text() for t in ax.texts}
    assert shown == {
        index: f"{value:.3g}" for index, value in np.ndenumerate(expected) if np.isfinite(value)
    }
    frames = [patch for patch in ax.patches if patch.get_linewidth() == 3]
    column, row = frames[0].get_x() + 0.5, frames[0].get_y() + 0.5
    if best is None:
        assert expected[int(row), int(column)] == np.nanmax(expected)
    else:
        assert (row, column) == best
    hatched = sum(patch.get_hatch() is not None for patch in ax.patches)
    assert hatched == np.isnan(expected).sum()
    assert [text.get_text() for text in ax.get_xticklabels()] == ["0.8", "0.9", "0.99"]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["0", "0.001"]


def test_one_lane_alone_has_no_legend():
    ax = lrjax.plot_curves(curves().select(weight_decay=0, seed=1))
    assert ax.get_legend() is None
    assert len(ax.lines) == 1


def test_a_suggestion_shows_bounds_rates_and_every_seed():
    suggestion = lrjax.suggest(curves())
    ax = lrjax.plot_suggestion(suggestion)
    agreed = suggestion.consensus
    circles = [line.get_xdata()[0] for line in ax.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(circles, agreed.learning_rate)
    ticks = [line.get_xdata() for line in ax.lines if line.get_marker() == "|"]
    np.testing.assert_allclose(ticks, suggestion.learning_rate)
    bars = [line.get_xdata() for line in ax.lines if line.get_marker() == "None"]
    bounds = np.stack([agreed.min_learning_rate, agreed.max_learning_rate], -1)
    np.testing.assert_allclose(bars, bounds)
    assert [text.get_text() for text in ax.get_yticklabels()] == [
        *("weight decay 0", "weight decay 0.001")
    ]
    assert (ax.get_xscale(), ax.get_xlabel()) == ("log", "learning rate")


def test_a_suggestion_without_a_rate_shows_the_reason():
    flat = make_curves(RATE, np.ones((2, 100)))
    ax = lrjax.plot_suggestion(lrjax.suggest(flat))
    assert [text.get_text() for text in ax.texts] == ["not learning"]
    ax.figure.canvas.draw()


def recipe(**fields):
    """A recipe of a range test and of short runs at two peaks and three momenta."""
    decays = {"weight_decay": np.float32([0, 1e-3]), "seed": np.arange(2)}
    test = lrjax.Curves(
        learning_rate=np.float32(RATE),
        loss=BASE + np.zeros((2, 2, 1)),
        axes=decays,
        eval_steps=np.arange(5, 101, 5),
        eval_loss=BASE[4::5] + np.zeros((2, 2, 1)),
    )
    last = np.arange(12.0).reshape(2, 3, 2, 1)
    runs = {"max_learning_rate": np.float32([0.1, 0.2]), "momentum": np.float32([0.9, 0.95, 0.99])}
    cycles = lrjax.Curves(
        learning_rate=np.full((2, 3, 2, 100), np.nan, np.float32),
        loss=last + np.ones(100),
        axes={**runs, "seed": np.arange(2)},
        eval_steps=np.int32([50, 100]),
        eval_loss=last + np.ones(2),
    )
    given = {
        "max_learning_rate": 0.2,
        "weight_decay": 1e-3,
        "momentum": 0.95,
        "min_momentum": 0.85,
        "total_steps": 200,
        "evidence": {"range_test": test, "cycles": cycles},
    }
    return lrjax.Recipe(**given | fields)


def test_a_recipe_shows_its_stages_and_its_plan():
    test, cycles, plan = lrjax.plot_recipe(recipe())
    assert test.get_title() == "range test"
    assert test.get_ylabel() == "held-out loss"
    assert "o" in {line.get_marker() for line in test.lines}
    assert cycles.get_title() == "cycles: last held-out loss"
    expected = recipe().evidence["cycles"].eval_loss[..., -1].mean(-1)
    np.testing.assert_allclose(cycles.images[0].get_array(), expected)
    (taken,) = cycles.lines
    assert (taken.get_xdata(), taken.get_ydata()) == ([1], [1])
    assert plan.get_title() == "plan: weight decay 0.001"
    rate = plan.lines[0].get_ydata()
    momentum = next(ax for ax in plan.figure.axes if ax.get_ylabel() == "momentum")
    momentum = momentum.lines[0].get_ydata()
    assert len(rate) == len(momentum) == 200
    np.testing.assert_allclose([rate[0], rate.max()], [0.02, 0.2], rtol=1e-5)
    np.testing.assert_allclose([momentum.max(), momentum.min()], [0.95, 0.85], rtol=1e-4)
    assert rate.argmax() == momentum.argmin()


def test_the_lane_taken_is_marked_in_the_stage_that_has_it():
    evidence = recipe().evidence
    peaks = evidence["cycles"].axes | {"max_learning_rate": np.float32([0.8, 1.6])}
    higher = dataclasses.replace(evidence["cycles"], axes=peaks)
    *_, cycles, others, _ = lrjax.plot_recipe(recipe(evidence=evidence | {"higher_0": higher}))
    assert len(cycles.lines) == 1
    assert not others.lines


def test_a_recipe_takes_axes_in_rows():

    axes = plt.subplots(3, 1, squeeze=False)[1]
    assert lrjax.plot_recipe(recipe(), axes=axes) == axes.ravel().tolist()


def test_one_evaluation_is_a_point():
    curves = lrjax.Curves(
        learning_rate=[0.1, 0.2], loss=[2.0, 1.0], eval_steps=[2], eval_loss=[1.5]
    )
    (line,) = lrjax.plot_curves(curves, "eval_loss").lines
    assert line.get_marker() == "o"


def test_a_recipe_draws_what_its_optimizer_does():
    plan = lrjax.plot_recipe(recipe())[-1].lines[0].get_ydata()
    optimizer = recipe().optimizer()
    params = np.zeros(2, np.float32)
    state = optimizer.init(params)
    for rate in plan[:5]:
        _, state = optimizer.update(params, state, params)
        assert float(lrjax.get_hyperparams(state)["learning_rate"]) == pytest.approx(rate)


def test_a_recipe_without_a_rate_or_a_momentum():
    nothing = recipe(max_learning_rate=np.nan, momentum=None, reason="not_learning")
    axes = lrjax.plot_recipe(nothing)
    assert len(axes) == 2
    assert not axes[1].lines
    cycles = recipe().evidence["cycles"].select(momentum=0.9)
    alone = recipe(momentum=None, min_momentum=None, evidence={"cycles": cycles})
    runs, plan = lrjax.plot_recipe(alone)
    assert runs.get_ylabel() == "held-out loss"
    assert not any(ax.get_ylabel() == "momentum" for ax in plan.figure.axes)


def test_a_schedule_with_its_momentum():
    rate, momentum = lrjax.onecycle(1.0, 50), lrjax.onecycle_momentum(50)
    ax = lrjax.plot_schedule(rate, 50, momentum=momentum, label="1cycle")
    twin = next(other for other in ax.figure.axes if other is not ax)
    for line, schedule in ((ax.lines[0], rate), (twin.lines[0], momentum)):
        np.testing.assert_allclose(line.get_ydata(), schedule(np.arange(50)), rtol=1e-6)
    assert (ax.get_xlabel(), twin.get_ylabel()) == ("updates done", "momentum")


@pytest.mark.parametrize(
    "schedule",
    [
        lambda count: 0.1,
        optax.constant_schedule(0.1),
        optax.cosine_onecycle_schedule(50, 1.0),
        optax.piecewise_interpolate_schedule("linear", 0.1, {10: 2.0, 20: 0.5}),
    ],
)
@jax.numpy_dtype_promotion("standard")  # Optax's own schedules need it
def test_a_schedule_that_takes_one_count_only(schedule):
    (line,) = lrjax.plot_schedule(schedule, 50).lines
    expected = [schedule(count) for count in range(50)]
    np.testing.assert_allclose(line.get_ydata(), expected, rtol=1e-5)


@pytest.mark.parametrize("loss", [np.full((2, 3, 100), np.nan), BASE * np.full((2, 3, 1), np.inf)])
def test_lanes_that_all_diverged_at_once_are_a_picture_too(loss):
    drawn = make_curves(RATE, loss, axes={"weight_decay": [0, 1e-3], "seed": [0, 1, 2]})
    lrjax.plot_curves(drawn).figure.canvas.draw()
    assert "<img" in drawn._repr_html_()


@pytest.mark.parametrize(("steps_done", "evaluated"), [(80, 8), (5, 0)])
def test_a_line_ends_where_the_sweep_was_interrupted_without_a_cross(steps_done, evaluated):
    whole = curves()
    loss = np.where(np.arange(100) < steps_done, whole.loss, np.nan)
    eval_loss = np.where(whole.eval_steps <= steps_done, whole.eval_loss, np.nan)
    never = np.full((2, 3), 100)
    partial = dataclasses.replace(
        whole, loss=loss, eval_loss=eval_loss, diverged_at=never, steps_done=steps_done
    )
    for quantity, points in (("loss", steps_done), ("eval_loss", evaluated)):
        ax = lrjax.plot_curves(partial.select(weight_decay=0), quantity)
        assert [len(line.get_xdata()) for line in ax.lines] == [points]


def test_an_evaluation_before_the_first_update_is_drawn_at_the_first_rate():
    drawn = make_curves(RATE, BASE, axes={}, eval_steps=[0, 50], eval_loss=[2.0, 1.0])
    (line,) = lrjax.plot_curves(drawn, "eval_loss").lines
    np.testing.assert_allclose(line.get_xdata(), RATE[[0, 49]], rtol=1e-6)


def test_seeds_and_lanes_are_named_in_full():
    axes = {"lane": np.array([1234, 1235]), "seed": np.array([20240101, 20240102])}
    listed = make_curves(RATE, np.stack([[BASE, BASE]] * 2), axes=axes)
    assert list(lines(lrjax.plot_curves(listed))) == ["lane 1234", "lane 1235"]
    texts = listed.summary(), repr(lrjax.suggest(listed)), repr(lrjax.rank(listed))
    assert all("1235" in text for text in texts)
    assert "20240102" in texts[0]


@pytest.mark.parametrize(
    ("error", "name", "call"),
    [
        (ValueError, "quantity", lambda: lrjax.plot_curves(curves(), "speed")),
        (ValueError, "quantity", lambda: lrjax.plot_curves(curves(), [])),
        (ValueError, "quantity", lambda: lrjax.plot_curves(grid(), "eval_loss")),
        (ValueError, "two axes", lambda: lrjax.plot_grid(curves())),
        (ValueError, "quantity", lambda: lrjax.plot_grid(grid(), "accuracy")),
        (ValueError, "evaluations", lambda: lrjax.plot_grid(grid(), "eval_loss")),
        (ValueError, "there are none", lambda: lrjax.suggest(grid(), "smith", metric="accuracy")),
        (TypeError, "curves must be Curves", lambda: lrjax.plot_curves((curves(), None))),
        (TypeError, "curves must be Curves", lambda: lrjax.plot_grid(None)),
        (TypeError, "curves must be Curves", lambda: lrjax.suggest((curves(), None))),
        (TypeError, "curves must be Curves", lambda: lrjax.rank(None)),
        (ValueError, "axes", lambda: lrjax.plot_recipe(recipe(), axes=[None])),
        (ValueError, "steps", lambda: lrjax.plot_schedule(lrjax.constant(1.0), 0)),
    ],
)
def test_bad_input_names_the_argument(error, name, call):
    with pytest.raises(error, match=name):
        call()


def test_markers_lie_on_the_lines_of_few_points():
    steps = np.arange(10, 101, 10)
    evaluated = np.interp(steps, 1 + np.arange(100), BASE)
    test = make_curves(RATE, [BASE], eval_steps=steps, eval_loss=[evaluated])
    suggestion = lrjax.suggest(test)
    ax = lrjax.plot_curves(test, "eval_loss", suggestion=suggestion)
    line, *markers = ax.lines
    assert len(markers) == 3
    for marker in markers:
        ((x, y),) = marker.get_xydata()
        height = np.interp(np.log(x), np.log(line.get_xdata()), line.get_ydata())
        assert y == pytest.approx(height)


def test_crosses_are_shown_whatever_the_losses_went_to():
    blown = np.where(RATE[80] < RATE, 1e6, BASE)
    diverged = np.stack([np.where(np.arange(100) < 85, blown, np.nan), BASE])
    ax = lrjax.plot_curves(make_curves(RATE, diverged[None]))
    (cross,) = (line for line in ax.lines if line.get_marker() == "x")
    low, high = ax.get_ylim()
    assert low <= cross.get_ydata()[0] <= high < 1e5


def test_names_are_no_formulas(tmp_path):
    name = r"x_$\frac$"
    odd = make_curves(RATE, np.stack([BASE] * 2), axes={name: [0, 1]}, metrics={name: [BASE] * 2})
    ax = lrjax.plot_curves(odd, name)
    ax.figure.savefig(tmp_path / "odd.png")
    lrjax.plot_suggestion(lrjax.suggest(odd)).figure.savefig(tmp_path / "rates.png")
    assert ax.get_ylabel() == r"training x \$\frac\$"


@pytest.mark.parametrize(
    ("metrics", "evaluated", "names"),
    [
        (["loss"], [], ["loss", "metric_loss"]),
        (["eval_loss"], [], ["loss", "eval_loss"]),
        (["acc", "size"], ["acc"], ["loss", "eval_loss", "acc", "eval_acc", "size"]),
        (
            ["acc", "eval_acc"],
            ["acc", "eval_acc"],
            ["loss", "eval_loss", "acc", "eval_acc", "metric_eval_acc", "eval_metric_eval_acc"],
        ),
        (["loss"], ["loss"], ["loss", "eval_loss", "metric_loss", "eval_metric_loss"]),
    ],
)
def test_everything_measured_is_drawn_whatever_it_is_called(metrics, evaluated, names):
    evaluations = {"eval_steps": [20, 50], "eval_loss": np.float32([[3, 2]])} if evaluated else {}
    measured = make_curves(
        RATE,
        [BASE],
        metrics={name: np.float32([BASE + k]) for k, name in enumerate(metrics, 1)},
        eval_metrics={name: np.float32([[k, k]]) for k, name in enumerate(evaluated, 5)},
        **evaluations,
    )
    assert list(quantities(measured)) == names
    heights = []
    for name in names:
        (line, *_) = lrjax.plot_curves(measured, name).lines
        assert len(line.get_xdata()) == (2 if quantities(measured)[name].held_out else len(RATE))
        heights.append(line.get_ydata()[0])
    assert len({round(float(height), 3) for height in heights}) == len(names)
    assert len(panels(measured).axes) == len(names)
