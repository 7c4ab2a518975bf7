import html.parser
import json
import sys

import jax
import numpy as np
import pytest
from helpers import falling_and_rising, make_curves

import lrjax
from lrjax import _report, _tables

RATE = np.geomspace(1e-5, 10, 100)
FALL = falling_and_rising(RATE, 0.5, onset=1e-3, edge=0.5, drop=1.8, power=2)
STEPS = np.arange(5, 101, 5, dtype=np.int32)
VOID = {"meta", "link", "img", "br", "hr"}


def grid():
    """Two weight decays x two momenta x two seeds, of which one lane learns nothing."""
    noise = 0.01 * np.random.default_rng(0).normal(size=(2, 2, 2, 100))
    loss = FALL + noise + np.arange(2)[:, None, None, None]
    loss[1, 1] = 2.3 + noise[1, 1]
    loss[0, 1, 1, 90:] = np.nan
    axes = {"weight_decay": np.float32([0, 1e-4]), "momentum": np.float32([0.8, 0.9])}
    return lrjax.Curves(
        learning_rate=np.float32(RATE),
        loss=np.float32(loss),
        axes={**axes, "seed": np.int32([0, 1])},
        metrics={"accuracy": 1 / loss},
        eval_steps=STEPS,
        eval_loss=loss[..., STEPS - 1],
    )


def lone():
    return make_curves(RATE, FALL)


