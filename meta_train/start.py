"""Where meta-training starts: at new meta-parameters, or at those of pretrained weights or of a run."""

import dataclasses
from typing import Any

import jax

from learned_opt.base import LearnedOptimizer, Theta
from learned_opt.checkpoints import artifact
from learned_opt.checkpoints.load import load_learned_optimizer
from learned_opt.errors import UsageError
from learned_opt.meta_train.config import Config


def start_from(config: Config, name: str) -> Config:
    """The configuration that goes on from pretrained weights or a run directory, with the optimizer of its card.

    Raises:
        UsageError: there is no such thing, or its files are damaged.
    """
    _, theta, card = load_learned_optimizer(name)
    return dataclasses.replace(
        config,
        init=name,
        init_sha256=_sha256(theta, card),
        optimizer=card["optimizer"],
        optimizer_options=card["optimizer_options"],
    )


def initial_theta(config: Config, optimizer: LearnedOptimizer, key: jax.Array) -> Theta:
    """The meta-parameters before the first outer step, as host arrays.

    Raises:
        UsageError: those that the configuration goes on from are of another optimizer, or are not there unchanged.
    """
    if config.init is None:
        return jax.device_get(optimizer.init(key))
    trained, theta, card = load_learned_optimizer(config.init)
    if optimizer != trained:
        raise UsageError(
            f"--init {config.init} is {card['optimizer']} with the options {card['optimizer_options']}, and "
            f"{config.optimizer} with {config.optimizer_options} was given: neither --optimizer nor --option is needed"
        )
    found = _sha256(theta, card)
    if found != config.init_sha256:
        raise UsageError(
            f"--init {config.init} holds meta-parameters of sha256 {found[:8]}, and the configuration "
            f"has {(config.init_sha256 or 'none')[:8]}: start_from makes one that fits"
        )
    return jax.device_get(theta)


def _sha256(theta: Theta, card: dict[str, Any]) -> str:
    """What the card says, which reading has verified: Python 3.11.2 and 3.11.7 write equal thetas to other bytes.

    A run that has not ended has no card with a hash.
    """
    return card.get("sha256") or artifact.sha256(theta)
