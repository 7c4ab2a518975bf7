import dataclasses
import functools
import itertools
import json
import os
import re
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import (
    clouds,
    compilations,
    falling_and_rising,
    make_curves,
    network_init,
    network_loss,
)

import lrjax
from lrjax import Recipe, smith_recipe
from lrjax.recipes import accounts, protocol, stages
from lrjax.recipes.cycles import OneCycle
from lrjax.recipes.stages import Protocol, bisected, short_runs

TASK = lrjax.task(network_loss, network_init)
TRAIN = lrjax.array_batches(clouds(192), 32)
HELD_OUT = lrjax.array_batches(clouds(96, seed=1), 96)


def recipe(task=TASK, **options):
    defaults = {"total_steps": 80, "weight_decays": (1e-4, 1e-3), "momentums": (0.9, 0.95)}
    return smith_recipe(task, TRAIN, HELD_OUT, **defaults | options)


@pytest.fixture(scope="module")
def found():
    return recipe(weight_decays=(1e-4, 1e-3, 1.0))


def test_it_plans_one_cycle(found):
    assert 1e-3 < found.max_learning_rate < 10
    assert found.min_learning_rate == pytest.approx(found.max_learning_rate / 10)
    assert found.momentum in (0.9, 0.95)
    assert (found.min_momentum, found.total_steps, found.reason) == (0.85, 80, "")
    state = found.optimizer().init(jnp.zeros(3))
    first = lrjax.get_hyperparams(state)
    np.testing.assert_allclose(first["learning_rate"], found.min_learning_rate, rtol=1e-5)
    np.testing.assert_allclose(first["momentum"], found.momentum, rtol=1e-5)
    np.testing.assert_allclose(first["weight_decay"], found.weight_decay, rtol=1e-5)


def test_its_optimizer_trains(found):
    curves = lrjax.sweep(
        TASK, TRAIN, found.optimizer, steps=80, seeds=[5, 6], eval_batches=HELD_OUT
    )
    assert np.nanmax(curves.learning_rate) == pytest.approx(found.max_learning_rate, rel=0.01)
    assert np.nanmin(curves.momentum) == pytest.approx(0.85, rel=0.01)
    assert (curves.eval_metrics["accuracy"][..., -1] > 0.65).all()


def test_a_decay_that_keeps_from_learning_is_not_taken(found):
    assert found.weight_decay < 0.1


def test_every_stage_leaves_its_curves(found):
    assert list(found.evidence) == ["range_test", "refined", "cycles"]
    assert found.evidence["range_test"].loss.shape == (3, 2, 80)
    assert found.evidence["refined"].loss.shape == (2, 2, 80)
    assert found.evidence["cycles"].loss.shape == (4, 2, 2, 80)
    assert found.updates == 80 * 2 * (3 + 2 + 8)


def test_it_says_what_it_did_and_why(found):
    text = found.describe()
    for expected in (
        "1cycle over 80 updates",
        "Range tests with rates from 1e-06 to 10",
        f"{found.max_learning_rate:.3g}",
        f"momentum {found.momentum:.3g}",
        "Lowest losses by weight decay",
        "The lowest evaluation loss is",
    ):
        assert expected in text
    told = re.findall(r"(\d+) lanes x 2 seeds, (\d+) updates each", text)
    assert sum(2 * int(lanes) * int(updates) for lanes, updates in told) == found.updates
    assert all(f"Weak: {doubt}" in text for doubt in found.doubts)
    assert repr(found).startswith("Recipe(1cycle over 80 updates")


def test_json_keeps_everything(found):
    text = found.to_json()
    json.loads(text, parse_constant=pytest.fail)
    again = Recipe.from_json(text)
    assert again.describe() == found.describe()
    assert (again.factory, list(again.evidence)) == (lrjax.sgd, list(found.evidence))
    jax.tree.map(np.testing.assert_array_equal, again.evidence, found.evidence)
    assert again.evidence["cycles"].loss.dtype == np.float32
    assert again.to_json() == text


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_json_takes_no_optimizer_for_another_of_its_name(found, name):
    other = functools.partial(lrjax.sgd, nesterov=True)
    other.__name__ = name
    for factory in (other, getattr(optax, name)):
        text = dataclasses.replace(found, factory=factory).to_json()
        with pytest.raises(ValueError, match="factory"):
            Recipe.from_json(text)
        assert Recipe.from_json(text, factory=factory).factory is factory


