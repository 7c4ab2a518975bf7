"""Schedules: pure functions `count -> value`, exact at every count.

A factory checks its arguments and returns `functools.partial` of a function of the count,
so that a schedule pickles and prints its parameters. Values may be traced (a schedule can be
built inside `vmap`); numbers of steps are Python ints. The count is the number of updates
already done: 0 for the first update. It may be an int, a traced int or an array of ints; one
below 0 counts as 0.

`transitions` go from one value to another, `decays` fall, `steps` stay the same between
counts, `cycles` and `onecycles` come back, `combinators` are schedules of schedules.

What others call it, and how to write it here. Where the other library scales the optimizer's own
rate, that rate comes first. Unlike some of theirs, a finite schedule holds its last value.

PyTorch
    StepLR(step_size=10, gamma=0.5)
        = step_decay(0.1, 0.5, 10)
    MultiStepLR(milestones=[5, 5, 12, 30], gamma=0.5)
        = multistep_decay(0.1, [5, 5, 12, 30], gamma=0.5)
    ConstantLR(factor=1 / 3, total_iters=5)
        = piecewise_constant([0.1 / 3, 0.1], [5])
    LinearLR(start_factor=0.01, end_factor=1.0, total_iters=10)
        = interpolate(0.001, 0.1, 10)
    ExponentialLR(gamma=0.95)
        = exponential_decay(0.1, 0.95)
    PolynomialLR(total_iters=20, power=2.0)
        = polynomial_decay(0.1, 20, power=2.0)
    CosineAnnealingLR(T_max=20, eta_min=0.001) up to step 20
        = cosine_decay(0.1, 20, end_value=0.001)
    CosineAnnealingWarmRestarts(T_0=10, T_mult=2, eta_min=0.001)
        = warm_restarts(0.1, 10, cycle_mult=2, end_value=0.001)
    CyclicLR(base_lr=0.01, max_lr=0.1, step_size_up=5)
        = triangular(0.01, 0.1, 5)
        momentum = triangular(0.9, 0.8, 5)
    CyclicLR(base_lr=0.01, max_lr=0.1, step_size_up=4, step_size_down=6,
             mode="exp_range", gamma=0.97)
        = exp_range(0.01, 0.1, 4, 6, gamma=0.97)
        momentum = exp_range(0.9, 0.8, 4, 6, gamma=0.97)
    OneCycleLR(max_lr=1.0, total_steps=100)
        = onecycle(1.0, 100)
        momentum = onecycle_momentum(100)
    OneCycleLR(max_lr=1.0, total_steps=100, three_phase=True)
        = onecycle(1.0, 100, three_phase=True)
        momentum = onecycle_momentum(100, three_phase=True)
    SWALR(swa_lr=0.05, anneal_epochs=5, anneal_strategy="linear")
        = interpolate(1.0, 0.05, 5)
    ChainedScheduler(schedulers=[ConstantLR(factor=0.1, total_iters=5), ExponentialLR(gamma=0.9)])
        = product(piecewise_constant([0.1, 1.0], [5]), exponential_decay(1.0, 0.9))
    SequentialLR(schedulers=[LinearLR(start_factor=0.1, end_factor=1.0, total_iters=5),
                             CosineAnnealingLR(T_max=10)], milestones=[5])
        = join([interpolate(0.1, 1.0, 5), cosine_decay(1.0, 10)], [5])

Keras
    ExponentialDecay(initial_learning_rate=0.1, decay_steps=10, decay_rate=0.9)
        = exponential_decay(0.1, 0.9, decay_steps=10)
    InverseTimeDecay(initial_learning_rate=0.1, decay_steps=10, decay_rate=0.5)
        = inverse_time_decay(0.1, 0.5, decay_steps=10)
    PiecewiseConstantDecay(boundaries=[10, 20], values=[1.0, 0.5, 0.1])
        = piecewise_constant([1.0, 0.5, 0.1], [11, 21])
    PolynomialDecay(initial_learning_rate=0.1, decay_steps=20, end_learning_rate=0.001, power=2.0)
        = polynomial_decay(0.1, 20, end_value=0.001, power=2.0)
    CosineDecay(initial_learning_rate=0.1, decay_steps=20, alpha=0.1)
        = cosine_decay(0.1, 20, end_value=0.01)
    CosineDecay(initial_learning_rate=0.0, decay_steps=20, alpha=0.1, warmup_target=0.1,
                warmup_steps=5)
        = with_warmup(cosine_decay(0.1, 20, end_value=0.01), 5)
    CosineDecayRestarts(initial_learning_rate=0.1, first_decay_steps=8, t_mul=1.5)
        = warm_restarts(0.1, 8, cycle_mult=1.5)

timm
    CosineLRScheduler(t_initial=10, lr_min=0.001, cycle_mul=2.0, cycle_decay=0.5, cycle_limit=3,
                      warmup_t=5, warmup_lr_init=0.0001, warmup_prefix=True)
        = with_warmup(
            warm_restarts(0.1, 10, cycle_mult=2, end_value=0.001, peak_decay=0.5, num_cycles=3),
            5, init_value=1e-4)
    StepLRScheduler(decay_t=7, decay_rate=0.5, warmup_t=3, warmup_lr_init=0.001)
        = with_warmup(step_decay(0.1, 0.5, 7), 3, init_value=0.001)
    MultiStepLRScheduler(decay_t=[10, 20], decay_rate=0.1)
        = multistep_decay(0.1, [9, 19], gamma=0.1)
    PolyLRScheduler(t_initial=20, power=0.9, lr_min=0.0001, k_decay=2.0)
        = interpolate(0.1, 1e-4, 20, shape=lambda x: 1 - (1 - x**2) ** 0.9)
    WSDLRScheduler(t_initial=30, decay_t=10, lr_min=0.0001, warmup_t=5, warmup_lr_init=0.001)
        = with_warmup(
            wsd(0.1, warmup_steps=0, stable_steps=20, decay_steps=10, end_value=1e-4,
                decay="1-sqrt"),
            5, init_value=0.001)

transformers
    get_constant_schedule_with_warmup(num_warmup_steps=5)
        = with_warmup(constant(0.1), 5)
    get_linear_schedule_with_warmup(num_warmup_steps=10, num_training_steps=50)
        = with_warmup(linear_decay(0.1, 40), 10)
    get_cosine_schedule_with_warmup(num_warmup_steps=10, num_training_steps=50) up to step 50
        = with_warmup(cosine_decay(0.1, 40), 10)
    get_cosine_with_hard_restarts_schedule_with_warmup(
        num_warmup_steps=5, num_training_steps=45, num_cycles=4)
        = with_warmup(warm_restarts(0.1, 10, num_cycles=4), 5)
    get_cosine_with_min_lr_schedule_with_warmup(
        num_warmup_steps=5, num_training_steps=40, min_lr_rate=0.1)
        = with_warmup(cosine_decay(0.1, 35, end_value=0.01), 5)
    get_polynomial_decay_schedule_with_warmup(
        num_warmup_steps=5, num_training_steps=30, lr_end=1e-7, power=2.0)
        = with_warmup(polynomial_decay(0.1, 25, end_value=1e-7, power=2.0), 5)
    get_inverse_sqrt_schedule(num_warmup_steps=10)
        = inverse_sqrt_decay(0.1, warmup_steps=10)
    get_wsd_schedule(num_warmup_steps=8, num_decay_steps=10, num_training_steps=40,
                     warmup_type="linear", decay_type="cosine", min_lr_ratio=0.05)
        = with_warmup(
            wsd(0.1, warmup_steps=0, stable_steps=22, decay_steps=10, end_value=0.005,
                decay="cosine"),
            8, init_value=0.005)

fastai
    SchedCos(start=0.1, end=2.0)
        = interpolate(0.1, 2.0, 20, shape="cosine")
    SchedPoly(start=0.1, end=2.0, power=3)
        = interpolate(0.1, 2.0, 20, shape=lambda x: x**3)
    fit_one_cycle(lr_max=1.0, div=25.0, div_final=1e5, pct_start=0.25, n_updates=40)
        = join(
            [interpolate(0.04, 1.0, 10, shape="cosine"), cosine_decay(1.0, 30, end_value=1e-5)],
            [10])

Optax
    linear_schedule(init_value=0.0, end_value=0.1, transition_steps=10)
        = interpolate(0.0, 0.1, 10)
    polynomial_schedule(init_value=0.1, end_value=0.001, power=2.0, transition_steps=20,
                        transition_begin=5)
        = with_warmup(polynomial_decay(0.1, 20, end_value=0.001, power=2.0), 5, init_value=0.1)
    exponential_decay(init_value=0.1, transition_steps=10, decay_rate=0.9, transition_begin=3,
                      staircase=True, end_value=0.05)
        = with_warmup(
            exponential_decay(0.1, 0.9, decay_steps=10, staircase=True, end_value=0.05),
            3, init_value=0.1)
    warmup_cosine_decay_schedule(init_value=0.0, peak_value=0.1, warmup_steps=5, decay_steps=25,
                                 end_value=0.001)
        = with_warmup(cosine_decay(0.1, 20, end_value=0.001), 5)
    cosine_onecycle_schedule(transition_steps=100, peak_value=1.0)
        = onecycle(1.0, 101, pct_start=31 / 101)

Ignite
    LinearCyclicalScheduler(start_value=1.0, end_value=0.1, cycle_size=10)
        = triangular(1.0, 0.1, 5)
    PiecewiseLinear(milestones_values=[[3, 0.1], [6, 1.0], [12, 0.2], [15, 0.2]])
        = join([constant(0.1), interpolate(0.1, 1.0, 3), interpolate(1.0, 0.2, 6)], [3, 6])

Megatron
    OptimizerParamScheduler(max_lr=0.1, min_lr=0.01, lr_warmup_steps=10, lr_decay_steps=100,
                            wsd_decay_steps=20, lr_wsd_decay_style="minus_sqrt")
        = wsd(0.1, warmup_steps=10, stable_steps=70, decay_steps=20, end_value=0.01,
              decay="1-sqrt")

MaxText
    create_learning_rate_schedule(
        lr_schedule_type="wsd", learning_rate=0.1, learning_rate_schedule_steps=100, steps=105,
        warmup_steps_fraction=0.1, wsd_decay_steps_fraction=0.2,
        learning_rate_final_fraction=0.1, wsd_decay_style="linear")
        = join([wsd(0.1, warmup_steps=10, stable_steps=70, decay_steps=19, end_value=0.01),
                constant(0.0)], [100])

DeepSpeed
    OneCycle(cycle_min_lr=0.01, cycle_max_lr=0.1, cycle_first_step_size=4,
             cycle_second_step_size=6, decay_lr_rate=0.5, decay_step_size=3)
        = join([triangular(0.01, 0.1, 4, 6), inverse_time_decay(0.01, 0.5, decay_steps=3)], [10])

fairseq
    CosineLRSchedule(lr=0.1, min_lr=0.001, lr_period_updates=10, t_mult=2, lr_shrink=0.5,
                     warmup_updates=5, warmup_init_lr=0.0)
        = with_warmup(
            product(warm_restarts(0.1, 10, cycle_mult=2, end_value=0.001),
                    multistep_decay(1.0, [10, 30, 70], gamma=0.5)),
            5)
    InverseSquareRootSchedule(lr=0.1, warmup_updates=10, warmup_init_lr=0.0)
        = inverse_sqrt_decay(0.1, warmup_steps=10)
    TriangularSchedule(lr=0.01, max_lr=0.1, lr_period_updates=10, lr_shrink=0.5, shrink_min=True)
        = repeat(triangular(0.01, 0.1, 5), 10, decay=0.5)
"""

from lrjax.schedules import combinators, cycles, decays, onecycles, steps, transitions
from lrjax.schedules._numerics import Schedule as Schedule
from lrjax.schedules.combinators import *
from lrjax.schedules.cycles import *
from lrjax.schedules.decays import *
from lrjax.schedules.onecycles import *
from lrjax.schedules.steps import *
from lrjax.schedules.transitions import *

__all__ = [
    *transitions.__all__,
    *cycles.__all__,
    *onecycles.__all__,
    *decays.__all__,
    *steps.__all__,
    *combinators.__all__,
]
