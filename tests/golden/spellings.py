"""How every golden entry is written with lrjax.

`SPELLINGS` gives a schedule for each entry of schedules.json, `MOMENTA` one for the momentum of
those that have it. `AGREEING` lists the counts of the entries where we differ on purpose, and
`EXCLUDED` the entries that are no function of a count, each with the reason.
"""

import math

import jax
import jax.numpy as jnp

from lrjax.schedules import (
    constant,
    cosine_decay,
    cyclical,
    exp_range,
    exponential_decay,
    exponential_ramp,
    interpolate,
    inverse_sqrt_decay,
    inverse_time_decay,
    join,
    linear_decay,
    linear_ramp,
    multistep_decay,
    noam,
    onecycle,
    onecycle_momentum,
    piecewise_constant,
    polynomial_decay,
    product,
    repeat,
    smith_onecycle,
    smith_onecycle_momentum,
    step_decay,
    triangular,
    triangular2,
    warm_restarts,
    with_warmup,
    wsd,
)


def sines(cycle):
    return 0.5 * (1 + jnp.sin(cycle.astype(float) * (math.pi / 2)))


def tanh_fall(fraction):
    """(1 - tanh(10 x - 7)) / 2, in a form that does not cancel where it is small."""
    return jax.nn.sigmoid(14 - 20 * fraction)


def rewarmed_cosine(peak_value):
    """A cycle of levanter's after the first: from the last value, 5 steps up and 35 down."""
    return with_warmup(cosine_decay(peak_value, 35, end_value=0.01), 5, init_value=0.01)