def test_few_programs_are_compiled():
    recipe(seeds=1)
    with compilations() as compiled:
        recipe(seeds=1, weight_decays=(1e-5, 1e-2), start=1e-5)
    assert not compiled


def test_adamw_cycles_its_b1():
    found = recipe(optimizer=lrjax.adamw, seeds=1)
    hyperparams = lrjax.get_hyperparams(found.optimizer().init(jnp.zeros(3)))
    np.testing.assert_allclose(hyperparams["b1"], found.momentum, rtol=1e-5)
    assert Recipe.from_json(found.to_json()).factory is lrjax.adamw


def test_optax_s_own_adamw_comes_to_the_same():
    with jax.numpy_dtype_promotion("standard"):
        ours, found = (recipe(optimizer=each, seeds=1) for each in (lrjax.adamw, optax.adamw))
    hyperparams = lrjax.get_hyperparams(found.optimizer().init(jnp.zeros(3)))
    np.testing.assert_allclose(hyperparams["b1"], ours.momentum, rtol=1e-5)
    assert found.max_learning_rate == pytest.approx(ours.max_learning_rate, rel=1e-4)


def plain(learning_rate):
    return lrjax.inject(optax.sgd, learning_rate=learning_rate)


def test_an_optimizer_without_decay_and_momentum():
    found = recipe(optimizer=plain, weight_decays=None, momentums=None)
    assert found.weight_decay is found.momentum is found.min_momentum is None
    assert list(found.evidence) == ["range_test", "cycles"]
    assert list(lrjax.get_hyperparams(found.optimizer().init(jnp.zeros(3)))) == ["learning_rate"]
    with pytest.raises(ValueError, match="factory must be one of 'sgd', 'adamw'"):
        Recipe.from_json(found.to_json())
    assert Recipe.from_json(found.to_json(), factory=plain).factory is plain


def test_lanes_may_use_rates_of_their_own():
    def slowed(learning_rate, weight_decay, momentum):
        rate = lrjax.scale(learning_rate, 1 / (1 + 100 * weight_decay))
        return optax.chain(lrjax.sgd(rate, momentum, weight_decay=weight_decay))

    found = recipe(optimizer=slowed, seeds=1, total_steps=60)
    assert found.evidence["range_test"].learning_rate.shape == (2, 1, 60)
    assert "Range tests with rates from 9.09e-07 to 9.9," in found.describe()
    assert 1e-3 < found.max_learning_rate < 10


def test_a_range_without_a_minimum_is_widened():
    found = recipe(end=1e-2, seeds=1)
    for curves in (found.evidence["narrow_0"], found.evidence["refined"]):
        np.testing.assert_allclose(curves.momentum[[0, -1]], [0.95, 0.85], rtol=1e-5)
    assert found.evidence["narrow_0"].learning_rate[-1] == pytest.approx(1e-2)
    assert found.evidence["range_test"].learning_rate[-1] > 0.15
    assert any("widened" in doubt for doubt in found.doubts)
    assert found.max_learning_rate > 1e-2


def test_the_range_is_widened_for_every_decay_that_may_have_a_minimum():
    """A decay of 1 keeps from learning beyond a small rate, and so has its minimum early."""
    found = recipe(end=3e-2, weight_decays=(0.0, 1e-4, 1.0))
    assert found.evidence["range_test"].learning_rate[-1] > 0.15
    assert found.weight_decay < 0.1


