"""Every schedule beside a reference of it in Python integers and float64.

A case names a schedule's values (which may be traced), its steps (which may not), the counts
where something changes, and from which count on the last value is held.
"""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

import lrjax.schedules as ls

MAX_COUNT = 2**31 - 2
SHAPES = {
    "linear": lambda x: x,
    "cosine": lambda x: math.sin(math.pi / 2 * x) ** 2,
    "1-sqrt": math.sqrt,
}


def cubed(x):
    return x**3


def falling_scale(cycle):
    return 1 / cycle


def sawtooth(count):
    return 1 / (1 + count % 7)


# References: a count and the case's arguments -> the value, in float64.


def lerp(start, end, x, shape="linear"):
    if shape == "exponential":
        return start * (end / start) ** x
    x = shape(x) if callable(shape) else SHAPES[shape](x)
    return end + (start - end) * (1 - x) if x > 0.5 else start + (end - start) * x


def transition(t, init_value, end_value, steps, shape="linear"):
    return lerp(init_value, end_value, min(t, steps) / steps, shape)


def ramp(t, start, end, steps, shape):
    return transition(t, start, end, max(steps - 1, 1), shape)


def trapezoid(
    t, peak_value, warmup_steps, stable_steps, decay_steps, end_value=0.0, decay="linear"
):
    fall = warmup_steps + stable_steps
    if t < fall or not decay_steps:
        return peak_value * min(t / max(warmup_steps, 1), 1) if warmup_steps else peak_value
    p = min((t - fall) / decay_steps, 1)
    if decay == "exponential":
        return end_value + (peak_value - end_value) * (2 * 0.5**p - 1)
    return lerp(peak_value, end_value, p, decay)


def triangle(t, base_value, peak_value, steps_up, steps_down=None, scale=lambda t, cycle: 1.0):
    steps_down = steps_down or steps_up
    cycle, k = divmod(t, steps_up + steps_down)
    height = k / steps_up if k <= steps_up else (steps_up + steps_down - k) / steps_down
    return base_value + (peak_value - base_value) * height * scale(t, cycle + 1)


def exponential_triangle(t, gamma, **arguments):
    return triangle(t, **arguments, scale=lambda t, cycle: gamma**t)


def along(t, times, values, shape):
    end = values[-1]
    for k, value in enumerate(values[:-1]):
        if times[k] < times[k + 1]:
            end = values[k + 1]
            if t <= times[k + 1]:
                return lerp(value, end, (t - times[k]) / (times[k + 1] - times[k]), shape)
    return end


def phase_ends(total_steps, pct_start, three_phase):
    last = total_steps - 1
    peak = min(max(pct_start * total_steps - 1, 0), last)
    return (0, peak, 2 * peak, last) if three_phase else (0, peak, last)


def one_cycle(
    t,
    peak_value,
    total_steps,
    pct_start=0.3,
    div_factor=25.0,
    final_div_factor=1e4,
    anneal="cosine",
    three_phase=False,
):
    start = peak_value / div_factor
    middle = (start, peak_value, start) if three_phase else (start, peak_value)
    times = phase_ends(total_steps, pct_start, three_phase)
    return along(t, times, (*middle, start / final_div_factor), anneal)


def one_cycle_momentum(
    t, base_value, max_value, total_steps, pct_start=0.3, anneal="cosine", three_phase=False
):
    values = (max_value, base_value, max_value, max_value)[: 4 if three_phase else 3]
    return along(t, phase_ends(total_steps, pct_start, three_phase), values, anneal)


def smith(t, base_value, peak_value, final_value, total_steps, cycle_steps):
    if t >= cycle_steps:
        return final_value
    return along(t, (0, cycle_steps / 2, cycle_steps), (base_value, peak_value, 0.0), "linear")


def smith_momentum(t, base_value, max_value, total_steps, cycle_steps):
    return along(t, (0, cycle_steps / 2, cycle_steps), (max_value, base_value, max_value), "linear")