SPELLINGS = {
    "bigvision.cosine": with_warmup(cosine_decay(0.1, 45), 5),
    "clr.triangular": triangular(0.01, 0.1, 5),
    "clr.triangular2": triangular2(0.01, 0.1, 5),
    "composer.warm_restarts": join(
        [cosine_decay(0.1, steps, end_value=0.01) for steps in (10, 15, 22, 33)], [10, 25, 47]
    ),
    "deepspeed.LRRangeTest.cont": linear_ramp(0.001, 0.005, 21),
    "deepspeed.OneCycle": join(
        [triangular(0.01, 0.1, 4, 6), inverse_time_decay(0.01, 0.5, decay_steps=3)], [10]
    ),
    "fairseq.cosine": with_warmup(
        product(
            warm_restarts(0.1, 10, cycle_mult=2, end_value=0.001),
            multistep_decay(1.0, [10, 30, 70], gamma=0.5),
        ),
        5,
    ),
    "fairseq.inverse_sqrt": inverse_sqrt_decay(0.1, warmup_steps=10),
    "fairseq.triangular.shrink_min_True": repeat(triangular(0.01, 0.1, 5), 10, decay=0.5),
    "fastai.SchedCos": interpolate(0.1, 2.0, 20, shape="cosine"),
    "fastai.SchedLin": interpolate(0.1, 2.0, 20),
    "fastai.SchedPoly": interpolate(0.1, 2.0, 20, shape=lambda x: x**3),
    "fastai.fit_one_cycle.lr": join(
        [interpolate(0.04, 1.0, 10, shape="cosine"), cosine_decay(1.0, 30, end_value=1e-5)], [10]
    ),
    "hf.constant_with_warmup": with_warmup(constant(0.1), 5),
    "hf.cosine": with_warmup(cosine_decay(0.1, 40), 10),
    "hf.cosine_min_lr": with_warmup(cosine_decay(0.1, 35, end_value=0.01), 5),
    "hf.cosine_warmup_min_lr": with_warmup(
        cosine_decay(0.1, 35, end_value=0.01), 4, init_value=0.02
    ),
    "hf.inverse_sqrt": inverse_sqrt_decay(0.1, warmup_steps=10),
    "hf.linear": with_warmup(linear_decay(0.1, 40), 10),
    "hf.polynomial.p2": with_warmup(polynomial_decay(0.1, 25, end_value=1e-7, power=2.0), 5),
    "hf.wsd.linear_cosine": with_warmup(
        wsd(0.1, warmup_steps=0, stable_steps=22, decay_steps=10, end_value=0.005, decay="cosine"),
        8,
        init_value=0.005,
    ),
    "hf.wsd.linear_linear": with_warmup(
        wsd(0.1, warmup_steps=0, stable_steps=22, decay_steps=10, end_value=0.005),
        8,
        init_value=0.005,
    ),
    "ignite.CosineAnnealing.mult2_warm": join(
        [
            cosine_decay(1.0, 10, end_value=0.1),
            with_warmup(cosine_decay(0.5, 20, end_value=0.1), 3, init_value=0.1),
            with_warmup(cosine_decay(0.25, 40, end_value=0.1), 6, init_value=0.1),
        ],
        [10, 33],
    ),
    "ignite.LinearCyclical": triangular(1.0, 0.1, 5),
    "ignite.PiecewiseLinear": join(
        [constant(0.1), interpolate(0.1, 1.0, 3), interpolate(1.0, 0.2, 6)], [3, 6]
    ),
    "init2winit.rsqrt_normalized": inverse_sqrt_decay(0.1, timescale=25),
    "keras.CosineDecay": cosine_decay(0.1, 20, end_value=0.01),
    "keras.CosineDecayRestarts.t1.5": warm_restarts(0.1, 8, cycle_mult=1.5),
    "keras.ExponentialDecay": exponential_decay(0.1, 0.9, decay_steps=10),
    "keras.InverseTimeDecay": inverse_time_decay(0.1, 0.5, decay_steps=10),
    "keras.PiecewiseConstantDecay": piecewise_constant([1.0, 0.5, 0.1], [11, 21]),
    "keras.PolynomialDecay": polynomial_decay(0.1, 20, end_value=0.001, power=2.0),
    "levanter.cycles3_cosine": join(
        [
            with_warmup(cosine_decay(0.1, 30, end_value=0.01), 10),
            rewarmed_cosine(0.1),
            rewarmed_cosine(0.1),
        ],
        [40, 80],
    ),
    "levanter.inv_sqrt": join(
        [constant(0.1), inverse_sqrt_decay(0.1, timescale=10_000), constant(0.01)],
        [9_900, 999_900],
    ),
    "maxtext.wsd_linear": join(
        [
            wsd(0.1, warmup_steps=10, stable_steps=70, decay_steps=19, end_value=0.01),
            constant(0.0),
        ],
        [100],
    ),
    "megatron.wsd_minus_sqrt": wsd(
        0.1, warmup_steps=10, stable_steps=70, decay_steps=20, end_value=0.01, decay="1-sqrt"
    ),
    "optax.cosine": interpolate(0.1, 0.01, 20, shape=lambda x: 1 - jnp.cos(x * (math.pi / 2)) ** 4),
    "optax.cosine_onecycle": onecycle(1.0, 101, pct_start=31 / 101),
    "optax.exponential": join(
        [
            constant(0.1),
            exponential_decay(0.1, 0.9, decay_steps=10, staircase=True, end_value=0.05),
        ],
        [3],
    ),
    "optax.linear": interpolate(0.0, 0.1, 10),
    "optax.polynomial": join(
        [constant(0.1), polynomial_decay(0.1, 20, end_value=0.001, power=2.0)], [5]
    ),
    "optax.warmup_cosine": with_warmup(cosine_decay(0.1, 20, end_value=0.001), 5),
    "range.fastai.exp": interpolate(1e-4, 10.0, 20, shape="exponential"),
    "range.lightning.exp": join([constant(1e-4), exponential_ramp(1e-4 * 1e5**0.1, 10.0, 19)], [1]),
    "range.torch_lr_finder.exp": exponential_ramp(1e-4, 10.0, 20),
    "smith.1cycle.densenet40": smith_onecycle(0.1, 4.0, 4882, cycle_steps=4296),
    "timm.cosine.mul2_decay.5": with_warmup(
        warm_restarts(0.1, 10, cycle_mult=2, end_value=0.001, peak_decay=0.5, num_cycles=3),
        5,
        init_value=1e-4,
    ),
    "timm.multistep": multistep_decay(0.1, [9, 19], gamma=0.1),
    "timm.poly.k2": interpolate(0.1, 1e-4, 20, shape=lambda x: 1 - (1 - x**2) ** 0.9),
    "timm.step.warmup": with_warmup(step_decay(0.1, 0.5, 7), 3, init_value=0.001),
    "timm.tanh.mul2": join(
        [
            interpolate(1e-4, 0.1, 10, shape=tanh_fall),
            interpolate(1e-4, 0.05, 20, shape=tanh_fall),
            constant(1e-4),
        ],
        [10, 30],
    ),
    "timm.wsd.1sqrt": with_warmup(
        wsd(0.1, warmup_steps=0, stable_steps=20, decay_steps=10, end_value=1e-4, decay="1-sqrt"),
        5,
        init_value=0.001,
    ),
    "torch.ChainedScheduler": product(
        piecewise_constant([0.1, 1.0], [5]), exponential_decay(1.0, 0.9)
    ),
    "torch.ConstantLR": piecewise_constant([0.1 / 3, 0.1], [5]),
    "torch.CosineAnnealingLR.periodic": repeat(
        join(
            [
                cosine_decay(0.1, 20, end_value=0.001),
                interpolate(0.001, 0.1, 20, shape="cosine"),
            ],
            [20],
        ),
        40,
    ),
    "torch.CosineAnnealingWarmRestarts.boundaries_T0_7_mult2": warm_restarts(1.0, 7, cycle_mult=2),
    "torch.CosineAnnealingWarmRestarts.mult1": warm_restarts(0.1, 10),
    "torch.CosineAnnealingWarmRestarts.mult2": warm_restarts(
        0.1, 10, cycle_mult=2, end_value=0.001
    ),
    "torch.CyclicLR.exp_range.asym_4_6": exp_range(0.01, 0.1, 4, 6, gamma=0.97),
    "torch.CyclicLR.scale_fn.cycle_sin": cyclical(0.01, 0.1, 5, scale_fn=sines),
    "torch.CyclicLR.triangular": triangular(0.01, 0.1, 5),
    "torch.CyclicLR.triangular.asym_3_7": triangular(0.01, 0.1, 3, 7),
    "torch.CyclicLR.triangular.big_steps_2000": triangular(0.01, 0.1, 2000),
    "torch.ExponentialLR": exponential_decay(0.1, 0.95),
    "torch.LambdaLR.noam": noam(512, 40),
    "torch.LinearLR.warmup": interpolate(0.001, 0.1, 10),
    "torch.MultiStepLR.dup": multistep_decay(0.1, [5, 5, 12, 30], gamma=0.5),
    "torch.OneCycleLR.cos2": onecycle(1.0, 100),
    "torch.OneCycleLR.cos2.fastai_like": onecycle(1.0, 50, pct_start=0.25, final_div_factor=1e5),
    "torch.OneCycleLR.cos2.float_ends_37": onecycle(1.0, 37),
    "torch.OneCycleLR.cos2.overrun": onecycle(1.0, 10),
    "torch.OneCycleLR.cos2.pct0": onecycle(1.0, 10, pct_start=0.0),
    "torch.OneCycleLR.cos3": onecycle(1.0, 100, three_phase=True),
    "torch.OneCycleLR.lin2": onecycle(1.0, 100, anneal="linear"),
    "torch.OneCycleLR.per_group": onecycle(0.01, 40),
    "torch.PolynomialLR.p2": polynomial_decay(0.1, 20, power=2.0),
    "torch.SWALR.linear": interpolate(1.0, 0.05, 5),
    "torch.SequentialLR.warmup_cosine": with_warmup(cosine_decay(1.0, 10), 5, init_value=0.1),
    "torch.StepLR": step_decay(0.1, 0.5, 10),
}

