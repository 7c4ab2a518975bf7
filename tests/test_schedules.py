"""What every schedule promises: exact at every count, traceable values, float32, pickles, holds."""

import math
import pickle
from fractions import Fraction

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from schedule_cases import CASES, MAX_COUNT

import lrjax.schedules as ls
from lrjax.schedules._numerics import scaled

every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
FIRST_CASES = {name.partition(".")[0]: case for name, case in reversed(CASES.items())}
every_schedule = pytest.mark.parametrize("case", FIRST_CASES.values(), ids=FIRST_CASES)
every_value = pytest.mark.parametrize(
    ("case", "name"),
    [(case, name) for case in FIRST_CASES.values() for name in case.values],
    ids=[f"{schedule}.{name}" for schedule, case in FIRST_CASES.items() for name in case.values],
)


def counts_near(case):
    """Both sides of every boundary, both ends of the range, and a few in between."""
    near = [boundary + step for boundary in case.boundaries for step in (-2, -1, 0, 1, 2)]
    wanted = [0, 1, 2, 3, 5, 50, 2**24 + 1, 2**30, MAX_COUNT - 1, MAX_COUNT, *near]
    return np.array(sorted({count for count in wanted if 0 <= count <= MAX_COUNT}), np.int32)


def early_counts(case):
    return np.array([*range(40), *(count for count in case.boundaries if count < 2000)])


def expected(case, counts, **values):
    return np.array([case.expected(count, **values) for count in counts])


def amplitude(case):
    return np.abs(expected(case, counts_near(case))).max()


def test_every_schedule_has_a_case():
    assert FIRST_CASES.keys() == set(ls.__all__)


ANYWHERE = st.integers(0, MAX_COUNT) | st.integers(0, 31).flatmap(
    lambda bits: st.integers(0, min(2**bits, MAX_COUNT))
)


@every_case
def test_exact(case):
    schedule, near, largest = case.schedule(), counts_near(case), amplitude(case)
    compiled = jax.jit(schedule)

    def check(counts):
        # One length for all, so that one compiled program serves them all.
        counts = np.resize(np.array(counts, np.int32), max(64, len(near)))
        inside, outside = np.asarray(compiled(counts)), np.asarray(schedule(counts))
        np.testing.assert_allclose(inside, expected(case, counts), rtol=0, atol=1e-6 * largest)
        np.testing.assert_allclose(outside, inside, rtol=0, atol=5e-7 * largest)

    check(near)
    hypothesis.settings(max_examples=5)(
        hypothesis.given(st.lists(ANYWHERE, min_size=64, max_size=64))(check)
    )()


def test_a_cooldown_multiplies_a_schedule_that_goes_on():
    schedule = ls.with_cooldown(ls.linear_decay(1.0, 200), 100, 10)
    expected = [0.55 * 1.0, 0.2 * 0.51, 0.1 * 0.505, 0.0]
    np.testing.assert_allclose(schedule(np.array([90, 98, 99, 100])), expected, rtol=1e-6)


@pytest.mark.parametrize(("rate", "count"), [(1.0, 12_006), (0.1, 120_716), (0.5, 2**31 - 1)])
def test_gradients_are_finite_behind_a_long_decay(rate, count):
    def value(rate):
        return ls.compound_time_decay(1.0, rate)(count)

    assert (value(rate), jax.grad(value)(rate)) == (0, 0)


@every_schedule
def test_one_count_is_as_many(case):
    schedule, counts = case.schedule(), counts_near(case)
    single = [schedule(int(count)) for count in counts]
    np.testing.assert_allclose(single, schedule(counts), rtol=1e-6)
    on_device = [schedule(jnp.int32(count)) for count in counts[:3]]
    np.testing.assert_allclose(on_device, single[:3], rtol=1e-6, atol=1e-6 * amplitude(case))


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=name) for name, case in CASES.items() if case.end is not None]
)
def test_it_holds_its_last_value(case):
    later = np.unique([min(case.end + k, MAX_COUNT + 1) for k in (0, 1, 10, 1000, MAX_COUNT)])
    held = np.asarray(case.schedule()(later))
    np.testing.assert_array_equal(held, held[0])


