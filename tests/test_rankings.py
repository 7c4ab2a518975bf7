import numpy as np
import pytest
from helpers import falling_and_rising, make_curves

import lrjax
from lrjax import rank
from lrjax.suggestions.grids import grid_values

RATE = np.geomspace(1e-4, 1, 80)
SEEDS = 4


def fall(lowest, edge=0.3):
    """A range test that falls to about `lowest` before it rises at `edge`."""
    return falling_and_rising(RATE, lowest, edge=edge)


def lanes(lowests, edges=None, noise=0.0, seeds=SEEDS, shared=0.2):
    """Range tests [lane, seed, step]; the seeds differ by `shared`, alike for all lanes."""
    rng = np.random.default_rng(1)
    edges = edges or [0.3] * len(lowests)
    offsets = shared * rng.normal(size=seeds)
    loss = [
        [fall(low, edge) + offset + noise * rng.normal() for offset in offsets]
        for low, edge in zip(lowests, edges, strict=True)
    ]
    return make_curves(RATE, loss)


@pytest.mark.parametrize(
    ("lowests", "noise", "best", "significant"),
    [
        ([0.5, 0.3, 0.4], 0.0, 1, True),
        ([0.5, 0.3, 0.4], 0.01, 1, True),
        ([0.3, 0.3, 0.9], 0.05, None, False),
        ([0.9, 0.9, 0.3], 0.05, 2, True),
    ],
)
def test_lanes_are_told_apart_beyond_the_noise_over_seeds(lowests, noise, best, significant):
    ranking = rank(lanes(lowests, noise=noise))
    assert ranking.significant == significant
    assert bool(ranking.tied.sum() == 1) == significant
    np.testing.assert_array_equal(ranking.order, np.argsort(ranking.loss))
    if best is not None:
        assert ranking.best == {"weight_decay": best}
    # What seeds share is no noise between lanes.
    assert np.all(ranking.noise < 0.1)


@pytest.mark.parametrize(("count", "seeds"), [(2, 2), (2, 4), (3, 3), (4, 2), (4, 4), (16, 2)])
@pytest.mark.parametrize("alike", [True, False], ids=["one noise", "their own"])
def test_equal_lanes_are_told_apart_in_one_of_twenty_sweeps(count, seeds, alike):
    rng = np.random.default_rng(0)
    noise = np.ones((400, count, 1)) if alike else np.exp(rng.normal(size=(400, count, 1)))
    last = noise * rng.normal(size=(400, count, seeds)) + rng.normal(size=(400, 1, seeds))
    sweeps = [make_curves([0.1] * 2, np.stack([each, each], -1)) for each in last]
    assert np.mean([rank(one).significant for one in sweeps]) < 0.08  # 0.05 and three errors of it


def test_of_tied_lanes_the_one_with_the_largest_rate_is_taken():
    # The second lane is a little higher on average, but lower at half of the seeds.
    up_and_down = np.array([[0.1], [-0.1], [0.1], [-0.1]])
    loss = np.stack([fall(0.26, edge=0.1) + 0 * up_and_down, fall(0.42, edge=0.5) + up_and_down])
    ranking = rank(make_curves(RATE, loss))
    assert ranking.order[0] == 0
    assert ranking.tied.all()
    assert ranking.best == {"weight_decay": 1}
    assert ranking.max_learning_rate[1] > 2 * ranking.max_learning_rate[0]


def test_a_larger_rate_must_be_larger_beyond_its_spread():
    alternating = np.array([[0.1], [-0.1], [0.1], [-0.1]])
    lower = np.stack([fall(0.26, edge) for edge in (0.05, 0.3, 0.06, 0.28)])
    higher = np.stack([fall(0.33, edge) for edge in (0.3, 0.05, 0.33, 0.06)]) + alternating
    ranking = rank(make_curves(RATE, [lower, higher]))
    assert ranking.tied.all()
    lowest = ranking.order[0]
    assert ranking.max_learning_rate[1 - lowest] > ranking.max_learning_rate[lowest]
    assert ranking.best == {"weight_decay": lowest}


def test_bad_lanes_do_not_blur_the_others():
    """Eight lanes of little noise and eight that are far behind, and noisy."""
    rng = np.random.default_rng(0)
    good = np.linspace(0.2, 0.9, 8)[:, None] + 1e-3 * rng.normal(size=(8, 2))
    bad = 2 + rng.normal(size=(8, 2))
    loss = np.concatenate([good, bad])[..., None] * np.ones(3)
    ranking = rank(make_curves([0.1, 0.1, 0.1], loss))
    assert ranking.tied.tolist() == [True] + [False] * 15


def test_a_sweep_whose_rate_does_not_only_rise_counts_by_its_last_loss():
    axes = {"weight_decay": [0.0, 1.0]}
    cycle = lrjax.Curves(axes=axes, learning_rate=[0.1, 0.5, 0.2], loss=[[3, 1, 2], [3, 2, 1]])
    assert not cycle.is_range_test
    assert rank(cycle).loss.tolist() == [2, 1]


def test_the_noise_is_the_standard_error_of_paired_differences():
    curves = lanes([0.3, 0.5], noise=0.05)
    smallest = curves.loss.astype(np.float64).min(-1)
    expected = np.std(smallest[1] - smallest[0], ddof=1) / np.sqrt(SEEDS)
    np.testing.assert_allclose(rank(curves).noise[1], expected, rtol=0.01)


