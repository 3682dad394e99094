"""Learned optimizers from pretrained weights or from a run, finished or not."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

from learned_opt import registry
from learned_opt.base import LearnedOptimizer, Theta
from learned_opt.checkpoints import artifact, trees
from learned_opt.errors import UsageError
from learned_opt.knobs import with_knobs


def load(
    name_or_directory: str | Path,
    *,
    step_multiplier: float | optax.Schedule | None = None,
    weight_decay: float | None = None,
    mask: Any = None,
    total_steps: int | None = None,
    cooldown: float | None = None,
    clip: float | None = None,
) -> optax.GradientTransformationExtraArgs:
    """A learned optimizer, ready to train with: pretrained weights by name, or a run directory.

    Args:
        name_or_directory: of what.
        step_multiplier: multiplies its updates: a number, or an optax schedule.
        weight_decay: the share of a parameter that a step removes, multiplied as updates are.
        mask: which parameters decay, as in `optax.adamw`.
        total_steps: the length of training, over whose last part updates fall linearly to 0.
        cooldown: that part, as a share (default: 0.2).
        clip: the largest global norm of the gradients that it sees.

    Raises:
        UsageError: there is no such thing, its files are damaged, or `learned_opt.with_knobs` refuses a value.
    """
    optimizer, theta, _ = load_learned_optimizer(name_or_directory)
    return with_knobs(
        optimizer.transform(theta),
        step_multiplier=step_multiplier,
        weight_decay=weight_decay,
        mask=mask,
        total_steps=total_steps,
        cooldown=cooldown,
        clip=clip,
    )


def load_learned_optimizer(name_or_directory: str | Path) -> tuple[LearnedOptimizer, Theta, dict[str, Any]]:
    """The optimizer, its theta and its card; for an unfinished run, the newest checkpoint and the run's config.

    Raises:
        UsageError: there is no such thing, its files are damaged, or theta is not for this architecture.
    """
    if _unfinished(located := artifact.locate(name_or_directory)):
        return _from_checkpoint(located)
    directory = artifact.resolve(name_or_directory)
    theta, card = artifact.read(directory)
    return *of_card(card, theta, directory), card


def of_card(card: dict[str, Any], theta: Theta, directory: Path) -> tuple[LearnedOptimizer, Theta]:
    """The optimizer of a card, and its theta, which are from that directory.

    Raises:
        UsageError: the card describes no optimizer, or theta is not for it.
    """
    optimizer, like = _architecture(directory / "card.json", card)
    theta = trees.rebuild(like, trees.to_arrays(theta), directory / "theta.npz")
    return optimizer, jax.tree.map(jnp.asarray, theta)


def _unfinished(directory: Path) -> bool:
    return (directory / "config.json").is_file() and not (directory / "card.json").is_file()


def _from_checkpoint(directory: Path) -> tuple[LearnedOptimizer, Theta, dict[str, Any]]:
    from learned_opt.checkpoints.store import CheckpointStore  # Orbax takes two seconds to import

    path = directory / "config.json"
    config = artifact.read_json(path, artifact.ARCHITECTURE)
    optimizer, like = _architecture(path, config)
    checkpoints = directory / "checkpoints"
    if not checkpoints.is_dir():
        raise UsageError(f"{directory}: an unfinished run without checkpoints: run it on until it has saved one")
    with CheckpointStore(checkpoints) as store:
        theta = store.newest_theta(like)
    if theta is None:
        raise UsageError(f"{checkpoints}: holds no whole checkpoint")
    return optimizer, jax.tree.map(jnp.asarray, theta), config


def _architecture(path: Path, description: dict[str, Any]) -> tuple[LearnedOptimizer, Theta]:
    """The optimizer that the file at `path` describes, and the shapes of its theta."""
    try:
        optimizer = registry.make(description["optimizer"], description["optimizer_options"])
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
    return optimizer, jax.eval_shape(optimizer.init, jax.random.key(0))
