"""What a practitioner turns on an optimizer, learned or not: parts of optax around it."""

import math
import numbers
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from learned_opt.errors import UsageError

COOLDOWN = 0.2  # of the training steps


def with_knobs(
    optimizer: optax.GradientTransformation,
    *,
    step_multiplier: float | optax.Schedule | None = None,
    weight_decay: float | None = None,
    mask: Any = None,
    total_steps: int | None = None,
    cooldown: float | None = None,
    clip: float | None = None,
) -> optax.GradientTransformationExtraArgs:
    """The optimizer with what is given around it, `p' = p + m (u - weight_decay p)`; what is not given adds nothing.

    u is its own update, of the clipped gradient, and m the product of `step_multiplier` and the cooldown. Decay is
    multiplied too, as AdamW's is by its learning rate, so that it ends with the steps instead of outlasting them.
    Numbers may be scalar arrays, also traced ones, whose values are not checked: `optax.inject_hyperparams` makes them.

    Args:
        optimizer: one of optax.
        step_multiplier: a number above 0, or an optax schedule, from the number of updates so far to a number.
        weight_decay: the share of a parameter that a step removes at m = 1: AdamW's decay times its learning rate.
        mask: which parameters decay, as in `optax.adamw`: a tree of booleans, or a function from parameters to one.
        total_steps: the length of training; over its last part m falls linearly, to 0 at the end and after it.
        cooldown: that part, a share above 0 and up to 1 (default: 0.2).
        clip: the largest global norm of the gradients that the optimizer sees.

    Raises:
        UsageError: a value is not as above, or `mask` comes without `weight_decay`, or `cooldown` without
            `total_steps`.
    """
    if not callable(step_multiplier):
        _check("step_multiplier", step_multiplier, lambda x: x > 0, "a number above 0 or an optax schedule")
    _check("weight_decay", weight_decay, lambda x: 0 <= x < 1, "a number from 0 and below 1")
    _check("total_steps", total_steps, lambda x: x >= 1, "a number from 1")
    _check("cooldown", cooldown, lambda x: 0 < x <= 1, "a share of the steps above 0 and up to 1")
    _check("clip", clip, lambda x: x > 0, "a number above 0")
    if mask is not None and weight_decay is None:
        raise UsageError("mask was given without weight_decay: it is accepted with it, and says what decays")
    if cooldown is not None and total_steps is None:
        raise UsageError(f"cooldown was given {cooldown!r} without total_steps: it is accepted with them")
    parts = [optimizer]
    if clip is not None:
        parts = [optax.clip_by_global_norm(clip), optimizer]
    if weight_decay is not None:
        parts.append(optax.add_decayed_weights(-weight_decay, mask))
    if callable(step_multiplier):
        parts.append(optax.scale_by_schedule(step_multiplier))
    elif step_multiplier is not None:
        parts.append(optax.scale(step_multiplier))
    if total_steps is not None:
        share = COOLDOWN if cooldown is None else cooldown
        parts.append(optax.scale_by_schedule(cooldown_schedule(total_steps, share)))
    return optax.with_extra_args_support(optax.chain(*parts) if len(parts) > 1 else optimizer)


def cooldown_schedule(total_steps: Any, share: float = COOLDOWN) -> optax.Schedule:
    """1, then linearly to 0 over the last `share` of `total_steps`, which may be traced, and 0 from there on."""
    falling = optax.linear_schedule(1.0, 0.0, transition_steps=1)  # it takes fractions too
    return lambda count: falling(1 + (jnp.asarray(count) - total_steps) / (share * total_steps))


def _check(name: str, value: Any, holds: Callable[[Any], bool], accepted: str) -> None:
    if value is None or isinstance(value, jax.core.Tracer):  # inside a program, as in `optax.inject_hyperparams`
        return
    if isinstance(value, jax.Array) and not value.ndim:
        value = value.item()
    if not (isinstance(value, numbers.Real) and math.isfinite(value) and holds(value)):
        raise UsageError(f"{name} was given {value!r}: {accepted} is accepted")
