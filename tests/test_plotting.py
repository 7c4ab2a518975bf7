import matplotlib.pyplot as plt
import numpy as np
import pytest
from helpers import make_curves

import lrjax

RATE = np.geomspace(1e-5, 10, 100)
BASE = 2.3 - 1.8 / (1 + 1e-3 / RATE) + (RATE / 0.5) ** 2


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


def test_a_line_per_lane_with_a_band_over_seeds():
    ax = lrjax.plot_curves(curves())
    assert list(lines(ax)) == ["weight decay 0", "weight decay 0.001"]
    assert (ax.get_xscale(), ax.get_xlabel()) == ("log", "learning rate (per update)")
    assert ax.get_ylabel() == "training loss"
    assert len(ax.collections) == 2
    smooth = curves().smooth().loss
    for k, line in enumerate(lines(ax).values()):
        np.testing.assert_allclose(line.get_xdata(), RATE, rtol=1e-6)
        np.testing.assert_allclose(line.get_ydata(), smooth[k].mean(0), rtol=1e-6)
    crosses = [line for line in ax.lines if line.get_marker() == "x"]
    assert [cross.get_xdata()[0] for cross in crosses] == [pytest.approx(RATE[79])]
    low, high = ax.get_ylim()
    assert low < 0.5 < 2.3 < high < 4


def test_the_suggestion_is_marked():
    data = curves()
    suggestion = lrjax.suggest(data)
    ax = lrjax.plot_curves(data, "eval_loss", suggestion=suggestion)
    agreed = suggestion.consensus
    for marker, rates in (("o", agreed.learning_rate), ("^", agreed.max_learning_rate)):
        drawn = [line.get_xdata()[0] for line in ax.lines if line.get_marker() == marker]
        np.testing.assert_allclose(drawn, rates)
    entries = [text.get_text() for text in ax.get_legend().get_texts()]
    assert entries[2:] == ["suggested rate", "largest usable rate"]


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


def test_one_lane_alone_has_no_legend():
    ax = lrjax.plot_curves(curves().select(weight_decay=0, seed=1))
    assert ax.get_legend() is None
    assert len(ax.lines) == 1


def test_a_schedule_with_its_momentum():
    rate, momentum = lrjax.onecycle(1.0, 50), lrjax.onecycle_momentum(50)
    ax = lrjax.plot_schedule(rate, 50, momentum=momentum, label="1cycle")
    twin = next(other for other in ax.figure.axes if other is not ax)
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), rate(np.arange(50)))
    np.testing.assert_array_equal(twin.lines[0].get_ydata(), momentum(np.arange(50)))
    assert (ax.get_xlabel(), twin.get_ylabel()) == ("updates done", "momentum")


@pytest.mark.parametrize(
    ("error", "name", "call"),
    [
        (ValueError, "quantity", lambda: lrjax.plot_curves(curves(), "speed")),
        (ValueError, "steps", lambda: lrjax.plot_schedule(lrjax.constant(1.0), 0)),
    ],
)
def test_bad_input_names_the_argument(error, name, call):
    with pytest.raises(error, match=name):
        call()
