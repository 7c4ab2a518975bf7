import json
import pathlib

import numpy as np
import pytest
from helpers import falling_and_rising, make_curves
from hypothesis import given
from hypothesis import strategies as st

from lrjax import Curves, suggest
from lrjax.suggestions.methods import METHODS

GOLDEN = json.loads((pathlib.Path(__file__).parent / "golden" / "suggestions.json").read_text())


def numbers(values):
    return np.array([float(value) for value in values])


def valley(
    steps=200, start=1e-6, end=10.0, *, onset=1e-3, edge=0.2, noise=0.02, seed=0, ramp=np.geomspace
):
    """A range test: flat, a fall of 1.8 around `onset`, and a rise that begins near `edge`.

    Returns:
        Its curves, the rate at 5 % of the fall and the rate of the lowest loss.
    """
    rate = ramp(start, end, steps)

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


@given(steps=st.integers(500, 2000), end=st.floats(-0.5, 0.3), seed=st.integers(0, 1000))
def test_robust_reads_linear_ramps_like_exponential_ones(steps, end, seed):
    ends = (10**end / steps, 10**end)
    curves, begun, lowest = valley(steps, *ends, onset=0.01, seed=seed, ramp=np.linspace)
    suggestion = suggest(curves)
    assert begun <= suggestion.learning_rate <= lowest
    reference = suggest(valley(200, onset=0.01, seed=seed)[0])
    assert abs(np.log10(suggestion.learning_rate / reference.learning_rate)) < 0.3


@pytest.mark.parametrize("noise", [0.0, 0.02])
@pytest.mark.parametrize("start", [0.0, 1e-6, 1e-4, 1e-3])
def test_the_gap_before_a_linear_ramp_s_second_rate_is_no_fall(start, noise):
    """The first two rates are up to five decades apart, and the loss has fallen in between."""

    def read(steps, method):
        rate = np.linspace(start, 3.0, steps)
        decades = np.log10(np.maximum(rate, 1e-30))
        loss = 2 / (1 + 10 ** (1.5 * (decades + 2.5))) + 10 ** (3 * (decades + 0.3))
        loss += noise * np.random.default_rng(0).normal(size=steps)
        return float(suggest(make_curves(rate, loss), method))

    for steps in (50, 100, 200, 400, 1000):
        # The loss is lowest at 0.09, but the smallest rates tested are up to 0.06 apart.
        assert 0.03 < read(steps, "robust") < 0.08
        assert 0.03 < read(steps, "smith") < 0.1


def test_a_linear_ramp_that_diverges_in_its_first_tenth_is_read():
    curves, begun, lowest = valley(1000, 0.02, 20.0, ramp=np.linspace, onset=0.05, edge=0.5)
    assert curves.diverged_at < 100
    assert begun <= suggest(curves).learning_rate <= lowest


def test_noise_behind_the_minimum_hides_no_fall():
    curves, begun, lowest = valley(1000, 0.002, 2.0, ramp=np.linspace)
    chaos = 2 * np.random.default_rng(0).normal(size=1000) * (curves.learning_rate > 0.4)
    suggestion = suggest(make_curves(curves.learning_rate, np.abs(curves.loss + chaos)))
    assert begun <= suggestion.learning_rate <= lowest


@given(scale=st.sampled_from([1e-3, 1.0, 1e3]), offset=st.sampled_from([-10.0, 0.0, 10.0]))
def test_robust_is_unmoved_by_scale_and_sign_of_the_loss(scale, offset):
    curves, *_ = valley()
    moved = make_curves(curves.learning_rate, curves.loss * scale + offset * scale)
    np.testing.assert_allclose(
        suggest(moved).learning_rate, suggest(curves).learning_rate, rtol=0.02
    )