def test_a_grid_keeps_its_axes():
    curves = lanes(np.linspace(0.6, 0.3, 6))
    axes = {"weight_decay": np.float32([0, 1]), "momentum": np.float32([0.8, 0.9, 0.95])}
    loss = curves.loss.reshape(2, 3, SEEDS, -1)
    grid = lrjax.Curves(
        axes={**axes, "seed": np.arange(SEEDS)}, learning_rate=curves.learning_rate, loss=loss
    )
    ranking = rank(grid)
    assert ranking.loss.shape == (2, 3)
    assert ranking.best == pytest.approx({"weight_decay": 1, "momentum": 0.95})
    assert grid.select(**ranking.best).loss.shape == (SEEDS, 80)


def test_of_other_sweeps_the_last_evaluation_counts():
    loss = np.ones((2, 2, 5))
    evaluated = np.array([[[1, 0.2, 0.9], [1, 0.2, 0.9]], [[1, 0.7, 0.6], [1, 0.7, 0.6]]])
    curves = make_curves(
        [0.1] * 5, loss, eval_steps=np.int32([1, 3, 5]), eval_loss=np.float32(evaluated)
    )
    ranking = rank(curves)
    assert ranking.best == {"weight_decay": 1}
    np.testing.assert_allclose(ranking.loss, [0.9, 0.6])
    assert np.isnan(ranking.max_learning_rate).all()


@pytest.mark.parametrize(("evals", "expected"), [([], [0.4, 0.3]), ([2, 4], [1.0, 2.0])])
def test_of_an_interrupted_sweep_the_last_loss_before_counts(evals, expected):
    loss = np.full((2, 2, 5), np.nan)
    loss[..., :3] = np.array([[0.9, 0.5, 0.4], [0.2, 0.6, 0.3]])[:, None]
    eval_loss = np.full((2, 2, len(evals)), np.nan)
    eval_loss[..., :1] = np.array([1.0, 2.0])[:, None, None]
    curves = make_curves(
        [0.1] * 5,
        loss,
        eval_steps=evals,
        eval_loss=eval_loss,
        steps_done=3,
        diverged_at=[[5] * 2] * 2,
    )
    np.testing.assert_allclose(rank(curves).loss, expected)
    quantity = "last_eval_loss" if evals else "last_loss"
    np.testing.assert_allclose(grid_values(curves, quantity), expected)


def test_lanes_that_diverged_come_last():
    loss = np.full((3, 2, 4), 0.5)
    loss[0, 1, 2:] = np.nan
    ranking = rank(make_curves([0.1] * 4, loss))
    assert ranking.loss.tolist() == [np.inf, 0.5, 0.5]
    assert ranking.order[-1] == 0
    assert ranking.tied.tolist() == [False, True, True]


@pytest.mark.parametrize("seeds", [1, 2])
def test_where_all_diverged_nothing_is_significant(seeds):
    ranking = rank(make_curves([0.1] * 4, np.full((3, seeds, 4), np.nan)))
    assert not ranking.significant
    assert ranking.tied.all()


def test_one_seed_cannot_tell():
    ranking = rank(lanes([0.5, 0.3], seeds=1))
    assert ranking.best == {"weight_decay": 1}
    assert not ranking.significant
    assert np.isnan(ranking.noise).all()


def test_it_prints_a_table_with_the_best_first():
    text = repr(rank(lanes([0.5, 0.3, 0.4]))).splitlines()
    assert text[0].split() == ["weight", "decay", "loss", "behind", "noise", "max", "rate"]
    assert text[1].split()[:2] == ["*", "1"]
    assert "by more than the noise" in text[-1]


def test_a_few_evaluations_do_not_count():
    curves = lanes([0.4, 0.3])
    few = make_curves(RATE, curves.loss, eval_steps=[40, 80], eval_loss=curves.loss[..., [70, 79]])
    assert rank(few).best == {"weight_decay": 1}
    np.testing.assert_array_equal(rank(few).loss, rank(curves).loss)


def test_how_far_up_the_loss_went_plays_no_part():
    curves = lanes([0.4, 0.3])
    far = np.where(RATE > 0.5, curves.loss * 1e6, curves.loss)
    np.testing.assert_allclose(rank(make_curves(RATE, far)).loss, rank(curves).loss)


def test_seeds_of_the_same_curves_tell_no_more_than_one():
    alike = lanes([0.5, 0.3, 0.4], shared=0)
    ranking, alone = rank(alike), rank(alike.select(seed=[0]))
    assert not ranking.significant
    assert np.isnan(ranking.noise).all()
    assert np.isnan(lrjax.suggest(alike).spread).all()
    assert repr(ranking) == repr(alone)
    assert "seeds that differ" in repr(ranking)


def test_seeds_may_differ_in_their_evaluations_only():
    trained = lanes([0.5, 0.3], shared=0).loss
    evaluated = lanes([0.5, 0.3], shared=0.2).loss
    steps = np.arange(1, 81)
    ranking = rank(make_curves(RATE, trained, eval_steps=steps, eval_loss=evaluated))
    assert ranking.significant
    assert np.isfinite(ranking.noise).all()


def test_seeds_alone_are_nothing_to_rank():
    with pytest.raises(ValueError, match="lanes besides seeds"):
        rank(make_curves(RATE, np.stack([fall(0.3)] * 2), axes={"seed": np.arange(2)}))