class Page(html.parser.HTMLParser):
    """What a page is made of; it fails where a tag is not closed by its own."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def report(curves, arguments=None):
    suggestion = lrjax.suggest(curves)
    return _report.report_html(curves, suggestion, arguments or {"task": "here:<task> & more"})


@pytest.mark.parametrize(("curves", "pictures"), [(grid, 3 + 3 + 1), (lone, 1 + 1)])
def test_the_report_is_a_page_that_needs_nothing_else(curves, pictures):
    page = Page(report(curves()))
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all(
        "meta"
    )
    images = page.all("img")
    assert len(images) == pictures
    assert all(image["src"].startswith("data:image/png;base64,") for image in images)
    assert all(image["alt"] for image in images)
    assert all("max-width:100%" in image["style"] for image in images)
    links = [
        v for _, attributes in page.tags for k, v in attributes.items() if k in ("src", "href")
    ]
    assert all(link.startswith("data:") for link in links)
    assert not page.all("script")
    assert "url(" not in report(curves())


def test_the_report_tells_the_rates_how_they_were_reached_and_on_what():
    curves = grid()
    suggestion = lrjax.suggest(curves)
    text = Page(report(curves, {"task": "here:<task> & more", "lanes": {"b": [1.0, 2.5]}})).text
    best = lrjax.rank(curves).best
    chosen = suggestion.consensus.learning_rate[
        tuple(
            int(np.flatnonzero(curves.axes[name] == np.float32(value))[0])
            for name, value in best.items()
        )
    ]
    assert f"Learning rate {chosen:.3g}, weight decay 0" in text
    for rate in suggestion.learning_rate[np.isfinite(suggestion.learning_rate)]:
        assert f"{rate:.3g}" in text
    assert "Method robust: Rates by Smith's rules" in text
    assert "not learning: The loss did not fall" in text
    assert "here:<task> & more" in text
    assert "b: 1, 2.5" in text
    assert jax.__version__ in text
    assert jax.devices()[0].device_kind in text


def test_where_no_rate_can_be_named_the_report_says_so():
    flat = make_curves(RATE, np.full((2, 100), 1.0))
    assert "No learning rate can be named." in Page(report(flat)).text


def test_every_reason_is_explained():
    named = {"not_learning", "no_minimum_in_range", "diverged_at_start", "too_few_points"}
    assert set(_report.REASONS) == named


@pytest.mark.parametrize(
    ("shown", "pictures", "said"),
    [
        (grid(), 2, "8 lanes diverged"),
        (lone(), 1, "1 lanes diverged"),
        (lrjax.suggest(grid()), 1, "Suggestion by 'robust'"),
        (lrjax.suggest(lone(), "steep"), 1, "Suggestion by 'steep'"),
    ],
)
def test_a_notebook_shows_a_table_and_pictures(shown, pictures, said):
    page = Page(shown._repr_html_())
    assert len(page.all("table")) == 1
    assert len(page.all("img")) == pictures
    assert said in page.text


def test_a_notebook_shows_the_first_of_many_lanes():
    many = make_curves(RATE, np.stack([FALL] * 30), axes={"lane": np.arange(30)})
    page = Page(many._repr_html_())
    assert len(page.all("tr")) == 21
    assert "and 10 more" in page.text


def test_without_matplotlib_there_is_the_table(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for shown in (grid(), lrjax.suggest(grid())):
        page = Page(shown._repr_html_())
        assert (len(page.all("table")), len(page.all("img"))) == (1, 0)
    assert not Page(report(grid())).all("img")


def test_rows_hold_the_numbers():
    curves, suggestion = grid(), lrjax.suggest(grid())
    rows = _tables.joint_rows(curves, suggestion)
    lanes = [(row["weight_decay"], row["momentum"]) for row in rows]
    assert lanes == [(0.0, 0.8), (0.0, 0.9), (0.0001, 0.8), (0.0001, 0.9)]
    agreed = suggestion.consensus
    for name in ("learning_rate", "min_learning_rate", "max_learning_rate"):
        values = [row[name] for row in rows]
        np.testing.assert_allclose(values, getattr(agreed, name).ravel(), rtol=1e-5)
    lowest = np.nanmin(curves.smooth().loss, -1).mean(-1).ravel()
    np.testing.assert_allclose([row["lowest_loss"] for row in rows], lowest, rtol=1e-5)
    lowest = np.nanmin(curves.eval_loss, -1).mean(-1).ravel()
    np.testing.assert_allclose([row["lowest_eval_loss"] for row in rows], lowest, rtol=1e-5)
    assert [(row["diverged"], row["seeds"]) for row in rows] == [(0, 2), (1, 2), (0, 2), (0, 2)]
    assert rows[3]["reason"] == "not_learning"
    chosen = _tables.chosen_row(curves, rows)
    assert {name: chosen[name] for name in ("weight_decay", "momentum")} == {
        name: pytest.approx(value) for name, value in lrjax.rank(curves).best.items()
    }


def test_of_lanes_of_which_the_best_names_no_rate_another_is_taken():
    endless = 0.1 + 2 / (1 + RATE / 0.01)
    curves = make_curves(RATE, np.stack([FALL, endless, FALL + 0.1]), axes={"decay": [0, 1, 2]})
    rows = _tables.joint_rows(curves, lrjax.suggest(curves))
    assert lrjax.rank(curves).best == {"decay": 1}
    chosen = _tables.chosen_row(curves, rows)
    assert (chosen["decay"], chosen["significant"]) == (0, False)
    assert "decay 0, of the lanes for which one can be named" in _tables.verdict(curves, rows)
    nothing = make_curves(RATE, np.stack([endless] * 2), axes={"decay": [0, 1]})
    rows = _tables.joint_rows(nothing, lrjax.suggest(nothing))
    assert _tables.verdict(nothing, rows) == "No learning rate can be named."


def test_close_coordinates_are_told_apart():
    axes = {"decay": np.array([0.1, 0.1 + 1e-10])}
    curves = make_curves(RATE, np.stack([FALL + 0.1, FALL]), axes=axes)
    rows = _tables.joint_rows(curves, lrjax.suggest(curves))
    assert _tables.chosen_row(curves, rows)["lowest_loss"] == rows[1]["lowest_loss"]


def test_listed_lanes_show_their_hyperparameters():
    lanes = {"weight_decay": np.float32([0.1, 0.2]), "momentum": np.float32([0.8, 0.9])}
    curves = make_curves(RATE, np.stack([FALL, FALL]), axes={"lane": np.arange(2)}, lanes=lanes)
    rows = _tables.joint_rows(curves, lrjax.suggest(curves))
    assert [(row["lane"], row["weight_decay"], row["momentum"]) for row in rows] == [
        (0, 0.1, 0.8),
        (1, 0.2, 0.9),
    ]


def test_numbers_of_lanes_stay_integers():
    axes = {"lane": np.array([1234, 1235])}
    listed = make_curves(RATE, np.stack([FALL, FALL]), axes=axes)
    rows = _tables.joint_rows(listed, lrjax.suggest(listed))
    assert [repr(row["lane"]) for row in rows] == ["1234", "1235"]
    assert "1235" in _tables.text_table(rows)


def test_a_table_leaves_out_what_is_empty_everywhere():
    rows = [{"a": 1.0, "b_c": float("nan"), "d": ""}, {"a": 1e-5, "b_c": 2.0, "d": ""}]
    assert _tables.text_table(rows).splitlines() == ["    a  b c", "    1    -", "1e-05    2"]
    table = Page(_tables.html_table([{"a": "<b>"}]))
    assert "<b>" in table.text
    assert len(table.all("td")) == 1


def test_nan_becomes_null():
    rows = {"a": [float("nan"), 1.0, "x"], "b": (float("inf"), 2)}
    assert _tables.without_nan(rows) == {"a": [None, 1.0, "x"], "b": [None, 2]}
    json.dumps(_tables.without_nan(rows), allow_nan=False)
