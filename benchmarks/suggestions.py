"""Do suggested rates lie where the loss falls, and is none suggested where it does not fall?

    python benchmarks/suggestions.py                        some minutes on two cores
    python benchmarks/suggestions.py --smith FILE.json      Smith's own range tests

Range tests are made up of 8 families, a quarter of them flat or diverging from the start, 3 noise
seeds each. Onset and minimum are those of the noise-free loss: where 5 % of its fall is done, and
where it is lowest. Noise is up to a quarter of the fall; steps are 50 to 2,000; ramps are
exponential or linear from 0; losses are negative or times 1000 too; some have few evaluations.

between, low, high: percent of the rates that are named, from onset to minimum, below, above.
missed: percent of the learnable curves without a rate. refused: percent of the flat and diverging
ones without. spread: the standard deviation of log10(rate) over noise seeds, the median of it.
off: by how many decades the largest usable rate is off that of the minimum, root mean square.

The methods of other libraries read the raw losses, as `suggest` gives them; at home each smooths
them first, with a lag.

How the rule came about, so that the tables can be judged:

- Some 90 settings (estimates of the noise, thresholds, which loss to read) were compared on the
  seen families, generator seeds 0, 1 and 2. The first table is of seed 0: it is not independent.
  Seed 7, scored once afterwards: 99.3 between, 4.7 missed, 99.3 refused.
- The generator changed meanwhile: the most noise from 0.15 to 0.25 of the fall; and no start's
  transient on linear ramps, where it is a fall over decades. The latter after flat curves with one
  had been named, and it helped.
- The first two held-out families, scored once: 99.4 between, 100 refused, but 16.7 missed (networks
  16.0, scaling 17.5). Chaos behind an edge counted as noise before it, and sparse evaluations of
  linear ramps had missed the fall. Both were mended, and the last two constants chosen, with these
  scores in sight: the second table is what came of it.
- Two more families were then written. Samples of their curves were drawn to check the landmarks,
  but nothing was scored before the rule was final: the third table was the independent one.
- That the minimum is read off fitted parabolas, where it had been off averages, came last, with all
  tables in sight, because 25 evaluations put it too low by up to a factor of two. Of averages:
  off 0.161, 0.142 and 0.228; between 99.9, 99.8 and 98.5 (`smith`: 99.0 in each).
- That the first rate of a linear ramp, decades below the second, counts only where the others show
  no fall, came after that, because it had made a fall or a plateau of the gap; there are fewer
  missed since (4.6, 5.1 and 1.7 before).
- Smith's tests were in sight throughout. That the lowest point must be sure (`average + error`) was
  brought in because `robust` had called one of them not learning.

Every table as a whole has at least 95 between and 95 refused. Not every family: of the flat
sigmoids 93.3 are refused. Below 5 missed was aimed at; the cliffs, the networks and the second
table are above it.

Last answers, on a 2-core x86-64 CPU with JAX 0.10.2 and NumPy 2.4:

    Seen: 560 shapes, 140 of them flat or diverging, 1680 curves
                        between      low     high   missed  refused   spread      off
    robust                 99.5      0.0      0.5      3.8     97.9    0.018    0.112
    smith                  98.6      0.0      1.4      3.8     97.9    0.028    0.116
    valley                 70.5      0.4     29.1      0.3      8.1    0.059        -
    steep                  42.4     23.2     34.4      0.3      9.0    0.264        -
    minimum                76.8     22.8      0.5      0.3      8.1    0.064        -
    slide                  33.5     26.1     40.4      3.0     17.1    0.019        -
    lightning              14.0     72.3     13.7      0.5      9.3    0.083        -
    torch_lr_finder        23.9      3.6     72.5      0.0      0.0    0.006        -
    ignite                 20.0      2.3     77.7      0.0      2.9    0.004        -
    surmenok               10.8      2.7     86.5      0.0      0.0    0.006        -
      robust, sigmoid      98.7      0.0      1.3      2.2     93.3    0.025    0.103
      robust, two stages    100.0      0.0      0.0      3.5     98.1    0.014    0.052
      robust, cliff       100.0      0.0      0.0      4.8    100.0    0.014    0.162
      robust, quadratic     99.3      0.0      0.7      4.8    100.0    0.027    0.106

    Held out at first: 273 shapes, 70 of them flat or diverging, 819 curves
                        between      low     high   missed  refused   spread      off
    robust                 99.0      0.0      1.0      4.3    100.0    0.038    0.113
    smith                  98.8      0.0      1.2      4.3    100.0    0.044    0.122
    valley                 63.4      0.0     36.6      1.6     22.9    0.059        -
    steep                  22.6      7.2     70.2      1.8     23.3    0.275        -
    minimum                97.3      2.7      0.0      1.6     22.9    0.050        -
    slide                  30.5      9.4     60.1      2.1     24.3    0.069        -
    lightning              24.2     53.9     21.9      0.3     23.8    0.107        -
    torch_lr_finder        15.9      8.5     75.5      0.0      0.0    0.178        -
    ignite                 38.5     13.7     47.9      0.2      8.1    0.152        -
    surmenok               23.2      6.9     70.0      0.0      0.0    0.164        -
      robust, networks     97.8      0.0      2.2      5.4    100.0    0.067    0.137
      robust, scaling     100.0      0.0      0.0      3.2    100.0    0.014    0.084

    Held out: 280 shapes, 70 of them flat or diverging, 840 curves
                        between      low     high   missed  refused   spread      off
    robust                 99.5      0.0      0.5      1.4     99.5    0.021    0.152
    smith                  97.9      0.0      2.1      1.4     99.5    0.028    0.154
    valley                 66.7      0.5     32.9      0.0     22.4    0.051        -
    steep                  23.5     27.9     48.6      0.0     22.9    0.278        -
    minimum                76.2     23.8      0.0      0.0     22.4    0.058        -
    slide                  23.7     22.4     54.0      0.0     22.9    0.018        -
    lightning              13.2     68.9     17.9      0.0     22.4    0.069        -
    torch_lr_finder        15.6     11.6     72.9      0.0      0.0    0.025        -
    ignite                 20.0     11.6     68.4      0.0      5.7    0.021        -
    surmenok               21.7     10.8     67.5      0.0      0.0    0.024        -
      robust, factors      99.0      0.0      1.0      1.0    100.0    0.028    0.115
      robust, monotone    100.0      0.0      0.0      1.9     99.0    0.014    0.181

Smith's tests (arXiv 1708.07120) ramp linearly from 0 to 2 or 3; "best" is the rate at the highest
single test accuracy. `robust` reads the test loss, `smith` the test accuracy; both give a rate to
train at, and the largest usable one. Where the averaged test loss is lowest at the end of the ramp
there is no number but "extend the end": `robust` names a rate for 3 of the 9, `smith` for 7. All
lie below his best, but for both maxima of the third test.

                                       best   robust  its max    smith  its max
    range3Iter5kFig2b                  1.20    extend the end    extend the end
    range3Iter20kFig2b                 1.54    extend the end     0.31     0.62
    range3Iter100kFig2b                0.79     0.50     1.00     0.42     0.85
    range2Res20Fig4b                   0.97    extend the end     0.29     0.58
    range2Res110Fig4b                  1.03    extend the end     0.23     0.46
    range2SS80kRes56LR                 1.25    extend the end    extend the end
    range3Cifar100kFig8                2.33    extend the end     0.31     0.62
    lrRange3SS520kDropuoutFig10a       0.70     0.33     0.65     0.35     0.69
    lrRange3SS520kClip2Fig12a          0.44     0.18     0.35     0.18     0.35
"""