def cycle_at(t, steps, mult, num_cycles=None):
    """Index, real-valued start and length of the cycle that the count falls into."""
    if mult == 1:
        index = t // steps if num_cycles is None else min(t // steps, num_cycles - 1)
        return index, index * steps, steps
    index, start, length = 0, Fraction(0), Fraction(steps)
    while t >= start + length and index + 1 != num_cycles:
        index, start, length = index + 1, start + length, length * Fraction(mult)
    return index, start, length


def cycle_number(index, steps, mult):
    """Index, real-valued start and length of a cycle."""
    lengths = [steps * Fraction(mult) ** k for k in range(index + 1)]
    return index, sum(lengths[:-1]), lengths[-1]


def restarts(
    t,
    peak_value,
    cycle_steps,
    cycle_mult=1,
    end_value=0.0,
    peak_decay=1.0,
    warmup_steps=0,
    num_cycles=None,
):
    index, start, length = cycle_at(t, cycle_steps, cycle_mult, num_cycles)
    peak, rise = peak_value * peak_decay**index, warmup_steps if index else 0
    if t - start < rise:
        return lerp(end_value, peak, float((t - start) / rise))
    return lerp(peak, end_value, min(float((t - start - rise) / (length - rise)), 1.0), "cosine")


def polynomial(t, init_value, decay_steps, end_value=0.0, power=1.0):
    left = max(decay_steps - t, 0) / decay_steps
    return end_value + (init_value - end_value) * left**power


def exponential(t, init_value, decay_rate, decay_steps=1, staircase=False, end_value=None):
    periods = t // decay_steps if staircase else t / decay_steps
    value = init_value * math.exp(min(periods * math.log(decay_rate), 700))
    return value if end_value is None else (max if decay_rate < 1 else min)(value, end_value)


def inverse_time(t, init_value, decay_rate, decay_steps=1, staircase=False):
    time = t // decay_steps if staircase else t / decay_steps
    return init_value / (1 + decay_rate * time)


def compound_time(t, init_value, decay_rate):
    if t < 10_000:
        log_product = math.fsum(math.log1p(decay_rate * k) for k in range(t + 1))
    else:
        a = 1 / decay_rate
        log_product = t * math.log(decay_rate) + math.lgamma(t + 1 + a) - math.lgamma(1 + a)
    return init_value * math.exp(-log_product)