@pytest.mark.parametrize("power", [2, 4])
@pytest.mark.parametrize("start", [1e-8, 1e-6, 1e-4, 1e-2])
def test_sparse_evaluations_do_not_move_the_largest_rate(start, power):
    """A steep rise behind the minimum does not push it to lower rates."""
    rate = np.geomspace(start, 10, 100)
    loss = 0.3 + 2 / (1 + rate / 0.05) + rate**power
    steps = np.arange(4, 101, 4)
    curves = make_curves(rate, loss, eval_steps=steps, eval_loss=loss[steps - 1])
    lowest = rate[loss.argmin()]
    for method in ("robust", "smith"):
        assert 0.65 * lowest < suggest(curves, method).max_learning_rate < 1.15 * lowest


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


@pytest.mark.parametrize(("evaluations", "reason"), [(12, ""), (40, "not_learning")])
def test_a_few_evaluations_that_show_no_fall_leave_it_to_the_training_loss(evaluations, reason):
    curves, *_ = valley()
    steps = np.linspace(0, 200, evaluations + 1)[1:].astype(np.int32)
    flat = 2.3 + 0.5 * np.random.default_rng(0).normal(size=evaluations)
    both = make_curves(curves.learning_rate, curves.loss, eval_steps=steps, eval_loss=flat)
    suggestion = suggest(both)
    assert suggestion.reason == reason
    expected = np.nan if reason else suggest(curves).learning_rate
    np.testing.assert_array_equal(suggestion.learning_rate, expected)


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
        (("too_few_points", ""), np.where(np.arange(12) > 7, np.nan, np.linspace(2, 1, 12))),
    ],
)
def test_robust_gives_a_reason_where_there_is_no_rate(expected, loss):
    assert reason_of(loss) == expected


def test_the_loss_at_a_rate_of_0_counts_as_the_start():
    rate = np.linspace(0, 10, 100)
    loss = 0.3 + 2 / (1 + rate / 0.05) + rate**2  # lowest at 0.33, after most of the fall
    loss[np.argmax(loss > 10) :] = np.nan
    assert suggest(make_curves(rate, loss)).max_learning_rate == pytest.approx(0.33, rel=0.2)


def test_few_points_over_many_decades_are_too_few():
    rate = np.geomspace(1e-6, 10, 12)
    loss = 0.3 + 2 / (1 + rate / 0.05) + rate**2
    loss[loss > 10] = np.nan
    assert suggest(make_curves(rate, loss)).reason == "too_few_points"


def test_flat_curves_are_refused():
    rng = np.random.default_rng(1)
    refused = [reason_of(1 + 0.1 * rng.normal(size=rng.integers(50, 400)))[0] for _ in range(60)]
    assert set(refused) <= {"not_learning", "no_minimum_in_range"}


def test_flat_curves_whose_noise_persists_are_refused():
    rng = np.random.default_rng(2)
    white = rng.normal(size=(100, 301))
    loss = 2.3 + 0.1 * (white[:, 1:] + 0.6 * white[:, :-1])
    assert np.mean(suggest(make_curves(np.geomspace(1e-6, 10, 300), loss)).reason != "") > 0.95


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


@pytest.mark.parametrize("seed", [11, 85, 89, 125, 171, 195, 203, 204])
def test_how_far_up_a_loss_lies_moves_no_rate(seed):
    """Also where noise and a blow-up that is cut off leave the rounding to decide."""
    rng = np.random.default_rng(seed)
    decades = np.linspace(-6, 1, 100)
    fall = 1 / (1 + np.exp(-rng.uniform(2, 5) * (decades - rng.uniform(-4, -2.5))))
    rise = 10 ** np.clip(rng.uniform(1.2, 4) * (decades - rng.uniform(-1.5, 0)), -30, 8)
    loss = 2.3 - fall + 0.3 * rise + 0.05 * rng.normal(size=100)

    def rate(loss):
        return suggest(Curves(learning_rate=10**decades, loss=loss)).learning_rate

    for other in (loss + 3, loss - 20, loss * 1e6, loss * 1e-6):
        np.testing.assert_allclose(rate(other), rate(loss), rtol=1e-3)


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