def test_a_decay_without_a_rate_is_left_out_with_a_doubt():
    rate = np.geomspace(1e-4, 1, 100)
    fall = 2 / (1 + rate / 0.003)
    curves = make_curves(rate, [[fall], [fall + (rate / 0.3) ** 3]])
    (doubt,) = accounts.left_out(lrjax.suggest(curves).consensus)
    assert "weight decay 0 no largest rate can be named, no_minimum_in_range" in doubt


class Interrupting:
    """Batches that send Ctrl-C when a sweep reads some batch of them."""

    def __init__(self, sweep, batch):
        self.sweep, self.batch, self.sweeps = sweep, batch, 0

    def __iter__(self):
        self.sweeps += 1
        for k in itertools.count():
            if (self.sweeps, k) == (self.sweep, self.batch):
                os.kill(os.getpid(), signal.SIGINT)
            yield TRAIN(k)


@pytest.mark.parametrize(("sweep", "stages"), [(1, 1), (2, 2), (3, 3)])
def test_ctrl_c_ends_it_with_a_reason_and_what_there_is(sweep, stages):
    found = smith_recipe(
        TASK,
        Interrupting(sweep, batch=30),
        HELD_OUT,
        total_steps=80,
        weight_decays=(1e-4, 1e-3),
        momentums=(0.9, 0.95),
        chunk_steps=10,
    )
    assert found.reason == "interrupted"
    assert list(found.evidence) == ["range_test", "refined", "cycles"][:stages]
    *_, last = found.evidence.values()
    assert 10 <= last.steps_done < 80
    assert np.isnan(found.max_learning_rate)


RATES = functools.partial(np.geomspace, num=100)


def test_a_range_that_starts_too_high_is_widened_downwards():
    def test(stage, start, end):
        loss = falling_and_rising(RATES(start, end), 0.3, onset=1e-8, edge=3e-7)
        return make_curves(RATES(start, end), [[np.where(loss < 20, loss, np.nan)]])

    tests, start, end = stages._with_minima(test, 1e-6, 0.1)
    assert (start, end) == (pytest.approx(1e-9), 0.1)
    assert list(tests) == ["range_test", "narrow_0"]


def test_a_range_in_which_all_diverges_before_anything_is_learned_is_widened_downwards():
    def test(stage, start, end):
        rates = RATES(start, end)
        loss = falling_and_rising(rates, 0.3, onset=1e-4, edge=1e-2)
        # Without a fall from the rates of the first range, of which a third does not diverge.
        loss = np.where(start > 1e-3, 2.3 + 0.01 * np.sin(np.arange(len(rates))), loss)
        until = start * (end / start) ** 0.3 if start > 1e-3 else 0.1
        return make_curves(
            rates,
            [[np.where(rates < until, loss, np.nan)]],
            diverged_at=[[np.searchsorted(rates, until)]],
        )

    assert lrjax.suggest(test("", 0.01, 1.0)).reason == "not_learning"
    tests, start, end = stages._with_minima(test, 0.01, 1.0)
    assert list(tests) == ["range_test", "narrow_0"]
    assert (start, end) == (pytest.approx(1e-5), 1.0)


def test_of_ranges_that_name_as_many_rates_the_narrowest_is_taken():
    def test(stage, start, end):
        fall = 2 / (1 + RATES(start, end) / 1e-3)
        return make_curves(RATES(start, end), [[fall + (RATES(start, end) / 0.03) ** 3], [fall]])

    tests, *ends = stages._with_minima(test, 1e-6, 1.0)
    assert ends == [1e-6, 1.0]
    assert list(tests) == ["range_test", "wide_1", "wide_2", "wide_3"]


@pytest.fixture
def short(monkeypatch):
    """Short runs over two momenta and four peaks from 0.1 to 0.8, of losses that are given."""

    def run(*losses):
        given = iter(losses)

        def sweep(*args, lanes, steps, eval_every, **options):
            assert (steps, eval_every) == (100, 20)
            axes = {name: np.float32(values) for name, values in lanes.items()}
            loss = np.broadcast_to(next(given), (4, 2, 2))[..., None]
            first = np.full_like(loss, 2.3)
            return lrjax.Curves(
                axes=axes | {"seed": np.arange(2)},
                learning_rate=[0.1] * steps,
                loss=np.concatenate([first, np.repeat(loss, steps - 1, -1)], -1),
                eval_steps=[steps],
                eval_loss=loss,
            )

        monkeypatch.setattr(stages, "sweep", sweep)
        protocol = Protocol(None, None, None, 100, None, {})
        found = short_runs(protocol, None, 0.4, (0.9, 0.95))
        assert next(given, None) is None
        return found

    return run


