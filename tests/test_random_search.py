import jax
import numpy as np
import pytest
from helpers import network
from scipy import stats

import lrjax
from lrjax import choice, log_uniform, random_lanes, uniform

KEY = jax.random.key(3)


def column(name, n=2000, **distributions):
    return np.array([lane[name] for lane in random_lanes(KEY, n, **distributions)])


@pytest.mark.parametrize(
    ("distribution", "cdf"),
    [
        (uniform(0.8, 0.99), stats.uniform(0.8, 0.19).cdf),
        (uniform(-2, 3), stats.uniform(-2, 5).cdf),
        (log_uniform(1e-6, 1e-2), stats.loguniform(1e-6, 1e-2).cdf),
        (lambda key, n: jax.random.normal(key, (n,)), stats.norm.cdf),
    ],
)
def test_values_are_distributed_as_said(distribution, cdf):
    assert stats.kstest(column("x", x=distribution), cdf).pvalue > 0.01


def test_a_choice_takes_every_value_as_often():
    values = column("x", x=choice([0.5, 0.25, 2.0]))
    counts = [np.sum(values == value) for value in (0.5, 0.25, 2.0)]
    assert stats.chisquare(counts).pvalue > 0.01


def test_names_are_drawn_apart_from_one_another():
    alone = column("x", x=uniform(0, 1))
    np.testing.assert_array_equal(column("x", y=uniform(0, 1), x=uniform(0, 1)), alone)
    other = column("y", y=uniform(0, 1), x=uniform(0, 1))
    assert abs(np.corrcoef(alone, other)[0, 1]) < 0.1
    assert set(column("y", x=uniform(0, 1), y=0.9)) == {0.9}


def test_lanes_go_into_a_sweep():
    task, data = network()
    lanes = random_lanes(KEY, 4, learning_rate=log_uniform(1e-3, 1), momentum=choice([0.9]))
    curves = lrjax.sweep(task, lrjax.array_batches(data, 16), lrjax.sgd, steps=3, lanes=lanes)
    assert curves.loss.shape == (4, 1, 3)
    np.testing.assert_allclose(
        curves.lanes["learning_rate"], [lane["learning_rate"] for lane in lanes]
    )


@pytest.mark.parametrize(
    ("error", "name", "call"),
    [
        (ValueError, "n must", lambda: random_lanes(KEY, 0, x=uniform(0, 1))),
        (TypeError, "n must", lambda: random_lanes(KEY, 1.5, x=uniform(0, 1))),
        (ValueError, "at least one hyperparameter", lambda: random_lanes(KEY, 2)),
        (TypeError, "x must", lambda: random_lanes(KEY, 2, x="log")),
        (ValueError, "x must give 2", lambda: random_lanes(KEY, 2, x=lambda key, n: np.ones(3))),
        (ValueError, "low must", lambda: log_uniform(0, 1)),
        (ValueError, "low must", lambda: log_uniform(1, 1)),
        (ValueError, "low must", lambda: uniform(2, 1)),
        (ValueError, "high must", lambda: uniform(2, np.inf)),
        (ValueError, "values must", lambda: choice([])),
        (ValueError, r"values\[1\]", lambda: choice([1.0, np.nan])),
    ],
)
def test_bad_input_names_the_argument(error, name, call):
    with pytest.raises(error, match=name):
        call()