def test_half_of_the_seeds_are_enough_for_a_consensus():
    rate = np.geomspace(1e-4, 1, 100)
    flat = 2.3 + 0.1 * np.random.default_rng(0).normal(size=100)
    falls = falling_and_rising(rate)
    assert suggest(make_curves(rate, [falls, flat])).consensus.reason == ""
    assert suggest(make_curves(rate, [falls, flat, flat])).consensus.reason == "not_learning"


def test_the_rate_is_not_below_where_half_of_the_drop_is_done():
    rate = np.geomspace(1e-4, 1, 200)
    late = -2 / (1 + (0.2 / rate) ** 8)
    edge = np.where(rate > 0.3, (4 * np.log10(rate / 0.3)) ** 2, 0)
    suggestion = suggest(make_curves(rate, late + edge))
    assert suggestion.learning_rate > 0.51 * suggestion.max_learning_rate
    assert suggestion.learning_rate == pytest.approx(0.2, rel=0.15)


def test_the_end_to_extend_is_that_of_the_commonest_reason():
    falling = 2.3 - 1 / (1 + 1e-2 / RATE) + 0.01 * NOISE
    flat = [2.3 + 0.1 * np.random.default_rng(seed).normal(size=100) for seed in range(2)]
    suggestion = suggest(make_curves(RATE, np.stack([falling, *flat])))
    assert suggestion.extend.tolist() == ["end", "", ""]
    assert suggestion.consensus.reason == "not_learning"
    assert suggestion.consensus.extend == ""


def test_smith_takes_the_extremum_and_his_own_fractions():
    curves, _, lowest = valley()
    once, several = suggest(curves, "smith"), suggest(curves, "smith", cycles=4)
    assert abs(np.log10(once.max_learning_rate / lowest)) < 0.1
    np.testing.assert_allclose(once.learning_rate, once.max_learning_rate / 2)
    np.testing.assert_allclose(once.min_learning_rate, once.max_learning_rate / 10)
    np.testing.assert_allclose(several.min_learning_rate, once.max_learning_rate / 3)
    assert suggest(make_curves(RATE, np.full(100, 2.3)), "smith").reason == "not_learning"


@pytest.mark.parametrize("evaluated", [False, True])
def test_smith_reads_a_metric_at_its_highest(evaluated):
    curves, *_ = valley()
    accuracy = 1 - valley(onset=1e-4, edge=0.002)[0].loss / 20
    if evaluated:
        steps = np.arange(4, 201, 4)
        metrics = {
            "eval_steps": steps.astype(np.int32),
            "eval_loss": curves.loss[steps - 1],
            "eval_metrics": {"accuracy": accuracy[steps - 1]},
        }
    else:
        metrics = {"metrics": {"accuracy": accuracy}}
    both = make_curves(curves.learning_rate, curves.loss, **metrics)
    expected = curves.learning_rate[np.nanargmax(accuracy)]
    found = suggest(both, "smith", metric="accuracy").max_learning_rate
    assert abs(np.log10(found / expected)) < 0.3
    assert suggest(both, "smith").max_learning_rate > 10 * found


def test_an_evaluation_before_the_first_update_is_left_out():
    curves, *_ = valley()
    steps = np.arange(0, 201, 4)
    losses = curves.loss[np.maximum(steps - 1, 0)]

    def evaluated(kept):
        given = {"eval_steps": steps[kept].astype(np.int32), "eval_loss": losses[kept]}
        return suggest(make_curves(curves.learning_rate, curves.loss, **given))

    assert evaluated(slice(None)).learning_rate == evaluated(slice(1, None)).learning_rate


@pytest.mark.parametrize("method", METHODS)
def test_points_that_tell_nothing_give_a_reason(method):
    assert suggest(make_curves(RATE[:1], [2.0]), method).reason == "too_few_points"
    nothing = make_curves(RATE, np.full(100, np.nan))
    assert suggest(nothing, method).reason == "diverged_at_start"
    for steps in range(2, 20):
        loss = np.linspace(2, 1, steps)
        for ending in (loss[-1], np.nan, np.inf):
            suggestion = suggest(make_curves(RATE[:steps], [*loss[:-1], ending]), method)
            assert (suggestion.learning_rate > 0) == (suggestion.reason == "")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "rate",
    [
        np.full(100, 0.1),
        RATE[::-1],
        np.r_[RATE[:50], RATE[:50]],
        -RATE[::-1],
        np.full(100, np.nan),
        np.r_[RATE[:99], np.inf],
    ],
    ids=["constant", "falling", "twice", "negative", "untold", "infinite"],
)
def test_rates_that_do_not_rise_are_refused(method, rate):
    with pytest.raises(ValueError, match="range test, whose learning_rate rises"):
        suggest(make_curves(rate, 2.3 + NOISE), method)


