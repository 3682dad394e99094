"""Every task of the table: what its entry states, and what every task promises."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from learned_opt.tasks import registry, training
from learned_opt.tasks.base import SPLITS

# One of each kind for the quick run; the slow run has them all.
REPRESENTATIVES = (
    "digits-mlp",
    "digits-mlp-noisy_labels",
    "diabetes-linear",
    "python_docs-gru",
    "rosenbrock-2d",
    "quadratic-noisy",
    "regression-logistic",
    "heat-mlp",
    "block_model-graph",
    "cart_pole-linear-balance",
)
SLOW = pytest.mark.slow
NAMES = [pytest.param(name, marks=() if name in REPRESENTATIVES else SLOW) for name in registry.tasks()]
TASKS = 8


def test_there_are_forty_that_need_no_download():
    downloaded = ("mnist", "fashion_mnist", "cifar10")
    assert len([e for e in registry.tasks().values() if e.data not in downloaded]) >= 40
    for name, entry in registry.tasks().items():
        assert entry.name == name
        assert entry.data == "none" or name.startswith(entry.data)
        assert entry.initial_loss[0] <= entry.initial_loss[1]
        assert 0 <= entry.adam_lowers < 1
        assert 0 <= entry.floor < entry.initial_loss[0]


@pytest.mark.usefixtures("tables_and_texts")
@pytest.mark.parametrize("name", NAMES)
def test_starts_as_stated(name, quick_jit, family_of):
    """Together under `vmap` and one by one: losses, gradients and batches."""
    family, keys = family_of(name), jax.random.split(jax.random.key(1), TASKS)

    def start(family, key):
        task_key, init_key, batch_key = jax.random.split(key, 3)
        task = family.task(family.sample(task_key))
        params = task.init(init_key)
        batches = [task.sample_batch(batch_key, split) for split in SPLITS]
        losses, grads = jax.vmap(jax.value_and_grad(task.loss), (None, 0, 0))(
            params, *_several(lambda k: (k, task.sample_batch(k, "train")), batch_key)
        )
        return losses.mean(), jax.tree.map(lambda g: g[0], grads), batches, jnp.asarray(task.loss_scale)

    losses, grads, batches, scales = together = quick_jit(jax.vmap(start, (None, 0)))(family, keys)
    assert losses.dtype == jnp.float32
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((losses, grads)))
    assert np.all(np.asarray(scales) > 0)
    low, high = registry.tasks()[name].initial_loss
    assert low <= float(losses.mean()) <= high
    assert not _equal(batches[0], batches[1])
    assert not _equal(batches[0], batches[2])
    assert not _equal(batches[1], batches[2])
    alone = quick_jit(start)
    for i in (0, TASKS - 1):
        one = alone(family, keys[i])
        jax.tree.map(
            lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-3, atol=1e-4 * (1 + np.abs(b).max())),
            together,
            one,
        )
    assert _equal(one[2], alone(family, keys[TASKS - 1])[2])  # the same key, the same batches


@pytest.mark.usefixtures("tables_and_texts")
@pytest.mark.slow
@pytest.mark.parametrize("name", registry.tasks())
def test_adam_lowers_the_loss(name, family_of):
    optimizer = optax.with_extra_args_support(optax.adam(1e-3))

    def run(family, key):
        task_key, init_key, train_key, test_key = jax.random.split(key, 4)
        task = family.task(family.sample(task_key))
        state = training.start(task, optimizer, init_key)

        def loss(params):
            return _several(lambda k: task.loss(params, k, task.sample_batch(k, "train")), test_key).mean()

        def step(state, key):
            return training.step(task, optimizer, state, key)[0], None

        return loss(state.params), loss(jax.lax.scan(step, state, jax.random.split(train_key, 100))[0].params)

    keys = jax.random.split(jax.random.key(1), TASKS)
    before, after = jax.jit(jax.vmap(run, (None, 0)))(family_of(name), keys)
    lowered = 1 - float(after.mean() / before.mean())
    assert np.isfinite(lowered)
    stated = registry.tasks()[name].adam_lowers
    assert lowered >= stated or stated == 0


@pytest.mark.usefixtures("tables_and_texts")
@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n == "digits-mlp" else SLOW) for n in registry.tasks()])
def test_forward_over_reverse(name, quick_jit, family_of):
    """Gradients have finite derivatives along a direction, inside a scan, as forward sensitivities take them."""
    family, key = family_of(name), jax.random.key(2)

    def derivatives(family, key):
        task = family.task(family.sample(key))
        params = task.init(key)
        batch = task.sample_batch(key, "train")
        gradient = jax.grad(lambda p: task.loss(p, key, batch))
        direction = jax.tree.map(lambda p: jnp.cos(jnp.arange(p.size, dtype=p.dtype)).reshape(p.shape), params)

        def body(carry, _):
            return carry, jax.jvp(gradient, (params,), (direction,))[1]

        exact = jax.lax.scan(body, 0, length=1)[1]
        return exact, gradient(params)

    exact, gradient = quick_jit(derivatives)(family, key)
    for a, b in zip(jax.tree.leaves(exact), jax.tree.leaves(gradient), strict=True):
        assert a.shape[1:] == b.shape
        assert np.isfinite(a).all()


def _several(function, key):
    """`function` of eight keys, side by side."""
    return jax.vmap(function)(jax.random.split(key, 8))


def _equal(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