def peaks(curves):
    return [round(float(peak), 5) for peak in curves.axes["max_learning_rate"]]


def losses(*rows):
    """Of every peak and momentum, at two seeds that differ by little."""
    return np.array(rows)[..., None] + 0.01 * np.array([1.0, -1.0]) * np.array([[1.0], [-1.0]])


def test_of_tied_peaks_the_lowest_is_taken_at_its_best_momentum(short):
    found = short(losses([2.0, 2.0], [0.32, 0.31], [0.3, 0.6], [2.0, 2.0]))
    assert peaks(found.evidence["cycles"]) == [0.1, 0.2, 0.4, 0.8]
    assert found.values == {"max_learning_rate": 0.2, "momentum": 0.95}
    assert found.doubts == ["the seeds cannot tell the momenta 0.9, 0.95 apart at that rate."]


def test_where_the_lowest_peak_is_the_best_lower_ones_are_tried(short):
    first = losses([0.3, 2.0], [2.0, 2.0], [2.0, 2.0], [2.0, 2.0])
    lower = losses([2.0, 2.0], [2.0, 0.1], [2.0, 2.0], [0.3, 2.0])
    found = short(first, lower)
    assert peaks(found.evidence["higher_0"]) == [0.1, 0.2, 0.4, 0.8]
    assert peaks(found.evidence["cycles"]) == [0.0125, 0.025, 0.05, 0.1]
    assert found.values == {"max_learning_rate": 0.025, "momentum": 0.95}
    lowered, fragile = found.doubts
    assert "lower ones were tried" in lowered
    assert "twice as high fails" in fragile
    assert len(found.account) == 3


@pytest.mark.parametrize(
    ("next_peak", "fails"), [(0.3, False), (1.2, False), (1.4, True), (np.nan, True)]
)
def test_a_peak_next_to_one_that_fails_is_doubted(short, next_peak, fails):
    found = short(losses([2.0, 2.0], [2.0, 0.2], [0.3, next_peak], [np.nan, np.nan]))
    assert found.values == {"max_learning_rate": 0.2, "momentum": 0.95}
    assert any("twice as high fails" in doubt for doubt in found.doubts) == fails


def test_short_runs_that_all_diverge_are_a_reason(short):
    found = short(np.nan, np.nan, np.nan)
    assert found.reason == "short_runs_diverged"
    assert list(found.evidence) == ["cycles", "higher_0", "higher_1"]


@pytest.mark.parametrize(
    ("total", "expected"), [(50, 50), (300, 100), (1000, 250), (4000, 1000), (9000, 1000)]
)
def test_tests_take_a_quarter_of_the_steps(total, expected, monkeypatch):
    seen = []

    def range_tests(protocol, *rest):
        seen.append(protocol.steps)
        return stages.Finding({}, [], [], {}, "stopped")

    monkeypatch.setattr(protocol, "range_tests", range_tests)
    smith_recipe(None, None, [np.zeros(1)], total_steps=total)
    assert seen == [expected]


def test_a_momentum_below_the_lowest_stays():
    _, momentum = OneCycle(lrjax.sgd, 10, None).schedules(0.1, 0.5)
    np.testing.assert_allclose(momentum(np.arange(10)), 0.5)


def ranked(*curves):
    return lrjax.rank(make_curves(RATES(1e-4, 1), np.stack(curves)))


def basin(lowest, onset=0.003, edge=0.3):
    return falling_and_rising(RATES(1e-4, 1), lowest, onset, edge)