@pytest.mark.parametrize("method", METHODS)
def test_a_linear_ramp_may_begin_at_zero(method):
    rate = np.linspace(0, 0.5, 200)
    loss = 0.3 + 2 / (1 + rate / 0.02) + (rate / 0.3) ** 4
    whole, rest = (suggest(make_curves(rate[k:], loss[k:]), method) for k in (0, 1))
    np.testing.assert_allclose(whole.learning_rate, rest.learning_rate, rtol=0.5)
    assert whole.learning_rate > 0


def test_a_rate_of_zero_is_not_suggested():
    rate = np.linspace(0, 0.5, 200)
    curves = make_curves(rate, 0.3 + 2 / (1 + rate / 0.02))
    suggestion = suggest(curves, "torch_lr_finder", skip_start=0)
    assert (suggestion.reason, suggestion.extend) == ("no_minimum_in_range", "start")


def test_rates_untold_after_all_have_diverged_do_not_matter():
    curves, *_ = valley()
    cut = np.where(np.arange(200) > 180, np.nan, [curves.learning_rate, curves.loss])
    np.testing.assert_allclose(
        suggest(make_curves(*cut)).learning_rate,
        suggest(make_curves(curves.learning_rate, cut[1])).learning_rate,
    )


@pytest.mark.parametrize(
    ("error", "name", "method", "options"),
    [
        (ValueError, ", ".join(map(repr, METHODS)), "steepest", {}),
        (TypeError, "skip", "robust", {"skip": 3}),
        (ValueError, "width", "robust", {"width": 0}),
        (ValueError, "cycles", "smith", {"cycles": 0}),
        (ValueError, "metric", "smith", {"metric": "accuracy"}),
        (TypeError, "trim", "valley", {"trim": 3}),
        (ValueError, "lr_diff", "slide", {"lr_diff": 0}),
        (ValueError, "thresh", "slide", {"thresh": -1}),
        (ValueError, "adjust_value", "slide", {"adjust_value": 0}),
        (ValueError, "skip_begin", "lightning", {"skip_begin": -1}),
        (TypeError, "skip_end", "lightning", {"skip_end": 0.5}),
        (ValueError, "skip_start", "torch_lr_finder", {"skip_start": -1}),
        (ValueError, "sma", "surmenok", {"sma": 0}),
    ],
)
def test_bad_input_names_the_argument(error, name, method, options):
    with pytest.raises(error, match=name):
        suggest(lanes(), method, **options)


@pytest.mark.parametrize("method", ["robust", "smith"])
def test_noise_before_a_fall_at_the_end_is_no_fall_at_the_start(method):
    rng, rate = np.random.default_rng(0), np.geomspace(1e-6, 0.1, 100)
    for _ in range(60):
        loss = 1 / (1 + rate / 0.25) + 0.1 * rng.normal(size=100)
        assert suggest(make_curves(rate, loss), method).extend != "start"


def test_a_suggestion_of_one_lane_is_a_number():
    rate = np.geomspace(1e-4, 1, 60)
    loss = 2 / (1 + rate / 0.01) + rate**2
    agreed = suggest(make_curves(rate, [loss, loss * 1.1]))
    assert float(agreed) == agreed.consensus.learning_rate
    with pytest.raises(ValueError, match="not_learning"):
        float(suggest(make_curves(rate, np.ones(60))))
    with pytest.raises(ValueError, match="2 weight_decay"):
        float(suggest(make_curves(rate, [[loss], [loss]])))
