"""The small network that several reproductions train: a tanh student on the noisy labels of a tanh teacher."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
import optax

from learned_opt.tasks.base import Params, Split, TaskParams

ROWS, INPUTS, TEACHER, HIDDEN, CLASSES = 4500, 20, 16, 32, 10
SPLITS = {"train": slice(0, 2000), "valid": slice(2000, 2500), "test": slice(2500, 4500)}
Rows = tuple[jax.Array, jax.Array]  # inputs and labels


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TeacherTask:
    """A 20-32-10 tanh network, 1002 weights, mean cross-entropy on minibatches drawn with replacement; its own family.

    Labels are the largest output of `tanh(X W1) W2`; a tenth of the training labels is replaced by a uniform draw.
    """

    splits: dict[str, Rows]
    batch_size: int = field(default=64, metadata={"static": True})
    loss_scale = float(np.log(CLASSES))

    def sample(self, key: jax.Array) -> TaskParams:
        """Nothing: there is one task."""
        return ()

    def task(self, task_params: TaskParams) -> "TeacherTask":
        """The task itself."""
        return self

    def init(self, key: jax.Array) -> Params:
        """Weights of N(0, 1 / fan-in), zero biases."""
        keys = jax.random.split(key)
        dtype = self.splits["train"][0].dtype
        return {
            name: {"w": jax.random.normal(k, (i, o), dtype) / np.sqrt(i), "b": jnp.zeros(o, dtype)}
            for name, k, i, o in (("hidden", keys[0], INPUTS, HIDDEN), ("out", keys[1], HIDDEN, CLASSES))
        }

    def loss(self, params: Params, key: jax.Array, batch: Rows) -> jax.Array:
        """The mean cross-entropy over a batch."""
        return optax.softmax_cross_entropy_with_integer_labels(_logits(params, batch[0]), batch[1]).mean()

    def sample_batch(self, key: jax.Array, split: Split) -> Rows:
        """Rows of a split, drawn with replacement."""
        inputs, labels = self.splits[split]
        rows = jax.random.randint(key, (self.batch_size,), 0, len(labels))
        return inputs[rows], labels[rows]

    def full_loss(self, params: Params, split: Split) -> jax.Array:
        """Over a whole split."""
        return self.loss(params, jax.random.key(0), self.splits[split])

    def accuracy(self, params: Params, batch: Rows) -> jax.Array:
        """The share of a batch's labels that the network has right."""
        return (jnp.argmax(_logits(params, batch[0]), 1) == batch[1]).mean()


def _logits(params: Params, inputs: jax.Array) -> jax.Array:
    hidden = jnp.tanh(inputs @ params["hidden"]["w"] + params["hidden"]["b"])
    return hidden @ params["out"]["w"] + params["out"]["b"]


def teacher_task(dtype: str = "float32") -> TeacherTask:
    """The task, the same in every run."""
    rng = np.random.RandomState(0)
    inputs, first, second = rng.randn(ROWS, INPUTS), rng.randn(INPUTS, TEACHER), rng.randn(TEACHER, CLASSES)
    labels = np.argmax(np.tanh(inputs @ first) @ second, 1)
    noisy = rng.rand(ROWS) < 0.1
    noisy[SPLITS["train"].stop :] = False
    labels[noisy] = rng.randint(0, CLASSES, noisy.sum())
    return TeacherTask(
        {
            name: (jnp.asarray(inputs[rows], dtype), jnp.asarray(labels[rows], jnp.int32))
            for name, rows in SPLITS.items()
        }
    )
