"""Image classification against hand-written forward passes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from learned_opt.errors import UsageError
from learned_opt.tasks.initialisation import Rescaled
from learned_opt.tasks.label_noise import NoisyLabels
from learned_opt.tasks.networks.architecture import architecture
from learned_opt.tasks.networks.convolutional import CNN
from learned_opt.tasks.networks.mlp import MLP
from learned_opt.tasks.supervised import Supervised

ACTIVATIONS = {"relu": lambda x: np.maximum(x, 0), "tanh": np.tanh}


def mlp_logits(params, images, activation):
    x = images.reshape(len(images), -1)
    layers = params["layers"]
    for i in range(len(layers)):
        x = (activation(x) if i else x) @ layers[i]["kernel"] + layers[i]["bias"]
    return x


def convolution(x, kernel, bias):
    """3x3, stride 2, as many outputs as half the positions rounded up, zeros around, the extra one at the end."""
    n, size, _, _ = x.shape
    out = -(-size // 2)
    before = max((out - 1) * 2 + 3 - size, 0) // 2
    padded = np.pad(x, ((0, 0), (before, 3), (before, 3), (0, 0)))
    y = np.zeros((n, out, out, kernel.shape[3]))
    for i in range(out):
        for j in range(out):
            y[:, i, j] = np.tensordot(padded[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3], kernel, 3) + bias
    return y


def cnn_logits(params, images, activation):
    x = images
    for i in range(len(params["layers"])):
        x = activation(convolution(x, params["layers"][i]["kernel"], params["layers"][i]["bias"]))
    return x.mean((1, 2)) @ params["head"]["kernel"] + params["head"]["bias"]


def cross_entropy(logits, labels):
    return np.mean([np.log(np.sum(np.exp(row))) - row[label] for row, label in zip(logits, labels, strict=True)])


NETWORKS = {
    "mlp": (MLP, (12, 7), mlp_logits),
    "linear": (MLP, (), mlp_logits),
    "cnn": (CNN, (4, 6), cnn_logits),
}


@pytest.fixture(params=NETWORKS)
def network(request):
    return NETWORKS[request.param]


def test_loss_is_the_plain_one_for_each_activation(network, make_data, quick_jit):
    module, hidden, logits = network
    family = Supervised(make_data(channels=3), architecture(module, hidden=hidden), batch_size=16)
    task = family.task(jnp.asarray(0))
    images, labels = task.sample_batch(jax.random.key(1), "valid")
    assert (images.shape, labels.shape) == ((16, 8, 8, 3), (16,))
    # Biases start at zero: move everything, so that they count.
    params = jax.tree.map(
        lambda x: x + 0.1 * jnp.cos(jnp.arange(x.size).reshape(x.shape)), quick_jit(task.init)(jax.random.key(0))
    )
    plain = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    losses = []

    @quick_jit
    def loss_of(family, index):
        return family.task(index).loss(params, jax.random.key(2), (images, labels))

    for index, name in enumerate(family.activations):
        loss = loss_of(family, jnp.asarray(index))
        expected = cross_entropy(logits(plain, np.asarray(images, np.float64), ACTIVATIONS[name]), np.asarray(labels))
        assert float(loss) == pytest.approx(expected, rel=1e-5)
        losses.append(float(loss))
        alone = loss_of(
            Supervised(family.data, architecture(module, hidden=hidden), activations=(name,)), jnp.asarray(0)
        )
        assert float(alone) == pytest.approx(expected, rel=1e-5)
    assert (losses[0] != losses[1]) == bool(hidden)


def test_starts_at_chance_and_can_learn(network, make_data, quick_jit):
    module, hidden, _ = network
    family = Supervised(make_data(), architecture(module, hidden=hidden))

    @jax.vmap
    def start(key):
        task = family.task(family.sample(key))
        params = task.init(key)
        return jax.value_and_grad(task.loss)(params, key, task.sample_batch(key, "train"))

    loss, grads = quick_jit(start)(jax.random.split(jax.random.key(0), 20))
    assert float(loss.mean()) == pytest.approx(np.log(10), abs=0.3)
    for path, leaf in jax.tree.leaves_with_path(grads):
        per_task = np.abs(leaf).reshape(20, -1)
        assert (per_task.max(1) > 0).all(), path


def test_starting_weights_are_flax_defaults(make_data):
    params = Supervised(make_data(), architecture(MLP, hidden=(200,))).task(jnp.asarray(0)).init(jax.random.key(0))
    assert {i: {k: v.shape for k, v in layer.items()} for i, layer in params["layers"].items()} == {
        0: {"kernel": (64, 200), "bias": (200,)},
        1: {"kernel": (200, 10), "bias": (10,)},
    }
    for layer, fan_in in ((params["layers"][0], 64), (params["layers"][1], 200)):
        assert float(layer["kernel"].std()) * np.sqrt(fan_in) == pytest.approx(1, abs=0.1)
        assert np.all(layer["bias"] == 0)
    other = Supervised(make_data(), architecture(MLP, hidden=(200,))).task(jnp.asarray(0)).init(jax.random.key(1))
    assert np.any(other["layers"][0]["kernel"] != params["layers"][0]["kernel"])


def test_a_family_samples_every_activation(make_data):
    indices = jax.vmap(Supervised(make_data()).sample)(jax.random.split(jax.random.key(0), 200))
    assert np.mean(np.asarray(indices) == 0) == pytest.approx(0.5, abs=0.12)
    assert set(np.asarray(indices)) == {0, 1}


class OneHiddenLayer(nnx.Module):
    """The network of the shipped weights as it was first written: its numbers are to stay as they are."""

    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(i, o, rngs=rngs) for i, o in ((64, 32), (32, 10))])

    def __call__(self, images, activation):
        x = images.reshape(images.shape[0], -1)
        return self.layers[1](activation(self.layers[0](x)))


def test_the_default_network_is_to_the_bit_what_it_was(make_data):
    family = Supervised(make_data())
    for seed, activation in enumerate((jax.nn.relu, jnp.tanh)):
        key, task = jax.random.key(seed), family.task(jnp.asarray(seed))
        network = OneHiddenLayer(nnx.Rngs(key))
        params = task.init(key)
        jax.tree.map(np.testing.assert_array_equal, params, nnx.to_pure_dict(nnx.state(network, nnx.Param)))
        images, labels = task.sample_batch(key, "train")
        logits = network(images, activation)
        expected = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        assert task.loss(params, key, (images, labels)) == expected


@pytest.mark.parametrize("classes", [0, 10])
def test_squared_error(classes, make_data, make_table, quick_jit):
    """Summed over outputs: of classes against their indicators, of regression against the one target."""
    data = make_data()
    if not classes:
        data = make_table(
            {s: x.reshape(len(x), -1) / np.float32(255) for s, x in data.images.items()},
            {s: y.astype(np.float32) for s, y in data.labels.items()},
            0,
        )
    family = Supervised(data, architecture(MLP, hidden=()), objective="squared-error", batch_size=16)
    task = family.task(jnp.asarray(0))
    inputs, targets = task.sample_batch(jax.random.key(0), "train")
    params = task.init(jax.random.key(1))
    outputs = np.asarray(inputs).reshape(16, -1) @ params["layers"][0]["kernel"]
    wanted = np.eye(10)[np.asarray(targets)] if classes else np.asarray(targets)[:, None]
    loss = quick_jit(lambda p: task.loss(p, jax.random.key(2), (inputs, targets)))(params)
    assert float(loss) == pytest.approx(float(((outputs - wanted) ** 2).sum(1).mean()), rel=1e-5)
    assert task.loss_scale == pytest.approx(0.9 if classes else 1)


def test_cross_entropy_of_regression_is_refused(make_data):
    data = dataclasses.replace(make_data(), num_classes=0)
    task = Supervised(data).task(jnp.asarray(0))
    batch = task.sample_batch(jax.random.key(0), "train")
    with pytest.raises(UsageError, match="objective was given 'cross-entropy' for regression: 'squared-error'"):
        task.loss(task.init(jax.random.key(0)), jax.random.key(0), batch)


def test_noisy_labels_are_wrong_fixed_and_of_training_alone(make_data):
    data = make_data()
    family = NoisyLabels(Supervised(data), 0.3)
    labels = []
    for seed in range(60):
        inner = family.task(family.sample(jax.random.key(seed))).family
        again = family.task(family.sample(jax.random.key(seed))).family
        np.testing.assert_array_equal(inner.data.labels["train"], again.data.labels["train"])
        for split in ("valid", "test"):
            np.testing.assert_array_equal(inner.data.labels[split], data.labels[split])
        labels.append(np.asarray(inner.data.labels["train"]))
    changed = np.stack(labels) != data.labels["train"]
    assert changed.mean() == pytest.approx(0.3, abs=0.04)  # 2400 labels: three and a half deviations
    assert len({row.tobytes() for row in changed}) == 60
    shift = (np.stack(labels) - data.labels["train"])[changed] % 10
    assert set(shift) == set(range(1, 10))


def test_rescaled_starts_are_log_uniform_and_leave_vectors_alone(make_data):
    family = Rescaled(Supervised(make_data(), architecture(MLP, hidden=(6,), norm="layer")), 0.5, 2.0)
    _, scales = jax.vmap(family.sample)(jax.random.split(jax.random.key(0), 500))
    unit = (np.log(scales) + np.log(2)) / np.log(4)
    np.testing.assert_allclose(np.quantile(unit, [0, 0.25, 0.5, 0.75, 1]), [0, 0.25, 0.5, 0.75, 1], atol=0.07)
    key = jax.random.key(0)
    start, plain = (
        family.task((jnp.asarray(0), jnp.asarray(3.0))).init(key),
        family.family.task(jnp.asarray(0)).init(key),
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, (3 if b.ndim > 1 else 1) * b, rtol=1e-6), start, plain)
    batch = family.family.task(jnp.asarray(0)).sample_batch(key, "train")
    task = family.task((jnp.asarray(0), jnp.asarray(3.0)))
    assert task.loss(plain, key, batch) == task.inner.loss(plain, key, batch)