@every_schedule
@pytest.mark.parametrize("kind", [int, np.int64, np.uint8, np.int32, jnp.int32, jnp.uint32])
def test_every_kind_of_count(case, kind):
    schedule = case.schedule()
    value = schedule(kind(3))
    assert value.shape == ()
    assert value.dtype == jnp.float32
    assert not value.weak_type
    np.testing.assert_allclose(value, case.expected(3), rtol=1e-6, atol=1e-7)
    assert jax.eval_shape(schedule, kind(3)).weak_type is False


@every_schedule
@pytest.mark.parametrize("array", [np.array, jnp.array])
@pytest.mark.parametrize("shape", [(0,), (6,), (2, 3), (2, 1, 3)])
def test_every_shape_of_counts(case, array, shape):
    counts = np.arange(math.prod(shape), dtype=np.int32).reshape(shape)
    values = case.schedule()(array(counts))
    assert values.shape == shape
    assert values.dtype == jnp.float32
    assert isinstance(values, jax.Array)
    np.testing.assert_allclose(values.ravel(), expected(case, counts.ravel()), rtol=1e-6, atol=1e-7)


@every_schedule
def test_float64_under_x64(case):
    with jax.enable_x64(True):
        counts = counts_near(case)
        for value in (case.schedule()(counts), jax.jit(case.schedule())(counts)):
            assert value.dtype == jnp.float64
            assert not value.weak_type
            np.testing.assert_allclose(
                value, expected(case, counts), rtol=0, atol=2e-7 * amplitude(case)
            )


@pytest.mark.parametrize("rate", [0.1, 1.0, 100.0])
def test_a_product_of_many_factors_keeps_its_digits(rate):
    with jax.enable_x64(True):
        for count in (8, 9, 20, 1000):
            exact = -math.fsum(math.log1p(rate * k) for k in range(1, count + 1))
            value = ls.compound_time_decay(1e300, rate)(count)
            if exact > -600:
                np.testing.assert_allclose(np.log(value) - np.log(1e300), exact, atol=2e-9)


@every_schedule
@pytest.mark.parametrize("count", [1.5, np.float32(1), True, "1", None])
def test_a_count_is_an_integer(case, count):
    with pytest.raises(TypeError, match="count"):
        case.schedule()(count)


@every_schedule
def test_a_count_below_0_counts_as_0(case):
    schedule = case.schedule()
    values = schedule(np.array([-(2**31), -3, 0], np.int32))
    np.testing.assert_array_equal(values, np.full(3, schedule(0)))


def test_a_count_beyond_the_range_is_its_end():
    schedule = ls.linear_ramp(0.0, 1.0, 2**31 - 1)
    np.testing.assert_array_equal(schedule(np.array([-5, 2**40])), [0.0, 1.0])


@every_value
def test_values_may_be_traced(case, name):
    counts = early_counts(case)
    values = np.float32(case.values[name]) * np.array([1.0, 0.5, 0.9], np.float32)
    batched = jax.jit(jax.vmap(lambda value: case.schedule(**{name: value})(counts)))(values)
    assert batched.dtype == jnp.float32
    single = [case.schedule(**{name: float(value)})(counts) for value in values]
    # A traced rate has its logarithm taken in float32, not in float64.
    np.testing.assert_allclose(batched, single, rtol=2e-5, atol=1e-6 * amplitude(case))


@every_value
def test_values_may_be_traced_beside_a_known_count(case, name):
    count = int(early_counts(case)[-1])
    values = np.float32(case.values[name]) * np.array([1.0, 0.5], np.float32)
    batched = jax.vmap(lambda value: case.schedule(**{name: value})(count))(values)
    single = [case.schedule(**{name: float(value)})(count) for value in values]
    np.testing.assert_allclose(batched, single, rtol=2e-5, atol=1e-6 * amplitude(case))


