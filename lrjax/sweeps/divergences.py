"""When a run diverges: a rule about its losses, in which their scale and sign play no part."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

KEEP = 0.9  # of the running average, at every update
SETTLED = 4  # updates after which the losses' noise is known
DRIFT = 1e-3  # of a loss, that is taken for noise
MOST = 4  # times what is allowed: what a loss counts for, so that it takes three in a row


class Watch(NamedTuple):
    """What tells whether a run diverges: a few numbers about its losses so far."""

    average: jax.Array  # the losses' running average
    best: jax.Array  # the smallest such average
    first: jax.Array  # the first loss
    last: jax.Array  # the last loss
    variation: jax.Array  # the sum of |loss - the loss before it|
    allowed: jax.Array  # how far the average may rise above the best
    diverged: jax.Array  # bool


def start() -> Watch:
    """Before the first loss."""
    zero = jnp.zeros((), jnp.result_type(float))
    return Watch(zero, zero, zero, zero, zero, zero + jnp.inf, jnp.bool(False))


def observe(watch: Watch, loss: jax.Array, step: jax.Array, divergence: float | None) -> Watch:
    """Note a loss, and whether it means divergence.

    A run diverges when its loss is not finite, or its running average rises above the best that
    it had by more than `divergence` times what the loss has dropped so far plus how much it
    changes from step to step, or a thousandth of the loss.
    """
    # Also one that the curves, which are float32, could not hold.
    diverged = watch.diverged | ~jnp.isfinite(loss.astype(jnp.float32))
    loss = loss.astype(watch.average.dtype)
    # Capped, because a single batch may be an outlier.
    loss = jnp.minimum(loss, watch.average + MOST * watch.allowed)
    new = _noted(watch, loss, step)
    if divergence is None:
        return new._replace(diverged=diverged)
    allowed = divergence * (new.first - new.best + _noise(watch, new, step))
    allowed = jnp.where(step == 0, jnp.inf, allowed)
    return new._replace(allowed=allowed, diverged=diverged | (new.average - new.best > allowed))


def _noted(watch: Watch, loss: jax.Array, step: jax.Array) -> Watch:
    """The same with one more loss."""
    is_first = step == 0
    # Of a short history, corrected for its start as in Adam.
    weight = (1 - KEEP) / (1 - KEEP ** (step.astype(loss.dtype) + 1))
    average = watch.average + weight * (loss - watch.average)
    return watch._replace(
        average=average,
        best=jnp.where(is_first, loss, jnp.minimum(watch.best, average)),
        first=jnp.where(is_first, loss, watch.first),
        last=loss,
        variation=watch.variation + jnp.where(is_first, 0, jnp.abs(loss - watch.last)),
    )


def _noise(before: Watch, now: Watch, step: jax.Array) -> jax.Array:
    """The mean change of the loss so far."""
    settled = step >= SETTLED
    # Once there are enough others without the last one, which may be the blow-up itself.
    total = jnp.where(settled, before.variation, now.variation)
    number = jnp.maximum(jnp.where(settled, step - 1, step), 1).astype(total.dtype)
    # Few changes say little of how large they are: as if ten more were known to be larger.
    noise = total / number * (1 + 10 / number)
    # Without any noise, a drift is not a divergence yet.
    return jnp.maximum(noise, DRIFT * jnp.abs(now.best))
