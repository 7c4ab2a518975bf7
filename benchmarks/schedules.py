"""What does a schedule cost, beside Optax's and PyTorch's?

    python benchmarks/schedules.py

Inside `jit` over a million counts, per count; outside of it for one Python int; and the number of
equations of its jaxpr. Medians of calls that take turns; a ratio below 1 is in our favour. Beside
them, where torch is installed, the time of PyTorch's `scheduler.step()`, which gives a float of
the host where Optax's and ours give an array on the device (Optax's constant is a float too).

Last answer, on a 2-core x86-64 CPU with JAX 0.10.2, Optax 0.2.8 and PyTorch 2.13.0:

                          ns in jit             μs outside            equations        PyTorch
                        ours   Optax ratio    ours   Optax ratio    ours   Optax ratio      μs
constant                0.23    0.23  1.00    11.7     0.1 97.35       1       0     –     1.8
linear decay            0.41    0.43  0.97    24.9    66.9  0.37      14      11  1.27     2.1
cosine decay            2.41    3.09  0.78    28.4    94.1  0.30      17      11  1.55     2.5
polynomial decay        0.39    0.38  1.04    27.2    55.0  0.50      16      11  1.45     2.2
exponential decay       0.62    5.28  0.12    26.7    31.5  0.85       9       8  1.12     1.9
step decay              0.95    2.79  0.34    26.4    36.1  0.73      13       9  1.44     2.1
multistep decay         0.36    0.58  0.62    23.1   165.1  0.14       7      27  0.26     2.3
warmup, constant        0.38    0.35  1.09    31.1    66.5  0.47      18      11  1.64     2.1
warmup, cosine          2.55    3.16  0.80    44.0   175.2  0.25      36      26  1.38       –
warmup, exponential     1.11    5.38  0.21    46.1   114.4  0.40      30      22  1.36       –
join of three           0.39    0.38  1.03    53.1    91.7  0.58      33      19  1.74       –
1cycle                  3.05   13.77  0.22    58.9  1251.0  0.05      35      40  0.88     4.0
1cycle, linear          0.78    7.55  0.10    69.9  1256.7  0.06      48      36  1.33     4.0
2 restarts              2.81    5.92  0.47    46.3   346.9  0.13      33      31  1.06     2.6
20 restarts             3.28       –     –    42.4       –     –      33       –     –       –
1,000 restarts          3.26       –     –    41.2       –     –      33       –     –       –
3 growing restarts      9.92   16.51  0.60    56.9   388.6  0.15      59      48  1.23     2.9
growing restarts       16.15       –     –    52.3       –     –      71       –     –       –
triangular              0.65       –     –    49.5       –     –      35       –     –     2.3
exp_range               1.06       –     –    69.7       –     –      46       –     –     2.7
"""

import importlib.util
import statistics
import time
import warnings

import jax
import jax.extend
import jax.numpy as jnp
import optax

import lrjax.schedules as ls

PEAK, STEPS, WARMUP = 0.1, 10_000, 500
COUNTS = jnp.arange(1_000_000, dtype=jnp.int32) % (STEPS + 1000)
WARMUP_ROUNDS, ROUNDS, EAGER_CALLS = 10, 31, 30


def optax_restarts(*lengths):
    return optax.sgdr_schedule(
        [
            {"init_value": PEAK, "peak_value": PEAK, "decay_steps": n, "warmup_steps": 0}
            for n in lengths
        ]
    )


