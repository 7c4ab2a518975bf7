import functools
import json
import pathlib

import numpy as np
import pytest
from helpers import make_curves
from hypothesis import given
from hypothesis import strategies as st

from lrjax import suggest

GOLDEN = json.loads((pathlib.Path(__file__).parent / "golden" / "suggestions.json").read_text())


def numbers(values):
    return np.array([float(value) for value in values])


def valley(steps=200, start=1e-6, end=10.0, *, onset=1e-3, edge=0.2, noise=0.02, seed=0):
    """A range test: flat, a fall of 1.8 around `onset`, and a rise that begins near `edge`.

    Returns:
        Its curves, the rate at 5 % of the fall and the rate of the lowest loss.
    """
    rate = np.geomspace(start, end, steps)

    def clean(rate):
        return 2.3 - 1.8 / (1 + (onset / rate) ** 1.5) + (rate / edge) ** 3

    fine = np.geomspace(1e-8, 100, 20_000)
    lowest = clean(fine).argmin()
    begun = fine[(clean(fine) < 2.3 - 0.05 * (2.3 - clean(fine)[lowest])).argmax()]
    loss = clean(rate) + noise * np.random.default_rng(seed).normal(size=steps)
    loss[loss > 20] = np.nan
    return make_curves(rate, loss), begun, fine[lowest]


def reason_of(loss, start=1e-6, end=10.0):
    suggestion = suggest(make_curves(np.geomspace(start, end, len(loss)), loss))
    assert np.isnan(suggestion.learning_rate)
    return str(suggestion.reason), str(suggestion.extend)


@given(
    steps=st.integers(50, 2000),
    start=st.floats(-8, -5),
    end=st.floats(0.5, 2),
    seed=st.integers(0, 1000),
)
def test_robust_lies_between_onset_and_minimum_whatever_steps_and_range(steps, start, end, seed):
    curves, begun, lowest = valley(steps, 10**start, 10**end, seed=seed)
    suggestion = suggest(curves)
    assert begun <= suggestion.learning_rate <= lowest
    assert suggestion.learning_rate <= suggestion.max_learning_rate <= 2 * lowest
    np.testing.assert_allclose(suggestion.min_learning_rate, suggestion.max_learning_rate / 10)
    reference = suggest(valley(200, seed=seed)[0])
    assert abs(np.log10(suggestion.learning_rate / reference.learning_rate)) < 0.3


@given(scale=st.sampled_from([1e-3, 1.0, 1e3]), offset=st.sampled_from([-10.0, 0.0, 10.0]))
def test_robust_is_unmoved_by_scale_and_sign_of_the_loss(scale, offset):
    curves, *_ = valley()
    moved = make_curves(curves.learning_rate, curves.loss * scale + offset * scale)
    np.testing.assert_allclose(
        suggest(moved).learning_rate, suggest(curves).learning_rate, rtol=0.02
    )


def test_robust_prefers_the_evaluation_loss():
    steps = np.arange(4, 201, 4)
    curves, *_ = valley(onset=1e-2)
    evaluated, *_ = valley(onset=1e-4, edge=0.002, noise=0.0)
    both = make_curves(
        curves.learning_rate,
        curves.loss,
        eval_steps=steps.astype(np.int32),
        eval_loss=evaluated.loss[steps - 1],
    )
    np.testing.assert_allclose(
        suggest(both).learning_rate, suggest(evaluated).learning_rate, rtol=0.3
    )
    assert suggest(curves).learning_rate > 5 * suggest(both).learning_rate


NOISE = np.random.default_rng(0).normal(size=100)
RATE = np.geomspace(1e-6, 10, 100)


@pytest.mark.parametrize(
    ("expected", "loss"),
    [
        (("too_few_points", ""), [2.0]),
        (("too_few_points", ""), np.linspace(2, 1, 9)),
        (("not_learning", ""), np.full(100, 2.3)),
        (("not_learning", ""), 2.3 + 0.1 * NOISE),
        (("not_learning", ""), np.where(RATE > 0.1, np.nan, 2.3 + 0.1 * NOISE)),
        (("not_learning", ""), 2.3 + 0.05 * NOISE + RATE**2),
        (("no_minimum_in_range", "end"), 2.3 - 1 / (1 + 1e-2 / RATE) + 0.01 * NOISE),
        (("no_minimum_in_range", "start"), 0.3 + np.log10(RATE / RATE[0]) + 0.01 * NOISE),
        (("diverged_at_start", ""), np.where(np.arange(100) > 4, np.nan, 2.3 + NOISE)),
        (("diverged_at_start", ""), np.full(100, np.nan)),
    ],
)
def test_robust_gives_a_reason_where_there_is_no_rate(expected, loss):
    assert reason_of(loss) == expected


def test_flat_curves_are_refused():
    rng = np.random.default_rng(1)
    refused = [reason_of(1 + 0.1 * rng.normal(size=rng.integers(50, 400)))[0] for _ in range(60)]
    assert set(refused) <= {"not_learning", "no_minimum_in_range"}


@pytest.mark.parametrize("curve", GOLDEN["curves"], ids=lambda curve: curve["name"])
def test_minimum_is_that_of_fastai(curve):
    curves = make_curves(numbers(curve["learning_rate"]), numbers(curve["loss"]))
    expected = curve["suggestions"]["fastai.minimum"]
    suggestion = suggest(curves, "minimum")
    np.testing.assert_allclose(suggestion.learning_rate, expected, rtol=2e-6)
    assert suggestion.reason == ""


@pytest.mark.parametrize("curve", GOLDEN["curves"], ids=lambda curve: curve["name"])
def test_robust_on_the_golden_curves(curve):
    suggestion = suggest(make_curves(numbers(curve["learning_rate"]), numbers(curve["loss"])))
    marks = curve["landmarks"]
    if curve["name"] in ("flat", "monotone_fall"):
        assert np.isnan(suggestion.learning_rate)
    else:
        assert marks["onset_lr"] <= suggestion.learning_rate <= marks["argmin_lr"]


def lanes():
    """Two weight decays x four seeds: the first is fine, the second mostly does not learn."""
    good = [valley(seed=seed, noise=0.1)[0].loss for seed in range(4)]
    flat = [2.3 + 0.1 * np.random.default_rng(seed).normal(size=200) for seed in range(3)]
    return make_curves(valley()[0].learning_rate, np.stack([good, [good[0], *flat]]))


def test_seeds_agree_on_a_consensus_with_a_spread():
    suggestion = suggest(lanes())
    assert suggestion.learning_rate.shape == (2, 4)
    assert suggestion.spread.shape == (2,)
    decades = np.log10(suggestion.learning_rate[0])
    np.testing.assert_allclose(suggestion.spread[0], decades.std(ddof=1))
    assert np.isnan(suggestion.spread[1])
    agreed = suggestion.consensus
    np.testing.assert_allclose(np.log10(agreed.learning_rate[0]), np.median(decades))
    assert np.isnan(agreed.learning_rate[1])
    assert agreed.reason.tolist() == ["", "not_learning"]
    assert agreed.consensus is agreed
    text = repr(suggestion)
    assert "decades" in text
    assert "none, not_learning" in text


@pytest.mark.parametrize(
    ("error", "name", "call"),
    [
        (ValueError, "'robust', 'minimum'", functools.partial(suggest, method="steepest")),
        (TypeError, "skip", functools.partial(suggest, skip=3)),
    ],
)
def test_bad_input_names_the_argument(error, name, call):
    with pytest.raises(error, match=name):
        call(lanes())
