"""Families: by name, and as pytrees whose data enters compiled programs as an argument."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from learned_opt import UsageError
from learned_opt.tasks import datasets, registry
from learned_opt.tasks.networks.architecture import architecture
from learned_opt.tasks.networks.convolutional import CNN
from learned_opt.tasks.networks.mlp import MLP
from learned_opt.tasks.reparametrise import Reparametrised
from learned_opt.tasks.supervised import Supervised


@pytest.mark.parametrize("wrap", [lambda family: family, Reparametrised], ids=["plain", "reparametrised"])
def test_other_data_of_the_same_shape_does_not_retrace(wrap, make_data, quick_jit):
    traces = []

    @quick_jit
    def first_loss(family, key):
        traces.append(1)
        task = family.task(family.sample(key))
        return task.loss(task.init(key), key, task.sample_batch(key, "train"))

    families = [wrap(Supervised(make_data(seed), architecture(MLP, hidden=(5,)))) for seed in (0, 1)]
    first, second, again = (float(first_loss(family, jax.random.key(0))) for family in (*families, families[0]))
    assert len(traces) == 1
    assert first == again
    assert first != second
    first_loss(wrap(Supervised(make_data(0), architecture(MLP, hidden=(6,)))), jax.random.key(0))
    assert len(traces) == 2  # another architecture is another program


def test_one_program_for_every_task_of_a_family(make_data, quick_jit):
    """Tasks under `vmap`: each loss is the one that its own activation and scales give."""
    family = Reparametrised(Supervised(make_data(), architecture(MLP, hidden=(5,))))
    keys = jax.random.split(jax.random.key(0), 6)

    def loss(task_params, key):
        task = family.task(task_params)
        return task.loss(task.init(key), key, task.sample_batch(key, "valid"))

    task_params = jax.vmap(family.sample)(keys)
    together = quick_jit(jax.vmap(loss))(task_params, keys)
    assert {0, 1} == set(np.asarray(task_params[0]))
    for i, key in enumerate(keys):
        alone = quick_jit(loss)(jax.tree.map(lambda x, i=i: x[i], task_params), key)
        assert float(together[i]) == pytest.approx(float(alone), rel=1e-5)


def test_every_name_stands_for_its_data_and_network():
    kinds = [f"{network}{suffix}" for network in ("mlp", "cnn") for suffix in ("", "-reparametrised")]
    assert {f"{data}-{k}" for data in ("digits", "mnist", "fashion_mnist", "cifar10") for k in kinds} < set(
        registry.TASKS
    )
    for name, network in {"digits-mlp": architecture(MLP), "digits-cnn": architecture(CNN, hidden=(16, 32))}.items():
        plain, rescaled = registry.family(name), registry.family(f"{name}-reparametrised")
        assert (plain.network, plain.data) == (network, datasets.load("digits", size=8))
        assert isinstance(rescaled, Reparametrised)
        assert rescaled.family.network == network


@pytest.mark.parametrize("name", ["digits-mlp", "digits-cnn", "digits-mlp-reparametrised", "digits-cnn-reparametrised"])
def test_named_families_start_at_chance(name, quick_jit):
    family = registry.family(name)

    @quick_jit
    def first_loss(family, key):
        task = family.task(family.sample(key))
        return task.loss(task.init(key), key, task.sample_batch(key, "train"))

    loss = first_loss(family, jax.random.key(0))
    assert loss.dtype == jnp.float32
    assert float(loss) == pytest.approx(np.log(10), abs=0.5)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digit-mlp", "unknown task 'digit-mlp': did you mean digits-mlp"),
        ("digits-cnn-reparametrized", "did you mean digits-cnn-reparametrised"),
        ("xyz", "unknown task 'xyz': accepted: ackley-10d, "),
    ],
)
def test_unknown_names_are_refused_with_near_misses(name, message):
    with pytest.raises(UsageError) as caught:
        registry.family(name)
    assert message in str(caught.value)