import argparse
import collections
import functools
import itertools
import json
import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import lrjax
from lrjax.suggestions.methods import METHODS

CASES, SEEDS = 140, 3  # of every family
FLAT = 0.25
FACTOR_SEEDS = 24
NETWORK_STEPS, NETWORK_SEEDS = (60, 150, 400, 1000), 24


class Case(NamedTuple):
    """Curves of some noise seeds, and where the noise-free loss falls; NaN where it does not."""

    curves: lrjax.Curves
    onset: float = np.nan
    minimum: float = np.nan


def landmarks(rate, clean):
    """The rate with 5 % of the fall done and that of the lowest loss, if a finder can see both."""
    clean = np.where(np.isfinite(clean), clean, np.inf)
    bottom = int(np.argmin(clean))
    top = clean[: bottom + 1].max()
    drop, rise = top - clean[bottom], clean[bottom:].max() - clean[bottom]
    onset = int((clean < top - 0.05 * drop).argmax())
    visible = bottom - onset >= 5 and bottom < len(rate) - 3 and rise > 0.25 * drop
    return (rate[onset], rate[bottom]) if visible and rate[onset] > 0 else None


def ramp(rng, start, end, steps, linear=0.3):
    """A ramp over the steps, linear from 0 now and then."""
    if rng.random() < linear:
        return np.linspace(0, end, steps)
    return np.geomspace(start, end, steps)


