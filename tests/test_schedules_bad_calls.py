"""Bad arguments: every one is refused with an error that names it, and that is documented."""

import math

import numpy as np
import pytest

import lrjax.schedules as ls

# One call a line, and the argument that is wrong with it.
BAD_CALLS = """
constant(value=nan) : value
constant(value="1") : value
constant(value=None) : value
constant(value=True) : value
interpolate(inf, 1, 5) : init_value
interpolate(1, inf, 5) : end_value
interpolate(1, 0, 0) : steps
interpolate(1, 0, -1) : steps
interpolate(1, 0, 2.5) : steps
interpolate(1, 0, 2**31) : steps
interpolate(1, 0, True) : steps
interpolate(1, 0, "5") : steps
interpolate(1, 0, 5, shape="cubic") : shape
interpolate(1, 0, 5, shape=3) : shape
interpolate(1, 0, 5, shape="exponential") : end_value
interpolate(0, 1, 5, shape="exponential") : init_value
interpolate(1, -1, 5, shape="exponential") : end_value
exponential_ramp(0, 1, 5) : start
exponential_ramp(1, -1, 5) : end
exponential_ramp(1, 2, 0) : steps
linear_ramp(nan, 1, 5) : start
linear_ramp(1, nan, 5) : end
linear_ramp(1, 2, 1.5) : steps
wsd(1, warmup_steps=-1, stable_steps=1, decay_steps=1) : warmup_steps
wsd(1, warmup_steps=1, stable_steps=0.5, decay_steps=1) : stable_steps
wsd(1, warmup_steps=1, stable_steps=1, decay_steps=-1) : decay_steps
wsd(1, warmup_steps=0, stable_steps=0, decay_steps=0) : decay_steps
wsd(1, warmup_steps=2**30, stable_steps=2**30, decay_steps=2**30) : decay_steps
wsd(1, warmup_steps=1, stable_steps=1, decay_steps=1, decay="steep") : decay
wsd(nan, warmup_steps=1, stable_steps=1, decay_steps=1) : peak_value
wsd(1, warmup_steps=1, stable_steps=1, decay_steps=1, end_value=nan) : end_value
cyclical(nan, 1, 5) : base_value
cyclical(0, nan, 5) : peak_value
cyclical(0, 1, 0) : steps_up
cyclical(0, 1, 5, 0) : steps_down
cyclical(0, 1, 2**30, 2**30) : steps_up
cyclical(0, 1, 5, scale_fn=3) : scale_fn
cyclical(0, 1, 5, scale_mode="epochs") : scale_mode
triangular(0, 1, 2.5) : steps_up
triangular2(0, 1, 5, -5) : steps_down
exp_range(0, 1, 5, gamma=-0.1) : gamma
exp_range(0, 1, 5, gamma=nan) : gamma
onecycle(nan, 10) : peak_value
onecycle(1, 0) : total_steps
onecycle(1, 10.0) : total_steps
onecycle(1, 10, pct_start=-0.1) : pct_start
onecycle(1, 10, pct_start=1.1) : pct_start
onecycle(1, 10, pct_start=0.6, three_phase=True) : pct_start
onecycle(1, 10, pct_start=nan) : pct_start
onecycle(1, 10, div_factor=0) : div_factor
onecycle(1, 10, final_div_factor=-1) : final_div_factor
onecycle(1, 10, anneal="cos") : anneal
interpolate(1, 0, 5, shape=array([1, 2])) : shape
onecycle(1, 10, three_phase=array([1, 2])) : three_phase
onecycle_momentum(10, three_phase=array([1, 2])) : three_phase
onecycle(1, 10, anneal=None) : anneal
wsd(1, warmup_steps=1, stable_steps=1, decay_steps=1, decay=None) : decay
cyclical(0, 1, 5, scale_mode=3) : scale_mode
onecycle(1, 10, anneal=["cosine"]) : anneal
onecycle(1, 10, anneal=array(["cosine", "linear"])) : anneal
onecycle(1, 10, three_phase=1) : three_phase
onecycle_momentum(0) : total_steps
onecycle_momentum(10, base_value=nan) : base_value
onecycle_momentum(10, max_value=nan) : max_value
onecycle_momentum(10, anneal="step") : anneal
smith_onecycle(0.1, 1, 10, cycle_steps=11) : cycle_steps
smith_onecycle(0.1, 1, 0) : total_steps
smith_onecycle(0.1, 1, 10, cycle_steps=0) : cycle_steps
smith_onecycle(nan, 1, 10) : base_value
smith_onecycle(0.1, nan, 10) : peak_value
smith_onecycle(0.1, 1, 10, final_value=nan) : final_value
smith_onecycle_momentum(nan, 0.8, 10) : max_value
smith_onecycle_momentum(0.9, nan, 10) : base_value
smith_onecycle_momentum(0.9, 0.8, 10, cycle_steps=2.0) : cycle_steps
warm_restarts(nan, 10) : peak_value
warm_restarts(1, 0) : cycle_steps
warm_restarts(1, 10, cycle_mult=0.5) : cycle_mult
warm_restarts(1, 10, cycle_mult=nan) : cycle_mult
warm_restarts(1, 10, cycle_mult="2") : cycle_mult
warm_restarts(1, 10, end_value=inf) : end_value
warm_restarts(1, 10, cycle_mult=array([2.0, 3.0])) : cycle_mult
warm_restarts(1, 10, peak_decay=-1) : peak_decay
warm_restarts(1, 10, num_cycles=0) : num_cycles
warm_restarts(1, 10, warmup_steps=10) : warmup_steps
warm_restarts(1, 10, warmup_steps=-1) : warmup_steps
linear_decay(1, 0) : decay_steps
linear_decay(nan, 5) : init_value
linear_decay(1, 5, end_value=nan) : end_value
cosine_decay(1, 0) : decay_steps
cosine_decay(1, "10") : decay_steps
polynomial_decay(1, 0) : decay_steps
polynomial_decay(1, 5, power=0) : power
polynomial_decay(1, 5, power=nan) : power
polynomial_decay(1j, 5) : init_value
exponential_decay(1, -0.5) : decay_rate
exponential_decay(1, 0.5, decay_steps=0) : decay_steps
exponential_decay(1, 0.5, end_value=nan) : end_value
exponential_decay(1, 0.5, staircase="no") : staircase
inverse_time_decay(1, -1) : decay_rate
inverse_time_decay(1, 1, decay_steps=-1) : decay_steps
compound_time_decay(1, -1) : decay_rate
compound_time_decay(nan, 1) : init_value
step_decay(1, -0.5, 10) : drop
step_decay(1, 0.5, 0) : every
step_decay(1, 0.5, 10, offset=-1) : offset
multistep_decay(1, [5, 3]) : milestones
multistep_decay(1, [-1]) : milestones
multistep_decay(1, [1.5]) : milestones
multistep_decay(1, [1], gamma=nan) : gamma
multistep_decay(1, 5) : milestones
multistep_decay(1, {3: 0.5}) : milestones
multistep_decay(1, {3, 5}) : milestones
piecewise_constant({0: 0.1, 3: 0.2}, [3]) : values
piecewise_constant([1, 2], []) : boundaries
piecewise_constant([1, 2], [3, 4]) : boundaries
piecewise_constant([1, nan], [3]) : values
piecewise_constant([1, 2, 3], [4, 3]) : boundaries
piecewise_constant([], []) : values
piecewise_constant(1.0, [3]) : values
inverse_sqrt_decay(1, warmup_steps=-1) : warmup_steps
inverse_sqrt_decay(1, timescale=0) : timescale
noam(0, 10) : model_size
noam(512, 0) : warmup_steps
noam(512, 10, factor=nan) : factor
join([constant(1)], [5]) : boundaries
join([constant(1), 2.0], [5]) : schedules
join([constant(1), constant(2), constant(3)], [5, 4]) : boundaries
join([], []) : schedules
with_warmup(1.0, 5) : schedule
with_warmup(constant(1), -5) : warmup_steps
with_warmup(constant(1), 5, init_value=nan) : init_value
with_cooldown(constant(1), 10, 11) : cooldown_steps
with_cooldown(constant(1), 10, 0) : cooldown_steps
with_cooldown(constant(1), 0, 1) : total_steps
with_cooldown(constant(1), 10, 5, end_value=nan) : end_value
with_cooldown(0.1, 10, 5) : schedule
scale(0.1, 2) : schedule
scale(constant(1), nan) : factor
product() : schedules
product(constant(1), 2) : schedules
stretch(constant(1), 0) : factor
stretch(constant(1), -1) : factor
stretch(constant(1), 1e-9) : factor
stretch(constant(1), 1e10) : factor
stretch(1.0, 2) : schedule
stretch(constant(1), "2") : factor
per_epoch(constant(1), 0) : steps_per_epoch
per_epoch(constant(1), 1.5) : steps_per_epoch
repeat(1.0, 5) : schedule
repeat(constant(1), 0) : cycle_steps
repeat(constant(1), 5, cycle_mult=0) : cycle_mult
repeat(constant(1), 5, decay=-1) : decay
""".strip().splitlines()


@pytest.mark.parametrize("line", BAD_CALLS)
def test_bad_calls(line):
    call, name = line.split(" : ")
    names = vars(ls) | {"nan": math.nan, "inf": math.inf, "array": np.array}
    with pytest.raises((ValueError, TypeError), match=rf"\b{name}\b.* must be ") as caught:
        eval(call, names)
    documented = getattr(ls, call.partition("(")[0]).__doc__
    kind = TypeError if issubclass(caught.type, TypeError) else ValueError
    assert f"{kind.__name__}: " in documented
    assert issubclass(caught.type, ValueError)  # too, for those who expect nothing else