def test_accounts_say_why_a_decay_was_taken():
    lower = ranked([basin(0.1), basin(0.2)], [basin(0.0), basin(0.1)])
    assert "Taken: 1, of the lowest loss." in accounts.chosen_decay(lower)
    (doubt,) = accounts.doubtful_decay(lower, np.array([0.0, 1.0]))
    assert "largest of those tried" in doubt
    assert accounts.doubtful_decay(lower, np.array([0.0, 1.0, 2.0])) == []
    noise = np.array([[0.1], [-0.1], [0.1], [-0.1]])
    wider = ranked([basin(0.26, edge=0.1)] * 4, basin(0.42, edge=0.5) + noise)
    assert "tied with the lowest loss, and it allows a larger" in accounts.chosen_decay(wider)


@pytest.mark.parametrize(("onsets", "doubts"), [((3e-4, 1e-2), 1), ((1e-3, 1.2e-3), 0)])
def test_seeds_that_disagree_on_the_rate_are_a_doubt(onsets, doubts):
    curves = make_curves(RATES(1e-4, 1), [basin(0.0, onset, 30 * onset) for onset in onsets])
    _, found = accounts.largest_rate(lrjax.suggest(curves).consensus)
    assert len(found) == doubts


def test_momenta_may_be_an_array_or_come_one_by_one():
    options = {"seeds": 1, "total_steps": 20}
    array = recipe(momentums=np.array([0.9, 0.95]), **options)
    generated = recipe(momentums=(m for m in (0.9, 0.95)), **options)
    assert array.to_json() == generated.to_json()


def test_evaluation_batches_may_come_from_a_generator():
    held_out = [HELD_OUT(0)]
    options = {"total_steps": 20, "weight_decays": (1e-4,), "momentums": (0.9,), "seeds": 1}
    found = smith_recipe(TASK, TRAIN, (batch for batch in held_out), **options)
    assert found.to_json() == smith_recipe(TASK, TRAIN, held_out, **options).to_json()


def test_folders_of_stages_may_be_a_cloud_s():
    protocol = Protocol(TASK, TRAIN, lrjax.sgd, 10, "gs://bucket/run", {})
    assert protocol.options_for("cycles") == {"checkpoint_dir": "gs://bucket/run/cycles"}


def test_where_nothing_is_learned_there_is_a_reason():
    noise = lrjax.task(lambda params, batch: jnp.mean(batch[0]) + 0 * params, jnp.zeros(()))
    found = recipe(noise)
    assert found.reason == "not_learning"
    assert np.isnan(found.max_learning_rate)
    assert "No learning rate can be named: not_learning" in found.describe()
    with pytest.raises(ValueError, match="names no learning rate, not_learning"):
        found.optimizer()
    assert Recipe.from_json(found.to_json()).describe() == found.describe()


def test_checkpoints_of_every_stage(tmp_path):
    options = {"checkpoint_dir": tmp_path, "seeds": 1}
    first = recipe(**options)
    assert {path.name for path in tmp_path.iterdir()} == {"range_test", "refined", "cycles"}
    assert recipe(**options).to_json() == first.to_json()


@pytest.mark.parametrize(
    ("decays", "best", "expected"),
    [
        ((0, 1e-5, 1e-4, 1e-3), 1e-4, [3.16228e-5, 3.16228e-4]),
        ((0, 1e-5, 1e-4, 1e-3), 1e-3, [3.16228e-4, 3.16228e-3]),
        ((0, 1e-5, 1e-4, 1e-3), 1e-5, [3.16228e-6, 3.16228e-5]),
        ((0, 1e-5, 1e-4, 1e-3), 0, [3.16228e-6]),
        ((1e-3, 1e-4), 1e-4, [3.16228e-5, 3.16228e-4]),
        ((0,), 0, [1e-5]),
    ],
)
def test_decays_are_bisected_in_the_exponent(decays, best, expected):
    assert bisected(decays, best) == expected