def random_steps(rng):
    return int(10 ** rng.uniform(np.log10(50), np.log10(2000)))


def gaussian(rng, size):
    return rng.normal(size=size)


def heavy(rng, size):
    return rng.standard_t(3, size) / np.sqrt(3)


def correlated(rng, size):
    noise = rng.normal(size=size)
    for step in range(1, size):
        noise[step] = 0.6 * noise[step - 1] + 0.8 * noise[step]
    return noise


def one_sided(rng, size):
    """Spikes upwards, as of evaluations in a rough landscape."""
    return rng.gamma(0.5, size=size) * np.sqrt(2) - np.sqrt(0.5)


def observed(rng, rate, clean, drop, noise, *, growth=0.0, transient=0.15, evaluations=0.3):
    """Curves as a sweep would record them: noise, a start, an end by divergence, odd scales."""
    steps, top = len(rate), np.nanmax(clean[: max(len(clean) // 10, 1)])
    size = drop * 10 ** rng.uniform(-2, np.log10(0.25))
    size = size * (1 + growth * np.maximum((clean - np.nanmin(clean)) / drop, 0))
    start = np.zeros(steps)
    if rng.random() < transient and rate[0] > 0:  # in steps, which are decades of a linear ramp
        length = steps * rng.uniform(0.01, 0.04)
        start = drop * rng.uniform(0.3, 1) * np.exp(-np.arange(steps) / length)
    scale, offset = 10 ** rng.choice([-3.0, 0, 0, 3.0]), rng.choice([0, 0, -10])
    limit = top + drop * rng.uniform(2, 10)

    def measured(noise_seed, part):
        loss = clean + start + part * size * noise(noise_seed, steps)
        bad = ~(loss < limit)
        return np.where(np.maximum.accumulate(bad), np.nan, scale * (loss + offset))

    fields = {}
    seeds = rng.spawn(SEEDS)
    loss = np.stack([measured(seed, 1.0) for seed in seeds])
    if rng.random() < evaluations:
        done = np.unique(np.linspace(0, steps, rng.integers(12, 41)).astype(np.int32)[1:])
        evaluated = np.stack([measured(seed, 0.4) for seed in seeds])[:, done - 1]
        fields = {"eval_steps": done, "eval_loss": evaluated.astype(np.float32)}
    return as_curves(rate, loss, **fields)


def as_curves(rate, loss, **fields):
    return lrjax.Curves(
        axes={"seed": np.arange(len(loss))},
        learning_rate=rate.astype(np.float32),
        loss=loss.astype(np.float32),
        **fields,
    )


def from_shapes(shape, noises, **options):
    """A family of losses that are functions of the rate alone.

    Args:
        shape: (rng, decades above the onset, decades from onset to edge) -> the fall, from 0 to
            1, and the rise.
        noises: kinds of noise.
        **options: of `observed`.
    """

    def family(rng, flat):
        onset, width = rng.uniform(-5, -1.5), rng.uniform(0.8, 3)
        diverging = flat and rng.random() < 0.4
        below = -width - rng.uniform(0, 0.5) if diverging else rng.uniform(0.7, 3)
        beyond = rng.uniform(0.4, 1.5) + max(-below - width, 0)
        start, end = 10 ** (onset - below), 10 ** (onset + width + beyond)
        rate = ramp(rng, start, end, random_steps(rng), linear=0.0 if diverging else 0.3)
        fall, rise = shape(rng, np.log10(rate) - onset, width)
        drop = rng.uniform(0.3, 3)
        kept = 0.0 if flat else 1.0
        blown = rng.choice([0.0, 1.0]) if flat and not diverging else 1.0
        clean = rng.uniform(0, 2) + drop * (kept * (1 - fall) + blown * rise)
        found = None if flat else landmarks(rate, clean)
        if not (flat or found):
            return None
        noise = noises[rng.integers(len(noises))]
        return Case(observed(rng, rate, clean, drop, noise, **options), *(found or ()))

    return family


def sigmoid(rng, x, width):
    """A sigmoid in the logarithm of the rate and a power-law blow-up."""
    steep = rng.uniform(1, 4)
    return 1 / (1 + 10 ** -(steep * (x - 0.5))), 10 ** (rng.uniform(1, 4) * (x - width))


def two_stage(rng, x, width):
    """Two falls with a bump between them, and a blow-up."""
    steep, share = rng.uniform(3, 8), rng.uniform(0.3, 0.7)
    first, second = 0.3, max(0.6 * width, 0.5)
    fall = share / (1 + 10 ** -(steep * (x - first)))
    fall += (1 - share) / (1 + 10 ** -(steep * (x - second)))
    bump = rng.uniform(0, 0.4) * np.exp(-0.5 * ((x - (first + second) / 2) / 0.15) ** 2)
    return fall - bump, 10 ** (rng.uniform(1.5, 4) * (x - width))


def cliff(rng, x, width):
    """A fall along a straight or bent line, and a jump up, at once."""
    fall = np.clip(x / width, 0, 1) ** rng.uniform(0.5, 2)
    return fall, np.where(x > width, rng.uniform(0.8, 20) * (1 + x - width), 0.0)


def monotone(rng, x, width):
    """A fall of random pieces from onset to edge, and a rise of random pieces behind it."""
    falls, rises = rng.dirichlet(np.ones(5)), rng.dirichlet(np.ones(4))
    fall = np.interp(x, np.linspace(0, width, 6), np.append(0, np.cumsum(falls)))
    ends = width + np.linspace(0, 1.5, 5)
    return fall, rng.uniform(1, 20) * np.interp(x, ends, np.append(0, np.cumsum(rises)))


def quadratic(rng, flat):
    """SGD on a random quadratic; noise-free: the exact recursion of the second moments."""
    dimensions, steps = 20, random_steps(rng)
    curvature = 10 ** -rng.uniform(0, rng.uniform(0.5, 3), dimensions)
    curvature[0] = 1
    curvature *= 10 ** rng.uniform(-2, 2)
    edge = 2 / curvature.max()
    kind = rng.choice(["converged", "too low", "too high"]) if flat else "fine"
    low, high = {"too low": (-8, -5.5), "too high": (0.1, 2)}.get(
        kind, (-rng.uniform(2.5, 5), rng.uniform(0.1, 0.6))
    )
    rate = ramp(rng, edge * 10**low, edge * 10**high, steps, 0.3 if kind == "fine" else 0)
    distance = (0.0 if kind == "converged" else 1.0) * rng.normal(size=dimensions)
    distance /= np.sqrt(curvature / curvature.max()) ** rng.uniform(0, 1.5)
    height = max(0.5 * np.sum(curvature * distance**2), 0.1 * curvature.max())
    sigma = np.sqrt(height * curvature) * 10 ** rng.uniform(-1.5, -0.3)  # of the gradients

    def expected(second, lr):
        return (1 - lr * curvature) ** 2 * second + (lr * sigma) ** 2

    def sampled(point, lr):
        return point - lr * (curvature * point + sigma * rng.normal(size=point.shape))

    def run(state, update, squared):
        losses = []
        for lr in rate:
            losses.append(0.5 * np.sum(curvature * squared(state), -1))
            state = update(state, lr)
        return np.array(losses).T

    clean = run(distance**2, expected, np.asarray)
    loss = run(np.tile(distance, (SEEDS, 1)), sampled, np.square)
    loss = loss * (1 + rng.uniform(0.02, 0.3) * rng.normal(size=loss.shape))
    loss += rng.uniform(0, 0.1) * height * rng.normal(size=loss.shape)
    loss = np.where(np.maximum.accumulate(~(loss < 5 * height), -1), np.nan, loss)
    found = None if flat else landmarks(rate, clean)
    return Case(as_curves(rate, loss), *(found or ())) if flat or found else None


def scaling(rng, flat):
    """A power law of the rates' sum, and back to chance where the rate is too high.

    The noise is one-sided and grows towards the edge, and there may be few evaluations.
    """
    edge, steps = 10 ** rng.uniform(-3, 1), random_steps(rng)
    kind = rng.choice(["nothing", "too high"]) if flat else "fine"
    start = edge * (3 if kind == "too high" else 10 ** -rng.uniform(2, 5))
    end = start * 100 if kind == "too high" else edge * 10 ** rng.uniform(0.5, 1.5)
    rate = ramp(rng, start, end, steps, 0.4 if kind == "fine" else 0.0)
    path = np.cumsum(rate) - rate
    needed = path[np.searchsorted(rate, edge / 10 ** rng.uniform(0.7, 2))] + rate[1]
    learned = 1 - (1 + path / needed) ** -rng.uniform(0.3, 1.5)
    spoiled = 1 / (1 + (rate / edge) ** -rng.uniform(2, 6))
    chance, drop = 2.3, rng.uniform(0.5, 2)
    clean = chance - (0.0 if kind == "nothing" else drop) * learned * (1 - spoiled)
    if kind == "too high":
        clean = chance + drop * rng.uniform(0, 2) * spoiled
    found = None if flat else landmarks(rate, clean)
    if not (flat or found):
        return None
    curves = observed(rng, rate, clean, drop, one_sided, growth=1.0, evaluations=0.5)
    return Case(curves, *(found or ()))


@functools.partial(jax.jit, static_argnames="steps")
@functools.partial(jax.vmap, in_axes=(0, 0, None))
def train_network(key, problem, steps):
    """The losses of networks that learn from a teacher, f32[NETWORK_SEEDS, steps]."""
    inputs, hidden, classes, batch_size = 10, 16, 4, 32
    teacher = jax.random.normal(jax.random.fold_in(key, 0), (inputs, classes))

    def loss_of(params, batch):
        x, labels = batch
        logits = jax.nn.relu(x @ params[0] + params[1]) @ params[2] + params[3]
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    def batch_of(key):
        x_key, label_key, random_key = jax.random.split(key, 3)
        x = jax.random.normal(x_key, (batch_size, inputs))
        logits = problem["sharpness"] * x @ teacher
        labels = jax.random.categorical(label_key, logits)
        chance = jax.random.randint(random_key, labels.shape, 0, classes)
        return problem["scale"] * x, jnp.where(problem["learnable"], labels, chance)

    def run(seed):
        first, second = jax.random.split(jax.random.fold_in(key, 2 * seed + 1))
        params = (
            jax.random.normal(first, (inputs, hidden)) / inputs**0.5,
            jnp.zeros(hidden),
            problem["head"] * jax.random.normal(second, (hidden, classes)) / hidden**0.5,
            jnp.zeros(classes),
        )

        def update(carry, now):
            params, trace = carry
            lr, key = now
            loss, gradients = jax.value_and_grad(loss_of)(params, batch_of(key))
            trace = jax.tree.map(lambda t, g: problem["momentum"] * t + g, trace, gradients)
            params = jax.tree.map(lambda p, t: p - lr * t, params, trace)
            return (params, trace), loss

        keys = jax.random.split(jax.random.fold_in(key, 2 * seed + 2), steps)
        rates = problem["rates"]
        state = (params, jax.tree.map(jnp.zeros_like, params))
        return jax.lax.scan(update, state, (rates, keys))[1]

    return jax.vmap(run)(jnp.arange(NETWORK_SEEDS))


def landmarks_of_seeds(rate, loss):
    """Those of the median of seeds, averaged over a twelfth of a decade; inf where diverged."""
    typical = np.median(loss, 0)
    known = np.isfinite(typical) & (rate > 0)
    if known.sum() <= 20:
        return None
    decades = np.log10(rate[known])
    widths = np.maximum(0.08, np.gradient(decades))[:, None]
    weight = np.exp(-0.5 * ((decades - decades[:, None]) / widths) ** 2)
    smooth = weight @ typical[known] / weight.sum(1)
    if not known[-1]:
        smooth[-1] = 3 * smooth[0]
    return landmarks(rate[known], smooth)


def networks(rng, count, flat):
    """Networks that learn from a teacher; noise-free: the median of many seeds, smoothed."""
    cases = []
    for steps in NETWORK_STEPS:
        number = round(1.3 * count / len(NETWORK_STEPS))
        too_high = flat and rng.random(number) < 0.5
        scale = 10 ** rng.uniform(-1, 1, number)
        start = np.where(too_high, 30, 10 ** rng.uniform(-5, -2.5, number)) / scale**2
        end = np.where(too_high, 1e4, 10 ** rng.uniform(1.5, 2.5, number)) / scale**2
        rates = np.stack(
            [ramp(rng, *ends, steps, 0.0 if flat else 0.3) for ends in zip(start, end, strict=True)]
        )
        problems = {
            "rates": rates,
            "scale": scale,
            "sharpness": rng.uniform(0.5, 3, number),
            # Labels by chance are learned too, by a network that starts out sure of others.
            "head": np.full(number, 0.1) if flat else rng.choice([0.1, 1.0, 3.0], number),
            "momentum": rng.choice([0.0, 0.9], number),
            "learnable": np.full(number, not flat) | too_high,
        }
        keys = jax.random.split(jax.random.key(rng.integers(2**31)), number)
        problems = {
            name: jnp.asarray(values, None if values.dtype == bool else jnp.float32)
            for name, values in problems.items()
        }
        losses = np.asarray(train_network(keys, problems, steps), np.float64)
        for rate, loss in zip(rates, losses, strict=True):
            high = loss[:, :5].mean() + 5 * np.log(4)
            loss = np.where(np.maximum.accumulate(~(loss < high), -1), np.inf, loss)
            found = None if flat else landmarks_of_seeds(rate, loss)
            if flat or found:
                loss = np.where(np.isfinite(loss), loss, np.nan)[:SEEDS]
                cases.append(Case(as_curves(rate, loss), *(found or ())))
    order = rng.permutation(len(cases))[:count]
    return [cases[k] for k in order]


def factors(rng, flat):
    """Gradient descent on a matrix's two factors: a saddle first, then one value after another.

    Noise-free: the median of the exact losses of many seeds. From zeros nothing is ever learned.
    """
    size, steps = 6, random_steps(rng)
    matrix = rng.normal(size=(size, size)) * 10 ** rng.uniform(-2, 2)
    edge = 1 / np.linalg.norm(matrix, 2)
    kind = rng.choice(["saddle", "too high"]) if flat else "fine"
    low, high = (0.3, 2) if kind == "too high" else (-rng.uniform(3, 5), rng.uniform(0.1, 0.6))
    rate = ramp(rng, edge * 10**low, edge * 10**high, steps, 0.3 if kind == "fine" else 0.0)
    init = 0.0 if kind == "saddle" else rng.uniform(0.05, 0.5)
    init *= np.sqrt(np.linalg.norm(matrix, 2) / size)
    sigma = np.abs(matrix).mean() * 10 ** rng.uniform(-1.5, 0)
    left, right = init * rng.normal(size=(2, FACTOR_SEEDS, size, size))
    exact, loss = np.empty((2, FACTOR_SEEDS, steps))
    for step, lr in enumerate(rate):
        error = left @ right - matrix
        measured = error + sigma * rng.normal(size=error.shape)
        exact[:, step] = 0.5 * np.mean(error**2, (1, 2))
        loss[:, step] = 0.5 * np.mean(measured**2, (1, 2))
        transposed = left.swapaxes(1, 2), right.swapaxes(1, 2)
        left, right = (
            left - lr * measured @ transposed[1],
            right - lr * transposed[0] @ measured,
        )
    bad = ~(loss < 5 * loss[:, :5].mean())
    loss = np.where(np.maximum.accumulate(bad, -1), np.nan, loss)[:SEEDS]
    found = None if flat else landmarks(rate, np.median(exact, 0))
    return Case(as_curves(rate, loss), *(found or ())) if flat or found else None


def one_by_one(family):
    def cases(rng, count, flat):
        made = []
        while len(made) < count:
            case = family(rng, flat)
            made += [case] if case else []
        return made

    return cases


SEEN = {
    "sigmoid": one_by_one(from_shapes(sigmoid, [gaussian, correlated])),
    "two stages": one_by_one(from_shapes(two_stage, [gaussian, heavy], growth=1.0)),
    "cliff": one_by_one(from_shapes(cliff, [heavy, one_sided])),
    "quadratic": one_by_one(quadratic),
}
HELD_OUT_AT_FIRST = {"networks": networks, "scaling": one_by_one(scaling)}
HELD_OUT = {
    "factors": one_by_one(factors),
    "monotone": one_by_one(from_shapes(monotone, [gaussian, correlated, one_sided], growth=0.5)),
}


def make(families, first_seed):
    """All cases, by family: learnable ones and flat ones."""
    made = {}
    for number, (name, family) in enumerate(families.items()):
        rng = np.random.default_rng([first_seed, number])
        flat = round(FLAT * CASES)
        made[name] = family(rng, CASES - flat, False) + family(rng, flat, True)
    return made


def score(cases, method):
    """Counts over the seeds of all cases, how far seeds disagree, and the maxima's errors."""
    tally, spreads, errors = collections.Counter(), [], []
    for case in cases:
        suggestion = lrjax.suggest(case.curves, method)
        for rate in suggestion.learning_rate:
            tally[verdict(case, rate)] += 1
        if np.isfinite(case.onset):
            spreads.append(float(suggestion.spread))
            errors.extend(np.log10(suggestion.max_learning_rate / case.minimum))
    return tally, np.nanmedian(spreads), np.sqrt(np.nanmean(np.square(errors)))


def verdict(case, rate):
    if np.isnan(case.onset):
        return "flat refused" if np.isnan(rate) else "flat named"
    if np.isnan(rate):
        return "missed"
    # The rates are recorded in float32.
    if rate < case.onset * (1 - 1e-6):
        return "low"
    return "high" if rate > case.minimum * (1 + 1e-6) else "between"


def row(tally, spread, error):
    named = tally["between"] + tally["low"] + tally["high"]
    shares = [tally[name] / named for name in ("between", "low", "high")]
    shares.append(tally["missed"] / (named + tally["missed"]))
    shares.append(tally["flat refused"] / (tally["flat refused"] + tally["flat named"]))
    off = f"{error:9.3f}" if np.isfinite(error) else f"{'-':>9}"
    return "".join(f"{100 * share:9.1f}" for share in shares) + f"{spread:9.3f}{off}"


def print_table(title, made):
    curves = sum(len(case.curves.axes["seed"]) for cases in made.values() for case in cases)
    flat = sum(np.isnan(case.onset) for cases in made.values() for case in cases)
    total = sum(map(len, made.values()))
    print(f"{title}: {total} shapes, {flat} of them flat or diverging, {curves} curves")
    heads = ("between", "low", "high", "missed", "refused", "spread", "off")
    print(" " * 18 + "".join(f"{head:>9}" for head in heads))
    everything = list(itertools.chain.from_iterable(made.values()))
    for method in METHODS:
        print(f"{method:18}{row(*score(everything, method))}")
    for name, cases in made.items():
        print(f"  robust, {name:8}{row(*score(cases, 'robust'))}")
    print()


def reading(suggestion):
    if suggestion.reason:
        return (
            f"{f'extend the {suggestion.extend}' if suggestion.extend else suggestion.reason:>18}"
        )
    return f"{suggestion.learning_rate:9.2f}{suggestion.max_learning_rate:9.2f}"


def print_smith(path):
    """What is read from Smith's own range tests, beside the rate of his best test accuracy."""
    heads = ("best", "robust", "its max", "smith", "its max")
    print(f"{'':30}" + "".join(f"{head:>9}" for head in heads))
    for name, log in json.loads(pathlib.Path(path).read_text()).items():
        rate, accuracy = (np.array(log[key], np.float32) for key in ("lr", "test_acc"))
        curves = lrjax.Curves(
            learning_rate=rate,
            loss=np.array(log["test_loss"], np.float32),
            metrics={"accuracy": accuracy},
        )
        by_loss = lrjax.suggest(curves)
        by_accuracy = lrjax.suggest(curves, "smith", metric="accuracy")
        cells = f"{rate[accuracy.argmax()]:9.2f}{reading(by_loss)}{reading(by_accuracy)}"
        print(f"{name:30}{cells}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--smith", metavar="FILE.json", help="Smith's logs; then only they are read"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the generator")
    given = parser.parse_args()
    np.seterr(all="ignore")  # curves diverge, and a linear ramp begins at 0
    if given.smith:
        print_smith(given.smith)
    else:
        print_table("Seen", make(SEEN, given.seed))
        print_table("Held out at first", make(HELD_OUT_AT_FIRST, given.seed))
        print_table("Held out", make(HELD_OUT, given.seed))


if __name__ == "__main__":
    main()
