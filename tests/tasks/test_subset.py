"""Subsets: of the chosen classes only, of each split's own examples, and the same throughout a task."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from learned_opt.tasks.base import SPLITS
from learned_opt.tasks.networks.architecture import architecture
from learned_opt.tasks.networks.mlp import MLP
from learned_opt.tasks.subset import Subset
from learned_opt.tasks.supervised import Supervised


@pytest.mark.parametrize("table", [False, True])
def test_classes_and_examples(table, make_data, make_table):
    data = make_data()
    if table:
        data = make_table({s: x.reshape(len(x), -1) for s, x in data.images.items()}, data.labels, 10)
    family = Subset(Supervised(data, architecture(MLP, hidden=(3,)), batch_size=500), classes=3, examples=12)
    inputs, labels = (data.features, data.targets) if table else (data.images, data.labels)
    chosen = []
    for seed in range(20):
        task = family.task(family.sample(jax.random.key(seed)))
        batches = {s: jax.device_get(task.sample_batch(jax.random.key(9), s)) for s in SPLITS}
        classes = set(np.concatenate([y for _, y in batches.values()]).tolist())
        chosen.append(frozenset(classes))
        assert len(classes) <= 3
        for split, (x, y) in batches.items():
            known = {row.tobytes(): y for row, y in zip(_flat(inputs[split]), labels[split], strict=True)}
            rows = [row.tobytes() for row in _flat(x if table else np.rint(x * 255).astype(np.uint8))]
            assert [known[row] for row in rows] == y.tolist()  # of this split, with their own labels
            assert len(set(rows)) <= 12
        again = family.task(family.sample(jax.random.key(seed)))
        np.testing.assert_array_equal(again.sample_batch(jax.random.key(9), "test")[0], batches["test"][0])
    assert len(set(chosen)) > 10


def test_loss_is_that_of_the_network(make_data):
    """Only the data differ from the plain task."""
    plain = Supervised(make_data(), architecture(MLP, hidden=(3,)))
    family = Subset(plain, classes=2, examples=12)
    task, key = family.task((jnp.asarray(1), jnp.uint32(4))), jax.random.key(0)
    inner = plain.task(jnp.asarray(1))
    params, batch = task.init(key), task.sample_batch(key, "train")
    jax.tree.map(np.testing.assert_array_equal, params, inner.init(key))
    assert task.loss(params, key, batch) == inner.loss(params, key, batch)


def _flat(x):
    return np.asarray(x).reshape(len(x), -1)
