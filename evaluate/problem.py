"""A user's problem, a loss and batches, as a task family of one task."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from learned_opt.errors import UsageError
from learned_opt.tasks.base import Batch, Params, Split, TaskParams

Loss = Callable[[Params, Batch], jax.Array]
Init = Callable[[jax.Array], Params]
Draw = Callable[[jax.Array, Split], Batch]
SHARES = {"train": 0.8, "valid": 0.1, "test": 0.1}  # of a user's rows


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Rows:
    """Rows to sample batches from, by split; each a pytree of arrays with rows first."""

    splits: dict[str, Any]
    batch_size: int = field(metadata={"static": True})

    def sample_batch(self, key: jax.Array, split: Split) -> Batch:
        """Rows drawn with replacement."""
        rows = self.splits[split]
        index = jax.random.randint(key, (self.batch_size,), 0, len(jax.tree.leaves(rows)[0]))
        return jax.tree.map(lambda x: x[index], rows)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Drawn:
    """Batches that a user's function draws."""

    draw: Draw = field(metadata={"static": True})

    def sample_batch(self, key: jax.Array, split: Split) -> Batch:
        """As the function does."""
        return self.draw(key, split)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Problem:
    """A family of one task: seeds differ in starting weights and batches."""

    data: Rows | Drawn
    objective: Loss = field(metadata={"static": True})
    start: Init = field(metadata={"static": True})
    loss_scale: float = field(default=1.0, metadata={"static": True})

    def sample(self, key: jax.Array) -> TaskParams:
        """Nothing to choose."""
        return jnp.zeros(())

    def task(self, task_params: TaskParams) -> "Problem":
        """The problem itself."""
        return self

    def init(self, key: jax.Array) -> Params:
        """The user's starting weights."""
        return self.start(key)

    def loss(self, params: Params, key: jax.Array, batch: Batch) -> jax.Array:
        """The user's loss."""
        return self.objective(params, batch)

    def sample_batch(self, key: jax.Array, split: Split) -> Batch:
        """One batch of a split."""
        return self.data.sample_batch(key, split)


def problem(loss: Loss, init: Init, batches: Any, batch_size: int) -> Problem:
    """A problem, tried once without computing anything.

    Args:
        loss: `loss(params, batch) -> scalar`.
        init: `init(key) -> params`, a pytree of float arrays.
        batches: `batches(key, split) -> batch`, traceable; or an array, or a tuple or dict of arrays with equally many
            rows, or a list or other iterable of such batches, whose rows are split at random in 80, 10 and 10 % for
            training, validation and test.
        batch_size: rows of a batch, where there are rows.

    Raises:
        UsageError: rows differ in number or are too few, a batch has none, or the loss is not a scalar.
    """
    if batch_size < 1:
        raise UsageError(f"batch_size was given {batch_size}: a number from 1 is accepted")
    made = Problem(Drawn(batches) if callable(batches) else Rows(_split(_rows(batches)), batch_size), loss, init)
    key = jax.random.key(0)
    shape = jax.eval_shape(lambda made: made.loss(made.init(key), key, made.sample_batch(key, "train")), made).shape
    if shape:
        raise UsageError(f"loss was given that returns an array of shape {shape}: a scalar is accepted")
    return made


def _rows(batches: Any) -> Any:
    """A pytree of arrays with rows first."""
    if isinstance(batches, Mapping | tuple) or hasattr(batches, "shape"):
        return jax.tree.map(np.asarray, batches)
    if isinstance(batches, Iterable) and not isinstance(batches, str) and (parts := list(batches)):
        return jax.tree.map(lambda *rows: np.concatenate(rows), *parts)
    raise UsageError(
        f"batches was given a {type(batches).__name__}: arrays, an iterable of batches, or a function of a key and a "
        "split is accepted"
    )


def _split(rows: Any) -> dict[str, Any]:
    counts = {len(leaf) if leaf.ndim else 0 for leaf in jax.tree.leaves(rows)} or {0}
    if len(counts) != 1 or min(counts) < 10:
        raise UsageError(
            f"batches was given arrays with {sorted(counts)} rows: equally many, at least 10, are accepted"
        )
    order = np.random.default_rng(0).permutation(counts.pop())
    ends = np.cumsum([round(len(order) * share) for share in SHARES.values()])[:-1]
    parts = dict(zip(SHARES, np.split(order, ends), strict=True))
    return {split: jax.tree.map(lambda x, index=index: x[index], rows) for split, index in parts.items()}
