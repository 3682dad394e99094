"""Every task of the table: what its entry states, and what every task promises."""

import itertools
from typing import NamedTuple

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
NAMES = [
    pytest.param(name, marks=() if name in REPRESENTATIVES else pytest.mark.slow, id=name) for name in registry.tasks()
]
ADAM = optax.with_extra_args_support(optax.adam(1e-3))
TASKS = 8


class Start(NamedTuple):
    """Of one task: loss and gradient at fresh weights, batches of each split, and the loss scale."""

    loss: jax.Array
    grads: dict
    batches: dict
    loss_scale: jax.Array


class Seen(NamedTuple):
    """Of one family: eight tasks side by side and after 100 steps of Adam, and the last of them alone."""

    together: Start
    before: np.ndarray
    after: np.ndarray
    alone: Start
    again: Start
    change: dict
    traces: int


def start(family, key):
    task_key, init_key, batch_key = jax.random.split(key, 3)
    task = family.task(family.sample(task_key))
    params = task.init(init_key)
    batches = {split: _several(lambda k, split=split: task.sample_batch(k, split), batch_key) for split in SPLITS}
    loss, grads = jax.value_and_grad(task.loss)(params, key, _first(batches["train"]))
    return Start(loss, grads, batches, jnp.asarray(task.loss_scale))


def change(family, key):
    """Of the gradient along a direction, inside a scan and forward over reverse, as forward sensitivities are taken."""
    task = family.task(family.sample(key))
    params, batch = task.init(key), task.sample_batch(key, "train")
    gradient = jax.grad(lambda p: task.loss(p, key, batch))
    direction = jax.tree.map(lambda p: jnp.cos(jnp.arange(p.size, dtype=p.dtype)).reshape(p.shape), params)
    body = lambda carry, _: (carry, jax.jvp(gradient, (params,), (direction,))[1])  # noqa: E731
    return _first(jax.lax.scan(body, 0, length=1)[1])


def train(family, key):
    """The loss before and after 100 steps of Adam, each a mean over eight batches."""
    task_key, init_key, train_key, test_key = jax.random.split(key, 4)
    task = family.task(family.sample(task_key))
    first = training.start(task, ADAM, init_key)

    def step(state, key):
        return training.step(task, ADAM, state, key)[0], None

    def loss(state):
        return _several(lambda k: task.loss(state.params, k, task.sample_batch(k, "train")), test_key).mean()

    last = jax.lax.scan(step, first, jax.random.split(train_key, 100))[0]
    before, after = jax.lax.map(loss, jax.tree.map(lambda *x: jnp.stack(x), first, last))
    return before, after


# Of a module, and so all tests of one task run one after another.
@pytest.fixture(scope="module", params=NAMES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def seen(name, family_of, quick_jit):
    """Two compiled programs for all that the tests ask of a family."""
    family, keys = family_of(name), jax.random.split(jax.random.key(1), TASKS)
    traces = []

    @quick_jit
    def alone(family, key):
        traces.append(key)
        return start(family, key), change(family, key)

    together = quick_jit(jax.vmap(lambda family, key: (start(family, key), train(family, key)), (None, 0)))
    starts, (before, after) = together(family, keys)
    alone(family, keys[0])
    (one, changed), (again, _) = alone(family, keys[-1]), alone(family, keys[-1])
    return jax.device_get(Seen(starts, before, after, one, again, changed, len(traces)))


def test_there_are_forty_that_need_no_download():
    downloaded = ("mnist", "fashion_mnist", "cifar10", "sotu")
    assert len([e for e in registry.tasks().values() if e.data not in downloaded]) >= 40
    for name, entry in registry.tasks().items():
        assert entry.name == name
        assert entry.data == "none" or name.startswith(entry.data)
        assert entry.initial_loss[0] <= entry.initial_loss[1]
        assert 0 <= entry.adam_lowers < 1
        assert 0 <= entry.floor < entry.initial_loss[0]


def test_starts_as_stated(name, seen):
    assert seen.together.loss.dtype == np.float32
    assert _finite((seen.together.loss, seen.together.grads, seen.change))
    assert np.all(seen.together.loss_scale > 0)
    low, high = registry.tasks()[name].initial_loss
    assert low <= seen.before.mean() <= high


def test_adam_lowers_the_loss(name, seen):
    before, after = seen.before.mean(), seen.after.mean()
    assert np.isfinite(after)
    stated = registry.tasks()[name].adam_lowers
    assert 1 - after / before >= stated or stated == 0


def test_together_as_alone_and_the_same_again(seen):
    """Under `vmap` and one by one; compiled once for all tasks of the family."""
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a[-1], b, rtol=1e-3, atol=1e-4 * (1 + np.abs(b).max())),
        seen.together,
        seen.alone,
    )
    jax.tree.map(np.testing.assert_array_equal, seen.alone, seen.again)
    assert seen.traces == 1


def test_a_step_keeps_types(name, family_of):
    """Weak types too: a state unlike the one before it would compile the next step again."""
    family, key = family_of(name), jax.random.key(0)

    def types(steps):
        def state(family, key):
            task = family.task(family.sample(key))
            state = training.start(task, ADAM, key)
            for _ in range(steps):
                state = training.step(task, ADAM, state, key)[0]
            return state

        return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), jax.eval_shape(state, family, key))

    assert types(0) == types(1)


def test_no_example_is_in_two_batches_of_different_splits(seen):
    examples = {split: _examples(batch) for split, batch in seen.together.batches.items()}
    assert all(examples.values())
    for a, b in itertools.combinations(SPLITS, 2):
        assert not examples[a] & examples[b]


def _several(function, key):
    """`function` of eight keys, side by side."""
    return jax.vmap(function)(jax.random.split(key, 8))


def _first(tree):
    return jax.tree.map(lambda x: x[0], tree)


def _finite(tree):
    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))


def _examples(batches):
    """What tells the examples of batches `[tasks, 8, batch, ...]` apart: their inputs, without labels.

    A batch that is one vector of numbers, a centre or a displacement, is one example. Windows of text with few
    different bytes, rules and blanks, are left out: text repeats those.
    """
    inputs = jax.tree.leaves(batches)[0]
    own_axes = 2 if inputs.ndim == 3 and inputs.dtype.kind == "f" else 3
    examples = inputs.reshape(-1, *inputs.shape[own_axes:])
    if inputs.ndim == 4 and inputs.dtype.kind == "i":
        examples = [x for x in examples if len(np.unique(x)) > 8]
    return {x.tobytes() for x in examples}