# Of a schedule with numbers of one kind, which may be any kind.
KINDS_OF_NUMBERS = {
    "wsd": (lambda n: ls.wsd(1.0, warmup_steps=n(20), stable_steps=n(100), decay_steps=n(9)), int),
    "with_cooldown": (lambda n: ls.with_cooldown(ls.constant(1.0), 300, n(20)), int),
    "smith_onecycle": (lambda n: ls.smith_onecycle(0.1, 1.0, 300, cycle_steps=n(100)), int),
    "num_cycles": (lambda n: ls.warm_restarts(1.0, 3, cycle_mult=2, num_cycles=n(4)), int),
    "warmup_steps": (lambda n: ls.warm_restarts(1.0, 10, warmup_steps=n(3)), int),
    "cycle_mult": (lambda n: ls.warm_restarts(1.0, 7, cycle_mult=n(1.5)), float),
    "repeat": (lambda n: ls.repeat(ls.linear_decay(1.0, 10), 10, cycle_mult=n(5)), float),
    "pct_start": (lambda n: ls.onecycle(1.0, 100_000, pct_start=n(0.25)), float),
    "peak": (lambda n: ls.onecycle(n(1.0), 100), float),
    "base": (lambda n: ls.smith_onecycle(n(0.125), 1.0, 10), float),
    "stretch": (lambda n: ls.stretch(ls.linear_decay(1.0, 10), n(1.5)), float),
}


@pytest.mark.parametrize("name", KINDS_OF_NUMBERS)
def test_numbers_of_every_kind_shape_a_schedule_alike(name):
    make, kind = KINDS_OF_NUMBERS[name]
    narrow = (
        (np.uint8, np.int64, jnp.int32) if kind is int else (np.float16, np.float32, jnp.bfloat16)
    )
    counts = np.array([0, 5, 19, 120, 150, 250, 4_026_758], np.int32)
    expected = make(kind)(counts)
    for other in narrow:
        np.testing.assert_allclose(make(other)(counts), expected, rtol=1e-6)
        np.testing.assert_allclose(jax.jit(make(other))(counts), expected, rtol=1e-5, atol=1e-7)


def test_many_milestones_keep_their_digits():
    rate = ls.multistep_decay(1.0, range(1, 2001), gamma=0.999)(2000)
    np.testing.assert_allclose(rate, 0.999**2000, rtol=1e-6)


