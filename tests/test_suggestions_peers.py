"""Every rule of another library against its own answers on the same curves."""

import json
import pathlib

import numpy as np
import pytest
from helpers import make_curves

from lrjax import suggest

GOLDEN = json.loads(
    pathlib.Path(__file__).with_name("golden").joinpath("suggestions.json").read_text()
)
CURVES = {curve["name"]: curve for curve in GOLDEN["curves"]}

ALL_POINTS = {"trim": False}
SPELLINGS = {
    "fastai.valley": ("valley", {}),
    "fastai.valley(untrimmed)": ("valley", ALL_POINTS),
    "fastai.slide": ("slide", {}),
    "fastai.slide(untrimmed)": ("slide", ALL_POINTS),
    "fastai.minimum": ("minimum", {}),
    "fastai.minimum(untrimmed)": ("minimum", ALL_POINTS),
    "fastai.steep": ("steep", {}),
    "fastai.steep(untrimmed)": ("steep", ALL_POINTS),
    "lightning.suggestion()": ("lightning", {}),
    "lightning.suggestion(0,1)": ("lightning", {"skip_begin": 0, "skip_end": 1}),
    "lightning.suggestion(10,0)": ("lightning", {"skip_begin": 10, "skip_end": 0}),
    "torch_lr_finder.plot()": ("torch_lr_finder", {}),
    "torch_lr_finder.plot(0,0)": ("torch_lr_finder", {"skip_start": 0, "skip_end": 0}),
    "ignite.lr_suggestion()": ("ignite", {}),
    "surmenok.get_best_lr(sma=1)": ("surmenok", {"sma": 1}),
    "surmenok.get_best_lr(sma=5)": ("surmenok", {}),
    "surmenok.get_best_lr(sma=20)": ("surmenok", {"sma": 20}),
}
REASONS = {
    ("flat", "ignite.lr_suggestion()"): "not_learning",
    **{(name, "lightning.suggestion(10,0)"): "too_few_points" for name in CURVES},
}


def numbers(values):
    return np.array([float(value) for value in values])


def golden(name):
    return make_curves(numbers(CURVES[name]["learning_rate"]), numbers(CURVES[name]["loss"]))


def test_every_entry_is_spelled():
    assert all(curve["suggestions"].keys() == SPELLINGS.keys() for curve in CURVES.values())


@pytest.mark.parametrize("entry", SPELLINGS)
@pytest.mark.parametrize("name", CURVES)
def test_golden(name, entry):
    method, options = SPELLINGS[entry]
    suggestion = suggest(golden(name), method, **options)
    expected = CURVES[name]["suggestions"][entry]
    assert suggestion.reason == REASONS.get((name, entry), "")
    if (name, entry) in REASONS:
        assert expected is None or expected.startswith("EXC")
        assert np.isnan(suggestion.learning_rate)
        return
    # The file lists a tie once for a peer, whatever its skips.
    peer = entry.split("(")[0]
    ties = [rate for key, rates in CURVES[name]["ties"].items() if peer in key for rate in rates]
    right = np.array([expected, *ties])
    assert np.isclose(suggestion.learning_rate, right, rtol=2e-6).any(), (suggestion, right)