# What: (ours, Optax's or None, the name and arguments of PyTorch's or None).
COMPARISONS = {
    "constant": (ls.constant(PEAK), optax.constant_schedule(PEAK), ("ConstantLR", {"factor": 1.0})),
    "linear decay": (
        ls.linear_decay(PEAK, STEPS),
        optax.linear_schedule(PEAK, 0.0, STEPS),
        ("LinearLR", {"start_factor": 1.0, "end_factor": 0.0, "total_iters": STEPS}),
    ),
    "cosine decay": (
        ls.cosine_decay(PEAK, STEPS),
        optax.cosine_decay_schedule(PEAK, STEPS),
        ("CosineAnnealingLR", {"T_max": STEPS}),
    ),
    "polynomial decay": (
        ls.polynomial_decay(PEAK, STEPS, power=2.0),
        optax.polynomial_schedule(PEAK, 0.0, 2.0, STEPS),
        ("PolynomialLR", {"total_iters": STEPS, "power": 2.0}),
    ),
    "exponential decay": (
        ls.exponential_decay(PEAK, 0.999),
        optax.exponential_decay(PEAK, 1, 0.999),
        ("ExponentialLR", {"gamma": 0.999}),
    ),
    "step decay": (
        ls.step_decay(PEAK, 0.5, 1000),
        optax.exponential_decay(PEAK, 1000, 0.5, staircase=True),
        ("StepLR", {"step_size": 1000, "gamma": 0.5}),
    ),
    "multistep decay": (
        ls.multistep_decay(PEAK, [3000, 6000, 9000]),
        optax.piecewise_constant_schedule(PEAK, {3000: 0.1, 6000: 0.1, 9000: 0.1}),
        ("MultiStepLR", {"milestones": [3000, 6000, 9000]}),
    ),
    "warmup, constant": (
        ls.with_warmup(ls.constant(PEAK), WARMUP),
        optax.warmup_constant_schedule(0.0, PEAK, WARMUP),
        ("LinearLR", {"start_factor": 0.01, "total_iters": WARMUP}),
    ),
    "warmup, cosine": (
        ls.with_warmup(ls.cosine_decay(PEAK, STEPS - WARMUP), WARMUP),
        optax.warmup_cosine_decay_schedule(0.0, PEAK, WARMUP, STEPS),
        None,
    ),
    "warmup, exponential": (
        ls.with_warmup(ls.exponential_decay(PEAK, 0.9, decay_steps=100), WARMUP),
        optax.warmup_exponential_decay_schedule(0.0, PEAK, WARMUP, 100, 0.9),
        None,
    ),
    "join of three": (
        ls.join([ls.linear_decay(PEAK, 900), ls.constant(PEAK), ls.constant(0.01)], [900, 5000]),
        optax.join_schedules(
            [
                optax.linear_schedule(PEAK, 0.0, 900),
                optax.constant_schedule(PEAK),
                optax.constant_schedule(0.01),
            ],
            [900, 5000],
        ),
        None,
    ),
    "1cycle": (
        ls.onecycle(PEAK, STEPS),
        optax.cosine_onecycle_schedule(STEPS, PEAK),
        ("OneCycleLR", {"max_lr": PEAK, "total_steps": STEPS}),
    ),
    "1cycle, linear": (
        ls.onecycle(PEAK, STEPS, anneal="linear", three_phase=True),
        optax.linear_onecycle_schedule(STEPS, PEAK),
        ("OneCycleLR", {"max_lr": PEAK, "total_steps": STEPS, "three_phase": True}),
    ),
    "2 restarts": (
        ls.warm_restarts(PEAK, 5000, num_cycles=2),
        optax_restarts(5000, 5000),
        ("CosineAnnealingWarmRestarts", {"T_0": 5000}),
    ),
    "20 restarts": (ls.warm_restarts(PEAK, 500, num_cycles=20), None, None),
    "1,000 restarts": (ls.warm_restarts(PEAK, 10, num_cycles=1000), None, None),
    "3 growing restarts": (
        ls.warm_restarts(PEAK, 1000, cycle_mult=2, num_cycles=3),
        optax_restarts(1000, 2000, 4000),
        ("CosineAnnealingWarmRestarts", {"T_0": 1000, "T_mult": 2}),
    ),
    "growing restarts": (ls.warm_restarts(PEAK, 1000, cycle_mult=2), None, None),
    "triangular": (
        ls.triangular(0.01, PEAK, 2000),
        None,
        ("CyclicLR", {"base_lr": 0.01, "max_lr": PEAK, "cycle_momentum": False}),
    ),
    "exp_range": (
        ls.exp_range(0.01, PEAK, 2000, gamma=0.9999),
        None,
        (
            "CyclicLR",
            {
                "base_lr": 0.01,
                "max_lr": PEAK,
                "mode": "exp_range",
                "gamma": 0.9999,
                "cycle_momentum": False,
            },
        ),
    ),
}


def torch_step(name, arguments):
    """PyTorch's step, called as a schedule is; its own count goes on by itself."""
    import torch

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
    scheduler = getattr(torch.optim.lr_scheduler, name)(optimizer, **arguments)
    return lambda count: scheduler.step()


def medians(functions, argument, calls):
    """The median time of a call to each, in turns."""
    times = []
    for _ in range(WARMUP_ROUNDS + ROUNDS):
        times.append([])
        for function in functions:
            start = time.perf_counter()
            for _ in range(calls):
                result = function(argument)
            jax.block_until_ready(result)
            times[-1].append((time.perf_counter() - start) / calls)
    return [statistics.median(column) for column in zip(*times[WARMUP_ROUNDS:], strict=True)]


def equations(jaxpr):
    """How many equations there are, those of inner jaxprs instead of the one that holds them."""
    inner = [list(jax.extend.core.jaxprs_in_params(eqn.params)) for eqn in jaxpr.eqns]
    return sum(sum(map(equations, jaxprs)) if jaxprs else 1 for jaxprs in inner)


def columns(*values, digits):
    """Ours, the other's and their ratio."""
    texts = [f"{value:8.{digits}f}" for value in values] + ["       –"] * (2 - len(values))
    ratio = f"{values[0] / values[1]:6.2f}" if len(values) == 2 and values[1] else "     –"
    return "".join(texts) + ratio


def main():
    has_torch = importlib.util.find_spec("torch") is not None
    warnings.simplefilter("ignore")  # PyTorch's, of a scheduler without an optimizer's step
    print(f"{'':20}{'ns in jit':^22}{'μs outside':^22}{'equations':^22}{'PyTorch':>8}")
    print(f"{'':20}" + f"{'ours':>8}{'Optax':>8}{'ratio':>6}" * 3 + f"{'μs':>8}")
    for name, (ours, optaxs, torchs) in COMPARISONS.items():
        pair = [ours] if optaxs is None else [ours, optaxs]
        # Under vmap, because Optax's 1cycles take no array of counts.
        compiled = [jax.jit(jax.vmap(schedule)) for schedule in pair]
        inside = [1e9 * t / COUNTS.size for t in medians(compiled, COUNTS, 1)]
        steppers = [torch_step(*torchs)] if torchs and has_torch else []
        outside = [1e6 * t for t in medians([*pair, *steppers], 7, EAGER_CALLS)]
        sizes = [equations(jax.make_jaxpr(schedule)(jnp.int32(7)).jaxpr) for schedule in pair]
        print(
            f"{name:20}"
            + columns(*inside, digits=2)
            + columns(*outside[: len(pair)], digits=1)
            + columns(*sizes, digits=0)
            + (f"{outside[-1]:8.1f}" if steppers else "       –")
        )


if __name__ == "__main__":
    main()