GROUPS = {
    "torch.OneCycleLR.per_group": [onecycle(peak_value, 40) for peak_value in (0.01, 0.1, 1.0)]
}

MOMENTA = {
    "smith.1cycle.densenet40": smith_onecycle_momentum(0.9, 0.8, 4882, cycle_steps=4296),
    "torch.CyclicLR.exp_range.asym_4_6": exp_range(0.9, 0.8, 4, 6, gamma=0.97),
    "torch.CyclicLR.scale_fn.cycle_sin": cyclical(0.9, 0.8, 5, scale_fn=sines),
    "torch.CyclicLR.triangular": triangular(0.9, 0.8, 5),
    "torch.CyclicLR.triangular.asym_3_7": triangular(0.9, 0.8, 3, 7),
    "torch.CyclicLR.triangular.big_steps_2000": triangular(0.9, 0.8, 2000),
    "torch.OneCycleLR.cos2": onecycle_momentum(100),
    "torch.OneCycleLR.cos2.fastai_like": onecycle_momentum(50, pct_start=0.25),
    "torch.OneCycleLR.cos2.float_ends_37": onecycle_momentum(37),
    "torch.OneCycleLR.cos2.overrun": onecycle_momentum(10),
    "torch.OneCycleLR.cos2.pct0": onecycle_momentum(10, pct_start=0.0),
    "torch.OneCycleLR.cos3": onecycle_momentum(100, three_phase=True),
    "torch.OneCycleLR.lin2": onecycle_momentum(100, anneal="linear"),
    "torch.OneCycleLR.per_group": onecycle_momentum(40),
}

# Where we differ on purpose: (entry, "values" or "momentum") -> (counts that agree, reason).
AGREEING = {
    ("hf.cosine", "values"): (
        range(51),
        "the cosine climbs again after its last step; ours holds its last value",
    ),
    ("torch.OneCycleLR.cos2.overrun", "values"): (
        range(10),
        "one step more than total_steps rebounds; ours holds its last value",
    ),
    ("torch.OneCycleLR.cos2.overrun", "momentum"): (
        range(10),
        "one step more than total_steps rebounds; ours holds its last value",
    ),
    ("torch.OneCycleLR.cos2.pct0", "values"): (
        range(9, 10),
        "the rise ends at step -1, so the peak is never used; ours starts at the peak",
    ),
    ("torch.OneCycleLR.cos2.pct0", "momentum"): (
        range(9, 10),
        "the rise ends at step -1, so the base is never used; ours starts at the base",
    ),
    ("smith.1cycle.densenet40", "momentum"): (
        range(4297),
        "his momentum goes on cycling while the rate is constant; ours holds its maximum",
    ),
}

# No function of a count.
EXCLUDED = {
    "fastai.even_mults": "rates of parameter groups: geometric_learning_rates, a transform",
    "keras.ReduceLROnPlateau.base": "driven by a metric: plateau, a transform",
    "optax.reduce_on_plateau.accumulation": "driven by a metric: plateau, a transform",
    "optax.reduce_on_plateau.base": "driven by a metric: plateau, a transform",
    "torch.ReduceLROnPlateau.max_patience0": "driven by a metric: plateau, a transform",
    "torch.ReduceLROnPlateau.rel": "driven by a metric: plateau, a transform",
}