def steps_down(t, init_value, drop, every, offset=0):
    return init_value * drop ** ((t + offset) // every)


def multistep(t, init_value, milestones, gamma):
    return init_value * gamma ** sum(t >= milestone for milestone in milestones)


def pieces(t, values, boundaries):
    return values[sum(t >= boundary for boundary in boundaries)]


def inverse_sqrt(t, peak_value, warmup_steps=0, timescale=None):
    if t < warmup_steps:
        return peak_value * t / warmup_steps
    timescale = timescale or warmup_steps or 10_000
    return peak_value * math.sqrt(timescale / (t - warmup_steps + timescale))


def transformer(t, model_size, warmup_steps, factor):
    return factor * model_size**-0.5 * min((t + 1) ** -0.5, (t + 1) * warmup_steps**-1.5)


# Combinators, each as a factory of values.


def piecewise(low, high, boundaries):
    return ls.piecewise_constant([high, low, low / 2, high / 3], boundaries)


def joined(peak_value, rate):
    later = [ls.cosine_decay(peak_value, 1000), ls.exponential_decay(peak_value, rate)]
    return ls.join([ls.linear_decay(peak_value, 100), *later], [70, 1_000_000])


def joined_reference(t, peak_value, rate):
    if t < 70:
        return transition(t, peak_value, 0.0, 100)
    if t < 1_000_000:
        return transition(t - 70, peak_value, 0.0, 1000, "cosine")
    return exponential(t - 1_000_000, peak_value, rate)


def warmed(peak_value, init_value, warmup_steps):
    return ls.with_warmup(ls.inverse_sqrt_decay(peak_value), warmup_steps, init_value=init_value)


def warmed_reference(t, peak_value, init_value, warmup_steps):
    if t < warmup_steps:
        return lerp(init_value, peak_value, t / warmup_steps)
    return inverse_sqrt(t - warmup_steps, peak_value)


def cooled(peak_value, end_value, total_steps, cooldown_steps):
    schedule = ls.inverse_sqrt_decay(peak_value)
    return ls.with_cooldown(schedule, total_steps, cooldown_steps, end_value=end_value)


def cooled_reference(t, peak_value, end_value, total_steps, cooldown_steps):
    weight = min(1, max(total_steps - t, 0) / cooldown_steps)
    return end_value + (inverse_sqrt(t, peak_value) - end_value) * weight


def repeated(peak_value, decay, cycle_steps, cycle_mult):
    schedule = ls.linear_decay(peak_value, cycle_steps)
    return ls.repeat(schedule, cycle_steps, cycle_mult=cycle_mult, decay=decay)


def repeated_reference(t, peak_value, decay, cycle_steps, cycle_mult):
    index, start, length = cycle_at(t, cycle_steps, cycle_mult)
    position = math.floor((t - start) * cycle_steps / Fraction(length))
    return decay**index * transition(position, peak_value, 0.0, cycle_steps)


class Case(NamedTuple):
    make: Callable
    values: dict
    steps: dict
    reference: Callable
    boundaries: tuple = ()
    end: int | None = None  # the first count of the value that is held

    def schedule(self, **values):
        return self.make(**{**self.values, **values}, **self.steps)

    def expected(self, count, **values):
        return self.reference(int(count), **{**self.values, **values}, **self.steps)


def transition_case(factory, reference, end, values, **steps):
    return Case(factory, values, steps, reference, (end // 2, end), end)


BASE_PEAK = {"base_value": 0.01, "peak_value": 0.1}
INIT_END = {"init_value": 0.1, "end_value": 0.003}
RESTARTS = {"peak_value": 0.1, "end_value": 0.001, "peak_decay": 0.9}
PERIODS = (9, 10, 20, 10_000_000, 10 * (2**31 // 10))

CASES = {
    "constant": Case(ls.constant, {"value": 0.1}, {}, lambda t, value: value, end=0),
    **{
        f"interpolate.{shape}.{steps}": transition_case(
            ls.interpolate, transition, steps, INIT_END, steps=steps, shape=shape
        )
        for shape in (*SHAPES, "exponential")
        for steps in (1, 37, 10**6, 2**31 - 1)
    },
    "interpolate.function": transition_case(
        ls.interpolate, transition, 37, INIT_END, steps=37, shape=cubed
    ),
    "interpolate.rise": transition_case(
        ls.interpolate, transition, 9, {"init_value": 0.0, "end_value": 0.1}, steps=9
    ),
    **{
        f"{name}.{steps}": Case(
            getattr(ls, name),
            {"start": 1e-4, "end": 10.0},
            {"steps": steps},
            lambda t, shape=shape, **arguments: ramp(t, shape=shape, **arguments),
            (max(steps - 2, 0), steps - 1),
            max(steps - 1, 1),
        )
        for name, shape in (("exponential_ramp", "exponential"), ("linear_ramp", "linear"))
        for steps in (1, 2, 100, 10**7)
    },
    **{
        f"wsd.{decay}": Case(
            ls.wsd,
            {"peak_value": 0.1, "end_value": 0.003},
            {"warmup_steps": 7, "stable_steps": 10**6, "decay_steps": 1001, "decay": decay},
            trapezoid,
            (7, 10**6 + 7, 10**6 + 1008),
            10**6 + 1008,
        )
        for decay in (*SHAPES, "exponential")
    },
    **{
        f"wsd.{'-'.join(map(str, lengths))}": Case(
            ls.wsd,
            {"peak_value": 0.1},
            dict(zip(("warmup_steps", "stable_steps", "decay_steps"), lengths, strict=True)),
            trapezoid,
            (5, 10),
            sum(lengths),
        )
        for lengths in ((5, 0, 0), (0, 5, 0), (0, 0, 5), (5, 5, 0), (5, 0, 5), (0, 5, 5))
    },
    "cyclical": Case(
        ls.cyclical,
        BASE_PEAK,
        {"steps_up": 3, "steps_down": 7},
        triangle,
        (3, *PERIODS),
    ),
    "cyclical.scale_fn": Case(
        lambda **arguments: ls.cyclical(**arguments, scale_fn=falling_scale),
        BASE_PEAK,
        {"steps_up": 3, "steps_down": 7},
        lambda t, **arguments: triangle(t, **arguments, scale=lambda t, cycle: 1 / cycle),
        (3, *PERIODS),
    ),
    "cyclical.iterations": Case(
        lambda **arguments: ls.cyclical(**arguments, scale_fn=sawtooth, scale_mode="iterations"),
        BASE_PEAK,
        {"steps_up": 5},
        lambda t, **arguments: triangle(t, **arguments, scale=lambda t, cycle: 1 / (1 + t % 7)),
        PERIODS,
    ),
    "triangular": Case(ls.triangular, BASE_PEAK, {"steps_up": 2000}, triangle, (2000, 4000)),
    "triangular.falling": Case(
        ls.triangular,
        {"base_value": 0.95, "peak_value": 0.85},
        {"steps_up": 1, "steps_down": 2**31 - 2},
        triangle,
        (1,),
    ),
    "triangular2": Case(
        ls.triangular2,
        BASE_PEAK,
        {"steps_up": 4, "steps_down": 6},
        lambda t, **arguments: triangle(
            t, **arguments, scale=lambda t, cycle: 0.5 ** min(cycle - 1, 200)
        ),
        (4, *PERIODS),
    ),
    **{
        f"exp_range.{gamma}": Case(
            ls.exp_range,
            BASE_PEAK | {"gamma": gamma},
            {"steps_up": 4, "steps_down": 6},
            exponential_triangle,
            (4, *PERIODS),
        )
        for gamma in (0.97, 0.99994, 1 - 1e-8, 1.0)
    },
    **{
        f"warm_restarts.{mult}.{warmup}.{limit}": Case(
            ls.warm_restarts,
            RESTARTS,
            {
                "cycle_steps": 7,
                "cycle_mult": mult,
                "warmup_steps": warmup,
                "num_cycles": limit,
            },
            restarts,
            tuple(math.ceil(cycle_number(k, 7, mult)[1]) for k in (1, 2, 3, 5, 8, 13, 21)),
            None if limit is None else math.ceil(cycle_number(limit, 7, mult)[1]),
        )
        for mult in (1, 1.5, 2, 3, 10, 1.03125)
        for warmup in (0, 3)
        for limit in (None, 1, 4)
    },
    "warm_restarts.long": Case(
        ls.warm_restarts, RESTARTS, {"cycle_steps": 2**31 - 1}, restarts, (2**30,)
    ),
    "linear_decay": transition_case(
        ls.linear_decay,
        lambda t, decay_steps, **values: transition(t, **values, steps=decay_steps),
        10**8,
        INIT_END,
        decay_steps=10**8,
    ),
    "cosine_decay": transition_case(
        ls.cosine_decay,
        lambda t, decay_steps, **values: transition(t, **values, steps=decay_steps, shape="cosine"),
        10**8,
        INIT_END,
        decay_steps=10**8,
    ),
    **{
        f"polynomial_decay.{power}": transition_case(
            ls.polynomial_decay, polynomial, 1001, INIT_END | {"power": power}, decay_steps=1001
        )
        for power in (0.5, 1.0, 2.0, 3.5, 50.0)
    },
    **{
        f"exponential_decay.{rate}.{steps}.{staircase}": Case(
            ls.exponential_decay,
            {"init_value": 0.1, "decay_rate": rate},
            {"decay_steps": steps, "staircase": staircase},
            exponential,
            (steps, 100 * steps),
        )
        for rate in (0.5, 0.99994, 1.0)
        for steps in (1, 1000)
        for staircase in (False, True)
    },
    "exponential_decay.end": Case(
        ls.exponential_decay,
        {"init_value": 0.1, "decay_rate": 0.9, "end_value": 0.01},
        {},
        exponential,
        (21, 22),
        22,
    ),
    "exponential_decay.growing": Case(
        ls.exponential_decay,
        {"init_value": 0.1, "decay_rate": 1.1, "end_value": 0.3},
        {},
        exponential,
        (11, 12),
        12,
    ),
    **{
        f"inverse_time_decay.{staircase}": Case(
            ls.inverse_time_decay,
            {"init_value": 0.1, "decay_rate": 0.5},
            {"decay_steps": 10, "staircase": staircase},
            inverse_time,
            (10, 1000),
        )
        for staircase in (False, True)
    },
    **{
        f"compound_time_decay.{rate}": Case(
            ls.compound_time_decay,
            {"init_value": 0.1, "decay_rate": rate},
            {},
            compound_time,
            (8, 100),
        )
        for rate in (1e-7, 1e-5, 0.003, 1.0, 50.0)
    },
    "step_decay": Case(
        ls.step_decay, {"init_value": 0.1, "drop": 0.9}, {"every": 10}, steps_down, (10, 200)
    ),
    "step_decay.offset": Case(
        ls.step_decay,
        {"init_value": 0.1, "drop": 1 - 1e-9},
        {"every": 10, "offset": 2**31 - 1},
        steps_down,
        (3, 13),
    ),
    "multistep_decay": Case(
        ls.multistep_decay,
        {"init_value": 0.1, "gamma": 0.5},
        {"milestones": (5, 5, 12, 10**9)},
        multistep,
        (5, 12, 10**9),
        10**9,
    ),
    "multistep_decay.none": Case(
        ls.multistep_decay, {"init_value": 0.1, "gamma": 0.5}, {"milestones": ()}, multistep, (), 0
    ),
    "piecewise_constant": Case(
        piecewise,
        {"low": 0.1, "high": 1.0},
        {"boundaries": (5, 12, 10**9)},
        lambda t, low, high, boundaries: pieces(t, (high, low, low / 2, high / 3), boundaries),
        (5, 12, 10**9),
        10**9,
    ),
    "piecewise_constant.many": Case(
        lambda low, high: ls.piecewise_constant([high, *[low] * 999, high], range(7, 7007, 7)),
        {"low": 0.1, "high": 1.0},
        {},
        lambda t, low, high: low if 7 <= t < 7000 else high,
        (7, 7000),
        7000,
    ),
    **{
        f"inverse_sqrt_decay.{warmup}.{scale}": Case(
            ls.inverse_sqrt_decay,
            {"peak_value": 0.1},
            {"warmup_steps": warmup, "timescale": scale},
            inverse_sqrt,
            (warmup,),
        )
        for warmup in (0, 10, 10**6)
        for scale in (None, 25)
    },
    "noam": Case(
        ls.noam, {"factor": 2.0}, {"model_size": 512, "warmup_steps": 4000}, transformer, (3999,)
    ),
    "join": Case(joined, {"peak_value": 0.1, "rate": 0.99}, {}, joined_reference, (70, 1_000_000)),
    "with_warmup": Case(
        warmed,
        {"peak_value": 0.1, "init_value": 0.01},
        {"warmup_steps": 1000},
        warmed_reference,
        (1000,),
    ),
    "with_cooldown": Case(
        cooled,
        {"peak_value": 0.1, "end_value": 0.001},
        {"total_steps": 10**6, "cooldown_steps": 999},
        cooled_reference,
        (10**6 - 999, 10**6),
        10**6,
    ),
    "scale": Case(
        lambda factor, peak_value: ls.scale(ls.cosine_decay(peak_value, 100), factor),
        {"factor": 0.5, "peak_value": 0.1},
        {},
        lambda t, factor, peak_value: factor * transition(t, peak_value, 0.0, 100, "cosine"),
        (100,),
        100,
    ),
    "product": Case(
        lambda first, second: ls.product(
            ls.linear_decay(first, 100), ls.step_decay(second, 0.5, 9)
        ),
        {"first": 0.5, "second": 0.1},
        {},
        lambda t, first, second: transition(t, first, 0.0, 100) * steps_down(t, second, 0.5, 9),
        (9, 100),
        100,
    ),
    **{
        f"stretch.{factor}": Case(
            lambda peak_value, factor: ls.stretch(ls.linear_decay(peak_value, 100), float(factor)),
            {"peak_value": 0.1},
            {"factor": factor},
            lambda t, peak_value, factor: transition(math.floor(t / factor), peak_value, 0.0, 100),
            (1, math.ceil(100 * factor)),
            math.ceil(100 * factor),
        )
        for factor in (
            Fraction(2),
            Fraction(3, 2),
            Fraction(1, 3),
            Fraction(10**7),
            Fraction(1, 999),
            Fraction(1_000_003, 40),
        )
    },
    "per_epoch": Case(
        lambda init_value, steps_per_epoch: ls.per_epoch(
            ls.exponential_decay(init_value, 0.9), steps_per_epoch
        ),
        {"init_value": 0.1},
        {"steps_per_epoch": 390},
        lambda t, init_value, steps_per_epoch: init_value * 0.9 ** (t // steps_per_epoch),
        (390, 39_000),
    ),
    **{
        f"repeat.{mult}": Case(
            repeated,
            {"peak_value": 0.1, "decay": 0.9},
            {"cycle_steps": 7, "cycle_mult": mult},
            repeated_reference,
            tuple(
                math.ceil(start + step * length / 7)
                for index in (0, 1, 2, 3, 7, 11, 13, 15)
                for _, start, length in [cycle_number(index, 7, mult)]
                for step in (0, 1, 3, 6)
                if start + length < 2**24 or isinstance(mult, int)
            ),
        )
        for mult in (1, 1.5, 2, 3)
    },
    **{
        f"onecycle.{anneal}.{total}.{start}.{three}": Case(
            ls.onecycle,
            {"peak_value": 1.0, "div_factor": 25.0, "final_div_factor": 1e4},
            {
                "total_steps": total,
                "pct_start": start,
                "anneal": anneal,
                "three_phase": three,
            },
            one_cycle,
            (int(start * total), int(2 * start * total), total - 1),
            total - 1,
        )
        for anneal in ("cosine", "linear")
        for total, start, three in (
            (1, 0.3, False),
            (2, 0.5, True),
            (10, 0.0, False),
            (10, 1.0, False),
            (10, 0.0, True),
            (10, 0.5, True),
            (37, 0.3, False),
            (37, 0.3, True),
            (2**31 - 1, 0.3, True),
        )
    },
    "onecycle_momentum": Case(
        ls.onecycle_momentum,
        {"base_value": 0.85, "max_value": 0.95},
        {"total_steps": 10**6, "pct_start": 0.123},
        one_cycle_momentum,
        (123_000, 10**6),
        10**6 - 1,
    ),
    "onecycle_momentum.three": Case(
        ls.onecycle_momentum,
        {"base_value": 0.85, "max_value": 0.95},
        {"total_steps": 37, "three_phase": True, "anneal": "linear"},
        one_cycle_momentum,
        (10, 20, 36),
        36,
    ),
    **{
        f"smith_onecycle.{cycle}": Case(
            ls.smith_onecycle,
            {"base_value": 0.1, "peak_value": 4.0, "final_value": 1e-4},
            {"total_steps": 4882, "cycle_steps": cycle},
            smith,
            (cycle // 2, cycle),
            cycle,
        )
        for cycle in (1, 2, 4295, 4882)
    },
    "smith_onecycle_momentum": Case(
        ls.smith_onecycle_momentum,
        {"base_value": 0.8, "max_value": 0.9},
        {"total_steps": 4882, "cycle_steps": 4296},
        smith_momentum,
        (2148, 4296),
        4296,
    ),
}