@pytest.mark.parametrize(
    ("error", "name", "options"),
    [
        (ValueError, "total_steps", {"total_steps": 0}),
        (ValueError, "test_steps", {"test_steps": 0}),
        (ValueError, "weight_decays", {"weight_decays": ()}),
        (ValueError, "weight_decay", {"weight_decays": (np.nan,)}),
        (ValueError, "momentums", {"momentums": ()}),
        (ValueError, "weight_decays must be different", {"weight_decays": (1e-3, 1e-3)}),
        (ValueError, "momentums must be different", {"momentums": (0.9, 0.9)}),
        (ValueError, "seeds", {"seeds": 0}),
        (ValueError, "start", {"start": 1.0, "end": 0.1}),
        (ValueError, "weight_decays must be None", {"optimizer": plain}),
        (ValueError, "momentums must be None", {"optimizer": plain, "weight_decays": None}),
        (ValueError, "smith_recipe must set .*'learning_rate'", {"optimizer": lambda b1: None}),
        (TypeError, "optimizer", {"optimizer": 0.1}),
        (ValueError, "weight_decays", {"weight_decays": (-1e-3, 1e-3)}),
        (ValueError, "momentums", {"momentums": (0.9, 1.5)}),
        (TypeError, "return_state", {"return_state": True}),
        (TypeError, "ramp", {"ramp": "linear"}),
    ],
)
def test_bad_input_names_the_argument(error, name, options):
    with pytest.raises(error, match=name):
        recipe(**options)


def test_a_single_decay_and_momentum_are_taken_as_they_are():
    found = recipe(weight_decays=(0,), momentums=(0.9,), seeds=1)
    assert (found.weight_decay, found.momentum) == (0, 0.9)
    assert list(found.evidence) == ["range_test", "cycles"]


def chained(learning_rate):
    return optax.chain(optax.clip(1.0), lrjax.sgd(learning_rate))


BY_OTHERS = [optax.adam, optax.lion, optax.sgd, lrjax.adamw, plain, chained]


@pytest.mark.parametrize("factory", BY_OTHERS, ids=lambda factory: factory.__name__)
def test_its_optimizer_tells_its_rate(factory):
    found = dataclasses.replace(PLAIN, factory=factory)
    with jax.numpy_dtype_promotion("standard"):
        optimizer = found.optimizer()
        params, state = jnp.zeros(3), optimizer.init(jnp.zeros(3))
        for count in range(4):
            _, state = optimizer.update(jnp.ones(3), state, params)
            told = lrjax.get_hyperparams(state)["learning_rate"]
            np.testing.assert_allclose(told, found.schedules()[0](count), rtol=1e-6)


def test_its_optimizer_may_ask_for_a_schedule():
    def called(learning_rate):
        return optax.scale_by_schedule(lambda count: -learning_rate(count))

    optimizer = dataclasses.replace(PLAIN, factory=called).optimizer()
    updates, _ = optimizer.update(jnp.ones(3), optimizer.init(jnp.zeros(3)))
    np.testing.assert_allclose(updates, -PLAIN.schedules()[0](0), rtol=1e-6)


PLAIN = Recipe(
    max_learning_rate=0.5, weight_decay=None, momentum=None, min_momentum=None, total_steps=10
)


def test_numbers_of_numpy_and_jax_go_into_json():
    numbers = {"max_learning_rate": np.float32(0.5), "total_steps": np.int64(10)}
    found = dataclasses.replace(PLAIN, weight_decay=jnp.float32(0.25), **numbers)
    again = Recipe.from_json(found.to_json())
    assert (again.max_learning_rate, again.weight_decay, again.total_steps) == (0.5, 0.25, 10)


def test_evaluation_data_are_needed():
    with pytest.raises(ValueError, match="eval_batches"):
        smith_recipe(TASK, TRAIN, None, total_steps=10)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "1", None, '{"lrjax.Recipe": 2}', '{"lrjax.Recipe": 1}']
)
def test_json_of_others_is_refused(text):
    with pytest.raises(ValueError, match=r"Recipe\.to_json"):
        Recipe.from_json(text)
