"""A learned optimizer for 200 samples with wrong labels: meta-trained on its training loss, or on held-out samples.

Wang et al. 2021, arXiv 2006.16495, setting 3: an MLP for every weight, black box, by truncated backpropagation.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from learned_opt.base import Theta
from learned_opt.evaluate.reproduce.weight_mlp import WeightMLP
from learned_opt.meta_train.horizons import Horizons
from learned_opt.meta_train.objective import MetaObjective
from learned_opt.meta_train.parallel import Component, OuterSteps
from learned_opt.meta_train.truncated_backprop import TruncatedBackprop
from learned_opt.meta_train.unroll import Unroller
from learned_opt.tasks import datasets, teachers, training
from learned_opt.tasks.base import Params, Split
from learned_opt.tasks.datasets import Table
from learned_opt.tasks.networks.architecture import architecture
from learned_opt.tasks.networks.mlp import MLP
from learned_opt.tasks.supervised import Supervised
from learned_opt.tasks.training import InnerState

SAMPLES, NOISE, CLASSES = 200, 0.2, 10
OPTIMIZER = WeightMLP(hidden=8, step_scale=0.02, magnitude_scale=0.1)
TRUNCATION, HORIZON, PARTICLES, OUTER_STEPS = 20, 500, 4, 200
DEPLOYED, PARTS, SEEDS = 1000, 10, 5


class Trained(NamedTuple):
    """Accuracies `[seeds, parts]` along training: on the training samples, wrong labels and all, and in test."""

    train: np.ndarray
    test: np.ndarray


def problem(name: str) -> tuple[Supervised, Supervised]:
    """For deployment, with all samples in training; and with half of them for training and half for validation."""
    if name == "teacher":
        features, outputs = teachers.teacher()
        labels = outputs.argmax(1)
    else:
        data = datasets.load("digits")
        features = np.concatenate([data.images[s].reshape(len(data.images[s]), -1) / 255 for s in ("train", "test")])
        labels = np.concatenate([data.labels[s] for s in ("train", "test")])
    rng = np.random.default_rng(0)
    order = rng.permutation(len(labels))
    features, labels = features[order].astype(np.float32), labels[order].astype(np.int32)
    noisy = np.where(rng.random(SAMPLES) < NOISE, rng.integers(0, CLASSES, SAMPLES), labels[:SAMPLES]).astype(np.int32)

    def family(cut: dict[Split, slice]) -> Supervised:
        x = {s: features[rows] for s, rows in cut.items()}
        y = {s: noisy[rows] if s != "test" else labels[rows] for s, rows in cut.items()}
        data = Table(x, y, CLASSES)
        return Supervised(data, architecture(MLP, hidden=(16,)), activations=("tanh",), batch_size=32)

    half, test = SAMPLES // 2, slice(SAMPLES, SAMPLES + 1000)
    whole = family({"train": slice(SAMPLES), "test": test})
    return whole, family({"train": slice(half), "valid": slice(half, SAMPLES), "test": test})


def meta_train(family: Supervised, validate: bool, seed: int) -> Theta:
    """Meta-parameters after `OUTER_STEPS`, by the loss of training minibatches or of validation minibatches."""
    unroller = Unroller(
        family=family,
        optimizer=OPTIMIZER,
        objective=MetaObjective(measured_on="valid" if validate else "train", clip=4.0),
        truncation=TRUNCATION,
        horizons=Horizons(shortest=HORIZON, longest=HORIZON, out_of_phase=True),
    )
    rate = optax.cosine_decay_schedule(0.01, OUTER_STEPS)
    outer_optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))
    component = Component(TruncatedBackprop(unroller=unroller), PARTICLES)
    outer_steps = OuterSteps([component], outer_optimizer, jax.devices()[:1])
    key = jax.random.key(seed)
    theta = OPTIMIZER.init(key)
    outer, states = outer_steps.init_outer(theta), outer_steps.init(key, theta)
    for i in range(OUTER_STEPS):
        outer, states, _ = outer_steps.step(outer, states, key, i)
    return outer.theta


def deploy(family: Supervised, theta: Theta, seed: int) -> Trained:
    """Trains `SEEDS` networks on all samples."""
    task = family.task(jnp.zeros((), jnp.int32))
    transform = OPTIMIZER.transform(theta)

    def accuracy(params: Params, split: Split) -> jax.Array:
        inputs, labels = (jnp.asarray(x[split]) for x in (family.data.features, family.data.targets))
        outputs = family.network.apply(params, *family.sizes(), inputs, jnp.tanh, jax.random.key(0))
        return (outputs.argmax(1) == labels).mean()

    def one(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        start_key, key = jax.random.split(key)

        def step(inner: InnerState, key: jax.Array) -> tuple[InnerState, None]:
            return training.step(task, transform, inner, key)[0], None

        def part(inner: InnerState, key: jax.Array) -> tuple[InnerState, tuple[jax.Array, jax.Array]]:
            inner, _ = jax.lax.scan(step, inner, jax.random.split(key, DEPLOYED // PARTS))
            return inner, (accuracy(inner.params, "train"), accuracy(inner.params, "test"))

        return jax.lax.scan(part, training.start(task, transform, start_key), jax.random.split(key, PARTS))[1]

    found = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(seed + 1), SEEDS))
    return Trained(*(np.asarray(x) for x in found))


def both_ways(name: str, seed: int) -> tuple[Trained, Trained]:
    """Train-by-train on all samples, and train-by-validation on halves; both put to use on all."""
    whole, halves = problem(name)
    return (
        deploy(whole, meta_train(whole, False, seed), seed),
        deploy(whole, meta_train(halves, True, seed), seed),
    )