@every_value
def test_values_have_gradients(case, name):
    value = case.values[name]
    counts = early_counts(case)
    gradients = jax.jit(jax.jacfwd(lambda value: case.schedule(**{name: value})(counts)))(value)
    back = jax.jit(jax.grad(lambda value: case.schedule(**{name: value})(counts).sum()))(value)
    step = 1e-6 * max(abs(value), 1e-3)
    above, below = (expected(case, counts, **{name: value + s}) for s in (step, -step))
    slopes = (above - below) / (2 * step)
    slack = 1e-6 + 1e-4 * np.abs(slopes).max()
    np.testing.assert_allclose(gradients, slopes, rtol=2e-3, atol=slack)
    np.testing.assert_allclose(back, gradients.sum(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("power", [3.0, 9.0, 50.0])
@pytest.mark.parametrize("steps", [1000, 20355051])
@pytest.mark.parametrize("wrap", [lambda schedule: schedule, jax.jit], ids=["eager", "jit"])
def test_powers_of_almost_1_keep_their_digits(power, steps, wrap):
    counts = np.unique(np.geomspace(1, steps - 1, 500).astype(int))
    exact = (1 - counts / steps) ** power
    values = np.asarray(wrap(ls.polynomial_decay(1.0, steps, power=power))(counts))
    np.testing.assert_allclose(values, exact, atol=2e-7, rtol=0)
    risen = np.asarray(wrap(ls.polynomial_decay(0.0, steps, end_value=1.0, power=power))(counts))
    np.testing.assert_allclose(risen, -np.expm1(power * np.log1p(-counts / steps)), rtol=2e-6)


def left(end, count):
    return jnp.asarray(end - count, jnp.float32)


@pytest.mark.parametrize(
    ("schedule", "count"),
    [
        (lambda x: ls.join([ls.noam(8, 4, factor=x), ls.exponential_decay(x, x)], [9]), 2),
        (lambda x: ls.polynomial_decay(1.0, 5, power=x), 5),
        (lambda x: ls.exponential_decay(1.0, x), 0),
        (lambda x: ls.exp_range(0.0, 1.0, 2, gamma=x), 0),
        (lambda x: ls.warm_restarts(1.0, 2, peak_decay=x), 0),
        (lambda x: ls.join([lambda t: x * left(5, t) ** -0.5, ls.constant(1.0)], [5]), 7),
        (lambda x: ls.with_cooldown(lambda t: x / left(5, t), 5, 2), 5),
    ],
)
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_gradients_are_finite_at_the_ends(schedule, count, value):
    assert np.isfinite(jax.grad(lambda x: schedule(x)(count))(value))


@every_schedule
def test_inside_vmap_and_scan(case):
    schedule = case.schedule()
    counts = jnp.arange(7)
    np.testing.assert_array_equal(jax.vmap(schedule)(counts), schedule(counts))
    _, scanned = jax.lax.scan(lambda count, _: (count + 1, schedule(count)), 0, length=7)
    np.testing.assert_allclose(scanned, schedule(counts), rtol=1e-6)


@every_schedule
def test_it_pickles(case):
    schedule = case.schedule()
    again = pickle.loads(pickle.dumps(schedule))
    np.testing.assert_array_equal(again(np.arange(9)), schedule(np.arange(9)))
    assert repr(again) == repr(schedule)


@every_schedule
def test_it_prints_its_parameters(case):
    printed = repr(case.schedule())
    for value in case.values.values():
        assert repr(value) in printed


@every_schedule
def test_equal_parameters_give_equal_jaxprs(case):
    jaxpr = [str(jax.make_jaxpr(case.schedule())(jnp.int32(0))) for _ in range(2)]
    assert jaxpr[0] == jaxpr[1]


LAST = 2**31 - 1
SOME_COUNTS = [0, 1, 2**16 - 1, 2**16, LAST - 1, LAST, *range(0, LAST, 12_345_678)]


@pytest.mark.parametrize(
    ("factor", "meant"),
    [
        (1.1, Fraction(11, 10)),
        (100 / 3, Fraction(100, 3)),
        (10.123457, Fraction(10_123_457, 10**6)),
        (123_456.789, Fraction(123_456_789, 1000)),
        (math.pi, Fraction(math.pi)),
        (0.7, Fraction(7, 10)),
        (1e-4, Fraction(1, 10_000)),
        (LAST - 0.5, Fraction(LAST - 1)),
    ],
)
def test_a_stretch_divides_exactly(factor, meant):
    near = [int(k * meant) + shift for k in range(50, 10_000, 97) for shift in (-1, 0, 1)]
    counts = [*SOME_COUNTS, *(count for count in near if 0 <= count <= LAST)]
    exact = [min(int(count / meant), LAST) for count in counts]
    stretched = ls.stretch(counting, factor)
    assert jax.jit(stretched)(np.int32(counts)).tolist() == np.float32(exact).tolist()
    assert [int(stretched(count)) for count in counts[:100]] == np.float32(exact[:100]).tolist()


def counting(count):
    return count


@given(
    st.lists(st.integers(0, LAST), min_size=5, max_size=5),  # of one shape, which is compiled once
    st.integers(1, LAST),
    st.integers(1, LAST),
)
def test_a_product_with_a_fraction_is_exact(counts, numerator, denominator):
    exact = [min(count * numerator // denominator, LAST) for count in counts]
    for array in (np.int32(counts), jnp.int32(counts)):
        assert scaled(array, numerator, denominator).tolist() == exact


@pytest.mark.parametrize("mult", [10, 1000, 10.5])
def test_a_cycle_longer_than_all_counts_stays_at_its_start(mult):
    schedule = ls.repeat(ls.linear_decay(1.0, 2), 2, cycle_mult=mult)
    counts = np.linspace(0, MAX_COUNT, 1000).astype(np.int32)
    values = schedule(counts)
    assert set(np.unique(values)) <= {0.5, 1.0}
    np.testing.assert_array_equal(jax.jit(schedule)(counts), values)


@pytest.mark.parametrize(
    ("steps", "mult", "starts"),
    [
        (100, 2.2, [100, 320, 804]),
        (50, 2.2, [50, 160, 402]),
        (1000, 2.7, [1000, 3700, 10990, 30673]),
        (10000, 1.1, [10000, 21000, 33100, 46410, 61051]),
        (10000, 2.2, [10000, 32000, 80400, 186880, 421136]),
    ],
)
def test_cycles_that_start_at_whole_counts_start_there(steps, mult, starts):
    """In float64, 100 + 220 + 484 is above 804."""
    counts = np.array(starts)
    restarts = ls.warm_restarts(1.0, steps, cycle_mult=mult)
    decayed = ls.repeat(ls.constant(1.0), steps, cycle_mult=mult, decay=0.5)
    for schedule in (restarts, jax.jit(restarts)):
        np.testing.assert_array_equal(schedule(counts), np.ones(len(starts)))
        assert (schedule(counts - 1) < 0.01).all()
    for k, start in enumerate(starts):
        assert [float(decayed(start - 1)), float(decayed(start))] == [0.5**k, 0.5 ** (k + 1)]


def test_a_stretched_cycle_stays_in_its_range_and_takes_whole_steps():
    # At 1861182 a float32's rounding would lead to step 100, where the schedule starts anew.
    ended = ls.repeat(ls.warm_restarts(1.0, 100), 100, cycle_mult=1.1)
    assert max(float(f(1861182)) for f in (ended, jax.jit(ended))) < 1e-3
    risen = ls.repeat(ls.interpolate(0.0, 100.0, 100), 100, cycle_mult=1.2)
    for schedule in (risen, jax.jit(risen)):
        np.testing.assert_allclose(schedule(np.array([118, 130])), [15, 25], rtol=1e-6)


@pytest.mark.parametrize("count", [np.arange(2), np.arange(4), np.zeros((0,), int)])
@jax.numpy_dtype_promotion("standard")
def test_a_schedule_of_others_need_not_take_arrays(count):
    branched = lambda t: jax.lax.cond(t < 2, lambda: 1.0, lambda: 0.5)  # noqa: E731
    for foreign in (optax.cosine_onecycle_schedule(4, 1.0), branched):
        values = ls.scale(foreign, 1.0)(count)
        assert values.shape == count.shape
        np.testing.assert_allclose(values, [foreign(int(t)) for t in count], rtol=1e-6)


@pytest.mark.parametrize("schedule", [ls.exponential_decay(1.0, 2.0), lambda t: 1 / left(100, t)])
def test_a_cooldown_holds_its_end_whatever_the_schedule_does_then(schedule):
    cooled = ls.with_cooldown(schedule, 100, 10, end_value=0.25)
    assert [float(cooled(count)) for count in (100, 101, 128, 1000, MAX_COUNT)] == [0.25] * 5


@pytest.mark.parametrize(
    ("init_value", "decay_rate", "end_value", "late"),
    [
        (1.0, 0.5, 0.1, 0.1),
        (0.1, 2.0, 1.0, 1.0),
        (-1.0, 0.5, -0.1, -0.1),
        (0.1, 0.5, 0.2, 0.1 * 0.5**20),  # away from the bound
        (0.1, 1.0, 1e-5, 0.1),
        (0.1, 1.0, 1.0, 0.1),
    ],
)
def test_exponential_decay_starts_at_its_first_value_and_stops_at_its_bound(
    init_value, decay_rate, end_value, late
):
    schedule = ls.exponential_decay(init_value, decay_rate, end_value=end_value)
    np.testing.assert_allclose(schedule(np.array([0, 20])), [init_value, late], rtol=1e-6)


@every_schedule
def test_it_serves_where_optax_takes_a_schedule(case):
    schedule = case.schedule()
    optimizer = optax.chain(optax.scale_by_schedule(schedule), optax.sgd(schedule))
    updates, _ = optimizer.update(jnp.ones(2), optimizer.init(jnp.ones(2)))
    np.testing.assert_allclose(updates, -(case.expected(0) ** 2), rtol=1e-5)
    joined = optax.join_schedules([schedule, schedule], [5])
    np.testing.assert_allclose(joined(jnp.int32(7)), case.expected(2), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("count", [3, np.arange(3), jnp.arange(6).reshape(2, 3)])
@jax.numpy_dtype_promotion("standard")  # Optax's own schedules need it
def test_a_schedule_of_optax_in_ours(count):
    constant, cosine = optax.constant_schedule(0.1), optax.cosine_decay_schedule(0.1, 5)
    combined = [
        (ls.scale(constant, 2.0), np.full(np.shape(count), 0.2)),
        (ls.product(constant, cosine), 0.1 * cosine(count)),
        (ls.with_warmup(cosine, 0), cosine(count)),
        (ls.join([constant, cosine], [0]), cosine(count)),
        (ls.stretch(cosine, 2), cosine(count // 2)),
    ]
    for schedule, value in combined:
        assert schedule(count).shape == np.shape(count)
        np.testing.assert_allclose(schedule(count), value, rtol=1e-6)
